"""Rung arithmetic of asynchronous successive halving. Pure functions, no machinery.

A trial that arrives at a rung is compared with every trial that has arrived there before, itself
included: the best ceil(n/eta) of n arrivals go on, ties with the last of them too. So the first
arrival goes on, and where all are live never less than one in eta does. What is not finite or has
collapsed counts as minus infinity: it still counts as an arrival, because leaving it out prunes live
trials too hard, and it leaves a place empty rather than take it. Only arrivals that all count as
minus infinity leave nothing to choose by, and then all go on.

Values are "higher is better"; callers flip the sign of a metric that goes down.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

NEVER = -math.inf


def levels(grace: float, maximum: float, eta: float) -> list[int]:
    """Rungs in epochs: grace * eta^k, rounded to the nearest epoch, below `maximum`."""
    found: list[int] = []
    level = float(grace)
    while round(level) < maximum:
        if not found or round(level) > found[-1]:
            found.append(round(level))
        level *= eta
    return found


def amounts(grace: float, maximum: float, eta: float) -> list[float]:
    """Rungs on a continuous axis: grace * eta^k below `maximum`."""
    count = 0 if grace >= maximum else math.ceil(math.log(maximum / grace) / math.log(eta) - 1e-9)
    return [grace * eta**k for k in range(count)]


@functools.cache
def bracket_of(number: int, brackets: int, eta: float) -> int:
    """Bracket of the trial with this number: trials take turns, bracket k one in eta^k as often as bracket 0.

    A function of the number alone, so that a resumed sweep deals them out as the uninterrupted one would have.
    """
    shares = [eta**-k for k in range(brackets)]
    dealt = [0.0] * brackets
    for _ in range(number % 1000 + 1):
        chosen = min(range(brackets), key=lambda k: (dealt[k] + 1) / shares[k])
        dealt[chosen] += 1
    return chosen


def median_decides(best: float, others: Sequence[Sequence[float]], at_least: int) -> tuple[bool, float]:
    """Whether a trial goes on under the median rule, and the median it was compared with.

    Args:
        best: the trial's best value so far.
        others: for each other trial that has come as far, its values up to there.
        at_least: with fewer others than this, the trial goes on.
    """
    means = sorted(sum(map(worth, values)) / len(values) for values in others if values)
    return among_means(best, means, at_least)


def among_means(best: float, means: Sequence[float], at_least: int) -> tuple[bool, float]:
    """`median_decides`, where the others' means are known and sorted."""
    if len(means) < at_least:
        return True, math.nan
    half = len(means) // 2
    median = means[half] if len(means) % 2 else (means[half - 1] + means[half]) / 2
    return worth(best) >= median, median


def rung_reached(rungs: Sequence[float], before: float, now: float) -> int | None:
    """The number of the highest rung in (before, now], None where there is none.

    Args:
        before: where the trial's previous validation was, 0 for the first.
    """
    reached = [number for number, rung in enumerate(rungs) if before < rung <= now]
    return max(reached) if reached else None


@dataclass(frozen=True)
class Cutoff:
    """What was decided at a rung.

    Attributes:
        goes_on: whether the arrival continues.
        value: the worst value that goes on.
        arrivals: trials compared, the new one included.
        places: how many of them go on.
    """

    goes_on: bool
    value: float
    arrivals: int
    places: int


def decide(value: float, earlier: Sequence[float], eta: float) -> Cutoff:
    """Whether an arrival with `value` goes on, given the values of the `earlier` arrivals."""
    return decide_among(value, sorted(worth(other) for other in (*earlier, value)), eta)


def decide_among(value: float, arrivals: Sequence[float], eta: float) -> Cutoff:
    """`decide`, where all arrivals are known and sorted, the worst first and this one among them."""
    places = math.ceil(len(arrivals) / eta)
    first = max(len(arrivals) - places, bisect.bisect_right(arrivals, NEVER))
    cutoff = arrivals[first] if first < len(arrivals) else NEVER
    return Cutoff(worth(value) >= cutoff, cutoff, len(arrivals), places)


def worth(value: float) -> float:
    """The value, minus infinity where it is NaN."""
    return NEVER if math.isnan(value) else value
