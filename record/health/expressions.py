"""Arithmetic on metrics, as data: a key, a number, or one operation on a list of them.

    train/loss
    {divide: [train/grad_norm_std, train/grad_norm_mean]}
    {max: [2, {multiply: [0.125, num_embeddings]}]}
    {max: ["loss_ratio/*"]}                            every key that fits the pattern

A value that is missing or not defined makes the result NaN, a division by 0 too. `max` and `min` over a
pattern leave NaN out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Operation:
    """One operation and its operands."""

    name: str
    operands: tuple[Expression, ...]


Expression = float | str | Operation

_FOLDS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
}
_EXTREMES: dict[str, Callable[..., Array]] = {"max": np.fmax, "min": np.fmin}
_MAPS: dict[str, Callable[[Array], Array]] = {"exp": np.exp, "negate": np.negative, "absolute": np.abs}
OPERATIONS = (*_FOLDS, *_EXTREMES, *_MAPS)


def parse(value: Any) -> Expression:
    """An expression from its YAML form.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, Operation | str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, dict) or len(value) != 1:
        raise ValueError(f"got {value!r}, expected a metric, a number or one operation such as {{divide: [a, b]}}")
    name, operands = next(iter(value.items()))
    if name not in OPERATIONS or not isinstance(operands, list) or not operands:
        raise ValueError(f"got {value!r}, expected one of {', '.join(OPERATIONS)} with a list")
    if name in _MAPS and len(operands) != 1:
        raise ValueError(f"{name} takes one operand, got {len(operands)}")
    return Operation(name, tuple(parse(operand) for operand in operands))


@lru_cache(maxsize=4096)
def names(expression: Expression) -> tuple[str, ...]:
    """The keys and patterns that an expression reads, in order."""
    if isinstance(expression, Operation):
        return tuple(dict.fromkeys(name for operand in expression.operands for name in names(operand)))
    return (expression,) if isinstance(expression, str) else ()


def evaluate(expression: Expression, lookup: Callable[[str], Array], matching: Callable[[str], Iterable[str]]) -> Array:
    """The value at every record.

    Args:
        lookup: the column of a key.
        matching: the keys that fit a pattern.
    """
    if isinstance(expression, str):
        return lookup(expression)
    if not isinstance(expression, Operation):
        return np.asarray(expression, dtype=np.float64)
    parts = [numbers(evaluate(operand, lookup, matching)) for operand in _spread(expression, matching)]
    with np.errstate(all="ignore"):
        if expression.name in _MAPS:
            return _MAPS[expression.name](parts[0])
        fold = _FOLDS.get(expression.name) or _EXTREMES[expression.name]
        result = parts[0]
        for part in parts[1:]:
            result = fold(result, part)
    if expression.name == "divide":
        result = np.where(np.isinf(result), np.nan, result)
    return result


def numbers(values: Array) -> Array:
    """The values, NaN where they are words, with which nothing can be computed."""
    return np.full(values.shape, np.nan) if values.dtype.kind in "OU" else values


def _spread(operation: Operation, matching: Callable[[str], Iterable[str]]) -> list[Expression]:
    """The operands with each pattern replaced by the keys that fit it; NaN where none does."""
    operands: list[Expression] = []
    for operand in operation.operands:
        if isinstance(operand, str) and "*" in operand:
            operands.extend(list(matching(operand)) or [float("nan")])
        else:
            operands.append(operand)
    return operands


def text(expression: Expression) -> str:
    """The expression as a person reads it."""
    if isinstance(expression, str):
        return expression
    if not isinstance(expression, Operation):
        return f"{expression:g}"
    parts = [f"({text(part)})" if isinstance(part, Operation) else text(part) for part in expression.operands]
    signs = {"add": " + ", "subtract": " - ", "multiply": " * ", "divide": " / "}
    if expression.name in signs:
        return signs[expression.name].join(parts)
    return f"{expression.name}({', '.join(map(text, expression.operands))})"
