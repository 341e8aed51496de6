"""Other processes that read what is not kept yet, and keep it, while this one goes on: a portion of runs at a time."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from record.run import RunFolder

FROM = 4  # portions; fewer are read before a process has begun
Portion = Sequence[RunFolder]
_read: Callable[[Portion], object] = len


@contextmanager
def keeping(portions: Sequence[Portion], read: Callable[[Portion], object]) -> Iterator[Callable[[Portion], None]]:
    """Have portions read and kept by processes of their own; what is yielded waits for one of them.

    A portion that cannot be read there is read here, which says what is wrong with it. Where no process can be forked,
    or one would inherit locks of other threads, nothing is read ahead.
    """
    workers = min(len(os.sched_getaffinity(0)), len(portions)) if hasattr(os, "sched_getaffinity") else 1
    if workers < 2 or len(portions) < FROM or sys.platform != "linux" or threading.active_count() > 1:
        yield lambda portion: None
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _begin, (read,))
    try:
        waiting: dict[Any, Future[None]] = {portion[0].path: pool.submit(_keep, portion) for portion in portions}
        yield lambda portion: _wait(waiting.pop(portion[0].path, None))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
