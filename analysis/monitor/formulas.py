"""Whether the numbers of a log fit together: the formulas that a profile states between keys. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from record.health import expressions
from record.health.columns import Table
from record.health.engine import prepare
from record.health.profile import Identity, Profile


@dataclass(frozen=True)
class Check:
    """One formula against a log.

    Attributes:
        checked: records in which both sides are defined.
        broken: records in which they differ by more than the tolerance.
        worst: epoch, left and right side of the record that differs most; None where none is broken.
    """

    name: str
    formula: str
    checked: int
    broken: int
    worst: tuple[float, float, float] | None = None

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        if not self.checked:
            return f"{self.name}: not checked, the log lacks a side"
        if self.worst is None:
            return f"{self.name}: holds in {self.checked} records"
        place, left, right = self.worst
        return (f"{self.name}: broken in {self.broken} of {self.checked} records; at {place:g} the left side is "
                f"{left:.6g}, the right {right:.6g} ({self.formula})")


def check(table: Table, profile: Profile) -> tuple[Check, ...]:
    """Every identity of the profile."""
    prepared = prepare(table, profile.model_copy(update={"aliases": {}}))  # an alias must not vouch for itself
    return tuple(_check(prepared, identity) for identity in profile.identities)


def _check(table: Table, identity: Identity) -> Check:
    formula = f"{expressions.text(identity.left)} = {expressions.text(identity.right)}"
    left, right = (table.numbers(side) for side in (identity.left, identity.right))
    both = np.isfinite(left) & np.isfinite(right)
    size = np.maximum(np.maximum(np.abs(left), np.abs(right)), 1e-12)
    with np.errstate(invalid="ignore"):
        off = np.where(both, np.abs(left - right) / size, 0.0)
    broken = off > identity.tolerance
    if not broken.any():
        return Check(identity.name, formula, int(both.sum()), 0)
    at = int(off.argmax())
    return Check(identity.name, formula, int(both.sum()), int(broken.sum()),
                 (float(table.epoch[at]), float(left[at]), float(right[at])))
