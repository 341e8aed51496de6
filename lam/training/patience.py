"""Early stopping: how long a run may go without getting better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lam.sections import EarlyStopping


@dataclass
class Patience:
    """Counts validations without an improvement of at least `min_delta`.

    Attributes:
        rule: what to watch and for how long; None = never stop.
        best: best value so far; NaN = none yet.
        stale: validations since then.
    """

    rule: EarlyStopping | None
    best: float = math.nan
    stale: int = 0

    def see(self, value: float) -> None:
        """Judge one validation; a value that is not a number is no improvement."""
        if self.rule is None:
            return
        gain = value - self.best if self.rule.higher_is_better else self.best - value
        if (math.isnan(self.best) and not math.isnan(value)) or (gain > 0 and gain >= self.rule.min_delta):
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    @property
    def exhausted(self) -> bool:
        """Whether the run should stop."""
        return self.rule is not None and self.stale >= self.rule.patience

    @property
    def reason(self) -> str | None:
        """Why the run stopped, in a sentence; None where it did not."""
        if self.rule is None or not self.exhausted:
            return None
        return (f"{self.rule.metric} has not improved on {self.best:.6g} by {self.rule.min_delta:g} or more "
                f"in {self.stale} validations")
