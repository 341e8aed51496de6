"""Reading on in a journal from where a reader was, which whoever follows a sweep does every two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from record import files
from record.journal import journals, parsing
from record.journal.journal_objects import Reading
from record.journal.parsing import E
from record.storage import store

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

Out = TypeVar("Out", covariant=True)


class Follower(Protocol[Out]):
    """A reader that stays."""

    def more(self) -> tuple[bool, Iterator[Out]]:
        """(whether they begin with the first event, the events since those read before); raises as `journals.read`."""


def follower(where: Path | str, lines: parsing.Lines[E]) -> Follower[E]:
    """A reader of the events kept at a place (`journals.home`).

    Args:
        lines: reads them, `parsing.read_lines` or `parsing.read_told`.
    """
    return InFolder(where, lines) if isinstance(where, Path) else OnStore(*store.connect(where), where, lines)


class InFolder(Generic[E]):
    """Follows segments: what was read is where it was, since a session only appends."""

    def __init__(self, folder: Path, lines: parsing.Lines[E]) -> None:
        self._folder, self._lines = folder, lines
        self._segment = self._offset = self._seq = 0
        self._trials: set[str] = set()

    def more(self) -> tuple[bool, Iterator[E]]:
        """The events of lines that are whole by now."""
        return self._seq == 0, journals.coherent(self._more(), self._folder, self._trials)

    def _more(self) -> Iterator[E]:
        segments = journals.segments(self._folder)
        for place in range(self._segment, len(segments)):
            if place > self._segment:
                self._segment, self._offset = place, 0
            data = files.read_record(segments[place], start=self._offset)
            if place == len(segments) - 1:  # a line that is being written comes later
                data = data[:data.rfind(b"\n") + 1]
            self._offset += len(data)
            for event in journals.numbered(self._lines, data, segments[place], self._seq + 1):
                self._seq += 1
                yield event


class OnStore(Generic[E]):
    """Follows objects; after another driver has taken over, from the first event on."""

    def __init__(self, filesystem: FileSystem, root: str, uri: str, lines: parsing.Lines[E]) -> None:
        self._filesystem, self._root, self._uri, self._lines = filesystem, root, uri, lines
        self._begin()

    def _begin(self) -> None:
        self._reading = Reading(self._filesystem, self._root, self._uri, self._lines)
        self._anew, self._trials = True, set[str]()

    def more(self) -> tuple[bool, Iterator[E]]:
        """The events of objects that were not there before."""
        if self._reading.is_superseded():
            self._begin()
        anew, self._anew = self._anew, False
        return anew, journals.coherent(self._reading.more(), self._uri, self._trials)
