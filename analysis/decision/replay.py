"""What other stopping rules would have kept of a search and spent on it, from its recorded curves. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

MEDIAN_OF = 3  # others that a median is of, at least
Curves = Mapping[str, Mapping[int, float]]  # label -> epoch -> value, higher is better


@dataclass(frozen=True)
class Replayed:
    """One rule over the recorded curves: whether it keeps the winner to its end, and the share of epochs it spends."""

    rule: str
    keeps: bool
    spent: float


def replay(curves: Curves, winner: str, budget: int) -> tuple[Replayed, ...]:
    """Every rule whose rungs the winner reached; a trial that was ended earlier in truth ends there here too."""
    recorded = {label: max(curve) for label, curve in curves.items() if curve}
    found = []
    for name, rule in RULES.items():
        at = rule.ends(curves, budget) if rule.judges(curves[winner], budget) else None
        if at is not None:
            spent = sum(min(last, at.get(label, last)) for label, last in recorded.items())
            found.append(Replayed(name, winner not in at, spent / sum(recorded.values())))
    return tuple(found)


def cut(curves: Curves, rungs: list[int], reduction: int) -> dict[str, int] | None:
    """Label -> the rung that ends it, where at each rung the best of `reduction` go on; None where no rung cuts.

    Who is as good as the last that goes on goes on as well.
    """
    ended: dict[str, int] = {}
    for rung in rungs:
        values = {label: curve[rung] for label, curve in curves.items() if rung in curve and label not in ended}
        worst_kept = sorted(values.values(), reverse=True)[:max(1, len(values) // reduction)][-1:]
        ended |= {label: rung for label, value in values.items() for least in worst_kept if value < least}
    return ended or None


def below_median(curves: Curves, first: int) -> dict[str, int] | None:
    """Label -> the epoch from `first` on at which its best so far falls below the median of all running means."""
    ended: dict[str, int] = {}
    sums, bests, counts = dict.fromkeys(curves, 0.0), dict.fromkeys(curves, -math.inf), dict.fromkeys(curves, 0)
    for epoch in sorted({epoch for curve in curves.values() for epoch in curve}):
        here = [label for label, curve in curves.items() if epoch in curve and label not in ended]
        for label in here:
            value = curves[label][epoch]
            sums[label], bests[label], counts[label] = sums[label] + value, max(bests[label], value), counts[label] + 1
        if epoch >= first and len(here) > MEDIAN_OF:
            middle = median(sums[label] / counts[label] for label in here)
            ended |= {label: epoch for label in here if bests[label] < middle}
    return ended or None


@dataclass(frozen=True)
class Halving:
    """At rungs that are shares of the budget the best of `reduction` go on."""

    parts: tuple[float, ...]
    reduction: int

    def _rungs(self, budget: int) -> list[int]:
        return [max(1, round(part * budget)) for part in self.parts]

    def judges(self, curve: Mapping[int, float], budget: int) -> bool:
        """Whether a trial has a value at each rung."""
        return all(rung in curve for rung in self._rungs(budget))

    def ends(self, curves: Curves, budget: int) -> dict[str, int] | None:
        """See `cut`."""
        return cut(curves, self._rungs(budget), self.reduction)


@dataclass(frozen=True)
class BelowMedian:
    """From a share of the budget on, whose best falls below the median of all running means ends."""

    part: float

    def _first(self, budget: int) -> int:
        return max(1, round(self.part * budget))

    def judges(self, curve: Mapping[int, float], budget: int) -> bool:
        """Whether a trial has a value from there on."""
        return max(curve, default=0) >= self._first(budget)

    def ends(self, curves: Curves, budget: int) -> dict[str, int] | None:
        """See `below_median`."""
        return below_median(curves, self._first(budget))


RULES: dict[str, Halving | BelowMedian] = {
    "a cut to a third at a fifth of the epochs": Halving((1 / 5,), 3),
    "a cut to a third at a third": Halving((1 / 3,), 3),
    "thirds at a ninth and a third": Halving((1 / 9, 1 / 3), 3),
    "quarters at a sixteenth and a quarter": Halving((1 / 16, 1 / 4), 4),
    "the median rule from a fifth on": BelowMedian(1 / 5),
}
