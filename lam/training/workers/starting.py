"""`lam train --workers N`: the other workers of a training, as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.queues import SimpleQueue
from typing import Any

from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, ProcessRaisedException

from lam.config import RunConfig
from lam.training.workers.group import Gone, joined, nobody_gone, refuse_too_many
from lam.training.workers.learner import follow
from record.errors import LamError, WorkerLost, is_out_of_memory

LOOPBACK = "127.0.0.1"
PATIENCE = 10.0  # seconds in which the others end by themselves once the first one has


@contextlib.contextmanager
def company(config: RunConfig, workers: int) -> Iterator[Gone]:
    """So many workers on this machine, of which this process is the first, for the length of a with-block.

    What is handed over says whether one of the others has ended.

    Raises:
        BadInput: they are too many.
        WorkerLost: one of them ended without a word.
        LamError, MemoryError, RuntimeError: what one of them ended by.
    """
    if workers == 1:
        yield nobody_gone
        return
    refuse_too_many(config, workers, workers)
    told = {"MASTER_ADDR": LOOPBACK, "MASTER_PORT": str(free_port(LOOPBACK)), "WORLD_SIZE": str(workers),
            "LOCAL_WORLD_SIZE": str(workers)}
    errors: SimpleQueue[Exception] = multiprocessing.get_context("spawn").SimpleQueue()
    others = multiprocessing.spawn(_follow, (config, told, errors), workers - 1, join=False, daemon=True)
    try:
        with _environment({**told, "RANK": "0", "LOCAL_RANK": "0"}):
            yield lambda: any(process.exitcode is not None for process in others.processes)
    except WorkerLost as lost:
        raise _cause(lost, others, errors) from None
    finally:
        _end(others)


def free_port(address: str) -> int:
    """A port of this machine on which nobody listens now."""
    with socket.create_server((address, 0)) as listening:
        return int(listening.getsockname()[1])


def _follow(number: int, config: RunConfig, told: Mapping[str, str], errors: SimpleQueue[Exception]) -> None:
    """The whole life of a worker beside the first one."""
    rank = number + 1
    os.environ.update(told, RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        with joined(config) as group:
            follow(config, group)
    except WorkerLost:  # the first one has ended, or asks who is gone
        return
    except Exception as error:
        errors.put(_named(error, f"worker {rank} of {told['WORLD_SIZE']}"))
        raise


def _named(error: Exception, who: str) -> Exception:
    """An error as it crosses to the first worker: of the same kind for who reads it, and with the worker's name."""
    if isinstance(error, LamError):
        return type(error)(f"{who}: {error}")
    kind = MemoryError if is_out_of_memory(error) else RuntimeError
    named = kind(f"{who} raised {type(error).__name__}: {error}")
    named.add_note(traceback.format_exc())
    return named


def _cause(lost: WorkerLost, others: ProcessContext, errors: SimpleQueue[Exception]) -> Exception:
    """What one of the others ended by; what the first one noticed of it, where that is all there is."""
    try:
        for _ in others.processes:
            if others.join(PATIENCE, grace_period=PATIENCE):
                break
    except ProcessRaisedException:
        return errors.get()
    except ProcessExitedException as error:
        who = f"worker {error.error_index + 1} of {len(others.processes) + 1}"
        how = error.signal_name or f"exit code {error.exit_code}"
        return WorkerLost(f"{who} ended without a word ({how}); the same command resumes")
    return lost


def _end(others: ProcessContext) -> None:
    """Wait for the others, which end once the first one has gone; one that is stuck is killed."""
    for process in others.processes:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def _environment(told: Mapping[str, str]) -> Iterator[None]:
    before: dict[str, Any] = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
