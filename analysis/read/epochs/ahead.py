"""Other processes that work while this one goes on: they read what is not kept yet, a portion of runs at a time."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from record.run import RunFolder

FROM = 4  # portions; fewer are read before a process has begun
Portion = Sequence[RunFolder]
T = TypeVar("T")
_read: Callable[[Portion], object] = len


@contextmanager
def keeping(portions: Sequence[Portion], read: Callable[[Portion], object]) -> Iterator[Callable[[Portion], None]]:
    """Have portions read and kept by processes of their own; what is yielded waits for one of them.

    A portion that cannot be read there is read here, which says what is wrong with it. Where no process can be forked,
    or one would inherit locks of other threads, nothing is read ahead.
    """
    workers = min(_processors(), len(portions))
    if workers < 2 or len(portions) < FROM:
        yield lambda portion: None
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin, (read,))
    try:
        waiting: dict[Any, Future[None]] = {portion[0].path: pool.submit(_keep, portion) for portion in portions}
        yield lambda portion: _wait(waiting.pop(portion[0].path, None))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def begun(work: Callable[[], T]) -> Callable[[], T]:
    """Begin some work in a process of its own; what is returned waits for its result, which is handed over as a pickle.

    Where no process can be forked, or the one that was ends without a result, the work is done when it is asked for.
    """
    if _processors() < 2:
        return work
    fork = multiprocessing.get_context("fork")
    result, answer = fork.Pipe(duplex=False)
    worker = fork.Process(target=_answer, args=(work, answer), daemon=True)
    try:
        worker.start()
    except OSError:  # no room for another process
        result.close()
        return work
    finally:
        answer.close()

    def wait() -> T:
        try:
            found: list[T] = result.recv()
        except (EOFError, OSError):
            found = []
        worker.join()
        return found[0] if found else work()

    return wait


def _answer(work: Callable[[], object], answer: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(Exception):  # who asked does the work again, and hears what is wrong
        answer.send([work()])


def _processors() -> int:
    """How many can be used; one where no process can be forked, or would inherit locks of other threads."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return 1
    return len(os.sched_getaffinity(0))


def _begin(read: Callable[[Portion], object]) -> None:
    """A process that leaves Ctrl-C to the one that began it, and makes no garbage that lasts."""
    global _read
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.disable()
    _read = read


def _keep(portion: Portion) -> None:
    _read(portion)


def _wait(done: Future[None] | None) -> None:
    if done is not None:
        done.exception()
