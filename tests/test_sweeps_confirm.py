"""What a confirmation makes of its runs: judged as the sweep judges its trials. No Ray here."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
from fake_training import make_record
from small_sweep import make_sweep

from lam.workload import LAM
from record import documents
from record.errors import BadInput
from record.journal.events import Completed, Result, Suggested
from record.run import RunFolder
from sweeps.commands import confirming, launching
from sweeps.journal import folders
from sweeps.journal.journal import Journal
from sweeps.spec.spec import Sweep

BASE = {"data_dir": "nowhere", "num_epochs": 9}
PATIENT = {"early_stopping": {"metric": "val/objective", "patience": 2}}


def rerun(sweep: Sweep, folder: Path, epochs: int = 9, state: str = "interrupted", **last: Any) -> confirming.Rerun:
    """A run of a confirmation on disk, whose last record has the values `last`."""
    made = confirming.Rerun("t0001", 1000, sweep.base.replace(seed=1000), "a fingerprint")
    run = RunFolder(folder / "confirm" / made.name)
    run.start(made.config.mapping(), {"state": state})
    for epoch in range(1, epochs + 1):
        run.append({**make_record(made.config, epoch), **(last if epoch == epochs else {})})
    return made


def row(sweep: Sweep, folder: Path, made: confirming.Rerun) -> dict[str, Any]:
    found = confirming.summarise(sweep, [made], folder).trials[0].model_dump()
    return found


def test_a_fresh_seed_that_ended_collapsed_is_not_live(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", base=BASE)
    good = rerun(sweep, tmp_path / "good")
    dead = rerun(sweep, tmp_path / "dead", **{"val/collapsed": 1, "val/objective": -0.1})
    assert row(sweep, tmp_path / "good", good)["live"] == 1
    assert row(sweep, tmp_path / "dead", dead)["live"] == 0


def test_a_fresh_seed_outside_the_constraints_is_counted_as_that(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", base=BASE, constraints={"total_tflops": {"least": 100}})
    found = row(sweep, tmp_path, rerun(sweep, tmp_path))
    assert (found["live"], found["outside"]) == (1, 1)
    inside = make_sweep(tmp_path / "i", base=BASE, constraints={"total_tflops": {"most": 1.0}})
    found = row(inside, tmp_path, rerun(inside, tmp_path))
    assert (found["outside"], found["values"]) == (0, [make_record(inside.base, 2)["val/objective"]]), "epoch 2 of 9"


@pytest.mark.parametrize("keep", ["best", "last", "all"])
def test_the_value_is_that_of_the_epoch_a_sweep_ranks_by_whatever_is_kept(tmp_path: Path, keep: str) -> None:
    sweep = make_sweep(tmp_path / "s", base={**BASE, "keep": keep})
    made = rerun(sweep, tmp_path, **{"val/objective": 0.1})
    assert row(sweep, tmp_path, made)["values"] == [make_record(sweep.base, 8)["val/objective"]]


@pytest.mark.parametrize(("base", "state", "done"), [
    ({}, "interrupted", False), (PATIENT, "interrupted", False), (PATIENT, "finished", True)])
def test_a_run_that_may_stop_early_is_done_when_it_has(tmp_path: Path, base: Any, state: str, done: bool) -> None:
    sweep = make_sweep(tmp_path / "s", base={**BASE, **base})
    made = rerun(sweep, tmp_path, epochs=4, state=state)
    assert confirming.is_done(LAM, RunFolder(tmp_path / "confirm" / made.name), made.config) == done
    found = row(sweep, tmp_path, made)
    assert (math.isfinite(found["mean"]), found["live"]) == (done, int(done))


@pytest.mark.parametrize(("state", "last"), [("interrupted", {"val/mse_loss": None}), ("failed", {})])
def test_a_run_that_failed_for_good_is_not_tried_again_and_has_no_value(tmp_path: Path, state: str, last: Any) -> None:
    sweep = make_sweep(tmp_path / "s", base=BASE)
    made = rerun(sweep, tmp_path, epochs=4, state=state, **last)
    assert confirming.is_done(LAM, RunFolder(tmp_path / "confirm" / made.name), made.config)
    found = row(sweep, tmp_path, made)
    assert (math.isnan(found["mean"]), found["live"]) == (True, 0)


def test_a_run_that_was_never_begun_is_missing(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", base=BASE)
    found = row(sweep, tmp_path, confirming.Rerun("t0001", 1000, sweep.base, "a fingerprint"))
    assert (math.isnan(found["mean"]), found["live"]) == (True, 0)


def test_the_fingerprint_is_the_trials_own_though_epochs_and_seed_are_not(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", scheduler={"asha": {"max_tflops": 20.0, "grace_tflops": 2.0, "max_epochs": 100}})
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.append(Suggested(trial="t0001", params={"weight_decay": 0.1, "seed": 4}))
        journal.append(Result(trial="t0001", epoch=10, objective=0.5, verdict="live", metrics={}, tflops=20.0))
        journal.append(Completed(trial="t0001", epoch=10, objective=0.5))
        planned = confirming.plan(sweep, journal.state, 1, 1)[0]
    own = sweep.config({"weight_decay": 0.1, "seed": 4})
    assert (planned.config.num_epochs, own.num_epochs, planned.config.seed) == (10, 100, 1000)
    assert planned.fingerprint == own.fingerprint()


def three_trials(folder: Path) -> Sweep:
    """A sweep folder whose t0002 is best, then t0003, then t0001."""
    sweep = make_sweep(folder / "s", base=BASE)
    folders.write_identity(sweep, folder, "data")
    with contextlib.closing(Journal(folder)) as journal:
        for number, value in ((1, 0.1), (2, 0.9), (3, 0.5)):
            trial = f"t000{number}"
            journal.append(Suggested(trial=trial, params={"weight_decay": number / 10}))
            journal.append(Result(trial=trial, epoch=9, objective=value, verdict="live", metrics={}, tflops=20.0))
            journal.append(Completed(trial=trial, epoch=9, objective=value))
        journal.append(Suggested(trial="t0004", params={"weight_decay": 0.4}))
    return sweep


@pytest.mark.parametrize(("top", "trials", "planned"), [
    (1, (), ["t0002"]), (2, (), ["t0002", "t0003"]), (1, ("t0001",), ["t0002", "t0001"]), (0, ("t0001",), ["t0001"]),
    (1, ("t0002",), ["t0002"])])
def test_a_trial_that_is_named_is_confirmed_beside_the_best(
        tmp_path: Path, top: int, trials: tuple[str, ...], planned: list[str]) -> None:
    sweep = three_trials(tmp_path)
    _, state = folders.open_sweep(tmp_path)
    assert [rerun.trial for rerun in confirming.plan(sweep, state, top, 1, trials)] == planned


def test_a_trial_that_has_no_result_is_not_confirmed(tmp_path: Path) -> None:
    three_trials(tmp_path)
    with pytest.raises(BadInput, match="--trial: got 't0004', which did not end with a result of its own; these did: "
                                       "t0002, t0003, t0001"):
        confirming.confirm(tmp_path, 1, 1, trials=["t0004"])


def test_what_confirm_json_tells_of_is_kept_beside_a_trial_that_is_named(tmp_path: Path) -> None:
    three_trials(tmp_path)
    row = documents.Confirmed(trial="t0003", seeds=[1000], values=[0.5], mean=0.5, live=1)
    documents.write(tmp_path / "confirm.json", documents.Confirmation(objective="val/objective", trials=[row]))
    sweep, state = folders.open_sweep(tmp_path)
    for name in ("t0001", "t0003"):
        run = RunFolder(tmp_path / "confirm" / name / "seed-1000")
        run.start(sweep.config(state.trials[name].params).replace(seed=1000).mapping(), {"state": "finished"})
        run.append(make_record(sweep.base, 9))
    options = launching.Options(prepare=lambda configs: "data")
    found = confirming.confirm(tmp_path, 0, 1, options, trials=["t0001"])
    assert [each.trial for each in found.trials] == ["t0003", "t0001"]
