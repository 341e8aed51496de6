"""Knobs and the space they span: distributions, conditions, steps, corners, points."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.search import points
from sweeps.spec import grid, space
from sweeps.spec.sections import Cmaes
from sweeps.spec.space import Knob

BASE: dict[str, Any] = {"quantizer": "ema", "weight_decay": 0.01}


def knobs(**values: Any) -> dict[str, Knob]:
    return {name: Knob.model_validate(value) for name, value in values.items()}


SPACE = knobs(
    quantizer={"choice": ["ema", "vq"]},
    ema_decay={"uniform": [0.9, 0.99], "when": {"quantizer": "ema"}},
    num_codes={"int": [1, 7], "step": 2},
    weight_decay={"loguniform": [1e-4, 1.0]},
    embed_dim={"logint": [8, 64]},
    grad_clip={"uniform": [0.0, 1.0], "step": 0.25},
)


def test_distributions() -> None:
    found = {name: knob.distribution() for name, knob in SPACE.items()}
    assert found["num_codes"] == optuna.distributions.IntDistribution(1, 7, step=2)
    assert found["weight_decay"] == optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
    assert found["embed_dim"] == optuna.distributions.IntDistribution(8, 64, log=True)
    assert found["grad_clip"] == optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25)


def test_a_stepped_range_ends_at_the_last_value_it_reaches() -> None:
    tenths = Knob.model_validate({"uniform": [0, 0.3], "step": 0.1})
    assert tenths.values() == [0.0, 0.1, 0.2, 0.3]
    assert [tenths.at(quantile) for quantile in (0, 0.3, 0.99, 1)] == [0.0, 0.1, 0.3, 0.3]
    ragged = Knob.model_validate({"int": [64, 200], "step": 64})
    assert ragged.extremes() == [64, 192]
    assert ragged.distribution().high == 192
    assert all(ragged.contains(value) for value in ragged.extremes())
    assert Knob.model_validate({"uniform": [0.1, 0.7], "step": 0.2}).extremes() == [0.1, 0.7]


def test_a_range_of_billions_is_not_listed() -> None:
    knob = Knob.model_validate({"int": [0, 2**31 - 1]})
    assert (knob.size(), knob.at(1.0), knob.at(0.0)) == (2**31, 2**31 - 1, 0)
    assert knob.quantile(2**30) == pytest.approx(0.5)


def test_a_conditional_knob_exists_only_where_its_condition_holds() -> None:
    for params in space.draws(SPACE, BASE, 50):
        assert ("ema_decay" in params) == (params["quantizer"] == "ema")


def test_a_condition_may_name_several_values_or_a_key_of_the_base() -> None:
    knob = Knob.model_validate({"uniform": [0, 1], "when": {"quantizer": ["ema", "vq"]}})
    assert space.is_active(knob, {"quantizer": "vq"})
    assert not space.is_active(knob, {"quantizer": "none"})


@given(st.integers(0, 10_000))
def test_draws_lie_in_the_distribution(count: int) -> None:
    for name, value in list(space.draws(SPACE, BASE, count % 20 + 1))[-1].items():
        assert SPACE[name].distribution()._contains(SPACE[name].distribution().to_internal_repr(value))


def test_corners_are_all_combinations_where_they_are_few() -> None:
    few = knobs(quantizer={"choice": ["ema", "vq"]}, weight_decay={"uniform": [0, 1]})
    assert list(space.corners(few, BASE)) == [
        {"quantizer": a, "weight_decay": b} for a in ("ema", "vq") for b in (0.0, 1.0)]
    many = knobs(**{f"k{number}": {"uniform": [0, 1]} for number in range(30)})
    assert len(list(space.corners(many, BASE))) == space.CORNER_LIMIT


def test_quantiles_and_values_are_inverse() -> None:
    for knob in SPACE.values():
        if knob.choice is None:
            for value in (knob.at(0.0), knob.at(0.31), knob.at(0.77), knob.at(1.0)):
                assert knob.contains(value)
                assert knob.at(knob.quantile(float(value))) == pytest.approx(value)


def test_a_grid_tells_values_of_different_types_apart() -> None:
    values = [0, False, 1, True, 1.0]
    points_ = grid.grid(knobs(grad_clip={"choice": values}), BASE, 0)
    assert sorted(map(repr, (point["grad_clip"] for point in points_))) == sorted(map(repr, values))
    assert grid.unused([{"grad_clip": False}], [{"grad_clip": 0}]) == {"grad_clip": False}


def test_cmaes_moves_towards_the_better_half() -> None:
    space_ = knobs(weight_decay={"uniform": [0.0, 1.0]}, learning_rate={"loguniform": [1e-5, 1e-2]})
    told: list[tuple[dict[str, Any], float]] = []
    for number in range(60):
        params = points.cmaes(space_, BASE, Cmaes(population=6), number, told)
        told.append((params, (params["weight_decay"] - 0.9) ** 2))
    late = [params["weight_decay"] for params, _ in told[-12:]]
    assert abs(sum(late) / len(late) - 0.9) < 0.1
