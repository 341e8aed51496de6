"""Where a run's curve is expected to lie, epoch by epoch, from the curves that a sweep recorded. Pure.

Up to the last epoch of the curve it is the curve itself, as wide as two trainings of one config differ. From there on
it is a straight line in log(epoch) through the curve's last half, continued by a share `DAMPING` of its slope: the one
that gives the narrowest range, whose width is how far it erred on the recorded curves (split-conformal quantiles, or
Student's t where there are fewer curves than quantiles need). Beyond the last recorded epoch, where nothing shows which
share is right, the recorded curves are cut so that as long a stretch in log(epoch) is left, and the range is the hull
over all shares. How often ranges hold is measured by benchmarks/bench_bands.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from record.intervals import student

Curve = Mapping[int, float]
"""Epoch -> value, for the validated epochs."""
Array = NDArray[np.float64]
Basis = Literal["seeds", "steps", "curves", "extrapolated"]

COVERAGE = 0.9
DAMPING = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
LEAST_POINTS = 3  # of a curve, before a slope is told; and of errors, before a range is


@dataclass(frozen=True)
class Range:
    """What is expected of one epoch.

    Attributes:
        basis: seeds (how far trainings of one config differ), steps (there were no two: how far one epoch differs from
            the line through those before it), curves (others were recorded up to this epoch), or extrapolated.
    """

    epoch: int
    low: float
    expected: float
    high: float
    basis: Basis

    def holds(self, value: float) -> bool:
        """Whether the value lies inside; NaN does not."""
        return self.low <= value <= self.high


def expect(curve: Curve, pool: Sequence[Sequence[Curve]], epochs: Iterable[int], *, log: bool = False,
           coverage: float = COVERAGE, bounds: tuple[float, float] = (-math.inf, math.inf)) -> tuple[Range, ...]:
    """The ranges of a run that trains the config of `curve`, for those epochs of which one can be told.

    Args:
        curve: one training of the config, as far as it went.
        pool: recorded trainings, those of one config together; `curve` may be among them.
        log: the metric is compared in logarithms, as losses are; every value is positive.
        coverage: share of runs that shall lie inside, at each epoch by itself.
        bounds: no range reaches beyond these.
    """
    if not curve:
        return ()
    scaled, groups = _scaled(curve, log), [[known for each in group if (known := _scaled(each, log))] for group in pool]
    found = (_range(scaled, groups, epoch, coverage) for epoch in epochs)
    return tuple(_unscaled(each, log, bounds) for each in found if each is not None)


def _range(curve: Curve, pool: Sequence[Sequence[Curve]], epoch: int, coverage: float) -> Range | None:
    last, recorded = max(curve), max((max(each) for group in pool for each in group), default=0)
    if epoch <= last:
        return _inside(curve, pool, epoch, coverage)
    if epoch <= recorded:
        return _ahead(curve, _errors(pool, last, epoch), epoch, coverage, False) \
            or _ahead(curve, _stretch_errors(pool, epoch / last), epoch, coverage, True)
    return _ahead(curve, _stretch_errors(pool, epoch / last), epoch, coverage, True)


def _inside(curve: Curve, pool: Sequence[Sequence[Curve]], epoch: int, coverage: float) -> Range | None:
    """Around the curve's own value."""
    if epoch not in curve:
        return None
    pairs = [b[at] - a[at] for group in pool for a, b in permutations(group, 2)
             for at in _near(a, epoch) if at in b]
    steps = [] if len(pairs) >= LEAST_POINTS else _step_errors(pool, epoch)
    margin = _margin(np.array(pairs or steps), coverage)
    if margin is None:
        return None
    return Range(epoch, curve[epoch] + margin[0], curve[epoch], curve[epoch] + margin[1],
                 "seeds" if pairs else "steps")


def _near(curve: Curve, epoch: int) -> list[int]:
    """The epochs whose differences stand for those of this one: itself, the one before and the one after."""
    known = sorted(curve)
    place = int(np.searchsorted(known, epoch))
    return known[max(0, place - 1):place + 2]


def _step_errors(pool: Sequence[Sequence[Curve]], epoch: int) -> list[float]:
    """How far each curve is from the line through what lies before, at this epoch and those beside it; symmetric."""
    found = [float(_continued(_until(each, at - 1), at)[-1] - each[at]) for group in pool for each in group
             for at in _near(each, epoch) if _until(each, at - 1)]
    return [*found, *(-error for error in found)]


def _ahead(curve: Curve, errors: Array | None, epoch: int, coverage: float, hull: bool) -> Range | None:
    """Beyond the curve's end, by the shares' errors on recorded curves: the best one's range, or the hull of all."""
    if errors is None:
        return None
    ahead, margins = _continued(curve, epoch), np.array([_margin(row, coverage) for row in errors])
    best = int((margins[:, 1] - margins[:, 0]).argmin())
    chosen = slice(None) if hull else slice(best, best + 1)
    low, high = (ahead + margins[:, side] for side in (0, 1))
    middle = float(ahead[best] + np.median(errors[best]))
    return Range(epoch, float(low[chosen].min()), middle, float(high[chosen].max()),
                 "extrapolated" if hull else "curves")


def _errors(pool: Sequence[Sequence[Curve]], cut: int, epoch: int) -> Array | None:
    """What each share erred by, `[shares, cases]`: recorded curves cut at `cut` and continued to `epoch`."""
    return _of([(a, b, cut, epoch) for a, b in _cases(pool) if epoch in b and max(a) >= cut])


def _stretch_errors(pool: Sequence[Sequence[Curve]], stretch: float) -> Array | None:
    """Recorded curves cut so that their end is `stretch` times as far: the same way in log(epoch)."""
    return _of([(a, b, round(max(b) / stretch), max(b)) for a, b in _cases(pool)])


def _of(cases: Iterable[tuple[Curve, Curve, int, int]]) -> Array | None:
    rows = [b[epoch] - _continued(known, epoch) for a, b, cut, epoch in cases
            if len(known := _until(a, cut)) >= LEAST_POINTS and max(known) < epoch]
    return np.stack(rows, axis=1) if len(rows) >= LEAST_POINTS else None


def _cases(pool: Sequence[Sequence[Curve]]) -> list[tuple[Curve, Curve]]:
    """What is continued and what it is held against: one training and another of its config, itself where alone."""
    return [pair for group in pool for pair in (permutations(group, 2) if len(group) > 1 else [(*group, *group)])
            if len(pair) == 2]


def _continued(curve: Curve, epoch: int) -> Array:
    """The line in log(epoch) through the curve's last half, continued to `epoch` by each share of its slope."""
    known = sorted(curve)
    used = known[-max(LEAST_POINTS, math.ceil(len(known) / 2)):]
    x, y = np.log(used), np.array([curve[each] for each in used])
    around = x - x.mean()
    spread = float(around @ around)
    slope = float(around @ y) / spread if len(used) >= LEAST_POINTS and spread > 0 else 0.0
    level = float(y.mean()) + slope * float(x[-1] - x.mean())
    continued: Array = level + DAMPING * slope * (math.log(epoch) - float(x[-1]))
    return continued


def _margin(errors: Array, coverage: float) -> tuple[float, float] | None:
    """Between which errors a further one lies with this probability; None where there are too few to say.

    Between two ranks the order statistics are interpolated (Hutson 1999, Journal of Applied Statistics 26): the lower
    of the two alone would cover more than is asked, 93 % instead of 90 % with 54 errors.
    """
    count, tail = len(errors), (1 - coverage) / 2
    if count < LEAST_POINTS:
        return None
    place = round((count + 1) * tail - 1, 9)
    if place >= 0:
        ordered = np.sort(errors)
        low, high = np.interp((place, count - 1 - place), np.arange(count), ordered)
        return float(low), float(high)
    half = student(count - 1, 1 - tail) * errors.std(ddof=1) * math.sqrt(1 + 1 / count)
    return float(errors.mean() - half), float(errors.mean() + half)


def _until(curve: Curve, epoch: int) -> Curve:
    return {at: value for at, value in curve.items() if at <= epoch}


def _scaled(curve: Curve, log: bool) -> Curve:
    """The finite points of a curve, as logarithms where asked; what has none is left out."""
    kept = {at: value for at, value in curve.items() if at > 0 and math.isfinite(value) and not (log and value <= 0)}
    return {at: math.log(value) for at, value in kept.items()} if log else kept


def _unscaled(found: Range, log: bool, bounds: tuple[float, float]) -> Range:
    low, mid, high = (min(max(math.exp(value) if log else value, bounds[0]), bounds[1])
                      for value in (found.low, found.expected, found.high))
    return Range(found.epoch, low, mid, high, found.basis)
