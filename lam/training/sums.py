"""Means and spreads over the steps of an epoch, as they come: what is kept does not grow with the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What a step may lack (NaN): a rollout that was not run, the gradient of a step that was skipped, a label.
_MAY_LACK = ("rollout_loss", "rollout_loss_mae", "grad_norm", "action_loss")


@dataclass
class Spread:
    """Mean, population standard deviation and extremes of numbers, one at a time (Welford 1962).

    Attributes:
        squares: sum of squared differences from the mean.
    """

    count: int = 0
    mean: float = math.nan
    squares: float = 0.0
    low: float = math.nan
    high: float = math.nan

    def add(self, value: float) -> None:
        """Take in one more; one NaN makes all of it NaN."""
        before = self.mean if self.count else 0.0
        self.count += 1
        self.mean = before + (value - before) / self.count
        self.squares += (value - before) * (value - self.mean)
        spoilt = math.isnan(self.mean)
        self.low = math.nan if spoilt else value if self.count == 1 else min(self.low, value)
        self.high = math.nan if spoilt else value if self.count == 1 else max(self.high, value)

    @property
    def std(self) -> float:
        """Standard deviation over the population; NaN of none."""
        return math.sqrt(self.squares / self.count) if self.count else math.nan

    @property
    def total(self) -> float:
        """Their sum."""
        return self.mean * self.count if self.count else 0.0


class Sums:
    """The steps of an epoch so far."""

    def __init__(self) -> None:
        self.count = 0
        self.of: dict[str, Spread] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Add one step; what it lacks is left out of that number's mean."""
        self.count += 1
        for name, value in values.items():
            spread = self.of.setdefault(name, Spread())
            if not (name in _MAY_LACK and math.isnan(value)):
                spread.add(value)

    def mean(self, name: str) -> float:
        """Mean over all steps, where one that lacks the number counts as 0."""
        return self.of[name].total / self.count

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"count": self.count, "of": {name: vars(spread).copy() for name, spread in self.of.items()}}

    def restore(self, state: Any) -> None:
        """Continue from `state()`; an older version saved every step."""
        if isinstance(state, list):
            for values in state:
                self.add(values)
            return
        self.count, self.of = state["count"], {name: Spread(**values) for name, values in state["of"].items()}
