"""What a rule can compute from the last records of a metric. Pure; each takes and gives one number a record.

Where the history is still too short the result is NaN, and the rule is not judged there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[Any]


class Statistic(NamedTuple):
    """How a statistic is called in sentences, and its function of (values, epochs, window, better, min_delta)."""

    title: str
    of: Callable[[Array, Array, int, str, float], Array]


def _windowed(reduce: Callable[..., Array]) -> Callable[[Array, Array, int, str, float], Array]:
    def compute(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
        if window == 1:
            return reduce(values[:, None], axis=1)
        found = np.full(len(values), np.nan)
        if len(values) >= window:
            found[window - 1:] = reduce(sliding_window_view(values, window), axis=1)
        return found

    return compute


def _spread(windows: Array, axis: int) -> Array:
    """(largest - smallest) / |mean|."""
    with np.errstate(all="ignore"):
        return np.ptp(windows, axis=axis) / np.abs(windows.mean(axis=axis))


def _change(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
    found = np.full(len(values), np.nan)
    found[window:] = values[window:] - values[:-window]
    return found


def _spike(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
    """The value over the median of the `window` values before it."""
    found = np.full(len(values), np.nan)
    if len(values) > window:
        before = np.median(sliding_window_view(values[:-1], window), axis=1)
        with np.errstate(all="ignore"):
            found[window:] = values[window:] / before
    return found


def _z_score(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
    """How many standard deviations it is above the mean of the `window` values before it."""
    found = np.full(len(values), np.nan)
    if len(values) > window > 1:
        before = sliding_window_view(values[:-1], window)
        with np.errstate(all="ignore"):
            found[window:] = (values[window:] - before.mean(axis=1)) / before.std(axis=1, ddof=1)
    return found


def _rises(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
    """How many times in a row it has risen."""
    rising = np.concatenate([[False], np.diff(values) > min_delta]) if len(values) else np.zeros(0, bool)
    return streak(rising).astype(np.float64)


def _stale(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
    """Epochs since it last improved by more than `min_delta`."""
    signed = values if better == "down" else -values
    if min_delta == 0:
        best = np.minimum.accumulate(signed)
        improved = np.concatenate([[True], signed[1:] < best[:-1]]) if len(signed) else np.zeros(0, bool)
    else:
        improved = _improvements(signed, min_delta)
    last = np.maximum.accumulate(np.where(improved, np.arange(len(values)), 0))
    return epochs - epochs[last] if len(values) else np.zeros(0)


def _improvements(signed: Array, min_delta: float) -> Array:
    best, improved = np.inf, np.zeros(len(signed), bool)
    for number, value in enumerate(signed.tolist()):
        if value < best - min_delta:
            best, improved[number] = value, True
    return improved


def _over_best(values: Array, epochs: Array, window: int, better: str, min_delta: float) -> Array:
    """The value over the best so far: 1 at the best, 2 at twice the smallest (better down)."""
    best = (np.minimum if better == "down" else np.maximum).accumulate(values)
    with np.errstate(all="ignore"):
        return values / best


STATISTICS: dict[str, Statistic] = {
    "value": Statistic("value", lambda values, *_: values),
    "mean": Statistic("mean", _windowed(np.mean)),
    "median": Statistic("median", _windowed(np.median)),
    "minimum": Statistic("smallest value", _windowed(np.min)),
    "maximum": Statistic("largest value", _windowed(np.max)),
    "spread": Statistic("relative range", _windowed(_spread)),
    "change": Statistic("change", _change),
    "spike": Statistic("value over the median before", _spike),
    "z_score": Statistic("standard deviations above the mean before", _z_score),
    "rises": Statistic("rises in a row", _rises),
    "stale": Statistic("epochs without improvement", _stale),
    "over_best": Statistic("value over the best so far", _over_best),
    "nonfinite": Statistic("not finite", lambda values, *_: values),
}


def streak(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many true values in a row end at each place."""
    index = np.arange(len(flags))
    last_false = np.maximum.accumulate(np.where(flags, -1, index)) if len(flags) else index
    return index - last_false
