"""Faults of whole sweeps on a real Ray: hanging, out of memory, full disks, drivers killed at random moments."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from sweep_driver import ROOT, calls, options, run, spec, start, state_of

from analysis.monitor.monitor import examine
from analysis.read import foreign
from record import errors
from record.errors import BadInput, EnvironmentFailed
from sweeps.commands import extending
from sweeps.commands.launching import Options, launch
from sweeps.journal import folders
from sweeps.journal.journal import read
from sweeps.journal.state import SweepState
from sweeps.search import searcher
from sweeps.workers.lost import memory_sentence

pytestmark = pytest.mark.slow
GIB = 1024**3
PLAIN = {"weight_decay": {"uniform": [0.0, 0.8]}}


@pytest.mark.long
def test_each_fault_ends_as_what_it_is_and_the_study_has_none_running(tmp_path: Path, ray_address: str) -> None:
    """NaN, an exception, a worker killed again and again, one without memory, one that hangs, and a healthy one."""
    path = spec(tmp_path, search="grid", scheduler="none", base={"data_dir": "nowhere", "num_epochs": 3},
                space={"seed": {"choice": [1, 3, 4, 5, 7, 8]}}, budget={"trials": 99}, hang_minutes=0.2)
    launch(path, options=options(ray_address))
    folder = tmp_path / "runs" / "demo"
    state = state_of(folder)
    found = {trial.params["seed"]: (trial.status, trial.rule) for trial in state.trials.values()}
    assert found == {1: ("completed", ""), 3: ("failed", "process_lost"), 4: ("failed", "out_of_memory"),
                     5: ("failed", "hung"), 7: ("failed", "nonfinite"), 8: ("failed", "raised")}
    sentences = {trial.params["seed"]: trial.reason.sentence if trial.reason else "" for trial in state.trials.values()}
    assert "its process died 3 times, last after epoch 1" in sentences[3]
    assert sentences[4] == ("training raised MemoryError: cannot allocate 3 GiB; use a smaller batch_size, "
                            "eval_batch_size, sequence_length or embed_dim, accumulate_parts above 1 or recompute: "
                            "true")
    assert sentences[5].startswith("it reported no epoch for 0.2 minutes after epoch 1 and was killed")
    hung = next(trial.id for trial in state.trials.values() if trial.params["seed"] == 5)
    assert "fake_training.py" in (folder / "trials" / hung / "output.log").read_text(), "where it stood"
    assert list(read(folder))[-1].reason == "every point of the grid is done"
    study = searcher.study_of(folders.open_sweep(folder)[0].spec, state)
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 1, "FAIL": 5}


@pytest.mark.nightly
def test_a_process_whose_training_failed_is_not_used_again(tmp_path: Path, ray_address: str) -> None:
    """As on a GPU, whose memory may stay taken: the next trial gets a fresh one, and no trial is lost."""
    path = spec(tmp_path, search="grid", scheduler="none", base={"data_dir": "nowhere", "num_epochs": 3},
                space={"seed": {"choice": [1, 8, 11, 14, 21]}}, budget={"trials": 99}, concurrency=1)
    launch(path, options=options(ray_address, train="fake_training:on_a_gpu"))
    folder = tmp_path / "runs" / "demo"
    found = {trial.params["seed"]: trial for trial in state_of(folder).trials.values()}
    assert {seed: trial.status for seed, trial in found.items()} == {
        1: "completed", 8: "failed", 11: "completed", 14: "completed", 21: "completed"}
    assert [event.trial for event in read(folder) if event.event == "interrupted"] == [found[14].id]
    pids = {seed: {call["pid"] for call in calls(folder, trial.id)} for seed, trial in found.items()}
    assert len(pids[14]) == 2, "memory ran out once: it came back in a fresh process"
    after = [trial.id for trial in found.values()].index(found[8].id) + 1
    following = [pids[seed] for seed in found][after:]
    assert all(pids[8].isdisjoint(processes) for processes in following)
    assert len(set.union(*pids.values())) <= 3, "each failure costs a process, nothing else does"


@pytest.mark.nightly
def test_data_that_a_worker_cannot_open_fails_no_trial(tmp_path: Path, tiny_data: Path, ray_address: str) -> None:
    """The driver has read it; then the disk it is on goes away, and comes back."""
    data = tmp_path / "mount"
    path = spec(tmp_path, space=PLAIN, search="random", scheduler="none", budget={"trials": 3},
                base={"data_dir": str(data), "num_epochs": 2, "sequence_length": 3})
    asked = options(ray_address, train="fake_training:reading")
    with pytest.raises(EnvironmentFailed, match="mend that, the same command then resumes") as refused:
        launch(path, options=asked)
    assert f"{data}:data_dir: no such folder" in str(refused.value)
    state = state_of(tmp_path / "runs" / "demo")
    assert {trial.status for trial in state.trials.values()} == {"interrupted"}
    data.symlink_to(tiny_data)
    launch(path, options=asked)
    assert [trial.status for trial in state_of(tmp_path / "runs" / "demo").trials.values()] == ["completed"] * 3


def test_the_report_of_rays_memory_monitor_is_told_with_its_numbers() -> None:
    text = ("The actor died unexpectedly before finishing this task. NODE_OUT_OF_MEMORY: Task was killed due to the "
            "node running low on memory.\nMemory on the node (IP: 10.0.0.1, ID: ab) where the task was running was "
            "30.39GB / 32.00GB (0.949688), which exceeds the memory usage threshold of 0.9.\n")
    assert memory_sentence(text) == ("Memory on the node (IP: 10.0.0.1, ID: ab) where the task was running was "
                                            "30.39GB / 32.00GB (0.949688)")
    assert memory_sentence("The actor died because of SIGKILL") == ""


@pytest.mark.nightly
@pytest.mark.skipif(psutil.virtual_memory().available < 12 * GIB, reason="needs 12 GiB to spare")
def test_a_trial_that_rays_memory_monitor_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's limit is put 3 GiB above what the machine uses now; one trial takes up to 6 GiB, another one nothing."""
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 3 * GIB) / memory.total
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit:.4f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    path = spec(tmp_path, search="grid", scheduler="none", base={"data_dir": "nowhere", "num_epochs": 3},
                space={"seed": {"choice": [1, 4]}}, budget={"trials": 9}, concurrency=1)
    run(f"launch({str(path)!r}, options=Options(**{{**common, 'train': 'fake_training:greedy'}}))")
    folder = tmp_path / "runs" / "demo"
    state = state_of(folder)
    found = {trial.params["seed"]: trial for trial in state.trials.values()}
    assert {seed: trial.status for seed, trial in found.items()} == {1: "completed", 4: "failed"}
    reason = found[4].reason
    assert reason is not None
    assert reason.rule == "out_of_memory"
    assert reason.sentence.startswith("its process was killed 2 times because memory ran out (")
    assert errors.MEMORY_REMEDY in reason.sentence
    assert [result.epoch for result in found[4].results] == [1, 2], "it came back once, and went on"
    assert state.finished == "every point of the grid is done"
    study = searcher.study_of(folders.open_sweep(folder)[0].spec, state)
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 1, "FAIL": 1}
    status = examine(foreign.read(folder / "trials" / found[4].id))
    assert status.run.state == "failed"
    assert "out_of_memory" in [finding.rule for finding in status.judgement.findings]
    assert any(reason.sentence in note for note in status.run.notes)


@pytest.mark.nightly
def test_a_driver_killed_at_random_moments(tmp_path: Path, ray_address: str) -> None:
    """No trial is lost or run twice, every finished result is kept, and the trials are those of an untouched sweep."""
    settings: dict[str, Any] = {"space": PLAIN, "scheduler": {"asha": {"max_epochs": 9}}, "budget": {"trials": 8},
                                "concurrency": 1, "search": {"tpe": {"n_startup_trials": 3}}}
    whole = spec(tmp_path, name="whole", **settings)
    launch(whole, options=options(ray_address))
    path = spec(tmp_path, name="killed", **settings)
    folder = tmp_path / "runs" / "killed"
    generator = random.Random(3)
    kept: list[dict[str, Any]] = []
    for _ in range(5):
        process = start(f"launch({str(path)!r}, options=options)", 0.03)
        wait_for_growth(folder, len(kept), process)
        time.sleep(generator.uniform(0.0, 0.6))
        process.kill()
        process.communicate()
        events = list(read(folder))
        assert events[: len(kept)] == kept, "what was journalled stays"
        kept = events
    launch(path, options=options(ray_address))
    assert endings(state_of(folder)) == endings(state_of(tmp_path / "runs" / "whole"))
    for trial in state_of(folder).trials.values():
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))
        lines = (folder / "trials" / trial.id / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines[: trial.epoch]] == list(range(1, trial.epoch + 1))


def wait_for_growth(folder: Path, before: int, process: subprocess.Popen[str]) -> None:
    """Until the driver has opened a session, or has ended."""
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        if folder.exists() and sum(1 for _ in read(folder)) > before + 1:
            return
        time.sleep(0.02)


def endings(state: SweepState) -> list[Any]:
    return [(trial.id, trial.params, trial.status, trial.epoch, trial.objective,
             [(result.epoch, result.objective) for result in trial.results]) for trial in state.trials.values()]


@pytest.mark.nightly
def test_a_full_disk_ends_the_sweep_resumably(tmp_path: Path, ray_address: str) -> None:
    """The journal's tenth write is refused as on a full disk."""
    path = spec(tmp_path, space=PLAIN, scheduler="none", base={"data_dir": "nowhere", "num_epochs": 5},
                budget={"trials": 6}, concurrency=1)
    _, err = run(f"fake_training.fill_disk(9)\n    launch({str(path)!r}, options=options)", code=3)
    assert "the journal cannot be written (No space left on device); free or repair the disk" in err
    folder = tmp_path / "runs" / "demo"
    before = state_of(folder)
    assert before.seq == 9
    launch(path, options=options(ray_address))
    after = state_of(folder)
    assert len(after.with_status("completed")) == 6
    assert list(after.trials)[: len(before.trials)] == list(before.trials)


@pytest.mark.nightly
def test_a_disk_that_is_full_for_a_worker_ends_the_sweep_resumably(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, space={"seed": {"choice": [1, 12, 11]}}, search="grid", scheduler="none",
                base={"data_dir": "nowhere", "num_epochs": 3}, budget={"trials": 6})
    with pytest.raises(EnvironmentFailed,
                       match=r"\[Errno 28\] No space left on device; all results so far are kept; mend that"):
        launch(path, options=options(ray_address))
    assert state_of(tmp_path / "runs" / "demo").with_status("failed") == []
    launch(path, options=options(ray_address))
    assert len(state_of(tmp_path / "runs" / "demo").with_status("completed")) == 3


@pytest.mark.nightly
def test_paused_trials_are_promoted_or_stopped(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, space=PLAIN, search={"random": {}}, budget={"trials": 9}, concurrency=1,
                scheduler={"asha": {"max_epochs": 9, "promote": True}}, seed=5)
    launch(path, options=options(ray_address))
    folder = tmp_path / "runs" / "demo"
    state, events = state_of(folder), list(read(folder))
    assert state.unfinished == []
    paused = [event.trial for event in events if event.event == "paused"]
    assert paused
    left = [trial for trial in state.with_status("stopped") if trial.reason and trial.reason.paused]
    assert {trial.id for trial in left} <= set(paused)
    best = sorted(state.trials.values(), key=lambda trial: trial.params["weight_decay"])[0]
    assert best.status == "completed", "the best is never lost to a rung"
    for trial in state.trials.values():
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))


@pytest.mark.nightly
def test_seeds_extend_and_warm_start(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, space=PLAIN, search="random", budget={"trials": 3}, seeds=2,
                scheduler={"asha": {"max_epochs": 3}})
    launch(path, options=options(ray_address))
    folder = tmp_path / "runs" / "demo"
    state = state_of(folder)
    repeats = [trial for trial in state.trials.values() if trial.repeats]
    assert len(state.configs) == 3
    assert {trial.repeats for trial in repeats} == {trial.id for trial in state.configs if trial.status == "completed"}
    assert all(trial.seed == 1 and trial.params == state.trials[trial.repeats].params for trial in repeats)
    wide = tmp_path / "wide.yaml"
    wide.write_text("space: {weight_decay: {uniform: [0.0, 0.9]}}\n")
    extending.extend(folder, {"trials": 2}, wide, options(ray_address))
    longer = state_of(folder)
    assert len(longer.configs) == 5
    assert list(longer.trials)[: len(state.trials)] == list(state.trials)
    assert json.loads((folder / "sweep.json").read_text())["asked"]["space"]["weight_decay"]["uniform"] == [0.0, 0.9]
    with pytest.raises(BadInput, match=r"space.weight_decay: does not hold 0\.9"):
        extending.extend(folder, {"trials": 2}, tmp_path / "sweep.yaml")
    other = spec(tmp_path, name="next", space={"weight_decay": {"uniform": [0.0, 1.0]}}, budget={"trials": 2},
                 scheduler={"asha": {"max_epochs": 3}})
    terminal = io.StringIO()
    launch(other, options=options(ray_address, warm_start=str(folder)), console=Console(file=terminal))
    taken = state_of(tmp_path / "runs" / "next").prior
    assert f"warm start: {len(taken)} trials of demo taken over" in terminal.getvalue()
    assert len(taken) == len(longer.with_status("completed", "stopped"))
    assert len(state_of(tmp_path / "runs" / "next").trials) == 2


@pytest.mark.nightly
def test_a_trial_is_the_same_in_a_fresh_process_and_as_the_fifth_of_an_actor(
    tmp_path: Path, tiny_data: Path, ray_address: str
) -> None:
    """Real training: what an actor did before leaves no trace in the numbers."""
    base = {"data_dir": str(tiny_data), "sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1,
            "head_dim": 16, "patch_dim": 16, "codebook_dim": 8, "num_epochs": 2, "steps_per_epoch": 3, "batch_size": 8,
            "eval_sequences": 16, "sample_count": 0, "threads": 1, "device": "cpu", "warmup_steps": 2}
    path = spec(tmp_path, base=base, search="random", scheduler="none", budget={"trials": 5}, concurrency=1,
                space={"learning_rate": {"loguniform": [1e-4, 1e-2]}, "quantizer": {"choice": ["ema", "vq"]}})
    launch(path, options=Options(address=ray_address))
    fifth = tmp_path / "runs" / "demo" / "trials" / "t0005"
    alone = tmp_path / "alone"
    code = ("from lam.config import of_run; from lam.training import loop; from record.run import RunFolder\n"
            f"for _ in loop.train(of_run(RunFolder({str(fifth)!r})), {str(alone)!r}): pass")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert numbers(fifth) == numbers(alone)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """Epoch records without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds", "train_seconds", "train/samples_per_second")
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]
