"""The journal of a sweep: append-only, ordered by sequence numbers, one writer at a time.

Each event is durable before `append` returns. `sweeps.journal.stores` says where and how it is kept,
`record.journal.journals` reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from record.journal import events, parsing
from record.journal.journals import read, segments
from sweeps.journal.state import SweepState
from sweeps.journal.stores import FolderStore, Lock, Store

__all__ = ["Journal", "Lock", "read", "segments"]


class Journal:
    """The one writer of a sweep's journal, and the state that its events add up to.

    Use it inside a `sweeps.journal.stores.hold`. `state` always equals `replay(read(folder))`.

    Args:
        folder: the sweep's.
        store: where the events are kept; default: the sweep folder.

    Attributes:
        listen: called with each event after it is stored.
    """

    def __init__(self, folder: str | Path, store: Store | None = None) -> None:
        self.folder = Path(folder)
        self.store = store or FolderStore(folder)
        self.state = SweepState()
        for event in self.store.history():
            self.state.apply(event)
        self.listen: Callable[[events.JournalEvent], None] | None = None

    def append(self, event: events.JournalEvent) -> events.JournalEvent:
        """Write one event and take it into `state`; the first one says in which version the journal is written.

        Returns:
            the event as a reader finds it.

        Raises:
            EnvironmentFailed: the store refused it (full, read-only, gone); the journal stays readable.
        """
        seq = self.state.seq + 1
        first = {"version": events.VERSION} if seq == 1 else {}
        line = event.model_copy(update={"seq": seq, "time": datetime.now(UTC), **first}).line()
        self.store.append(seq, line)
        stored = parsing.read_event(line)
        self.state.apply(stored)
        if self.listen is not None:
            self.listen(stored)
        return stored

    def close(self) -> None:
        """No more events of this session."""
        self.store.close()
