"""Ratios of sums with intervals clustered by video: the statistics behind control and DSNR.

Transitions of one video are not independent, so a standard error that treats them as such is too
small. The unit is the video. Below MIN_CLUSTERS of them consecutive blocks of each video are looked at too, and
the wider of the two intervals counts; of a single video there are its blocks alone, which know nothing of other
videos. Method: linearised variance of a ratio estimator over clusters (Cochran, Sampling Techniques, 3rd ed.,
ch. 6), Student's t bounds.
"""

from __future__ import annotations

import math
import sys
import threading
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

MIN_CLUSTERS = 5
BLOCKS = 10


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and 95 % bounds; the last three are NaN with fewer than 2 clusters or blocks."""

    value: float
    se: float
    low: float
    high: float


def clusters(files: NDArray[Any]) -> NDArray[np.int64]:
    """Cluster number of each sample: its video, or a block of its video where there are few videos.

    Args:
        files: [N] video number of each sample, samples of a video in temporal order.
    """
    names, numbers = np.unique(files, return_inverse=True)
    if len(names) >= MIN_CLUSTERS:
        return numbers.astype(np.int64)
    blocks = np.zeros(len(files), dtype=np.int64)
    per_file = math.ceil(BLOCKS / max(1, len(names)))
    for number in range(len(names)):
        members = np.flatnonzero(numbers == number)
        blocks[members] = number * per_file + np.arange(len(members)) * per_file // max(1, len(members))
    return blocks


def ratio(numerator: NDArray[Any], denominator: NDArray[Any], files: NDArray[Any]) -> Estimate:
    """sum(numerator)/sum(denominator) with an interval clustered by video; NaN where the denominator is 0.

    Args:
        files: [N] video number of each sample, samples of a video in temporal order.
    """
    ways = [_of_clusters(numerator, denominator, files)]
    if len(np.unique(files)) < MIN_CLUSTERS:
        ways.append(_of_clusters(numerator, denominator, clusters(files)))
    return max(ways, key=lambda each: -1.0 if math.isnan(each.high) else each.high - each.low)


def _of_clusters(numerator: NDArray[Any], denominator: NDArray[Any], cluster: NDArray[Any]) -> Estimate:
    count, (top, bottom) = _cluster_sums(cluster, numerator, denominator)
    total = bottom.sum()
    if total == 0 or not np.isfinite(total):
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    value = float(top.sum() / total)
    return _estimate(value, (top - value * bottom) / total, count)


def mean(values: NDArray[Any], files: NDArray[Any]) -> Estimate:
    """Mean over samples with such an interval."""
    return ratio(values, np.ones(len(values)), files)


def _cluster_sums(cluster: NDArray[Any], *columns: NDArray[Any]) -> tuple[int, list[NDArray[np.float64]]]:
    _, numbers = np.unique(cluster, return_inverse=True)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    sums = (np.bincount(numbers, weights=column.astype(np.float64), minlength=count) for column in columns)
    return count, [np.asarray(each, dtype=np.float64) for each in sums]


def _estimate(value: float, residuals: NDArray[np.float64], count: int) -> Estimate:
    if count < 2:
        return Estimate(value, math.nan, math.nan, math.nan)
    se = math.sqrt(count / (count - 1) * float((residuals**2).sum()))
    reach = student(count - 1) * se
    return Estimate(value, se, value - reach, value + reach)


def student(degrees: float, share: float = 0.975) -> float:
    """The quantile of Student's t."""
    return float(_functions().stdtrit(degrees, share))


def share_interval(successes: int, of: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934, Biometrika 26)."""
    inverse = _functions().betaincinv
    low = inverse(successes, of - successes + 1, 0.025) if successes else 0.0
    high = inverse(successes + 1, of - successes, 0.975) if successes < of else 1.0
    return float(low), float(high)


@cache
def _functions() -> Any:
    """scipy.special's compiled functions alone: the package around them takes a fifth of a second, for other arrays."""
    name = "scipy.special"
    if name not in sys.modules and threading.active_count() == 1:  # nobody else meets the empty room
        room = ModuleType(name)
        room.__path__ = [str(Path(scipy.__file__).with_name("special"))]
        sys.modules[name] = room
        try:
            return import_module(f"{name}._ufuncs")
        except ImportError:  # another version of it is laid out otherwise
            pass
        finally:
            del sys.modules[name]
    return import_module(name)
