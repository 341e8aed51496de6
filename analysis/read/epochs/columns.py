"""Epoch records as columns: ten thousand trainings take a fifth of the memory and are searched without a loop.

A `Block` holds the records of many trainings, `Epochs` those of one of them. Whoever wants a record gets it as it was
written: its keys in their order, null as None, and whole numbers whole where all of a key's are, up to 64 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from analysis.read.epochs.packing import column_of_values, end_to_end, is_mixed, unpacked, whole_numbers
from record.files import as_number
from record.health.columns import ABSENT, Table, column_of, of_columns
from record.text import finite

Record = dict[str, Any]
Numbers = NDArray[np.float64]
AT_ONCE = 200  # records made columns at a time: what was parsed together is still at hand
_NONE = type(None)


@dataclass(frozen=True)
class Block:
    """The epoch records of several trainings, one after the other.

    Attributes:
        shapes: the keys that a record can have, in the record's order; an epoch without a validation has fewer.
        shape: int32 [N], which of them each record has.
        numbers: key -> float64 [N], NaN where it is null or absent.
        kinds: key of `numbers` -> float, int or bool: what it was written as.
        others: key -> object [N]: words and mixed values, lists as JSON in bytes; or bytes [N]: lists alone.
        types: key -> every type that its values had.
        whole: key of `numbers` that holds both kinds -> bool [N]: where it was written as a whole number.
    """

    shapes: tuple[tuple[str, ...], ...]
    shape: NDArray[np.int32]
    numbers: Mapping[str, Numbers]
    kinds: Mapping[str, type]
    others: Mapping[str, NDArray[Any]]
    types: Mapping[str, frozenset[type]]
    whole: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Block:
        """The columns of records."""
        parts = [cls._of(records[start:start + AT_ONCE]) for start in range(0, len(records), AT_ONCE)]
        made = cls._joined(parts) if len(parts) > 1 else next(iter(parts), None)
        return made or cls._of(records)

    @classmethod
    def _of(cls, records: Sequence[Mapping[str, Any]]) -> Block:
        places: dict[tuple[str, ...], list[int]] = {}
        for place, record in enumerate(records):
            places.setdefault(tuple(record), []).append(place)
        shape = np.zeros(len(records), dtype=np.int32)
        parts: dict[str, list[tuple[NDArray[np.intp], tuple[Any, ...]]]] = {}
        for number, (keys, found) in enumerate(places.items()):
            columns, at = zip(*(records[place].values() for place in found), strict=True), np.array(found)
            shape[at] = number
            for key, values in zip(keys, columns, strict=True):
                parts.setdefault(key, []).append((at, values))
        types = {key: frozenset(kind for _, values in found for kind in set(map(type, values)))
                 for key, found in parts.items()}
        made = {key: column_of_values(len(records), found, types[key]) for key, found in parts.items()}
        mixed = [key for key, column in made.items() if column.dtype == np.float64 and is_mixed(types[key])]
        return cls._made(tuple(places), shape, made, types,
                         {key: whole_numbers(len(records), parts[key]) for key in mixed})

    @classmethod
    def _made(cls, shapes: tuple[tuple[str, ...], ...], shape: NDArray[np.int32], columns: Mapping[str, NDArray[Any]],
              types: Mapping[str, frozenset[type]], whole: Mapping[str, NDArray[np.bool_]]) -> Block:
        numbers = {key: column for key, column in columns.items() if column.dtype == np.float64}
        return cls(shapes, shape, numbers, {key: _kind(types[key]) for key in numbers},
                   {key: column for key, column in columns.items() if key not in numbers}, types, whole)

    @classmethod
    def _joined(cls, parts: Sequence[Block]) -> Block | None:
        """Several as one; None where a key's columns are of different kinds."""
        shapes = list(dict.fromkeys(shape for part in parts for shape in part.shapes))
        shape = np.concatenate([np.array([shapes.index(own) for own in part.shapes] or [0], dtype=np.int32)[part.shape]
                                for part in parts])
        types = {key: frozenset().union(*(part.types.get(key, ()) for part in parts))
                 for key in dict.fromkeys(key for part in parts for key in part.types)}
        columns = {key: end_to_end([part._column(key) for part in parts], types[key]) for key in types}
        made = {key: column for key, column in columns.items() if column is not None}
        if len(made) < len(columns):
            return None
        mixed = [key for key, column in made.items() if column.dtype == np.float64 and is_mixed(types[key])]
        return cls._made(tuple(shapes), shape, made, types,
                         {key: np.concatenate([part._whole(key) for part in parts]) for key in mixed})

    def _column(self, key: str) -> NDArray[Any] | int:
        """The column of a key, or how long it would be."""
        return self.numbers.get(key, self.others.get(key, len(self.shape)))

    def _whole(self, key: str) -> NDArray[np.bool_]:
        return self.whole.get(key, np.full(len(self.shape), self.kinds.get(key) is int))

    def record(self, row: int) -> Record:
        """One record as it was written."""
        return {key: self.value(key, row) for key in self.shapes[self.shape.item(row)]}

    @cached_property
    def keys_of(self) -> list[frozenset[str]]:
        """The shapes as sets."""
        return list(map(frozenset, self.shapes))

    def value(self, key: str, row: int) -> Any:
        """What a record has under one of its keys."""
        if key not in self.numbers:
            return unpacked(self.others[key].item(row))
        value: float = self.numbers[key].item(row)
        return None if value != value else self._kind_at(key, row)(value)

    def _kind_at(self, key: str, row: int) -> type:
        return int if key in self.whole and self.whole[key].item(row) else self.kinds[key]

    def values(self, key: str, rows: NDArray[np.int64]) -> list[Any]:
        """What records that have a key have under it."""
        if key not in self.numbers:
            return list(map(unpacked, self.others[key][rows].tolist()))
        values = self.numbers[key][rows].tolist()
        if key in self.whole:
            return [None if value != value else int(value) if whole else value
                    for value, whole in zip(values, self.whole[key][rows].tolist(), strict=True)]
        make = self.kinds[key]
        return [None if value != value else value for value in values] if make is float else \
            [None if value != value else make(value) for value in values]

    def column(self, key: str, rows: NDArray[np.int64]) -> Numbers:
        """The finite values of a key at some rows, NaN where it has none: null, absent, a word, true or false."""
        if key in self.others:
            values = (finite(unpacked(value)) for value in self.others[key][rows].tolist())
            return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        if key not in self.numbers or self.kinds[key] is bool:
            return np.full(len(rows), math.nan)
        found = self.numbers[key][rows]
        return np.where(np.isinf(found), math.nan, found)


def _kind(types: frozenset[type]) -> type:
    plain = types - {_NONE}
    return next(iter(plain)) if len(plain) == 1 else float


class Lookup(Mapping[str, Any]):
    """One record, whose values are looked up as they are asked for: judging ten thousand trainings asks for few."""

    __slots__ = ("_block", "_keys", "_row")

    def __init__(self, block: Block, row: int) -> None:
        self._block, self._row, self._keys = block, row, block.keys_of[block.shape.item(row)]

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return self._block.value(key, self._row)

    def get(self, key: str, default: Any = None) -> Any:
        return self._block.value(key, self._row) if key in self._keys else default

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._block.shapes[self._block.shape.item(self._row)])

    def __len__(self) -> int:
        return len(self._keys)


class Epochs(Sequence[Record]):
    """The epoch records of one training, in order."""

    __slots__ = ("block", "rows")

    def __init__(self, block: Block, rows: NDArray[np.int64]) -> None:
        self.block, self.rows = block, rows

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Epochs:
        """Records as columns; what is already that stays as it is."""
        return records if isinstance(records, Epochs) else cls(Block.of(records), np.arange(len(records)))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Epochs: ...
    def __getitem__(self, place: int | slice) -> Record | Epochs:
        return Epochs(self.block, self.rows[place]) if isinstance(place, slice) else \
            self.block.record(int(self.rows[place]))

    def row(self, place: int) -> Lookup:
        """One record without making all of its values."""
        return Lookup(self.block, int(self.rows[place]))

    def lookups(self) -> Iterator[Lookup]:
        """The records one by one, without making their values."""
        return map(self.row, range(len(self)))

    def __iter__(self) -> Iterator[Record]:
        shapes = self.block.shape[self.rows]
        found: list[Record] = [{} for _ in self.rows]
        for shape in (shape for shape in dict.fromkeys(shapes.tolist()) if self.block.shapes[shape]):
            at = np.flatnonzero(shapes == shape)
            keys, rows = self.block.shapes[shape], self.rows[at]
            columns = (self.block.values(key, rows) for key in keys)
            for place, values in zip(at.tolist(), zip(*columns, strict=True), strict=True):
                found[place] = dict(zip(keys, values, strict=True))
        return iter(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(dict.__eq__, self, other))

    def names(self) -> list[str]:
        """Every key that a record of it has."""
        used = dict.fromkeys(self.block.shape[self.rows].tolist())
        return list(dict.fromkeys(key for shape in used for key in self.block.shapes[shape]))

    def having(self, wanted: Callable[[Collection[str]], bool]) -> Epochs:
        """The records whose keys are wanted."""
        fits = np.array([wanted(shape) for shape in self.block.shapes], dtype=bool)
        kept = fits[self.block.shape[self.rows]]
        return self if kept.all() else Epochs(self.block, self.rows[kept])

    def column(self, key: str) -> Numbers:
        """The finite values of a key, [N]; NaN where a record has none."""
        return self.block.column(key, self.rows)

    def values(self, key: str) -> list[Any]:
        """The values of a key as they were written; None where it is absent."""
        return [self.block.value(key, row) if key in self.block.shapes[self.block.shape[row]] else None
                for row in self.rows.tolist()]

    def last(self, key: str) -> Any:
        """The value of a key in the last record that has it; None where none has."""
        row = next((row for row in self.rows[::-1].tolist() if key in self.block.shapes[self.block.shape[row]]), None)
        return None if row is None else self.block.value(key, row)

    def finite(self, key: str) -> tuple[Numbers, Numbers]:
        """Epochs and values where the value is finite; the record's number where it has no epoch."""
        values, epochs = self.column(key), self.column("epoch")
        known = ~np.isnan(values)
        return np.where(np.isnan(epochs), np.arange(len(values)), epochs)[known], values[known]

    def points(self, key: str) -> list[tuple[float, float]]:
        """`finite` as pairs."""
        epochs, values = self.finite(key)
        whole = map(int, epochs.tolist()) if self.block.kinds.get("epoch", int) is int else epochs.tolist()
        return list(zip(whole, values.tolist(), strict=True))

    def true(self, key: str) -> NDArray[np.bool_]:
        """Where a key is neither null nor absent nor zero, bool [N]."""
        if key in self.block.others:
            return np.array([bool(value) for value in self.values(key)], dtype=bool)
        found = self.block.numbers.get(key)
        if found is None:
            return np.zeros(len(self), dtype=bool)
        values = found[self.rows]
        return (values != 0) & ~np.isnan(values)

    def has(self, key: str) -> NDArray[np.bool_]:
        """Which records have a key, bool [N]."""
        return np.array([key in keys for keys in self.block.keys_of], dtype=bool)[self.block.shape[self.rows]]

    def table(self, facts: Mapping[str, float | str]) -> Table:
        """The records as the health engine reads them."""
        epoch = self.block.numbers["epoch"][self.rows] if "epoch" in self.block.numbers else \
            np.array(list(map(as_number, self.values("epoch"))), dtype=np.float64)
        keys = (key for key in self.names() if key != "epoch" and self._is_judged(key))
        return of_columns(epoch, ((key, self._judged(key)) for key in keys), facts)

    def _is_judged(self, key: str) -> bool:
        """Whether a value of it is no list or mapping."""
        if key in self.block.numbers:
            return True
        return self.block.others[key].dtype == object and any(
            not isinstance(value, (list, dict)) for value in compress(self.values(key), self.has(key)))

    def _judged(self, key: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        if key not in self.block.numbers:
            has = self.has(key).tolist()
            return column_of([value if known else ABSENT for value, known in zip(self.values(key), has, strict=True)])
        column = self.block.numbers[key][self.rows]
        return column, ~np.isfinite(column) & self.has(key)

    def __hash__(self) -> int:
        return id(self)


def apart(block: Block, lengths: Sequence[int]) -> list[Epochs]:
    """The trainings of a block, by how many records each has."""
    rows, ends = np.arange(len(block.shape)), np.cumsum([0, *lengths]).tolist()
    return [Epochs(block, rows[start:end]) for start, end in pairwise(ends)]

