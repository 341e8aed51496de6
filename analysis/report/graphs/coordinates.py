"""Many knobs at once: each trial as a line over its settings and its value, and the knobs that count most in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from markupsafe import Markup

from analysis.judge.ranking import Standing
from analysis.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, svg, text
from analysis.report.drawing import positions
from record.text import number, value_text

MOST_LINES, MOST_KNOBS, MOST_NAMES = 150, 8, 8
PAIRED, CLASSES = 3, 5


@dataclass(frozen=True)
class Scale:
    """One knob's settings on an axis from 0 to 1: numbers at their place, names in their order."""

    knob: str
    axis: Axis
    names: tuple[str, ...] = ()

    def __call__(self, setting: Any) -> float:
        return self.axis(float(self.names.index(value_text(setting)) if self.names else setting))

    def ticks(self) -> list[tuple[float, str]]:
        """Places on the axis, and what stands there."""
        if self.names:
            return [(self.axis(float(place)), name) for place, name in enumerate(self.names)]
        return [(self.axis(value), number(value)) for value in (self.axis.low, self.axis.high)]


def scale_of(knob: str, settings: Sequence[Any]) -> Scale | None:
    """The scale of a knob; None where it has one setting, or too many names to be told apart."""
    known = positions([setting for setting in settings if setting is not None])
    if len(set(known)) < 2:
        return None
    values = [place for place in known if isinstance(place, float)]
    if len(values) < len(known):
        names = tuple(sorted({str(place) for place in known}))
        return Scale(knob, Axis(0.0, len(names) - 1.0, 0.0, 1.0), names) if len(names) <= MOST_NAMES else None
    low, high = min(values), max(values)
    return Scale(knob, Axis(low, high, 0.0, 1.0, log=low > 0 and high / low > 30))


def scales_of(knobs: Sequence[str], standings: Sequence[Standing]) -> list[Scale]:
    """The scales of the knobs that vary, in the order given."""
    found = (scale_of(knob, [item.params.get(knob) for item in standings]) for knob in knobs)
    return [scale for scale in found if scale is not None]


def _drawn(standings: Sequence[Standing]) -> list[Standing]:
    """The trials with a value: the leading half of what fits, and every so many of the others."""
    known = [item for item in standings if item.value is not None]
    half = MOST_LINES // 2
    rest = known[half:]
    return known if len(known) <= MOST_LINES else \
        [*known[:half], *(rest[len(rest) * place // half] for place in range(half))]


def parallel_chart(knobs: Sequence[str], standings: Sequence[Standing], winner: str | None, up: bool) -> Markup:
    """One upright axis a knob and one for the value, one line a trial; empty where fewer than two knobs vary."""
    drawn = _drawn(standings)
    scales = scales_of(knobs, drawn)[:MOST_KNOBS]
    values = scale_of("value", [item.value for item in drawn])
    if len(scales) < 2 or values is None:
        return Markup("")
    places = Axis(0.0, float(len(scales)), 60.0, 840.0)
    heights = Axis(0.0, 1.0, 266.0, 50.0)
    quality = {item.label: _class(values(item.value), up) for item in drawn}
    lines = Markup("").join(
        _path(item, [(places(float(at)), heights(scale(item.params[scale.knob]))) for at, scale in enumerate(scales)
                     if item.params.get(scale.knob) is not None] + [(places.end, heights(values(item.value)))],
              f"q{quality[item.label]}" + (" winner" if item.label == winner else ""))
        for item in sorted(drawn, key=lambda item: (item.label == winner, quality[item.label])))
    axes = Markup("").join(_upright(scale, places(float(at)), heights, at)
                           for at, scale in enumerate([*scales, values]))
    return Markup('<svg class="parallel" viewBox="0 0 900 290" role="img" aria-label="Settings and value of each '
                  'trial">{}</svg>').format(lines + axes)


def _class(place: float, up: bool) -> int:
    """The fifth of the values' range that a place between 0 and 1 lies in, the best one last."""
    return min(CLASSES - 1, int((place if up else 1 - place) * CLASSES))


def _path(item: Standing, corners: Sequence[tuple[float, float]], kind: str) -> Markup:
    points = " ".join(f"{x:.0f},{y:.1f}" for x, y in corners)
    return Markup('<g class="ray {0}" data-label="{1}"><title>{1}: {2}</title><polyline class="hit" points="{3}"/>'
                  '<polyline class="line" points="{3}"/></g>').format(kind, item.label, number(item.value), points)


def _upright(scale: Scale, x: float, heights: Axis, place: int) -> Markup:
    line = Markup('<line class="grid zero" x1="{0:.0f}" x2="{0:.0f}" y1="{1:.0f}" y2="{2:.0f}"/>').format(
        x, heights(1.0), heights(0.0))
    ends = {0.0: (0.0, 15.0, "middle"), 1.0: (0.0, -6.0, "middle")}  # the lowest below its axis, the highest above
    named = Markup("").join(text(x + right, heights(at) + down, said[:14], anchor) for at, said in scale.ticks()
                            for right, down, anchor in [ends.get(at, (6.0, 4.0, "start"))])
    return line + named + text(x, 12 if place % 2 else 26, scale.knob[:28], "middle")


def pair_charts(knobs: Sequence[str], standings: Sequence[Standing], winner: str | None,
                up: bool) -> list[tuple[str, Markup]]:
    """The leading knobs two by two, each trial a dot whose shade is its value."""
    drawn = _drawn(standings)
    values = scale_of("value", [item.value for item in drawn])
    scales = scales_of(knobs, drawn)[:PAIRED]
    if values is None:
        return []
    return [(f"{one.knob} and {two.knob}", _pair(one, two, drawn, values, winner, up))
            for one, two in combinations(scales, 2)]


def _pair(one: Scale, two: Scale, drawn: Sequence[Standing], values: Scale, winner: str | None, up: bool) -> Markup:
    across, upwards = Axis(-0.05, 1.05, LEFT, WIDTH - RIGHT), Axis(-0.05, 1.05, HEIGHT - BOTTOM, TOP)
    axes = Markup("")
    for at, said in one.ticks():
        axes += text(across(at), HEIGHT - BOTTOM + 15, said[:14], "middle")
    for at, said in two.ticks():
        axes += Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, upwards(at)) + text(LEFT - 7, upwards(at) + 4, said[:8], "end")
    axes += text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, one.knob, "middle")
    dots = Markup("").join(
        _spot(item, across(one(item.params[one.knob])), upwards(two(item.params[two.knob])),
              f"q{_class(values(item.value), up)}" + (" winner" if item.label == winner else ""))
        for item in reversed(drawn)
        if item.params.get(one.knob) is not None and item.params.get(two.knob) is not None)
    return svg(f"{two.knob} against {one.knob}", axes + dots)


def _spot(item: Standing, x: float, y: float, kind: str) -> Markup:
    return Markup('<g class="spot {0}" data-label="{1}"><title>{1}: {2}</title>'
                  '<circle cx="{3:.1f}" cy="{4:.1f}" r="5"/></g>').format(kind, item.label, number(item.value), x, y)
