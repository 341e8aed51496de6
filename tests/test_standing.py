"""The one rule of what stands above what, on hand-made outcomes; and the commands that follow it, on one sweep."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import typer
from build_records import PLANTED, Planted, write_sweep
from msgspec.structs import replace
from small_sweep import make_sweep
from typer.testing import CliRunner

from analysis.judge import gates
from analysis.judge.ranking import rank
from analysis.read.reading import Study, read_study
from analysis.report.report import build_report
from lam.workload import LAM
from record import standing
from record.standing import Outcome
from sweeps.commands import confirming, register
from sweeps.journal import folders

NAN = math.nan
LIVE = Outcome(1, 0.5, "live", mse=0.1)


def winner(rows: dict[str, Outcome], maximise: bool = True, codes: bool = False) -> str:
    places = {name: place for place, name in enumerate(rows)}
    return min(rows, key=lambda name: standing.order(rows[name], places[name], maximise, codes))


@pytest.mark.parametrize(("better", "worse"), [
    (LIVE, Outcome(1, 0.9, "collapsed")),
    (LIVE, Outcome(1, 0.9, "nonfinite")),
    (LIVE, Outcome(1, 0.9, "actions_ignored")),
    (replace(LIVE, violation=9.0), Outcome(1, 0.9, "collapsed")),
    (LIVE, replace(LIVE, objective=0.9, violation=0.1)),
    (replace(LIVE, violation=0.1), replace(LIVE, objective=0.9, violation=math.inf)),
    (LIVE, replace(LIVE, objective=0.4, mse=0.01)),
    (LIVE, replace(LIVE, objective=NAN)),
    (LIVE, replace(LIVE, mse=0.2)),
    (LIVE, replace(LIVE, mse=NAN)),
], ids=["collapsed", "diverged", "actions ignored", "sound before inside", "outside", "not measured", "lower objective",
        "no objective", "higher mse", "no mse"])
def test_what_stands_first(better: Outcome, worse: Outcome) -> None:
    assert winner({"worse": worse, "better": better}) == "better"


def test_of_equal_ones_the_earlier_stands_first_and_a_loss_ranks_downwards() -> None:
    assert winner({"first": LIVE, "second": LIVE}) == "first"
    assert winner({"high": LIVE, "low": replace(LIVE, objective=0.1)}, maximise=False) == "low"


@pytest.mark.parametrize(("objective", "preset", "wins"), [
    ("val/objective", "control_health", "live"), ("val/objective", "dsnr_health", "live"),
    ("val/codebook_health", "mse", "live"), ("val/objective", "mse", "none"),
    ("val/mse_loss", "control_health", "none"),
])
def test_a_model_without_codes_wins_only_by_how_well_it_predicts(objective: str, preset: str, wins: str) -> None:
    """The live one is outside its constraints, which a model that has no codes must not profit from."""
    rows = {"live": replace(LIVE, violation=0.1), "none": Outcome(1, 0.9, "no_codes")}
    assert winner(rows, codes=LAM.needs_codes(objective, {"objective_preset": preset})) == wins


def test_the_judged_epoch_is_the_best_of_the_sound_ones_inside_the_first_of_equals() -> None:
    epochs = [Outcome(1, 0.3, "live"), Outcome(2, 0.9, "actions_ignored"), Outcome(3, 0.8, "live", violation=1.0),
              Outcome(4, 0.3, "live"), Outcome(5, NAN, "live")]
    judged = standing.judged(epochs, True)
    assert judged is epochs[0]
    assert standing.judged(epochs[4:], True) is None


@pytest.mark.parametrize(("last", "verdict"), [
    ("collapsed", "collapsed"), ("nonfinite", "nonfinite"), ("actions_ignored", "live"), ("live", "live")])
def test_a_training_that_ended_dead_is_dead_with_its_best_value(last: str, verdict: str) -> None:
    ended = standing.ended([LIVE, Outcome(2, -0.3, last)], True)
    assert ended == replace(LIVE, verdict=verdict)
    assert standing.ended([], True) is None


def test_a_config_is_the_mean_of_its_seeds_and_no_sounder_than_the_least() -> None:
    values = {"val/dsnr": 1.0}
    seeds = [replace(LIVE, objective=0.6, values=values),
             replace(LIVE, objective=0.4, verdict="nonfinite", values=values),
             replace(LIVE, objective=0.2, mse=0.4, violation=2.0, values={"val/dsnr": 4.0})]
    found = standing.mean_of_seeds(seeds, True)
    assert found is not None
    assert (found.verdict, found.objective, found.mse, found.values) == (
        "nonfinite", pytest.approx(0.4), pytest.approx(0.2), {"val/dsnr": pytest.approx(2.0)})
    outside = standing.mean_of_seeds([seeds[0], seeds[2]], True)
    assert outside is not None
    assert (outside.verdict, outside.violation) == ("live", 2.0)


def test_a_seed_that_diverged_before_its_first_value_takes_the_config_along() -> None:
    found = standing.mean_of_seeds([LIVE, Outcome(1, NAN, "nonfinite")], True)
    assert found is not None
    assert (found.verdict, found.objective) == ("nonfinite", 0.5)
    assert standing.mean_of_seeds([Outcome(1, NAN, "live")], True) is None


def test_the_interval_over_seeds() -> None:
    mean, low, high = standing.t_interval([0.3, 0.4, 0.5])
    assert (round(mean, 4), round(low, 4), round(high, 4)) == (0.4, 0.1516, 0.6484)
    assert [value == value for value in standing.t_interval([0.3])] == [True, False, False]
    assert [value == value for value in standing.t_interval([0.3, NAN])] == [False, False, False]
    assert not any(value == value for value in standing.t_interval([]))


@pytest.mark.parametrize(("keep", "index"), [("best", 1), ("all", 1), ("last", 3)])
def test_the_kept_epoch_is_the_first_best_by_the_objective_that_weights_follow(keep: str, index: int) -> None:
    assert standing.kept([0.1, 0.5, 0.5, NAN], keep) == index
    assert standing.kept([NAN, NAN], keep) == 1


def test_trained_to_its_end_knows_early_stopping() -> None:
    assert [standing.is_trained(9, 9, False), standing.is_trained(4, 9, True), standing.is_trained(4, 9, False)] == [
        True, True, False]


@pytest.mark.parametrize(("objective", "preset", "low", "high", "clears"), [
    ("val/objective", "control_health", 0.01, 0.2, True), ("val/objective", "control_health", -0.01, 0.2, False),
    ("val/objective", "mse", -0.4, -0.2, True), ("val/objective", "mse", -0.6, -0.2, False),
    ("val/mse_loss", "control_health", 0.01, 0.02, True), ("val/mse_loss", "control_health", 0.01, 0.09, False),
    ("val/mae_loss", "control_health", 0.1, 0.2, True), ("val/mae_loss", "control_health", NAN, NAN, False),
    ("val/perplexity_slot", "control_health", 1.2, 2.0, True), ("val/perplexity_slot", "control_health", 0.9, 2, False),
])
def test_an_interval_is_held_against_copying_on_the_scale_of_the_objective(
        objective: str, preset: str, low: float, high: float, clears: bool) -> None:
    assert gates.beats_copying(Study("study", objective, (), (), ()), preset, 0.087, low, high) == clears


def test_status_report_and_confirmation_name_the_same_trial(tmp_path: Path) -> None:
    """t0001 diverges on a further seed, t0003 ends collapsed, t0004 is outside: each has a better number than t0005."""
    def planted(control: float, **more: object) -> Planted:
        return dataclasses.replace(PLANTED["t0001"], control=control, **more)  # type: ignore[arg-type]

    trials = {
        "t0001": planted(0.9, seed=0),
        "t0002": planted(0.9, seed=1, repeats="t0001", nonfinite_from=4, epochs=4, end="failed",
                         reason={"rule": "nonfinite", "sentence": "diverged"}),
        "t0003": planted(0.8, seed=0, collapsed_from=10),
        "t0004": planted(0.7, seed=0, dsnr=5.0),
        "t0005": planted(0.5, seed=0), "t0006": planted(0.4, seed=1, repeats="t0005"),
        "t0007": planted(0.6, seed=0, epochs=6), "t0008": planted(0.2, seed=1, repeats="t0007"),
    }
    limits = {"val/dsnr": {"most": 3.0}}
    folder = write_sweep(tmp_path / "pong", trials, constraints=limits)
    sweep = make_sweep(tmp_path / "spec", seeds=2, constraints=limits, base={
        "data_dir": "nowhere", "num_epochs": 9, "early_stopping": {"metric": "val/objective"}})
    (folder / "sweep.json").unlink()
    folders.write_identity(sweep, folder, "data")
    known, state = folders.open_sweep(folder)
    app = typer.Typer()
    register(app)
    printed = CliRunner().invoke(app, ["sweep", "status", str(folder), "--json"])
    assert json.loads(printed.stdout)["best"] == "t0005"
    assert build_report(folder).verdict.winner == "t0005"
    assert confirming.plan(known, state, 1, 1)[0].trial == "t0005"
    assert [item.label for item in rank(read_study(folder))] == [
        rerun.trial for rerun in confirming.plan(known, state, 9, 1)]
