"""The grid of a space: every combination of its knobs' values once, in an order drawn from the seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.spec import space as space_module
from sweeps.spec.space import Scalar, Space

Point = frozenset[tuple[str, type, Any]]
MOST_POINTS = 100_000


def grid_size(space: Space) -> int:
    """Combinations of all knobs, conditions left aside; an upper bound of `grid`.

    Raises:
        ValueError: a knob is a range without a step.
    """
    return math.prod(knob.size() for knob in space.values())


def grid(space: Space, base: Mapping[str, Any], seed: int) -> list[dict[str, Scalar]]:
    """Every combination once, in an order drawn from the seed."""
    found: dict[Point, dict[str, Scalar]] = {}
    for combination in itertools.product(*(knob.values() for knob in space.values())):
        chosen = dict(zip(space, combination, strict=True))
        params = space_module.suggest(space, base, lambda name, _, chosen=chosen: chosen[name])  # type: ignore[misc]
        found.setdefault(_point(params), params)
    points = list(found.values())
    return [points[index] for index in np.random.default_rng(seed).permutation(len(points))]


def unused(grid: Sequence[dict[str, Scalar]], taken: Sequence[Mapping[str, Any]]) -> dict[str, Scalar] | None:
    """The first point of a grid that is not taken; None where all are. A grid may have grown since it was begun."""
    known = set(map(_point, taken))
    return next((params for params in grid if _point(params) not in known), None)


class Walk:
    """A grid that is walked once, as trials take its points.

    Attributes:
        seen: how many trials it has been told of.
    """

    def __init__(self, points: Sequence[dict[str, Scalar]]) -> None:
        self._points, self._taken, self._place = points, set[Point](), 0
        self.seen = 0

    def next(self, taken: Sequence[Mapping[str, Any]]) -> dict[str, Scalar] | None:
        """The first point that is not taken, given those taken since it was asked last; None where all are."""
        self._taken.update(map(_point, taken))
        self.seen += len(taken)
        while self._place < len(self._points) and _point(self._points[self._place]) in self._taken:
            self._place += 1
        return self._points[self._place] if self._place < len(self._points) else None


def _point(params: Mapping[str, Any]) -> Point:
    """What makes two points one: knobs in any order, values of one type, since `choice` tells 0 from false."""
    return frozenset((name, type(value), value) for name, value in params.items())
