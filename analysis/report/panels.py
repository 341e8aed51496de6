"""The panels of a run that its health profile states: lines with thresholds, flags as bars, parts as stacked areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from markupsafe import Markup

from analysis.read.study import Trial, points_of
from analysis.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, grid, svg, value_axis
from record.health.reporting import Panel
from record.text import number

Points = tuple[tuple[float, float], ...]
MOST_POINTS = 400
WIDE = 30.0  # from this ratio on an axis is logarithmic


@dataclass(frozen=True)
class RunPanel:
    """One panel of one run: metrics as points, and the levels at which its profile draws a line."""

    label: str
    title: str
    lines: tuple[tuple[str, Points], ...] = ()
    bars: tuple[tuple[str, Points], ...] = ()
    stacked: tuple[tuple[str, Points], ...] = ()
    thresholds: tuple[tuple[str, float], ...] = ()


def panels_of(trial: Trial) -> list[RunPanel]:
    """The panels of a run for which anything was recorded."""
    keys = dict.fromkeys(trial.epochs.names())
    made = [_panel(trial, list(keys), panel) for panel in trial.workload.reporting.panels]
    return [panel for panel in made if panel.lines or panel.stacked]


def _panel(trial: Trial, keys: Sequence[str], panel: Panel) -> RunPanel:
    lines, bars, stacked = (tuple((key, _thinned(points)) for pattern in patterns for key in keys
                                  if fnmatchcase(key, pattern) and (points := points_of(trial, key)))
                            for patterns in (panel.lines, panel.bars, panel.stacked))
    drawn = {key for key, _ in lines}
    return RunPanel(trial.label, panel.title, lines, bars, stacked,
                    tuple((key, level) for key, level in panel.thresholds.items() if key in drawn))


def _thinned(points: Sequence[tuple[float, float]]) -> Points:
    """Every so many points, the last one always."""
    stride = max(1, len(points) // MOST_POINTS)
    return (*points[:-1:stride], points[-1])


def panel_chart(panel: RunPanel) -> Markup:
    """A panel as a picture."""
    return _stack(panel) if panel.stacked else _lines(panel)


def _lines(panel: RunPanel) -> Markup:
    values = [y for _, points in panel.lines for _, y in points] + [level for _, level in panel.thresholds]
    log = min(values) > 0 and max(values) / min(values) > WIDE
    x_axis, y_axis = _x_axis(panel.lines), value_axis(values, log)
    body = Markup("").join(_bar(place, key, points, x_axis) for place, (key, points) in enumerate(panel.bars))
    for place, (key, points) in enumerate(panel.lines):
        drawn = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in points)
        body += Markup('<g class="key k{}"><title>{}: {} to {}</title><polyline points="{}"/></g>').format(
            place % 6, key, number(points[0][1]), number(points[-1][1]), drawn)
        if len(points) == 1:
            body += Markup('<circle class="key k{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(
                place % 6, x_axis(points[0][0]), y_axis(points[0][1]))
    keys = [key for key, _ in panel.lines]
    for key, level in panel.thresholds:
        body += Markup('<line class="threshold k{0}" x1="{1}" x2="{2}" y1="{3:.1f}" y2="{3:.1f}"><title>{4}</title>'
                       '</line>').format(keys.index(key) % 6, LEFT, WIDTH - RIGHT, y_axis(level),
                                         f"{key}: {number(level)}")
    return svg(f"{panel.label}: {panel.title}", grid(x_axis, y_axis, "epoch") + body)


def _bar(place: int, key: str, points: Points, x_axis: Axis) -> Markup:
    """A flag as ticks at the foot of the chart where it is 1."""
    ticks = " ".join(f"M{x_axis(x):.1f} {HEIGHT - BOTTOM - 8 * place:.1f}v-6" for x, y in points if y > 0)
    return Markup('<path class="flag k{}" d="{}"><title>{}: 1 here</title></path>').format(place % 6, ticks, key)


def _stack(panel: RunPanel) -> Markup:
    """Parts of a whole as areas on top of each other, at the places that all of them have."""
    places = sorted(set.intersection(*({x for x, _ in points} for _, points in panel.stacked)))
    if not places:
        return Markup("")
    tables = [(key, dict(points)) for key, points in panel.stacked]
    below = dict.fromkeys(places, 0.0)
    tops = [sum(table[x] for _, table in tables) for x in places]
    x_axis, y_axis = _x_axis(panel.stacked), Axis(0.0, max(*tops, 1e-12), HEIGHT - BOTTOM, TOP)
    body = Markup("")
    for place, (key, table) in enumerate(tables):
        above = {x: below[x] + table[x] for x in places}
        outline = [(x, above[x]) for x in places] + [(x, below[x]) for x in reversed(places)]
        body += Markup('<polygon class="part k{}" points="{}"><title>{}: {} to {}</title></polygon>').format(
            place % 6, " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in outline), key,
            number(table[places[0]]), number(table[places[-1]]))
        below = above
    return svg(f"{panel.label}: {panel.title}", grid(x_axis, y_axis, "epoch") + body)


def _x_axis(parts: Sequence[tuple[str, Points]]) -> Axis:
    places = [x for _, points in parts for x, _ in points]
    return Axis(min(places), max(places), LEFT, WIDTH - RIGHT)
