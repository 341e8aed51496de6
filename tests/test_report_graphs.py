"""Pictures of a search: each is decided by a number, which a wrong picture would get wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from build_records import PLANTED, Planted, write_sweep

from analysis.judge.ranking import rank
from analysis.read.reading import read_study
from analysis.report.graphs.codes import CodeUse, code_picture, shares, uses_of
from analysis.report.graphs.coordinates import pair_charts, parallel_chart, scale_of
from analysis.report.graphs.curves import curves_of
from analysis.report.graphs.fronts import front_chart, fronts_of, non_dominated, regret_chart, regret_of
from analysis.report.graphs.rungs import MOST_LANES, Rung, rung_chart, rungs_of


def cut(epochs: int) -> Planted:
    """A trial that a rung ended."""
    return Planted(control=0.1, epochs=epochs, end="stopped", reason={
        "rule": "asha", "sentence": "cut", "rung": epochs, "value": 0.1, "cutoff": 0.2, "peers": 3, "epochs_saved": 1})


def test_the_rungs_count_who_reached_them_and_who_ended_there(tmp_path: Path) -> None:
    trials = {"t0001": cut(1), "t0002": cut(3), "t0003": cut(3), "t0004": Planted(control=0.5),
              "t0005": PLANTED["t0004"]}
    study = read_study(write_sweep(tmp_path / "s", trials))
    standings = rank(study)
    found = rungs_of(study, standings)
    assert found is not None
    assert (found.unit, found.budget) == ("epoch", 10)
    assert found.rungs == (Rung(1, 5, 4), Rung(3, 3, 1))  # t0005 failed at epoch 2, at no rung
    assert [(lane.label, lane.end, lane.rule) for lane in found.lanes] == [
        (item.label, item.last_epoch, {"t0004": "", "t0005": "nonfinite"}.get(item.label, "asha"))
        for item in standings]
    picture = rung_chart(found, "t0004")
    assert ">4 of 5<" in picture
    assert ">1 of 3<" in picture
    assert picture.count('class="stop"') == 4


def test_who_ended_at_a_rung_by_anything_else_did_not_go_on(tmp_path: Path) -> None:
    collapsed = {"rule": "collapse", "sentence": "collapsed"}
    trials = {"t0001": cut(3), "t0002": replace(cut(3), reason=collapsed), "t0003": Planted(),
              "t0004": Planted(epochs=3, end="failed", reason={"rule": "exception", "sentence": "raised"}),
              "t0005": Planted(epochs=3, end="running")}
    found = rungs_of(read_study(write_sweep(tmp_path / "s", trials)), ())
    assert found is not None
    assert found.rungs == (Rung(3, 5, 1, waiting=1),)


def test_of_many_lanes_the_first_and_the_last_are_drawn(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {"t0000": Planted(epochs=1), **{
        f"t{n:04d}": replace(cut(1), control=n / 100) for n in range(1, MOST_LANES + 20)}}))
    standings = rank(study)
    found = rungs_of(study, standings)
    assert found is not None
    assert (len(found.lanes), found.others) == (MOST_LANES, 20)
    assert [lane.label for lane in found.lanes[:20]] == [item.label for item in standings[:20]]
    assert found.rungs[0].reached == len(standings)


def test_a_sweep_without_rungs_has_no_diagram(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {"t0001": Planted()}))
    assert rungs_of(study, rank(study)) is None


@pytest.mark.parametrize(("x_up", "first"), [
    (False, [True, False, True, True, False]), (True, [False, False, False, True, True])])
def test_the_front_is_what_no_other_beats_in_both(x_up: bool, first: list[bool]) -> None:
    points = [(1.0, 0.2), (2.0, 0.1), (2.0, 0.5), (3.0, 0.9), (5.0, 0.3)]
    assert non_dominated(points, x_up, True) == first


def test_equal_points_stand_on_the_front_together() -> None:
    assert non_dominated([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0)], False, True) == [True, True, False]
    assert non_dominated([(1.0, 3.0), (2.0, 1.0), (3.0, 2.0)], False, False) == [True, True, False]


def test_value_against_cost_and_against_the_second_objective(tmp_path: Path) -> None:
    trials = {"t0001": Planted(control=0.5, mse=0.03), "t0002": Planted(control=0.3, mse=0.01),
              "t0003": Planted(control=0.4, mse=0.04, epochs=4), "t0004": Planted(control=0.2, mse=0.05)}
    study = read_study(write_sweep(tmp_path / "s", trials, objective_key=["val/objective", "val/mse_loss"]))
    cost, second = fronts_of(study, rank(study))
    assert (cost.x, cost.x_up, second.x, second.x_up) == ("TFLOP", False, "val/mse_loss", False)
    assert {spot.label for spot in cost.spots if spot.first} == {"t0001", "t0003"}
    assert {spot.label for spot in second.spots if spot.first} == {"t0001", "t0002"}
    assert 'class="front"' in front_chart(second, "t0001")


def test_regret_falls_to_nothing_where_the_best_was_found(tmp_path: Path) -> None:
    controls = [0.1, 0.3, 0.2, 0.6, 0.5, 0.4, 0.3, 0.2]
    study = read_study(write_sweep(tmp_path / "s", {
        f"t{n:04d}": Planted(control=control) for n, control in enumerate(controls, 1)}))
    found = regret_of(study, rank(study))
    assert found is not None
    assert found.unit == "TFLOP"
    assert [x for x, _ in found.steps] == pytest.approx([5.0 * n for n in range(1, 9)])  # each trial costs 5
    assert [y for _, y in found.steps] == pytest.approx([0.5, 0.3, 0.3, 0, 0, 0, 0, 0])
    assert found.chance[-1][1:] == (0, 0, 0)
    assert "random order" in regret_chart(found)


def test_a_config_of_several_seeds_costs_all_of_them_and_stands_at_their_mean(tmp_path: Path) -> None:
    trials = {}
    for n in range(1, 9):
        trials[f"t{n:04d}"] = Planted(control=n / 20, mse=0.08, seed=1)
        trials[f"t{n + 8:04d}"] = Planted(control=n / 20, mse=0.04, seed=2, repeats=f"t{n:04d}")
    study = read_study(write_sweep(tmp_path / "s", trials, objective_key=["val/objective", "val/mse_loss"]))
    standings = rank(study)
    regret = regret_of(study, standings)
    assert regret is not None
    assert regret.steps[-1][0] == pytest.approx(16 * 5.0)  # each training costs 5
    _, second = fronts_of(study, standings)
    assert {round(spot.x, 6) for spot in second.spots} == {0.06}


def test_too_few_trials_have_no_regret(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {"t0001": Planted()}))
    assert regret_of(study, rank(study)) is None


def test_scales_hold_numbers_names_and_powers_of_ten() -> None:
    names, wide, narrow = scale_of("q", ["ema", "vq", "ema"]), scale_of("lr", [1e-4, 1e-2]), scale_of("w", [1, 3])
    assert names is not None
    assert wide is not None
    assert narrow is not None
    assert (names("ema"), names("vq")) == (0, 1)
    assert wide(1e-3) == pytest.approx(0.5)
    assert narrow(2) == pytest.approx(0.5)
    assert scale_of("same", [1, 1]) is None


def test_each_trial_is_one_line_over_its_settings_and_the_winner_lies_on_top(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {f"t{n:04d}": Planted(control=n / 10, params={
        "embed_dim": 64 * n, "commitment_weight": 0.1 * n, "quantizer": "ema" if n % 2 else "vq"})
        for n in range(1, 5)}))
    standings = rank(study)
    picture = str(parallel_chart(study.knobs, standings, "t0004", up=True))
    assert re.findall(r'data-label="(t\d+)"', picture) == ["t0001", "t0002", "t0003", "t0004"]
    assert 'class="ray q4 winner" data-label="t0004"' in picture
    assert 'class="ray q0" data-label="t0001"' in picture
    assert 'class="ray q4" data-label="t0001"' in parallel_chart(study.knobs, standings, None, up=False)
    assert [title for title, _ in pair_charts(study.knobs, standings, "t0004", up=True)] == [
        "embed_dim and commitment_weight", "embed_dim and quantizer", "commitment_weight and quantizer"]


def test_one_knob_is_no_picture_of_many(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {f"t{n:04d}": Planted(control=n / 10, params={"embed_dim": 64 * n})
                                                    for n in range(1, 4)}))
    assert not parallel_chart(study.knobs, rank(study), None, up=True)
    assert pair_charts(study.knobs, rank(study), None, up=True) == []


def test_use_over_time_is_relative_to_even_use() -> None:
    use = CodeUse("run", "live", (1, 2), ((10, 0, 0, 0), (5, 5, 5, 5)))
    assert shares(use).tolist() == [[4, 1], [0, 1], [0, 1], [0, 1]]
    assert code_picture(use).startswith("data:image/png;base64,")


def test_of_a_thousand_codes_neighbours_are_pooled_and_none_is_lost() -> None:
    counts = tuple(range(1000))
    pooled = shares(CodeUse("run", "live", (1, 2), (counts, counts)))
    assert pooled.shape == (125, 2)
    assert np.isclose(pooled.sum() * 8, 2 * 1000)


def test_pooled_codes_are_as_bright_as_their_own_mean() -> None:
    assert shares(CodeUse("run", "live", (1, 2), ((1,) * 129, (1,) * 129))) == pytest.approx(1.0)


def test_histograms_over_time_keep_the_last_validation(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {"t0001": Planted()}))
    (use,) = uses_of(study.trials, study.objective)
    assert use.epochs == tuple(range(1, 11))
    assert sum(count > 0 for count in use.counts[-1]) == 10
    assert uses_of([replace(study.trials[0], records=study.trials[0].records[:1])], study.objective) == ()


def test_eight_trainings_have_a_band_with_the_median(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", {f"t{n:04d}": Planted(control=n / 10) for n in range(1, 9)}))
    objective = curves_of(study.trials, study)[0]
    epoch, low, middle, high = objective.band[-1]
    assert (epoch, middle) == (10, pytest.approx(0.45))
    assert (low, high) == (pytest.approx(0.135), pytest.approx(0.765))
    assert curves_of(study.trials[:7], study)[0].band == ()
