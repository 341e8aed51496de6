"""Rung arithmetic of asynchronous successive halving. Pure functions, no machinery.

A trial that arrives at a rung is compared with every trial that has arrived there before, itself
included: the best ceil(n/eta) of n arrivals go on, ties with the last of them too. So the first
arrival goes on, and never less than one in eta does. What is not finite or has collapsed counts as
minus infinity: it still counts as an arrival, because leaving it out prunes live trials too hard.
Only arrivals that all count as minus infinity leave nothing to choose by, and then all go on.

Values are "higher is better"; callers flip the sign of a metric that goes down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NEVER = -math.inf


def levels(grace: int, maximum: int, eta: float) -> list[int]:
    """Rungs in epochs: grace * eta^k, rounded to the nearest epoch, below `maximum`."""
    found: list[int] = []
    level = float(grace)
    while round(level) < maximum:
        if not found or round(level) > found[-1]:
            found.append(round(level))
        level *= eta
    return found


def rung_reached(rungs: Sequence[int], before: int, epoch: int) -> int | None:
    """The highest rung in (before, epoch], None where there is none.

    Args:
        before: the epoch of the trial's previous validation, 0 for the first.
    """
    reached = [rung for rung in rungs if before < rung <= epoch]
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
    arrivals = sorted((worth(other) for other in (*earlier, value)), reverse=True)
    places = math.ceil(len(arrivals) / eta)
    cutoff = arrivals[places - 1]
    return Cutoff(worth(value) >= cutoff, cutoff, len(arrivals), places)


def worth(value: float) -> float:
    """The value, minus infinity where it is NaN."""
    return NEVER if math.isnan(value) else value
