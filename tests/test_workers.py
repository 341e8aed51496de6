"""One training in several processes is the training that one process does: gloo, on this machine."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_stepping import assert_same, finish, kill_after, small

from lam.config import RunConfig
from lam.training import loop
from lam.training.workers import starting
from lam.training.workers.group import Group
from record.errors import BadInput, WorkerLost
from record.run import RunFolder

# One process that computes a batch in two parts adds up what two workers add up: nothing may differ, not by a bit.
CASES: dict[str, dict[str, Any]] = {
    "ema, residual": {},
    "ema, parallel, bf16": {"slots": "parallel", "precision": "bf16", "average_weights": 0.9},
    "vq, residual": {"quantizer": "vq"},
    "vq, parallel, uneven": {"quantizer": "vq", "slots": "parallel", "batch_size": 7},
    "rotation, taught": {"quantizer": "rotation", "action_weight": 1.0, "change_weight": 1.0},
    "simvq, adaln": {"quantizer": "simvq", "slots": "parallel", "action_modulation": "adaln"},
    "fsq": {"quantizer": "fsq"},
    "none": {"quantizer": "none"},
}
Begin = Callable[[RunConfig], dict[str, str]]
FOLLOWER = """
import json, os, sys
from lam.config import RunConfig
from lam.training import loop
for line in sys.stdin:
    told, config = json.loads(line)
    os.environ.update(told)
    print([*loop.train(RunConfig(**config), "nowhere")], flush=True)
"""


@pytest.fixture(scope="module")
def second() -> Iterator[Begin]:
    """A second worker, in one process for all cases: begins a config, and says what this process has to be told."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", FOLLOWER], stdin=subprocess.PIPE, text=True, env=environment)

    def begin(config: RunConfig) -> dict[str, str]:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(starting.free_port("127.0.0.1")), "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        assert process.stdin is not None
        process.stdin.write(json.dumps([{**told, "RANK": "1"}, config.mapping()]) + "\n")
        process.stdin.flush()
        return {**told, "RANK": "0"}

    yield begin
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(timeout=60) == 0


def together(second: Begin, config: RunConfig, folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    with starting._environment(second(config)):
        return finish(config, folder)


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_two_workers_are_one_that_computes_in_two_parts(
        changes: dict[str, Any], second: Begin, tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, num_epochs=1, accumulate_parts=2, **changes)
    assert_same(together(second, config, tmp_path / "two"), finish(config, tmp_path / "one"))


@pytest.mark.parametrize("changes", [CASES["ema, residual"], CASES["vq, parallel, uneven"]], ids=["ema", "vq"])
def test_two_workers_reach_what_one_reaches_with_the_same_batch(
        changes: dict[str, Any], second: Begin, tiny_data: Path, tmp_path: Path) -> None:
    """At the learning rate that is the default; a batch in one part is rounded otherwise than one in two."""
    config = small(tiny_data, learning_rate=1e-4, **changes)
    two, one = (records for records, _ in (together(second, config, tmp_path / "two"),
                                           finish(config, tmp_path / "one")))
    for mine, whole in zip(two, one, strict=True):
        losses, measured = ({key: value for key, value in whole.items() if key.startswith(begin)
                             and isinstance(value, float)} for begin in ("train/", "val/"))
        assert {key: mine[key] for key in losses} == pytest.approx(losses, rel=1e-4, abs=1e-4, nan_ok=True)
        assert {key: mine[key] for key in measured} == pytest.approx(measured, rel=1e-6, abs=1e-6, nan_ok=True)


def test_a_worker_that_dies_ends_the_run_at_once_and_one_process_goes_on_with_it(
        tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, accumulate_parts=2, checkpoint_steps=1)
    with pytest.raises(WorkerLost, match=r"^worker 1 of 2 ended without a word \(SIGKILL\); the same command resumes"):
        _kill_the_second_after_an_epoch(config, tmp_path / "run")
    assert RunFolder(tmp_path / "run").document().state == "interrupted"
    assert multiprocessing.active_children() == []
    assert_same(finish(config, tmp_path / "run"), finish(config, tmp_path / "whole"))


def _kill_the_second_after_an_epoch(config: RunConfig, folder: Path) -> None:
    with starting.company(config, 2), contextlib.closing(loop.train(config, folder)) as records:
        next(records)
        multiprocessing.active_children()[0].kill()
        list(records)


def test_a_run_goes_on_with_another_number_of_workers(second: Begin, tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, accumulate_parts=2, checkpoint_steps=2)
    kill_after(loop.Run(config, RunFolder(tmp_path / "run")), 3)
    assert_same(together(second, config, tmp_path / "run"), finish(config, tmp_path / "whole"))


def test_what_a_worker_ended_by_is_told_by_its_number(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process: the second worker refuses what the first one would have refused before."""
    told = {"WORLD_SIZE": "9", "LOCAL_WORLD_SIZE": "9", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name in (*told, "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    errors: queue.SimpleQueue[Exception] = queue.SimpleQueue()
    with pytest.raises(BadInput):
        starting._follow(2, small(tiny_data), told, errors)  # type: ignore[arg-type]
    found = errors.get()
    assert type(found) is BadInput
    assert str(found) == ("worker 3 of 9: workers: got 9, and a batch has 8 sequences, one for each worker at least; "
                          "use fewer workers, or a larger batch_size")
    memory, other = (starting._named(error, "worker 1 of 2") for error in (MemoryError("none"), ValueError("bad")))
    assert (type(memory), str(memory)) == (MemoryError, "worker 1 of 2 raised MemoryError: none")
    assert (type(other), str(other)) == (RuntimeError, "worker 1 of 2 raised ValueError: bad")


@pytest.mark.parametrize(("workers", "rows"), [(1, 5), (2, 5), (3, 8)])
def test_shares_are_consecutive_and_make_up_the_batch(workers: int, rows: int) -> None:
    shares = [Group(rank, workers).share(np.arange(rows)) for rank in range(workers)]
    assert np.concatenate(shares).tolist() == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_reach_what_one_reaches(tiny_data: Path, tmp_path: Path) -> None:
    """NCCL carries the gradients there; sums on GPUs add in any order."""
    config = small(tiny_data, device="cuda", learning_rate=1e-4)
    with starting.company(config, 2):
        two, _ = finish(config, tmp_path / "two")
    one, _ = finish(config, tmp_path / "one")
    for key in ("train/loss", "train/codebook_usage", "val/mse_loss", "val/objective"):
        assert [record[key] for record in two] == pytest.approx([record[key] for record in one], rel=1e-3)
