"""Facts about one metric of a run as the sentences of a decision say them. Pure."""

from __future__ import annotations

from analysis.judge.vitality import profile_for
from analysis.read.study import Trial, points_of
from record.health import expressions
from record.health.trends import NOT_DETERMINED, Trend, trend
from record.text import number, share


def title(trial: Trial, key: str) -> str:
    """What the profile calls a metric, else its key."""
    known = profile_for(trial)
    named = next((item.title for item in known.watch if expressions.text(item.metric) == key), None)
    return named or key


def is_share(trial: Trial, key: str) -> bool:
    """Whether a metric reads as per cent."""
    known = profile_for(trial)
    return any(item.percent for item in known.watch if expressions.text(item.metric) == key) or any(
        row.percent for row in known.report.rows() if row.key == key)


def text_of(trial: Trial, key: str, value: float | None) -> str:
    """A value of a metric."""
    return share(value, digits=1) if is_share(trial, key) else number(value)


def course(trial: Trial, key: str, better: str = "none") -> Trend:
    """The trajectory of a metric over a run."""
    points = points_of(trial, key)
    return trend([x for x, _ in points], [y for _, y in points], better)


def word(found: Trend) -> str:
    """The trajectory's word; what the ends alone say where there are too few points for one."""
    return f"{found.change} (two ends are no trajectory)" if found.word == NOT_DETERMINED else found.told


def from_to(trial: Trial, key: str) -> str:
    """`9.45 → 8.38`, with the factor where it more than halves or grows by half; empty without two values."""
    points = [value for _, value in points_of(trial, key)]
    if len(points) < 2:
        return ""
    first, last = points[0], points[-1]
    factor = last / first if first > 0 else 1.0
    grown = f" ({number(factor, 2)}×)" if not 0.5 < factor < 1.5 else ""
    return f"{text_of(trial, key, first)} → {text_of(trial, key, last)}{grown}"


def axis(trial: Trial) -> str:
    """What its records count: epoch or step."""
    return profile_for(trial).axis
