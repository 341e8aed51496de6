"""The errors a user can meet, and the exit code each one ends the command with.

LamError
 +-- BadInput          2  a file, key or argument is wrong; nothing was started
 |    +-- BadData      2  the data is what is wrong
 |    +-- Damaged      2  a journal is not as it was written
 +-- AnswerIsNo        1  the work was done and the answer is no (a run that must abort, no finished trial)
 +-- EnvironmentFailed 3  disk, Ray or storage failed; the work is resumable
 |    +-- WorkerLost    3  of several processes that train one model another is gone
 +-- Interrupted     130  Ctrl-C or SIGTERM (143); the work is resumable

A message says what was wrong, the value received and the remedy, in that order. The command line
prints it without a traceback; anything that is not a LamError is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LamError(Exception):
    """Base of every error that is shown to the user as one message."""

    exit_code = 1


class BadInput(LamError):
    """Something the user gave is wrong.

    Args:
        what: what was wrong, with the value received.
        source: the file (or other place) the value came from.
        key: the key path inside it, such as ``space.embed_dim``.
        remedy: what to do about it.
    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        source: str | Path | None = None,
        key: str | None = None,
        remedy: str | None = None,
    ) -> None:
        place = ":".join(str(part) for part in (source, key) if part)
        text = f"{place}: {what}" if place else what
        super().__init__(f"{text}; {remedy}" if remedy else text)


class BadData(BadInput):
    """The data cannot be used, or is not what it was.

    A sweep's driver reads all data before it starts anything, so a worker that meets this blames its machine.
    """


class Damaged(BadInput):
    """The journal is not as it was written; nothing is read from it until it has been restored."""


class AnswerIsNo(LamError):
    """The command did its work and the answer is no."""

    exit_code = 1


class EnvironmentFailed(LamError):
    """The machine, not the input, stopped the work; the same command resumes it."""

    exit_code = 3


class WorkerLost(EnvironmentFailed):
    """Of several processes that train one model another is gone, or does not answer; its own end tells why."""


class Interrupted(LamError):
    """A signal ended the work; the same command resumes it."""

    exit_code = 130


MEMORY_REMEDY = ("use a smaller batch_size, eval_batch_size, sequence_length or embed_dim, accumulate_parts above 1 or "
                 "recompute: true")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's or NumPy's, a GPU's, or the CPU's in torch, which calls that a RuntimeError."""
    return (isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
            or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)))


@contextmanager
def worker_deaths(what: str | Path) -> Iterator[None]:
    """A process that dies at its part of the work in the with-block, as an error that says so.

    Raises:
        EnvironmentFailed: naming `what` was worked on.
    """
    from concurrent.futures.process import BrokenProcessPool  # here: whoever starts processes has loaded it already

    try:
        yield
    except BrokenProcessPool as error:
        raise EnvironmentFailed(f"{what}: a process that did part of the work was killed, perhaps because memory ran "
                                "out (dmesg says so); what is done is kept: run the same command again") from error


def check_there(path: str | Path, remedy: str) -> None:
    """Refuse a local path that does not exist, before a command imports what it needs; addresses are left alone.

    Raises:
        BadInput: nothing is there.
    """
    if "://" not in str(path) and not Path(path).exists():
        raise BadInput("no such file or folder", source=path, remedy=remedy)
