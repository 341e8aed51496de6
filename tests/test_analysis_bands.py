"""Expected ranges by epoch: what they rest on, and how often they hold on recorded curves."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.judge.bands import Curve, expect

DATA = Path(__file__).resolve().parent.parent / "benchmarks" / "data"


def _curves(seed: int, count: int, epochs: int = 12) -> list[list[Curve]]:
    rng = np.random.default_rng(seed)
    return [[{epoch: 2 - 0.5 * math.log(epoch) + rng.normal(0, 0.05) for epoch in range(1, epochs + 1)}]
            for _ in range(count)]


def test_a_range_ahead_follows_the_slope_that_the_recorded_curves_kept() -> None:
    (curve,), *pool = _curves(0, 41)
    start = {epoch: value for epoch, value in curve.items() if epoch <= 6}
    (found,) = expect(start, pool, [12])
    truth = 2 - 0.5 * math.log(12)
    assert found.basis == "curves"
    assert found.holds(truth)
    assert abs(found.expected - truth) < 0.15
    assert found.high - found.low < 0.8


def test_beyond_every_recorded_epoch_the_range_says_that_it_is_extrapolated_and_is_wider() -> None:
    (curve,), *pool = _curves(1, 41)
    near, far = expect(curve, pool, [13, 30])
    assert (near.basis, far.basis) == ("extrapolated", "extrapolated")
    assert far.holds(2 - 0.5 * math.log(30))
    assert far.high - far.low > near.high - near.low


def test_where_too_little_of_a_curve_is_left_nothing_is_told() -> None:
    (curve,), *pool = _curves(2, 20)
    assert [each.epoch for each in expect(curve, pool, [24, 48, 60, 500])] == [24, 48]
    assert expect({}, pool, [1]) == ()
    assert expect(curve, [], [5, 20]) == ()


def test_within_the_curve_the_range_is_as_wide_as_two_seeds_differ() -> None:
    rng = np.random.default_rng(3)
    pool = [[{epoch: level + rng.normal(0, 0.1) for epoch in range(1, 9)} for _ in range(3)]
            for level in rng.uniform(0, 5, 10)]
    (found,) = expect(pool[0][0], pool, [5])
    assert (found.basis, found.expected) == ("seeds", pool[0][0][5])
    assert found.high - found.low == pytest.approx(2 * 1.645 * 0.1 * math.sqrt(2), rel=0.35)


def test_without_two_seeds_of_anything_it_is_as_wide_as_an_epoch_differs_from_those_before() -> None:
    pool = _curves(4, 10)
    (found,) = expect(pool[0][0], pool, [8])
    assert found.basis == "steps"
    assert 0.05 < found.high - found.low < 0.6


def test_losses_are_compared_in_logarithms_and_no_range_leaves_the_metrics_bounds() -> None:
    pool: list[list[Curve]] = [[{epoch: scale / epoch for epoch in range(1, 13)}] for scale in (1e-3, 1.0, 10, 50)]
    (found,) = expect({1: 4.0, 2: 2.0, 3: 4 / 3, 4: 1.0}, pool, [12], log=True)
    assert found.low == pytest.approx(found.high) == pytest.approx(1 / 3)
    (high,) = expect({1: 0.5, 2: 0.8, 3: 0.95}, [[{1: 0.1, 2: 0.4 * k, 3: 0.6, 4: 2.0}] for k in (1, 2, 3)], [4],
                     bounds=(0, 1))
    assert high.high == 1


def test_values_that_are_not_finite_are_left_out() -> None:
    (curve,), *pool = _curves(5, 30)
    holes = {**curve, 4: math.nan, 5: math.inf}
    assert [each.epoch for each in expect(holes, [*pool, [{1: math.nan}]], [4, 6])] == [6]


def _recorded(name: str, key: str) -> list[list[Curve]]:
    """The curves of the living configs of a recorded table, by config."""
    table = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    place, collapsed = table["columns"].index(key), table["columns"].index("val/collapsed")
    found: dict[str, list[Curve]] = {}
    for row in table["rows"]:
        values: list[Any] = [epoch[place] for epoch in row["curve"]]
        if len(values) == table["epochs"] and None not in values and not row["curve"][-1][collapsed]:
            found.setdefault(json.dumps(row["params"]), []).append(dict(enumerate(values, 1)))
    return list(found.values())


@pytest.mark.parametrize("key", ["val/mse_loss", "train/loss", "val/control", "val/perplexity_slot"])
def test_ranges_fitted_on_half_of_the_recorded_curves_hold_for_the_later_epochs_of_the_other_half(key: str) -> None:
    held: list[bool] = []
    for name in ("pong", "breakout"):
        curves = _recorded(name, key)
        for split in range(4):
            order = np.random.default_rng(split).permutation(len(curves))
            fitted, judged = ([curves[each][:1] for each in half] for half in np.array_split(order, 2))
            for (curve,) in judged:
                start = {epoch: value for epoch, value in curve.items() if epoch <= 8}
                found = expect(start, fitted, [10 + 6 * (split % 2)], log=key.endswith("loss"))
                held += [each.holds(curve[each.epoch]) for each in found]
    assert len(held) > 400
    assert np.mean(held) == pytest.approx(0.9, abs=0.05)


def test_ranges_hold_for_another_seed_of_the_same_config() -> None:
    several = [group for name in ("pong", "breakout") for group in _recorded(name, "val/mse_loss") if len(group) > 1]
    held = [found.holds(b[found.epoch]) for group in several for a in group for b in group if a is not b
            for found in expect(a, [other for other in several if other is not group], [4, 9, 16], log=True)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.05)
