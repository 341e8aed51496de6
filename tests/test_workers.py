"""One training in several processes is the training that one process does: gloo, on this machine."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from test_stepping import assert_same, finish, kill_after, small

from lam.config import RunConfig
from lam.training import console, loop
from lam.training.devices import check_room, lower_bounds
from lam.training.workers import starting
from lam.training.workers.group import ALONE, Group, told
from record.errors import BadInput, EnvironmentFailed, WorkerLost
from record.run import RunFolder
from record.workload.together import environment, free_port

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
    print([*loop.train_together(RunConfig(**config), "nowhere")], flush=True)
"""


@pytest.fixture(scope="module")
def second() -> Iterator[Begin]:
    """A second worker, in one process for all cases: begins a config, and says what this process has to be told."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", FOLLOWER], stdin=subprocess.PIPE, text=True, env=environment)

    def begin(config: RunConfig) -> dict[str, str]:
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port("127.0.0.1")), "WORLD_SIZE": "2",
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
    with environment(second(config)):
        return finish(config, folder, loop.train_together)


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


def test_a_worker_that_dies_while_it_starts_is_not_waited_for(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkerLost, match=r"^worker 1 of 2 ended without a word \(SIGKILL\); the same command resumes"):
        _kill_the_second_at_once(small(tiny_data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _kill_the_second_at_once(config: RunConfig, folder: Path) -> None:
    with starting.company(config, 2) as gone:
        multiprocessing.active_children()[0].kill()
        next(loop.train_together(config, folder, gone))


def _kill_the_second_after_an_epoch(config: RunConfig, folder: Path) -> None:
    with (starting.company(config, 2) as gone,
          contextlib.closing(loop.train_together(config, folder, gone)) as records):
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


FIRST = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
NO_WORKER: dict[str, tuple[dict[str, str], str]] = {
    "alone": ({"WORLD_SIZE": "2"}, "got 2, and no RANK and no MASTER_ADDR and no MASTER_PORT"),
    "no word": ({"WORLD_SIZE": "x"}, "got WORLD_SIZE=x, which has to be a whole number from 1"),
    "none": ({"WORLD_SIZE": "0"}, "got WORLD_SIZE=0, which has to be a whole number from 1"),
    "nowhere": ({**FIRST, "MASTER_ADDR": ""}, "got 2, and no MASTER_ADDR"),
    "third of two": ({**FIRST, "RANK": "2"}, "got RANK=2, which has to be a whole number from 0 to 1"),
    "port": ({**FIRST, "MASTER_PORT": "x"}, "got MASTER_PORT=x, which has to be a whole number from 1 to 65535"),
    "many": ({**FIRST, "LOCAL_WORLD_SIZE": "3"}, "got LOCAL_WORLD_SIZE=3, which has to be a whole number from 1 to 2"),
}


def set_environment(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name in (*FIRST, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("values", "what"), NO_WORKER.values(), ids=NO_WORKER)
def test_an_environment_that_makes_no_worker_is_refused_with_its_remedy(
        values: dict[str, str], what: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, values)
    with pytest.raises(BadInput) as found:
        console.show_training(small(tiny_data), tmp_path / "run")
    assert str(found.value) == f"environment:WORLD_SIZE: {what}; start by torchrun, or unset WORLD_SIZE"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_of_an_outer_group_starts_no_workers(rank: str, tiny_data: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {**FIRST, "RANK": rank})
    with pytest.raises(BadInput) as found:
        console.show_training(small(tiny_data), tmp_path / "run", workers=4)
    assert str(found.value) == ("--workers: got 4, and WORLD_SIZE=2 says that this process is one of 2 already; leave "
                                "it out under torchrun, else unset WORLD_SIZE")
    assert not (tmp_path / "run").exists()


def test_who_a_worker_is_stands_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for values, group in (({}, ALONE), ({"WORLD_SIZE": "1", "RANK": "x"}, ALONE), ({**FIRST, "RANK": "1"}, Group(1, 2)),
                          ({**FIRST, "LOCAL_WORLD_SIZE": "2"}, Group(0, 2, 2))):
        set_environment(monkeypatch, values)
        assert told() == group


def test_only_the_command_asks_who_else_trains(
        tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of a sweep that was started where torchrun's variables stand is one process all the same."""
    set_environment(monkeypatch, FIRST)
    assert next(loop.train(small(tiny_data), tmp_path / "run"))["epoch"] == 1


def test_a_batch_has_to_fit_where_its_shares_are(tiny_data: Path) -> None:
    """Two workers of one machine have its memory between them, those of two machines or GPUs have twice as much."""
    config, device = small(tiny_data), torch.device("cpu")
    free = psutil.virtual_memory().available
    shape = (1, 1, int(1.5 * free / 4) // (config.batch_size * config.sequence_length))
    for workers, here in ((1, 1), (2, 2)):
        with pytest.raises(EnvironmentFailed, match=r"^the latents of one batch of 8 take"):
            check_room(config, shape, device, workers, here)
    check_room(config, shape, device, workers=2, here=1)


@pytest.mark.parametrize(("parts", "workers", "beside", "sequences"), [
    (1, 1, 1, 8), (2, 1, 1, 4), (1, 2, 1, 4), (1, 2, 2, 8), (2, 2, 1, 4), (4, 2, 1, 2), (4, 2, 2, 4), (1, 8, 1, 1)])
def test_what_a_memory_holds_of_a_batch(
        parts: int, workers: int, beside: int, sequences: int, tiny_data: Path) -> None:
    config = small(tiny_data, accumulate_parts=parts)
    latents, *_ = lower_bounds(config, (3, 5, 7), workers, beside).values()
    assert latents[0] == 4 * sequences * config.sequence_length * 3 * 5 * 7


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_reach_what_one_reaches(tiny_data: Path, tmp_path: Path) -> None:
    """NCCL carries the gradients there; sums on GPUs add in any order."""
    config = small(tiny_data, device="cuda", learning_rate=1e-4)
    with starting.company(config, 2):
        two, _ = finish(config, tmp_path / "two", loop.train_together)
    one, _ = finish(config, tmp_path / "one")
    for key in ("train/loss", "train/codebook_usage", "val/mse_loss", "val/objective"):
        assert [record[key] for record in two] == pytest.approx([record[key] for record in one], rel=1e-3)
