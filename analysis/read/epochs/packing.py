"""Values as columns: numbers as numbers, lists of numbers as JSON in one piece, a word once however often it stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

# What records of one shape have under a key: at which rows, and the values.
Parts = Sequence[tuple[NDArray[np.intp], tuple[Any, ...]]]
EXACT = 2**53  # beyond it a float holds no integer exactly
_NONE = type(None)


def column_of_values(size: int, parts: Parts, types: frozenset[type]) -> NDArray[Any]:
    """float64 [size] where all values are numbers, bytes [size] where all are lists of them, else object [size]."""
    plain = types - {_NONE}
    if plain <= {float, int} or plain == {bool}:
        column = np.full(size, math.nan)
        try:
            for at, values in parts:
                column[at] = np.array(values, dtype=np.float64)
            if int not in plain or not (np.abs(column) >= EXACT).any():
                return column
        except OverflowError:  # an integer that no float holds
            pass
    objects, known = np.full(size, None, dtype=object), dict[Any, Any]()
    for at, values in parts:
        for place, value in zip(at.tolist(), map(_packed, values) if list in plain else values, strict=True):
            # a word once, however often it stands there: beside what is thrown away each would hold its memory
            objects[place] = known.setdefault(value, value) if type(value) is str else value
    return _in_one_piece(objects) if plain == {list} else objects


def end_to_end(parts: Sequence[NDArray[Any] | int], types: frozenset[type]) -> NDArray[Any] | None:
    """Columns one after the other, undefined where a number says how long one would be; None where they differ in kind.

    Args:
        types: what is in all of them.
    """
    kinds = {part.dtype.kind for part in parts if not isinstance(part, int)}
    plain = types - {_NONE}
    if len(kinds) > 1 or (kinds == {"f"} and not (plain <= {float, int} or plain == {bool})):
        return None
    kind = next(iter(kinds))
    whole = [np.full(part, _UNDEFINED[kind]) if isinstance(part, int) else part for part in parts]
    if kind == "O":
        known: dict[Any, Any] = {}
        for part in whole:
            for place, value in enumerate(part.tolist()):
                part[place] = known.setdefault(value, value) if type(value) is str else value
    return np.concatenate(whole)


_UNDEFINED = {"f": np.float64(math.nan), "S": np.bytes_(b""), "O": None}


def is_mixed(types: frozenset[type]) -> bool:
    """Whether some of the values are whole numbers and some are not."""
    return types - {_NONE} == {int, float}


def _in_one_piece(objects: NDArray[Any]) -> NDArray[Any]:
    """Lists as JSON in one array, null as no bytes; as they are where one of them is no plain JSON, or far longer."""
    values = [value or b"" for value in objects.tolist()]
    if not all(type(value) is bytes for value in values) or \
            max(map(len, values)) * len(values) > 2 * sum(map(len, values)):
        return objects
    return np.array(values, dtype=np.bytes_)


def whole_numbers(size: int, parts: Parts) -> NDArray[np.bool_]:
    """Where a whole number was written, bool [size]."""
    found = np.zeros(size, dtype=np.bool_)
    for at, values in parts:
        found[at] = [type(value) is int for value in values]
    return found


def unpacked(value: Any) -> Any:
    """What stands in a column of objects or bytes, as it was written."""
    return (orjson.loads(value) if value else None) if type(value) is bytes else value


def _packed(value: Any) -> Any:
    """A list of plain numbers as JSON: a histogram takes a tenth of the memory."""
    if type(value) is list and set(map(type, value)) <= {int, float, _NONE}:
        try:
            return orjson.dumps(value)
        except orjson.JSONEncodeError:  # an integer beyond 64 bits
            return value
    return value
