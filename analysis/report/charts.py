"""Small inline SVG charts: they follow the page's colours, need no network and no library in the browser.

Every mark carries a class for its status and a <title> with its name and value, and differs in shape
or dash as well as in colour. Pure functions from numbers to markup; all text is escaped by markupsafe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from record.text import interval, number, share, words

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 34


# One trial's fresh seeds: label, values, mean, low, high.
SeedRow = tuple[str, Sequence[float | None], float | None, float | None, float | None]


@dataclass(frozen=True)
class Series:
    """One trial's line. `status` becomes its class; `ended` draws a mark where it was stopped or failed."""

    label: str
    status: str
    points: tuple[tuple[float, float | None], ...]
    ended: bool = False


@dataclass(frozen=True)
class Dot:
    """One trial in a scatter: x as text where the knob is categorical."""

    label: str
    status: str
    x: float | str
    y: float


@dataclass(frozen=True)
class Axis:
    """Data to picture along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (self.end - self.start) * ((value - low) / (high - low) if high > low else 0.5)

    def ticks(self) -> list[float]:
        return _decades(self.low, self.high) if self.log else _round_steps(self.low, self.high)


# What many trials did at one epoch: epoch, 5th, 50th and 95th percentile.
Band = Sequence[tuple[float, float, float, float]]


def line_chart(title: str, series: Sequence[Series], log: bool = False, band: Band = (),
               over: str = "epoch") -> Markup:
    """Values over epochs or what they cost, a line a trial, over a band of all; undefined values break a line."""
    values = [y for line in series for _, y in line.points if y is not None and (y > 0 or not log)]
    values += [y for _, *three in band for y in three if y > 0 or not log]
    if not values:
        return Markup("")
    epochs = [x for line in series for x, _ in line.points] + [x for x, *_ in band]
    x_axis = Axis(min(epochs), max(epochs), LEFT, WIDTH - RIGHT)
    y_axis = value_axis(values, log)
    # The winner comes last, so that it lies on top.
    lines = sorted(series, key=lambda line: line.status == "winner")
    body = Markup("").join(_line(line, x_axis, y_axis, log) for line in lines)
    return svg(f"{title} over {words(over)}", grid(x_axis, y_axis, over) + _band(band, x_axis, y_axis, log) + body,
               over)


def _band(band: Band, x_axis: Axis, y_axis: Axis, log: bool) -> Markup:
    """The middle nine tenths as an area, the median as a dashed line."""
    kept = [row for row in band if row[1] > 0 or not log]
    if len(kept) < 2:
        return Markup("")
    outline = [(x, high) for x, _, _, high in kept] + [(x, low) for x, low, _, _ in reversed(kept)]
    area, middle = (" ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in places)
                    for places in (outline, [(x, mid) for x, _, mid, _ in kept]))
    return Markup('<polygon class="band" points="{}"><title>the middle 90 % of all trials</title></polygon>'
                  '<polyline class="median" points="{}"><title>median of all trials</title></polyline>').format(
        area, middle)


def scatter(title: str, dots: Sequence[Dot]) -> Markup:
    """The value of each trial over one knob; numbers that span a factor of 30 get a logarithmic axis."""
    if not dots:
        return Markup("")
    y_axis = value_axis([dot.y for dot in dots], log=False)
    x_axis = None if _discrete(dots) else _number_axis([float(dot.x) for dot in dots])
    names = [] if x_axis else sorted({dot.x for dot in dots}, key=lambda x: (isinstance(x, str), x))
    step = (WIDTH - LEFT - RIGHT) / max(1, len(names))

    def place(index: int, dot: Dot) -> float:
        if x_axis:
            return x_axis(float(dot.x))
        return LEFT + step * (names.index(dot.x) + 0.5) + (index % 5 - 2) * 5  # beside each other, not on top

    axes = grid(x_axis, y_axis, title) + Markup("").join(
        text(LEFT + step * (column + 0.5), HEIGHT - BOTTOM + 15, _x_text(name)[:14], "middle")
        for column, name in enumerate(names))
    marks = Markup("").join(trial_mark(place(index, dot), y_axis(dot.y), dot.status, dot.label,
                                  f"{dot.label}: {_x_text(dot.x)} → {number(dot.y)}") for index, dot in enumerate(dots))
    return svg(f"Value over {title}", axes + marks)


def share_bar(part: float, label: str) -> Markup:
    """A share of 1 as a bar."""
    return Markup('<svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label="{}">'
                  '<rect class="track" width="100" height="4"/><rect class="part" width="{:.2f}" height="4"/></svg>'
                  ).format(label, 100 * min(1.0, max(0.0, part)))


def _discrete(dots: Sequence[Dot]) -> bool:
    """Whether a knob gets one column a value: names, or a few repeated numbers."""
    values = {dot.x for dot in dots}
    return any(isinstance(value, str) for value in values) or len(values) <= min(6, len(dots) / 2)


def _number_axis(numbers: Sequence[float]) -> Axis:
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low > 30
    pad = 0.0 if log else (high - low) * 0.04
    return Axis(low - pad, high + pad, LEFT + 8, WIDTH - RIGHT - 8, log)


def histogram(title: str, counts: Sequence[int], status: str) -> Markup:
    """Uses of each code as bars, with a line at even use."""
    width, height, gap = 260.0, 90.0, 2.0
    total, largest = sum(counts), max(counts, default=0)
    if not total:
        return Markup("")
    step = width / len(counts)
    bar = Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    bars = Markup("").join(
        bar.format(
            status, index * step + gap / 2, height - max(1.0, height * count / largest) if count else height - 1,
            max(1.0, step - gap), max(1.0, height * count / largest) if count else 1,
            f"code {index}: {count:,} uses ({share(count, total)})")
        for index, count in enumerate(counts))
    even = height * (1 - total / len(counts) / largest)
    line = Markup('<line class="even" x1="0" x2="{0:.0f}" y1="{1:.1f}" y2="{1:.1f}"><title>even use</title></line>')
    return Markup('<svg class="histogram" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, bars + line.format(width, even))


def seed_chart(rows: Sequence[SeedRow]) -> Markup:
    """Fresh seeds: one row a trial with its values as dots, the mean as a tick, the interval as a bar."""
    numbers = [x for _, values, *rest in rows for x in (*values, *rest) if x is not None]
    if not numbers:
        return Markup("")
    axis = Axis(*_padded([0.0, *numbers]), 120, 620)
    bottom = 34.0 * len(rows) + 6
    parts = [Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1:.0f}"/>').format(axis(tick), bottom)
             + text(axis(tick), bottom + 16, f"{tick:.4g}", "middle") for tick in axis.ticks()]
    parts.extend(_seed_row(axis, 20 + 34.0 * place, *row) for place, row in enumerate(rows))
    return Markup('<svg class="seeds" viewBox="0 0 640 {:.0f}" role="img" aria-label="Values over fresh seeds">{}</svg>'
                  ).format(bottom + 22, Markup("").join(parts))


def _seed_row(axis: Axis, y: float, label: str, values: Sequence[float | None], mean: float | None,
              low: float | None, high: float | None) -> Markup:
    row = text(108, y + 4, label, "end")
    if low is not None and high is not None:
        span = Markup('<rect class="span" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="12"><title>{}</title></rect>')
        row += span.format(axis(low), y - 6, axis(high) - axis(low), f"95 % interval {interval(low, high)}")
    if mean is not None:
        tick = Markup('<path class="mean" d="M{:.1f} {:.1f}v18"><title>{}</title></path>')
        row += tick.format(axis(mean), y - 9, f"mean {number(mean)}")
    for value in values:
        if value is not None:
            row += trial_mark(axis(value), y, "live", label, f"{label}: {number(value)}")
    return row


def value_axis(values: Sequence[float], log: bool) -> Axis:
    """The upright axis that holds all values."""
    low, high = (min(values), max(values)) if log else _padded(values)
    if log and low == high:
        low, high = low / 2, high * 2
    return Axis(low, high, HEIGHT - BOTTOM, TOP, log)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values and a little more on either side."""
    low, high = min(values), max(values)
    pad = (high - low or abs(high) or 1.0) * 0.06
    return low - pad, high + pad


def _line(line: Series, x_axis: Axis, y_axis: Axis, log: bool) -> Markup:
    """A polyline for each unbroken stretch, a wide invisible one under it for the pointer, and an end mark."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in line.points:
        if y is None or (log and y <= 0):
            stretches.append([])
        else:
            stretches[-1].append((x_axis(x), y_axis(y)))
    drawn = [stretch for stretch in stretches if stretch]
    if not drawn:
        return Markup("")
    body = Markup("")
    for stretch in drawn:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in stretch)
        body += Markup('<polyline class="hit" points="{0}"/><polyline class="line" points="{0}"/>').format(points)
        if len(stretch) == 1:
            body += Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(*stretch[0])
    if line.ended:
        x, y = drawn[-1][-1]
        body += Markup('<path class="stop" d="M{:.1f} {:.1f}l8 8m0 -8l-8 8"/>').format(x - 4, y - 4)
    values = " ".join(f"{x:g}:{number(y)}" for x, y in line.points)
    return Markup('<g class="series {}" data-label="{}" data-values="{}"><title>{}</title>{}</g>').format(
        line.status, line.label, values, f"{line.label} ({words(line.status)})", body)


def trial_mark(x: float, y: float, status: str, label: str, title: str) -> Markup:
    """A trial as a shape that its status has: ◆ winner, ● live, ○ not finished, ✕ not live."""
    shapes = {
        "winner": '<path d="M{x:.1f} {y:.1f}m0 -7l7 7l-7 7l-7 -7z"/>',
        "live": '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
        "unfinished": '<circle class="hollow" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    }
    shape = shapes.get(status, '<path class="cross" d="M{x:.1f} {y:.1f}m-4 -4l8 8m0 -8l-8 8"/>').format(x=x, y=y)
    return Markup('<g class="mark {}" data-label="{}"><title>{}</title>{}</g>').format(
        status, label, title, Markup(shape))  # only numbers went into the shape


def grid(x_axis: Axis | None, y_axis: Axis, x_title: str) -> Markup:
    """Lines and numbers of the axes, the title of the lower one."""
    parts = []
    for tick in y_axis.ticks():
        y = y_axis(tick)
        kind = "grid zero" if tick == 0 else "grid"
        parts.append(Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            kind, LEFT, WIDTH - RIGHT, y, y) + text(LEFT - 7, y + 4, f"{tick:.4g}", "end"))
    if x_axis:
        parts.extend(text(x_axis(tick), HEIGHT - BOTTOM + 15, f"{tick:.4g}", "middle") for tick in x_axis.ticks())
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x_title, "middle"))
    return Markup("").join(parts)


def svg(title: str, body: Markup, over: str = "epoch") -> Markup:
    """A chart of the common size; `over` is what its lower axis counts."""
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" data-over="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, over, body)


def text(x: float, y: float, said: str, anchor: str) -> Markup:
    """Words at a place: `anchor` is start, middle or end."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, said)


def _x_text(x: float | str) -> str:
    return x if isinstance(x, str) else number(x)


def _round_steps(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers inside [low, high]."""
    if high <= low:
        return [low]
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * size for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / raw)))
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten inside [low, high]; only the powers where they are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) < 2:
        return [tick for tick in _round_steps(low, high, 3) if tick > 0]
    return inside if len(inside) <= 6 else [tick for tick in inside if math.log10(tick).is_integer()] or inside[::3]
