"""Whole sweeps on a real Ray with a fake training: states and reasons, faults, signals, resuming, confirming."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweep_driver import calls, left_over, options, run, spec, start, state_of, until, wait_for

from record import yamlio
from record.errors import AnswerIsNo, BadInput
from record.journal.events import Completed, Result, Suggested, SweepStarted
from sweeps.commands.confirming import confirm
from sweeps.commands.launching import launch
from sweeps.journal import folders
from sweeps.journal.journal import Journal, read
from sweeps.journal.state import SweepState
from sweeps.search import searcher
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep

pytestmark = pytest.mark.slow


def test_a_sweep_with_every_kind_of_trial(tmp_path: Path) -> None:
    """Diverging, raising, dying and collapsing trials end as what they are; the rest of the sweep goes on."""
    path = spec(tmp_path, search="random", seed=3, budget={"trials": 18})
    out, err = run(f"launch({str(path)!r}, options=options)")
    folder = tmp_path / "runs" / "demo"
    state = state_of(folder)
    assert err == ""
    assert "ray" not in out.lower()
    assert len(state.trials) == 18
    assert state.unfinished == []
    kinds = {trial.params["seed"] % 10 for trial in state.trials.values()}
    assert {6, 7, 8, 9} <= kinds
    for trial in state.trials.values():
        check_ending(trial.params["seed"] % 10, trial)
    told = Counter(row.state.name for row in searcher.study_of(folders.open_sweep(folder)[0].spec, state).trials)
    assert told["RUNNING"] == 0
    assert sum(told.values()) == 18
    check_files(folder, state)
    check_best(out, state)


def check_ending(kind: int, trial: Any) -> None:
    rule = trial.rule
    assert trial.status == {True: "completed"}.get(not rule, trial.status)
    epochs = [result.epoch for result in trial.results]
    assert epochs == list(range(1, len(epochs) + 1)), "contiguous, none twice"
    if kind == 7 and len(epochs) > 1:
        assert (trial.status, rule, trial.epoch) == ("failed", "nonfinite", 2)
    if kind == 8 and rule != "asha":
        assert (trial.status, trial.reason.sentence) == (
            "failed", "training raised RuntimeError: the encoder exploded")
    if kind == 9:
        assert rule in ("asha", "codebook_collapsed")
    if rule == "asha":
        assert trial.reason.epochs_saved == 9 - trial.epoch
        assert trial.reason.rung == trial.epoch
        assert f"of {trial.reason.peers} trials at rung {trial.reason.rung}" in trial.reason.sentence


def check_files(folder: Path, state: SweepState) -> None:
    raised = [trial for trial in state.trials.values() if trial.rule == "raised"]
    for trial in raised:
        output = (folder / "trials" / trial.id / "output.log").read_text()
        assert "about to raise" in output
        assert "RuntimeError: the encoder exploded" in output
    for trial in state.with_status("completed"):
        assert json.loads((folder / "trials" / trial.id / "run.json").read_text())["state"] == "finished"
    workers = [call["pid"] for trial in state.trials for call in calls(folder, trial) if call["what"] == "open"]
    assert len(set(workers)) < len(workers), "workers are used again"
    for trial in state.with_status("stopped"):
        assert [call["what"] for call in calls(folder, trial.id)][-1] == "close"


def check_best(out: str, state: SweepState) -> None:
    completed = [trial for trial in state.with_status("completed", "stopped") if trial.best(True)]
    best = max((trial for trial in completed if trial.verdict == "live"), key=lambda trial: trial.best(True).objective)
    assert f"best: {best.id} with val/objective {best.best(True).objective:.4g}" in out


@pytest.mark.nightly
def test_workers_start_together_and_are_used_again(tmp_path: Path, ray_address: str) -> None:
    """Tune alone would ask for a trial only when the one before has its worker."""
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler="none", concurrency=3,
                resources={"cpu": 0.5}, base={"data_dir": "nowhere", "num_epochs": 1}, budget={"trials": 9})
    launch(path, options=options(ray_address))
    folder = tmp_path / "runs" / "demo"
    told = [event.event for event in read(folder) if event.event != "machine_joined"]
    assert told[:5] == ["sweep_started", *["suggested"] * 3, "started"]
    workers = [call["pid"] for trial in state_of(folder).trials for call in calls(folder, trial)]
    assert len(workers) == 18
    assert len(set(workers)) <= 3


@pytest.mark.nightly
def test_a_killed_driver_loses_nothing_and_the_same_command_goes_on(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler="none",
                base={"data_dir": "nowhere", "num_epochs": 6}, budget={"trials": 6})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=0.1)
    wait_for(folder, 9, process)
    process.kill()
    process.communicate()
    until(lambda: not left_over(process.pid))
    before = state_of(folder)
    launch(path, options=options(ray_address))
    after = state_of(folder)
    assert [trial.params for trial in list(after.trials.values())[: len(before.trials)]] == [
        trial.params for trial in before.trials.values()]
    assert len(after.with_status("completed")) == 6
    for trial in after.trials.values():
        assert [result.epoch for result in trial.results] == [1, 2, 3, 4, 5, 6]
        recorded = (folder / "trials" / trial.id / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in recorded] == [1, 2, 3, 4, 5, 6]
    terminal = io.StringIO()
    launch(path, options=options(ray_address), console=Console(file=terminal))
    assert "6 trials: 6 completed" in terminal.getvalue(), "a finished sweep is only summed up again"


@pytest.mark.long
def test_ctrl_c_ends_the_sweep_resumably(tmp_path: Path) -> None:
    """The terminal sends it to the whole process group, workers included."""
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler="none",
                base={"data_dir": "nowhere", "num_epochs": 18_000}, budget={"trials": 4})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=0.1)
    wait_for(folder, 4, process)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=180)  # trained to the end, the trials would take an hour
    assert process.returncode == 130
    assert "resume with: lam again" in err
    assert left_over(process.pid) == []
    state = state_of(folder)
    assert {trial.status for trial in state.trials.values()} == {"interrupted"}
    assert list(read(folder))[-1].event == "sweep_interrupted"


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [pytest.param(0.6, marks=pytest.mark.nightly), 2.5])
def test_sigterm_while_the_workers_start_ends_resumably(tmp_path: Path, seconds: float) -> None:
    """Ray answers it in its own way while it starts."""
    path = spec(tmp_path, budget={"trials": 2})
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=30)
    until((tmp_path / "runs" / "demo" / "ray.log").exists, process)
    time.sleep(seconds)
    process.terminate()
    _, err = process.communicate(timeout=180)
    assert process.returncode == 143
    assert "resume with: lam again" in err
    assert left_over(process.pid) == []


@pytest.mark.nightly
@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.nightly), signal.SIGINT])
def test_a_signal_while_the_workers_are_sent_home_changes_nothing(tmp_path: Path, number: signal.Signals) -> None:
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler="none",
                base={"data_dir": "nowhere", "num_epochs": 1}, budget={"trials": 1})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)")
    until(lambda: folder.exists() and "sweep_finished" in [event.event for event in read(folder)], process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    assert "1 trial: 1 completed" in out
    assert left_over(process.pid) == []


def test_resources_that_no_node_has(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, resources={"cpu": 1, "gpu": 64})
    with pytest.raises(BadInput, match="resources: got cpu 1 and gpu 64 for one trial; the largest node has"):
        launch(path, options=options(ray_address))
    assert list(read(tmp_path / "runs" / "demo")) == []


def finished_sweep(sweep: Sweep, folder: Path) -> Path:
    """A sweep of two trials that have ended, written without running them."""
    folders.write_identity(sweep, folder, "fake-data")
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        for trial, decay, value in (("t0001", 0.5, 0.4), ("t0002", 0.1, 0.8)):
            journal.append(Suggested(trial=trial, params={"weight_decay": decay}))
            journal.append(Result(trial=trial, epoch=3, objective=value, verdict="live", metrics={}, tflops=1.0))
            journal.append(Completed(trial=trial, epoch=3, objective=value))
    return folder


@pytest.mark.nightly
def test_confirm_trains_the_best_again_and_only_what_is_missing(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler={"asha": {"max_epochs": 3}})
    folder = finished_sweep(load(path), tmp_path / "runs" / "demo")
    confirm(folder, 2, 2, options(ray_address))
    found = json.loads((folder / "confirm.json").read_text())
    assert [row["seeds"] for row in found["trials"]] == [[1000, 1001], [1000, 1001]]
    assert found["trials"][0]["values"][0] > found["trials"][1]["values"][0]
    assert found["trials"][0]["live"] == 2
    assert found["differences"][0]["mean"] > 0
    best = found["trials"][0]["trial"]
    assert yamlio.load_mapping(folder / "confirm" / best / "seed-1001" / "config.yaml")["num_epochs"] == 3
    confirm(folder, 1, 3, options(ray_address))
    opened = [len((folder / "confirm" / best / f"seed-{seed}" / "calls.jsonl").read_text().splitlines())
              for seed in (1000, 1001, 1002)]
    assert opened == [2, 2, 2], "each was opened and closed once"


@pytest.mark.nightly
def test_a_run_that_never_ends_does_not_count_as_confirmed(tmp_path: Path, ray_address: str) -> None:
    """Seed 1003 kills its process at epoch 2, each time."""
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler={"asha": {"max_epochs": 3}})
    folder = finished_sweep(load(path), tmp_path / "runs" / "demo")
    terminal = io.StringIO()
    with pytest.raises(AnswerIsNo, match="t0002/seed-1003 did not train to the end and count as missing") as refused:
        confirm(folder, 1, 4, options(ray_address), Console(file=terminal))
    assert refused.value.exit_code == 1
    assert "t0002/seed-1000 epoch 3/3 objective" in terminal.getvalue(), "progress is on the terminal"
    assert "t0002/seed-1003 failed: its process died 3 times in a row; see output.log in its folder" in (
        terminal.getvalue())
    row = json.loads((folder / "confirm.json").read_text())["trials"][0]
    assert [value is None for value in row["values"]] == [False, False, False, True]
    assert row["mean"] is None
