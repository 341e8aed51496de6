"""DSNR's statuses, control, the objective and the codebook's health, on constructed cases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lam import codebook
from lam.evaluation import control
from lam.evaluation.control import Distances, Scored
from record import health, intervals

N = 40
FILES = np.repeat(np.arange(8), 5)


def distances(value: float, spread: float = 0.0) -> Distances:
    column = value + spread * np.random.default_rng(0).normal(size=N)
    return Distances(column, 4 * column, column / 10, column**2)


def scored(**changes: Any) -> Scored:
    values: dict[str, Any] = {
        "codes": np.random.default_rng(1).integers(12, size=(N, 3)), "files": FILES,
        "targets": np.arange(N), "dims": 16, "true": distances(1), "shuffled": distances(2), "rand": distances(4),
        "flipped": distances(2),
    }
    return Scored(**values | changes)


def status(**changes: Any) -> str:
    K = changes.pop("K", 12)
    return control.metrics(scored(**changes), K, 2)["val/dsnr_status"]


def test_dsnr_is_a_ratio_of_sums() -> None:
    record = control.metrics(scored(), 12, 2)
    assert record["val/dsnr"] == pytest.approx((4 - 1) / (2 - 1))
    assert record["val/dsnr_valid"] == 1
    assert record["val/control"] == pytest.approx(1 - 1 / 4)
    assert record["val/d_rand_mae"] == pytest.approx(1.0)


def test_every_status_is_reached() -> None:
    empty = Distances(*(np.zeros(0) for _ in range(4)))
    nothing = scored(true=empty, rand=empty, flipped=empty, shuffled=empty, files=FILES[:0], targets=FILES[:0],
                     codes=np.zeros((0, 3), int))
    nan = Distances(*(np.full(N, math.nan) for _ in range(4)))
    assert status() == "ok"
    assert status(K=1, rand=None, flipped=None) == "single_code"
    assert control.dsnr_status(np.zeros(0), np.zeros(0), np.zeros(0), 12) == "no_transitions"
    assert control.metrics(nothing, 12, 2)["val/dsnr_status"] == "no_transitions"
    assert status(rand=distances(1), flipped=distances(1)) == "actions_ignored"
    assert status(flipped=distances(0.5)) == "denominator_not_positive"
    assert status(rand=nan) == "nonfinite"


def test_invalid_dsnr_is_nan_and_counts_as_invalid() -> None:
    record = control.metrics(scored(flipped=distances(0.5)), 12, 2)
    assert math.isnan(record["val/dsnr"])
    assert record["val/dsnr_valid"] == 0


def live_record(**changes: Any) -> dict[str, Any]:
    return {"val/mse_loss": 0.1, "val/mse_copy": 0.3, "val/collapsed": 0, "val/dsnr_status": "ok", "val/dsnr": 3.0,
            "val/control": 0.5, "val/control_low": 0.4, "val/codebook_health": 0.8} | changes


def test_objective_of_a_live_run_is_control_times_health() -> None:
    assert codebook.objective(live_record()) == pytest.approx(0.4)
    assert codebook.objective(live_record(), "dsnr_health") == pytest.approx(0.75 * 0.8)
    assert codebook.objective(live_record(), "mse") == pytest.approx(-0.25)
    assert codebook.objective(live_record(**{"val/dsnr_status": "actions_ignored"}), "dsnr_health") < 0


@pytest.mark.parametrize("codes", [np.zeros((N, 3), int), np.tile([1, 5, 9], (N, 1))])
def test_collapse_scores_below_zero_however_large_the_raw_ratio(codes: np.ndarray) -> None:
    state = codebook.codebook_health(codes, 12, 3.0)
    assert state.collapsed
    record = live_record(**{"val/collapsed": int(state.collapsed), "val/dsnr": 1e6, "val/control": 0.99,
                            "val/codebook_health": state.health})
    assert codebook.objective(record) < 0
    assert codebook.verdict(record) == "collapsed"


def test_failures_are_ordered_by_their_error_and_lie_below_every_live_run() -> None:
    bad, worse = (codebook.objective(live_record(**{"val/collapsed": 1, "val/mse_loss": mse})) for mse in (0.1, 0.5))
    assert -1 < worse < bad < 0 < codebook.objective(live_record(**{"val/control": 0.01, "val/control_low": 0.001}))


@pytest.mark.parametrize(("changes", "word"), [
    ({}, "live"), ({"val/control_low": -0.1}, "actions_ignored"),
    ({"val/dsnr_status": "denominator_not_positive"}, "live"),
    ({"val/mse_loss": None}, "nonfinite"), ({"val/collapsed": None}, "no_codes"), ({"val/collapsed": 1}, "collapsed"),
])
def test_verdict(changes: dict[str, Any], word: str) -> None:
    assert codebook.verdict(live_record(**changes)) == word


def test_objective_without_finite_losses_is_nan() -> None:
    assert math.isnan(codebook.objective(live_record(**{"val/mse_loss": math.inf})))


@pytest.mark.parametrize("K", [8, 12, 64, 768])
def test_one_code_is_collapsed_at_every_codebook_size(K: int) -> None:
    state = codebook.codebook_health(np.full((100, 3), K - 1), K, max(2.0, K / 4))
    assert state.collapsed
    assert state.health == 0
    assert state.unique == 1
    assert state.perplexity_slot == pytest.approx(1)


def test_perplexity_of_uniform_codes_is_their_number() -> None:
    state = codebook.codebook_health(np.tile(np.arange(12), 10)[:, None].repeat(3, axis=1), 12, 3.0)
    assert state.perplexity_slot == pytest.approx(12)
    assert state.perplexity_joint == pytest.approx(12)
    assert state.entropy_ratio == pytest.approx(1)
    assert state.health == 1
    assert state.histogram == [30] * 12


@pytest.mark.parametrize(("epochs", "steps", "interval", "asha", "expected"), [
    (30, 100, 100, 2, 12), (20, 100, 50, 1, 8), (9, 100, 50, 1, 4), (10, 10, 500, 1, 5), (1, 100, 100, 1, 1),
    (30, 100, 100, 20, 15),
])
def test_collapse_grace(epochs: int, steps: int, interval: int, asha: int, expected: int) -> None:
    assert health.collapse_grace(epochs, steps, 2 * interval, asha) == expected


def test_interval_of_correlated_samples_is_that_of_the_clusters() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(20), 50)
    values = rng.normal(size=20)[cluster]
    estimate = intervals.mean(values, cluster)
    assert estimate.se == pytest.approx(values[::50].std(ddof=1) / math.sqrt(20))
    assert math.isnan(intervals.mean(np.ones(1), np.zeros(1)).low)


@pytest.mark.parametrize(("videos", "at_least"), [(2, 0.9), (3, 0.9), (4, 0.9), (6, 0.9), (12, 0.92)])
def test_an_interval_holds_the_truth_of_other_videos_as_often_as_it_says(videos: int, at_least: float) -> None:
    """Half of the variance is between videos; by blocks of few videos alone it was .42 to .65."""
    rng = np.random.default_rng(0)
    files = np.repeat(np.arange(videos), 60)
    held = 0
    for _ in range(400):
        found = intervals.mean(rng.normal(size=videos)[files] + rng.normal(size=len(files)), files)
        held += found.low <= 0 <= found.high
    assert held / 400 >= at_least


@pytest.mark.parametrize("signal", [0.0, 5.0])
def test_a_ratio_over_nothing_is_rarely_called_defined(signal: float) -> None:
    rng = np.random.default_rng(0)
    found = [control.dsnr_status(signal + rng.normal(size=N), rng.normal(size=N), FILES, 12) for _ in range(300)]
    assert found.count("ok") / 300 < 0.05
    expected = "denominator_not_positive" if signal else "actions_ignored"
    assert found.count(expected) / 300 > 0.85


def test_one_sample_without_error_does_not_make_the_mean() -> None:
    exact = np.ones(N)
    exact[0] = 0.0
    record = control.metrics(scored(true=Distances(exact, exact, exact, exact)), 12, 2)
    assert record["val/delta_psnr"] < 10 * math.log10(16) + 100 / N + 1


def test_few_videos_are_cut_into_blocks() -> None:
    assert len(np.unique(intervals.clusters(np.zeros(100)))) == 10
    assert len(np.unique(intervals.clusters(np.repeat([0, 1], 50)))) == 10
    assert len(np.unique(intervals.clusters(np.repeat(np.arange(7), 4)))) == 7


def test_action_information_is_1_for_a_code_per_action_and_0_for_unrelated_codes() -> None:
    rng = np.random.default_rng(0)
    actions = rng.integers(4, size=400)
    assert control.action_information(np.stack([actions, actions], 1), actions) == pytest.approx(1, abs=0.02)
    assert control.action_information(rng.integers(6, size=(400, 2)), actions) < 0.05
    assert math.isnan(control.action_information(np.zeros((5, 1), int), np.zeros(5, int)))


def test_pairs_that_agree_by_chance_are_little_information() -> None:
    """Without two sd of chance in the room, a share of 1 may be that of six pairs, and ranks first of all configs."""
    actions = np.repeat(np.random.default_rng(0).integers(3, size=150), 2)
    pairs = np.arange(300) // 2
    six = np.where(np.arange(300) < 12, pairs, 1000 + np.arange(300))
    few, all_of_them = (control.action_information(codes[:, None], actions) for codes in (six, pairs))
    assert few < 0.7 < 0.85 < all_of_them


