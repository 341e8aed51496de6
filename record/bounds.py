"""Limits of metrics: what a sweep asks of its trials, and what a report judges them by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from record.files import as_number
from record.schema import Strict


class Bound(Strict):
    """Limits of one metric; a trial outside them is infeasible."""

    example: ClassVar[str] = "{most: 0.5}"
    least: float | None = Field(None, description="smallest value that is allowed")
    most: float | None = Field(None, description="largest value that is allowed")

    @model_validator(mode="after")
    def _says_something(self) -> Bound:
        if self.least is None and self.most is None:
            raise ValueError("says nothing, expected least or most")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}; swap them")
        return self

    def violation(self, value: float) -> float:
        """How far outside a value lies, 0 inside; infinite for NaN."""
        if value != value:
            return float("inf")
        return max(0.0, (self.least - value) if self.least is not None else 0.0,
                   (value - self.most) if self.most is not None else 0.0)

    @property
    def text(self) -> str:
        """The limits in words."""
        parts = ((word, limit) for word, limit in (("at least", self.least), ("at most", self.most)))
        return " and ".join(f"{word} {limit:g}" for word, limit in parts if limit is not None)


def total_violation(bounds: Mapping[str, Bound], record: Mapping[str, Any]) -> float:
    """How far an epoch record lies outside all bounds, summed: 0 inside, infinite where one is not measured."""
    return sum((bound.violation(as_number(record.get(key))) for key, bound in bounds.items()), 0.0)
