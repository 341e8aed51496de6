"""A sweep as a reader finds it, once or again and again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from record.journal import events, following, journals, parsing
from record.journal.results import Event
from sweeps.journal import folders, stores
from sweeps.journal.state import SweepState
from sweeps.spec.spec import Sweep
from sweeps.views import outlook

Listener = Callable[[Sweep, events.JournalEvent], None]


class Seen(NamedTuple):
    """A sweep as a reader finds it: at this moment where a driver is at work, else as its last event left it."""

    sweep: Sweep
    state: SweepState
    at_work: bool | None
    notes: list[str]


def look(folder: Path) -> Seen:
    """Read a sweep, and whether a driver is at work on it."""
    return Watch(folder).look()


class Watch:
    """Looks at a sweep; each look reads what was written since the one before.

    Args:
        heard: is told each event that no look told before.
    """

    def __init__(self, folder: Path, heard: Listener | None = None) -> None:
        folders.begun_in(folder)
        self._folder, self._state, self._heard = folder, SweepState(), heard
        lines: parsing.Lines[Event] = parsing.read_told if heard is None else parsing.read_lines
        self._journal = following.follower(journals.home(folder), lines)

    def look(self) -> Seen:
        """The sweep as it is now."""
        sweep, known = folders.sweep_in(self._folder), self._state.seq
        anew, found = self._journal.more()
        if anew:
            self._state = SweepState()
        for event in found:
            self._state.apply(event)
            if self._heard is not None and event.seq > known and isinstance(event, events.JournalEvent):
                self._heard(sweep, event)
        return _seen(self._folder, sweep, self._state)


def _seen(folder: Path, sweep: Sweep, state: SweepState) -> Seen:
    at_work = stores.at_work(folder, sweep.home(folder))
    if at_work:
        state = state.at(datetime.now(UTC))
    elif at_work is False:
        state = state.abandoned()
    idle = at_work is False and not state.finished
    return Seen(sweep, state, at_work, [outlook.nobody_sentence(sweep, folder)] if idle else [])
