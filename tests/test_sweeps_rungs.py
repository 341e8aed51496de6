"""Rung arithmetic: levels, who goes on, and what not-finite and collapsed arrivals do to the others."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.spec import rungs

NEVER = rungs.NEVER


@pytest.mark.parametrize(("grace", "maximum", "eta", "expected"), [
    (1, 9, 3, [1, 3]), (2, 30, 3, [2, 6, 18]), (1, 10, 3, [1, 3, 9]), (5, 5, 2, []), (1, 4, 1.5, [1, 2, 3]),
])
def test_levels(grace: int, maximum: int, eta: float, expected: list[int]) -> None:
    assert rungs.levels(grace, maximum, eta) == expected


@pytest.mark.parametrize(("before", "epoch", "expected"), [
    (0, 1, 0), (1, 2, None), (2, 3, 1), (0, 5, 1), (0, 10, 2), (3, 8, None), (8, 9, 2),
])
def test_a_validation_that_skips_rungs_is_judged_at_the_highest(before: int, epoch: int, expected: int | None) -> None:
    assert rungs.rung_reached([1, 3, 9], before, epoch) == expected


def test_the_first_arrival_goes_on() -> None:
    assert rungs.decide(-5.0, [], 3) == rungs.Cutoff(True, -5.0, 1, 1)


def test_the_best_third_of_six_goes_on() -> None:
    earlier = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert rungs.decide(0.45, earlier, 3) == rungs.Cutoff(True, 0.45, 6, 2)
    assert rungs.decide(0.35, earlier, 3) == rungs.Cutoff(False, 0.4, 6, 2)


def test_collapsed_and_not_finite_arrivals_count_as_arrivals() -> None:
    """Three dead arrivals make room for a second place that two live ones alone would not have."""
    assert not rungs.decide(0.1, [0.5], 3).goes_on
    assert rungs.decide(0.1, [0.5, NEVER, math.nan, NEVER], 3).goes_on
    assert not rungs.decide(math.nan, [0.5, NEVER], 3).goes_on


@pytest.mark.parametrize("value", [NEVER, math.nan])
def test_a_dead_arrival_does_not_take_a_place_that_no_live_one_fills(value: float) -> None:
    assert rungs.decide(value, [0.9, *[NEVER] * 5], 4) == rungs.Cutoff(False, 0.9, 7, 2)


def test_where_every_arrival_is_dead_all_go_on() -> None:
    assert rungs.decide(NEVER, [NEVER, math.nan], 3).goes_on


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60, unique=True), st.floats(1.1, 8))
def test_exactly_the_places_go_on_when_all_have_arrived(values: list[float], eta: float) -> None:
    on = [value for number, value in enumerate(values)
          if rungs.decide(value, values[:number] + values[number + 1:], eta).goes_on]
    assert len(on) == math.ceil(len(values) / eta)
    assert min(on) >= max([value for value in values if value not in on], default=-math.inf)


@given(st.floats(allow_nan=True), st.lists(st.floats(allow_nan=True), max_size=30), st.floats(1.1, 8))
def test_a_better_value_never_fares_worse(value: float, earlier: list[float], eta: float) -> None:
    if rungs.decide(value, earlier, eta).goes_on:
        assert rungs.decide(math.inf, earlier, eta).goes_on


@given(st.integers(1, 20), st.integers(1, 500), st.floats(1.05, 10))
def test_levels_rise_and_stay_below_the_maximum(grace: int, maximum: int, eta: float) -> None:
    found = rungs.levels(grace, maximum, eta)
    assert found == sorted(set(found))
    assert all(grace <= level < maximum for level in found)


@pytest.mark.parametrize(("grace", "maximum", "eta", "expected"), [
    (0.5, 4.5, 3, [0.5, 1.5]), (1.0, 10.0, 3, [1.0, 3.0, 9.0]), (2.0, 2.0, 3, []), (0.1, 0.2, 4, [0.1]),
])
def test_rungs_on_a_continuous_axis(grace: float, maximum: float, eta: float, expected: list[float]) -> None:
    assert rungs.amounts(grace, maximum, eta) == pytest.approx(expected)


def test_brackets_take_turns_in_proportion_to_their_shares() -> None:
    dealt = [rungs.bracket_of(number, 3, 3) for number in range(130)]
    assert [dealt.count(bracket) for bracket in range(3)] == [90, 30, 10]
    assert set(dealt[:10]) == {0, 1}


def test_the_median_rule() -> None:
    others = [[0.125, 0.375], [0.25, 0.5], [0.5, 1.0]]
    assert rungs.median_decides(0.375, others, at_least=3) == (True, 0.375)
    assert rungs.median_decides(0.37, others, at_least=3) == (False, 0.375)
    assert rungs.median_decides(0.0, others, at_least=4)[0], "too few to judge by"
    assert rungs.median_decides(0.0, [[NEVER], [math.nan], [1.0]], at_least=3) == (True, NEVER)
    assert not rungs.median_decides(math.nan, others, at_least=3)[0]
