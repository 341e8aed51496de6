"""`lam train --workers N`: the other workers of a training, as processes of this machine."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.queues import SimpleQueue

from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, ProcessRaisedException

from lam.config import RunConfig
from lam.training.workers.group import joined, refuse_too_many, told
from lam.training.workers.learner import follow
from record.errors import BadInput, LamError, WorkerLost, is_out_of_memory
from record.workload.together import Gone, environment, free_port, nobody_gone, who

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
    first = who(0, workers, LOOPBACK, free_port(LOOPBACK), workers)
    errors: SimpleQueue[Exception] = multiprocessing.get_context("spawn").SimpleQueue()
    others = multiprocessing.spawn(_follow, (config, first, errors), workers - 1, join=False, daemon=True)
    try:
        with environment(first):
            yield lambda: any(process.exitcode is not None for process in others.processes)
    except WorkerLost as lost:
        raise _cause(lost, others, errors) from None
    finally:
        _end(others)


def refuse_another_group(workers: int) -> None:
    """A process that torchrun started as one of several starts none itself.

    Raises:
        BadInput: it should.
    """
    if workers > 1 and (outer := told().size) > 1:
        raise BadInput(f"got {workers}, and WORLD_SIZE={outer} says that this process is one of {outer} already",
                       key="--workers", remedy="leave it out under torchrun, else unset WORLD_SIZE")


def _follow(number: int, config: RunConfig, first: Mapping[str, str], errors: SimpleQueue[Exception]) -> None:
    """The whole life of a worker beside the first one, which was told `first`."""
    rank = number + 1
    os.environ.update(first, RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        with joined(config) as group:
            follow(config, group)
    except WorkerLost:  # the first one has ended, or asks who is gone
        return
    except Exception as error:
        errors.put(_named(error, f"worker {rank} of {first['WORLD_SIZE']}"))
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
