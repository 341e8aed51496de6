"""A queue and a thread between the work and a tracker: handing over costs microseconds, failing costs one warning."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from record.text import gist

log = logging.getLogger(__name__)

CAPACITY = 10_000  # items that may wait; a sink that is this far behind is not coming back
CLOSE_SECONDS = 30.0  # how long the end of a run waits for a sink


class Sink(Protocol):
    """Where a feed sends its items. All methods but `later` run in the feed's thread and may raise.

    Attributes:
        name: what a warning calls it.
    """

    name: str

    def open(self) -> None:
        """Connect; called once, before anything else."""

    def send(self, items: list[Any]) -> None:
        """Take everything that has come up since the last call, in order."""

    def close(self, ending: str) -> None:
        """No more will come; `ending` says how the work ended."""

    def later(self) -> str:
        """The command that sends what is missing; called at any time, from any thread."""

    def abandon(self) -> None:
        """The feed gave up waiting: see to it that nothing keeps the process from exiting."""


class Feed:
    """Sends items to one sink, in batches, from a thread of its own."""

    def __init__(self, sink: Sink, capacity: int = CAPACITY, history: Sequence[Any] = ()) -> None:
        """Start with the items of `history`, which wait beside the `capacity` of what comes later."""
        self._sink, self._capacity = sink, capacity + len(history)
        self._waiting: list[Any] = list(history)
        self._lost = 0
        self._given_up = False
        self._ending: str | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"tracker {sink.name}", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Hand an item over; never waits and never raises."""
        with self._changed:
            if len(self._waiting) < self._capacity:
                self._waiting.append(item)
            else:
                self._lost += 1
            self._changed.notify()

    def end(self, ending: str) -> None:
        """Say that no more will come; does not wait."""
        with self._changed:
            self._ending = ending
            self._changed.notify()

    def wait(self, deadline: float) -> None:
        """Wait until the sink has taken everything, but not beyond `deadline` (of `time.monotonic`)."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._warn("has not taken everything in time")
            self._given_up = True
            self._sink.abandon()
        elif self._lost:
            self._warn(f"was too slow, {self._lost} records were left out")

    def _work(self) -> None:
        try:
            self._sink.open()
            while items := self._take():
                self._sink.send(items)
            self._sink.close(self._ending or "interrupted")
        except Exception as error:
            if not self._given_up:
                self._warn(f"failed ({type(error).__name__}: {gist(error)})")

    def _take(self) -> list[Any]:
        """Everything that waits; empty only when no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending is not None)
            items, self._waiting = self._waiting, []
            return items

    def _warn(self, what: str) -> None:
        log.warning("%s %s; the records are complete without it; send them later with: %s", self._sink.name, what,
                    self._sink.later())


def close(feeds: list[Feed], ending: str, seconds: float | None = None) -> None:
    """End several feeds; together they get `seconds`, by default CLOSE_SECONDS."""
    deadline = time.monotonic() + (CLOSE_SECONDS if seconds is None else seconds)
    for feed in feeds:
        feed.end(ending)
    for feed in feeds:
        feed.wait(deadline)
