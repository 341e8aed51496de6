"""One word for a trajectory, by stated rules. Pure.

With fewer than MIN_POINTS finite points the trajectory is "not determined": endpoints are no trend.
Otherwise, in this order, where "level" is the median of |values|, "lately" the last half of the points
(at least MIN_POINTS), and a window "moves" when the 95 % interval of its least-squares slope leaves out 0
and the fitted change over the window is more than 5 % of the level:

    stable       the whole range is under 2 % of the level
    collapsing   (not where lower is better) ends at half its peak or less and not moving up, and half of
                 that loss came within a quarter of the record
    recovered    an inner trough took at least half of the peak before it, and the end has won back half of
                 that loss; where lower is better, an inner crest at twice the level before it, and the end
                 has shed half of the rise
    volatile     the noise (from second differences) is above 25 % of the level
    oscillating  lately not moving, the direction turns at 60 % of the inner points or more, and the
                 typical step is above 3 % of the level
    growing      lately moving up (rising where lower is better)
    slow decline lately moving down (decreasing where lower is better)
    plateau      lately not moving, though the record as a whole moves
    stable       otherwise
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from record import intervals
from record.health.columns import series

Array = NDArray[np.float64]
MIN_POINTS = 5
LARGEST = 1e150  # NaN is not below it either
NOT_DETERMINED = "not determined"


@dataclass(frozen=True)
class Slope:
    """Least-squares slope per unit of x with its 95 % interval (residuals taken as independent)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Trend:
    """A trajectory in a word, with what it was judged by. Slopes are those of the last half of the points."""

    word: str
    points: int
    first: float
    last: float
    least: float
    most: float
    slope: Slope | None = None

    @property
    def told(self) -> str:
        """The word, with `lately` where it says one direction, of the last half, and the ends the other."""
        up, down = self.word in ("growing", "rising"), self.word in ("slow decline", "decreasing")
        turned = (up and self.last < self.first) or (down and self.last > self.first)
        return f"{self.word} lately" if turned else self.word

    @property
    def change(self) -> str:
        """What the endpoints alone say: grew, fell or unchanged. No trajectory."""
        if not self.points or self.first == self.last:
            return "unchanged"
        return "grew" if self.last > self.first else "fell"


def trend(x: Sequence[float], y: Sequence[float], better: str = "none") -> Trend:
    """Judge a trajectory.

    Args:
        x: positions, ascending; points of which a number is not finite, or so large that its square is not, are left
            out.
        better: "up", "down" or "none".
    """
    kept = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if abs(a) < LARGEST and abs(b) < LARGEST]
    if not kept:
        return Trend(NOT_DETERMINED, 0, math.nan, math.nan, math.nan, math.nan)
    xs, ys = (np.array(part) for part in zip(*kept, strict=True))
    ends = (len(ys), float(ys[0]), float(ys[-1]), float(ys.min()), float(ys.max()))
    if len(ys) < MIN_POINTS or xs[0] == xs[-1]:
        return Trend(NOT_DETERMINED, *ends)
    return Trend(_word(xs, ys, better), *ends, slope(*_lately(xs, ys)))


def slope(x: Array, y: Array) -> Slope:
    """Slope with its interval; needs three points and two positions."""
    centred = x - x.mean()
    spread = float((centred**2).sum())
    value = float((centred * y).sum() / spread)
    residual = y - y.mean() - value * centred
    degrees = len(x) - 2
    reach = intervals.student(degrees) * math.sqrt(float((residual**2).sum()) / degrees / spread)
    return Slope(value, value - reach, value + reach)


def _lately(x: Array, y: Array) -> tuple[Array, Array]:
    count = max(MIN_POINTS, math.ceil(len(y) / 2))
    xs, ys = x[-count:], y[-count:]
    return (xs, ys) if xs[0] < xs[-1] else (x, y)


def _word(x: Array, y: Array, better: str) -> str:
    level = float(np.median(np.abs(y)))
    if float(np.ptp(y)) <= 0.02 * level or np.ptp(y) == 0:
        return "stable"
    recent = _direction(*_lately(x, y), level)
    if better != "down" and recent <= 0 and _collapsed(x, y):
        return "collapsing"
    if _recovered(y, better):
        return "recovered"
    if _noise(y) > 0.25 * level:
        return "volatile"
    if recent == 0 and _oscillates(y, level):
        return "oscillating"
    if recent > 0:
        return "rising" if better == "down" else "growing"
    if recent < 0:
        return "decreasing" if better == "down" else "slow decline"
    return "plateau" if _direction(x, y, level) else "stable"


def _direction(x: Array, y: Array, level: float) -> int:
    """1 moving up, -1 moving down, 0 neither."""
    found = slope(x, y)
    if abs(found.value) * (x[-1] - x[0]) <= 0.05 * level or found.low <= 0 <= found.high:
        return 0
    return 1 if found.value > 0 else -1


def _collapsed(x: Array, y: Array) -> bool:
    """Whether it ends at half its peak or less, and half of the loss came within a quarter of the record."""
    peak = int(np.argmax(y))
    end = float(np.median(y[-3:]))
    loss = float(y[peak]) - end
    if peak == len(y) - 1 or end > 0.5 * y[peak]:
        return False
    reached = np.searchsorted(x, x + (x[-1] - x[0]) / 4, side="right") - 1
    later = np.minimum(np.maximum(reached, np.arange(len(y)) + 1), len(y) - 1)
    return bool((y - y[later])[peak:].max() >= 0.5 * loss)


def _recovered(y: Array, better: str) -> bool:
    """Whether it left its level in the middle and has come back."""
    end = float(np.median(y[-3:]))
    inner = slice(1, len(y) - 2)
    if better == "down":
        crest = 1 + int(np.argmax(y[inner]))
        before = float(np.median(y[:crest]))
        return y[crest] >= 2 * before > 0 and y[crest] - end >= 0.5 * (y[crest] - before)
    trough = 1 + int(np.argmin(y[inner]))
    before = float(y[:trough].max())
    return before > 0 and y[trough] <= 0.5 * before and end - y[trough] >= 0.5 * (before - y[trough])


def _noise(y: Array) -> float:
    """Standard deviation of what a smooth curve would not have: second differences over sqrt(6)."""
    return float(np.sqrt((np.diff(y, 2) ** 2).mean() / 6))


def _oscillates(y: Array, level: float) -> bool:
    steps = np.diff(y)
    turns = (steps[:-1] * steps[1:] < 0).mean()
    return bool(turns >= 0.6 and np.median(np.abs(steps)) > 0.03 * level)


def trend_of(records: Sequence[Any], key: str, better: str = "none") -> Trend:
    """The trend of one key of epoch records over their epochs."""
    return trend(*series(records, key), better=better)
