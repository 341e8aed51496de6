"""The search space: knobs as a person writes them, and as Optuna distributions.

    commitment_weight: {loguniform: [0.02, 2.0]}
    rollout_horizon:   {int: [1, 4], step: 1}
    quantizer:         {choice: [ema, vq]}
    ema_decay:         {uniform: [0.9, 0.999], when: {quantizer: ema}}

A knob with `when` exists only where an earlier knob (or the base config) has the value named there;
elsewhere the base config's value stands and the sampler is not told of the knob.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, StrictInt, model_validator
from pydantic import Strict as StrictType

from record.schema import Strict

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Number = Annotated[float, StrictType()]
Scalar = bool | int | float | str | None
KINDS = ("uniform", "loguniform", "int", "logint", "choice")
CORNER_LIMIT = 1024


class Knob(Strict):
    """One knob: exactly one of the kinds, and optionally `step` and `when`."""

    example: ClassVar[str] = "{uniform: [0, 1]} or {choice: [8, 16]}"
    uniform: tuple[Number, Number] | None = None
    loguniform: tuple[Number, Number] | None = None
    integer: tuple[StrictInt, StrictInt] | None = Field(None, alias="int")
    logint: tuple[StrictInt, StrictInt] | None = None
    choice: list[Scalar] | None = None
    step: Number | None = Field(None, gt=0)
    when: dict[str, Scalar | list[Scalar]] | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Knob:
        given = [kind for kind in KINDS if self._given(kind) is not None]
        if len(given) != 1:
            raise ValueError(f"got {' and '.join(given) or 'no kind'}, expected exactly one of {', '.join(KINDS)}")
        if self.choice is not None:
            self._check_choices(self.choice)
        else:
            self._check_bounds(given[0], *self.bounds)
        return self

    def _given(self, kind: str) -> Any:
        return getattr(self, "integer" if kind == "int" else kind)

    def _check_choices(self, choices: list[Scalar]) -> None:
        if not choices:
            raise ValueError("choice has no values")
        seen: list[tuple[type, Scalar]] = [(type(value), value) for value in choices]
        twice = [value for kind, value in seen if seen.count((kind, value)) > 1]
        if twice:
            raise ValueError(f"choice has {twice[0]!r} twice")
        if self.step is not None:
            raise ValueError("step means nothing beside choice")

    def _check_bounds(self, kind: str, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"{kind}: low {low} is above high {high}; swap them")
        if kind.startswith("log") and low <= 0:
            raise ValueError(f"{kind}: low {low} is not above 0, a logarithmic range needs that")
        if self.step is None:
            return
        if kind.startswith("log"):
            raise ValueError(f"step means nothing beside {kind}")
        if kind == "int" and self.step != int(self.step):
            raise ValueError(f"step {self.step} of an int knob is not whole")
        if self.step > high - low:
            raise ValueError(f"step {self.step} is larger than the range [{low}, {high}]")

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high) of a numeric knob."""
        found = self.uniform or self.loguniform or self.integer or self.logint
        assert found is not None, "a choice has no bounds"
        return found

    def extremes(self) -> list[Scalar]:
        """The values that lie outermost: every choice, or the lowest and the highest that can be reached."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        return list(dict.fromkeys((low, self._nth(self._count() - 1) if self._cell else high)))

    @property
    def _cell(self) -> float | None:
        """Distance between two values of a range that has a last one; None where it is continuous."""
        if self.step is not None:
            return self.step
        return 1.0 if self.integer or self.logint else None

    def _count(self) -> int:
        """How many values a range with cells has."""
        low, high = (Decimal(str(bound)) for bound in self.bounds)
        return int((high - low) // Decimal(str(self._cell))) + 1

    def _nth(self, number: int) -> float | int:
        """A value of a range with cells, in decimal arithmetic, so that 0.1 + 2 * 0.1 is 0.3 and inside."""
        value = Decimal(str(self.bounds[0])) + number * Decimal(str(self._cell))
        return int(value) if self.integer or self.logint else float(value)

    def distribution(self) -> BaseDistribution:
        """The same knob as Optuna sees it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choice is not None:
            return CategoricalDistribution(self.choice)
        low, high = self.bounds[0], self._nth(self._count() - 1) if self._cell else self.bounds[1]
        if self.integer or self.logint:
            return IntDistribution(int(low), int(high), log=self.logint is not None, step=int(self.step or 1))
        return FloatDistribution(low, high, log=self.loguniform is not None, step=self.step)

    def values(self) -> list[Scalar]:
        """Every value, for a grid.

        Raises:
            ValueError: the knob is a range without a step.
        """
        if self.choice is not None:
            return list(self.choice)
        return [self._nth(number) if self._cell else self.bounds[0] for number in range(self.size())]

    def size(self) -> int:
        """How many values it has.

        Raises:
            ValueError: the knob is a range without a step.
        """
        if self.choice is not None:
            return len(self.choice)
        if self._cell is None and self.bounds[0] != self.bounds[1]:
            raise ValueError("is a range without a step, of which a grid has no end")
        return self._count() if self._cell else 1

    def at(self, quantile: float) -> Scalar:
        """The value at a quantile in [0, 1] of the knob's prior: uniform, or uniform in the logarithm."""
        if self.choice is not None:
            return self.choice[min(int(quantile * len(self.choice)), len(self.choice) - 1)]
        if self.step is not None or self.integer:
            return self._nth(min(int(quantile * self._count()), self._count() - 1))
        low, high = self.bounds
        if self.logint:
            low, high = math.log(low - 0.5), math.log(high + 0.5)
            return min(int(self.bounds[1]), max(int(self.bounds[0]), round(math.exp(low + quantile * (high - low)))))
        if self.loguniform:
            return min(high, max(low, math.exp(math.log(low) + quantile * math.log(high / low))))
        return low + quantile * (high - low)

    def quantile(self, value: float) -> float:
        """Where a number lies in [0, 1]; the middle of its cell for a stepped or whole one. 0.5 for a lone value."""
        low, high = self.bounds
        if self.logint or self.loguniform:
            spare = 0.5 if self.logint else 0.0
            low, high, value = math.log(low - spare), math.log(high + spare), math.log(value)
        elif self.integer or self.step:
            step = float(self.step or 1)
            low, high = low - step / 2, low + step * (self._count() - 0.5)
        return (value - low) / (high - low) if high > low else 0.5

    def contains(self, value: Any) -> bool:
        """Whether the knob can take this value."""
        if self.choice is not None:
            return any(type(value) is type(choice) and value == choice for choice in self.choice)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        low, high = self.bounds
        step = self.step or (1 if self.integer or self.logint else None)
        aligned = step is None or abs((value - low) / step - round((value - low) / step)) < 1e-9
        return low <= value <= high and aligned

    def draw(self, generator: random.Random) -> Scalar:
        """A value drawn at random, for checks; the search uses `distribution`."""
        if self.choice is not None:
            return generator.choice(self.choice)
        if self._cell:
            return self._nth(generator.randrange(self._count()))
        return self.at(generator.random())


Space = Mapping[str, Knob]


def suggest(space: Space, base: Mapping[str, Any], pick: Callable[[str, Knob], Scalar]) -> dict[str, Scalar]:
    """Values of the knobs that exist, in the order of the space; `pick(name, knob)` chooses each."""
    params: dict[str, Scalar] = {}
    for name, knob in space.items():
        if is_active(knob, {**base, **params}):
            params[name] = pick(name, knob)
    return params


def is_active(knob: Knob, values: Mapping[str, Any]) -> bool:
    """Whether the knob exists beside these values."""
    return all(
        values.get(name) in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in (knob.when or {}).items()
    )


def corners(space: Space, base: Mapping[str, Any]) -> Iterator[dict[str, Scalar]]:
    """Every combination of extremes, or CORNER_LIMIT random ones where there are more of them."""
    extremes = {name: knob.extremes() for name, knob in space.items()}
    if math.prod(len(values) for values in extremes.values()) <= CORNER_LIMIT:
        combinations: Any = itertools.product(*extremes.values())
    else:
        generator = random.Random(0)
        combinations = ([generator.choice(values) for values in extremes.values()] for _ in range(CORNER_LIMIT))
    for combination in combinations:
        yield suggest(space, base, _lookup(dict(zip(extremes, combination, strict=True))))


def _lookup(chosen: dict[str, Scalar]) -> Callable[[str, Knob], Scalar]:
    return lambda name, _: chosen[name]


def draws(space: Space, base: Mapping[str, Any], count: int) -> Iterator[dict[str, Scalar]]:
    """`count` random points of the space, the same ones each time."""
    generator = random.Random(0)
    for _ in range(count):
        yield suggest(space, base, lambda _, knob: knob.draw(generator))
