"""A sweep whose trials are several processes: whose end ends whom, on a real Ray, with the real training over gloo."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from sweep_driver import DRIVER, ROOT, left_over, options, spec, state_of, until

from lam.config import from_mapping
from record.errors import BadInput
from record.journal.events import TrialInterrupted
from record.run import RunFolder
from sweeps.commands.launching import Options, launch
from sweeps.journal.journal import read

pytestmark = pytest.mark.slow
TINY = {"sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16,
        "codebook_dim": 8, "steps_per_epoch": 12, "batch_size": 8, "eval_sequences": 16, "sample_count": 0,
        "threads": 1, "device": "cpu", "warmup_steps": 2}


def settings(data: Path, **resources: Any) -> dict[str, Any]:
    return {"base": {"data_dir": str(data), **TINY}, "search": "random", "concurrency": 2, "budget": {"trials": 4},
            "space": {"learning_rate": {"loguniform": [1e-5, 1e-4]}},
            "scheduler": {"asha": {"max_epochs": 6, "grace_epochs": 3, "reduction_factor": 2}},
            "resources": {"cpu": 0.5, "gpu": 0, **resources}}


@contextlib.contextmanager
def started(path: Path) -> Iterator[subprocess.Popen[str]]:
    """`lam sweep launch` as a process of its own, in a session of its own, for the length of a with-block."""
    code = DRIVER.format(tests=str(ROOT / "tests"), root=str(ROOT), call=f"launch({str(path)!r}, options=Options())")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as driver:
        try:
            yield driver
        finally:
            driver.kill()  # where the test failed; its reaper then ends its Ray


def peers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes beside the first one of each trial."""
    return [each for each in psutil.Process(driver.pid).children(recursive=True) if "ray::Peer" in each.name()]


def epochs(folder: Path) -> int:
    return sum(trial.epoch for trial in state_of(folder).trials.values())


@pytest.mark.long
def test_trials_of_two_workers_are_those_of_one_also_killed_stopped_and_resumed_alone(
        tmp_path: Path, tiny_data: Path, ray_address: str) -> None:
    """One trial's second worker is killed; Ctrl-C ends all processes; with one worker a trial the sweep goes on."""
    path = spec(tmp_path, **settings(tiny_data, workers=2))
    folder = tmp_path / "runs" / "demo"
    with started(path) as driver:
        until(lambda: epochs(folder) > 0 and bool(peers(driver)), driver)
        peers(driver)[0].send_signal(signal.SIGKILL)
        until(lambda: bool(interrupted(folder)), driver)
        told = (folder / "trials" / interrupted(folder)[0] / "output.log").read_text()
        assert "worker 1 of 2 ended without a word: ActorDiedError" in told
        before = epochs(folder)
        until(lambda: epochs(folder) >= before + 3, driver)
        driver.send_signal(signal.SIGINT)
        out, err = driver.communicate(timeout=180)
        assert driver.returncode == 130, (out, err)
    assert left_over(driver.pid) == []
    shared = Options(quiet=True, address=ray_address)
    launch(spec(tmp_path, **settings(tiny_data)), options=shared)
    trials = state_of(folder).trials.values()
    assert {trial.status for trial in trials} == {"completed", "stopped"}
    alone = tmp_path / "alone"
    alone.mkdir()
    launch(spec(alone, **settings(tiny_data)), options=shared)
    for trial in trials:
        same(records(folder, trial.id), records(alone / "runs" / "demo", trial.id))


def interrupted(folder: Path) -> list[str]:
    return [event.trial for event in read(folder) if isinstance(event, TrialInterrupted)]


def records(folder: Path, trial: str) -> list[dict[str, Any]]:
    return RunFolder(folder / "trials" / trial).metrics()


def same(mine: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    """As far as both came: which trial is stopped depends on who arrived first."""
    assert [record["epoch"] for record in mine] == list(range(1, len(mine) + 1))
    for one, other in zip(mine, whole, strict=False):
        for begin, apart in (("train/", 1e-4), ("val/", 1e-6)):
            numbers = {key: value for key, value in other.items() if key.startswith(begin)
                       and isinstance(value, float) and key != "train/samples_per_second"}
            assert {key: one[key] for key in numbers} == pytest.approx(numbers, rel=apart, abs=apart, nan_ok=True)


def test_what_becomes_of_a_second_worker_becomes_of_its_trial(tmp_path: Path, ray_address: str) -> None:
    """What it raises fails the trial; a death is the trial's process's death: once it is tried again."""
    path = spec(tmp_path, search="grid", scheduler="none", base={"data_dir": "nowhere", "num_epochs": 3},
                space={"seed": {"choice": [1, 20, 21, 22]}}, budget={"trials": 9}, concurrency=None,
                resources={"cpu": 0.5, "gpu": 0, "workers": 2})
    launch(path, options=options(ray_address, train="fake_training:together"))
    folder = tmp_path / "runs" / "demo"
    state = state_of(folder)
    found = {trial.params["seed"]: trial for trial in state.trials.values()}
    assert {seed: (trial.status, trial.rule) for seed, trial in found.items()} == {
        1: ("completed", ""), 20: ("failed", "raised"), 21: ("completed", ""), 22: ("failed", "process_lost")}
    reason = found[20].reason
    assert reason is not None
    assert reason.sentence == "worker 1 of 2: training raised RuntimeError: the second encoder exploded"
    assert "in _agree" in (folder / "trials" / found[20].id / "output.log").read_text()
    for trial in found.values():
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))
    assert not [each for each in psutil.process_iter() if "ray::Peer" in each.name()]


def test_workers_that_the_cluster_does_not_hold_are_refused(tmp_path: Path, ray_address: str) -> None:
    path = spec(tmp_path, resources={"cpu": 1, "gpu": 0, "workers": 3})
    with pytest.raises(BadInput) as found:
        launch(path, options=options(ray_address, train="fake_training:together"))
    assert "resources: got cpu 1 and gpu 0 for each of the 3 workers of one trial; the largest node has 2 CPUs and 0 " \
           "GPUs, and all nodes hold 2 such workers (1 x 2 CPUs and 0 GPUs); ask for less" in str(found.value)


@pytest.mark.nightly
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_trial_on_two_gpus_is_that_of_one(tmp_path: Path, tiny_data: Path) -> None:
    """Each worker sees its own GPU alone, and NCCL carries the gradients between them."""
    sweep = settings(tiny_data, workers=2, gpu=1) | {"budget": {"trials": 1}}
    sweep["base"]["device"] = "cuda"
    launch(spec(tmp_path, **sweep), options=Options(quiet=True))
    [trial] = state_of(tmp_path / "runs" / "demo").trials
    two = RunFolder(tmp_path / "runs" / "demo" / "trials" / trial)
    from test_stepping import finish

    one, _ = finish(from_mapping(two.config(), "the test"), tmp_path / "one")
    for key in ("train/loss", "val/mse_loss"):
        assert [record[key] for record in two.metrics()] == pytest.approx([record[key] for record in one], rel=1e-3)
