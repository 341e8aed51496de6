"""Records as columns: what the engine reads.

A key that a record lacks (an epoch that was not validated) and one whose value is null both have NaN
in the column; `nonfinite` tells them apart: it is true where the key is there and is no finite number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from record.files import as_number
from record.health import expressions
from record.health.expressions import Expression, Operation

Array = NDArray[Any]
Facts = Mapping[str, float | str]


@dataclass(frozen=True)
class Table:
    """N records as columns.

    Attributes:
        epoch: float64 [N], when each record was made; NaN where it is not known.
        columns: key -> float64 [N] (NaN: absent or null) or object [N] for words (None: absent).
        nonfinite: key -> bool [N], present but no finite number; a key without such a record may be left out.
        facts: what holds for the whole run: numbers of its config, `grace_epochs`, `steps_per_epoch`, ...
    """

    epoch: NDArray[np.float64]
    columns: Mapping[str, Array]
    nonfinite: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.epoch)

    def lookup(self, name: str) -> Array:
        """The column or fact of this name; NaN where there is neither."""
        found = self.columns.get(name)
        if found is not None:
            return found
        return np.asarray(self.facts.get(name, math.nan))

    def matching(self, pattern: str) -> list[str]:
        """The numeric columns that fit a pattern such as ``loss_ratio/*``."""
        return [name for name, column in self.columns.items() if column.dtype != object and fnmatchcase(name, pattern)]

    def values(self, expression: Expression) -> Array:
        """An expression at every record: [N]."""
        found = expressions.evaluate(expression, self.lookup, self.matching)
        return found if found.shape == self.epoch.shape else np.broadcast_to(found, self.epoch.shape)

    def numbers(self, expression: Expression) -> NDArray[np.float64]:
        """An expression at every record, [N]; NaN throughout where a record holds a word."""
        return expressions.numbers(self.values(expression)).astype(np.float64)

    def scalar(self, expression: Expression) -> float | str:
        """An expression of facts alone; NaN where one is missing."""
        if isinstance(expression, str):
            return self.facts.get(expression, math.nan)
        if not isinstance(expression, Operation):
            return expression
        found = expressions.evaluate(expression, lambda name: np.asarray(self.facts.get(name, math.nan)), self.matching)
        return float(found)

    def missing(self, expression: Expression) -> list[str]:
        """The names that an expression reads and that are neither column nor fact; of patterns one must fit."""
        absent = [name for name in expressions.names(expression) if name not in self.columns and name not in self.facts]
        patterns = [name for name in absent if "*" in name]
        if any(self.matching(pattern) for pattern in patterns):
            return [name for name in absent if name not in patterns]
        return absent


def of_records(records: Sequence[Mapping[str, Any]], facts: Facts | None = None) -> Table:
    """Columns of epoch records; lists (a histogram) are left out."""
    keys = dict.fromkeys(key for record in records for key, value in record.items()
                         if key != "epoch" and not isinstance(value, (list, dict)))
    epoch = np.array([as_number(record.get("epoch")) for record in records], dtype=np.float64)
    return of_columns(epoch, ((key, column_of([record.get(key, ABSENT) for record in records])) for key in keys), facts)


def of_columns(epoch: NDArray[np.float64], found: Iterable[tuple[str, tuple[Array, NDArray[np.bool_] | None]]],
               facts: Facts | None = None) -> Table:
    """A table of columns, each with where it is present and no finite number; None of words."""
    columns, nonfinite = dict[str, Array](), dict[str, NDArray[np.bool_]]()
    for key, (column, flags) in found:
        columns[key] = column
        if flags is not None and flags.any():
            nonfinite[key] = flags
    return Table(epoch, columns, nonfinite, dict(facts or {}))


def column_of(values: Sequence[Any]) -> tuple[Array, NDArray[np.bool_] | None]:
    """The values of a key as a column, `ABSENT` where a record lacks it, and where it is present and not finite."""
    if any(isinstance(value, str) for value in values):
        return np.array([None if value is ABSENT else value for value in values], dtype=object), None
    column = np.array([as_number(value) for value in values], dtype=np.float64)
    return column, ~np.isfinite(column) & np.array([value is not ABSENT for value in values], dtype=bool)


ABSENT: Any = object()


def series(records: Iterable[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """(epochs, finite values) of one key."""
    pairs = [(as_number(record.get("epoch")), as_number(record.get(key))) for record in records]
    known = [(epoch, value) for epoch, value in pairs if not math.isnan(epoch) and math.isfinite(value)]
    return [epoch for epoch, _ in known], [value for _, value in known]
