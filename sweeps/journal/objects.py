"""The journal on a store that cannot append: one object an event, merged into larger ones as blocks fill."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

from record.errors import Damaged, EnvironmentFailed
from record.journal import events, journal_objects, journals, parsing
from record.journal.journal_objects import READERS, ObjectPart, Reading
from record.journal.parsing import E
from record.journal.results import Event
from record.storage.store import Patience
from sweeps.journal.lease import Lease, refused

# Events of a merged object: first the single events of a block, then the blocks of a larger one.
BLOCKS = (100, 10_000)


class ObjectStore:
    """A `sweeps.journal.stores.Store`: holds the lease for the length of a with-block.

    Args:
        filesystem: a pyarrow filesystem; only whole objects are written and read.
        root: the journal's path on it.
        where: its URI, for messages.
        patience: with a store that does not answer. A request made again writes the same object again: its name holds
            the event's number and the session.
    """

    def __init__(self, filesystem: Any, root: str, where: str, lease: Lease | None = None,
                 blocks: tuple[int, ...] = BLOCKS, patience: Patience | None = None) -> None:
        self._filesystem, self._root, self.where = filesystem, root, where
        self._patiently = patience or Patience(where)
        self._lease = lease or Lease(filesystem, root, where, patience=self._patiently)
        self._blocks = blocks
        self._broken = False

    def __enter__(self) -> ObjectStore:
        self._lease.__enter__()
        try:
            self.compact()  # what a kill left undone
        except BaseException:
            self._lease.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._lease.__exit__(kind, error, trace)

    def read(self) -> Iterator[events.JournalEvent]:
        """All events in order."""
        return self._read(parsing.read_lines)

    def history(self) -> Iterator[Event]:
        """The same, results as decisions read them."""
        return self._read(parsing.read_told)

    def _read(self, lines: parsing.Lines[E]) -> Iterator[E]:
        return journals.coherent(Reading(self._filesystem, self._root, self.where, lines).more(), self.where)

    def append(self, seq: int, line: bytes) -> None:
        """Write the event with number `seq`; it is stored when this returns.

        A write that failed may have arrived all the same, so nothing more is written after one.

        Raises:
            EnvironmentFailed: the store refused it, or the lease is lost.
        """
        with self._writing():
            if self._broken:
                raise OSError(errno.EIO, "an earlier event could not be written")
            self._patiently(lambda: self._held_put(ObjectPart(seq, seq, *self._lease.key), line))
        if seq % self._blocks[0] == 0:
            self._patiently(self._lease.check)
            self.compact()

    def _held_put(self, part: ObjectPart, content: bytes) -> None:
        self._lease.check()
        self._put(part, content)

    def close(self) -> None:
        """Nothing is open between two events."""

    def compact(self) -> None:
        """Merge the objects of each full block into one, then delete the parts.

        Raises:
            EnvironmentFailed: the store refused a write or an event is missing.
        """
        with self._writing():
            for size in self._blocks:
                self._patiently(partial(self._merge_blocks, size))

    def _merge_blocks(self, size: int) -> None:
        blocks: dict[int, list[ObjectPart]] = {}
        for part in journal_objects.parts(self._filesystem, self._root):
            if _block(part.first, size) == _block(part.last, size):
                blocks.setdefault(_block(part.first, size), []).append(part)
        for block, parts in blocks.items():
            self._merge(block * size + 1, (block + 1) * size, parts)

    def _merge(self, first: int, last: int, parts: list[ObjectPart]) -> None:
        """Write the block's events as one object named by the session of the last one; a block not full stays."""
        if len(parts) < 2 or max(part.last for part in parts) < last:
            return
        found = journal_objects.load_parts(self._filesystem, self._root, parts, parsing.read_lines)
        missing = next((seq for seq in range(first, last + 1) if seq not in found), None)
        if missing == last:  # a kill left it half-written: it does not count, and the block is not full yet
            return
        if missing is not None:
            raise Damaged(f"{self.where}: the event with number {missing} is missing; restore the journal from a copy")
        whole = ObjectPart(first, last, *found[last][0])
        content = b"".join(found[seq][1].line() for seq in range(first, last + 1))
        if self._size(whole) != len(content):  # one that is whole is never written again: a kill might halve it
            self._put(whole, content)
        size = self._size(whole)
        if size != len(content):
            raise OSError(errno.EIO, f"{whole.name} has {size} bytes there, {len(content)} were written")
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(self._delete, [part for part in parts if part != whole]))

    def _put(self, part: ObjectPart, content: bytes) -> None:
        with self._filesystem.open_output_stream(self._path(part)) as stream:
            stream.write(content)

    def _size(self, part: ObjectPart) -> int | None:
        found: int | None = self._filesystem.get_file_info(self._path(part)).size
        return found

    def _path(self, part: ObjectPart) -> str:
        return f"{self._root}/{part.name}"

    def _delete(self, part: ObjectPart) -> None:
        self._filesystem.delete_file(self._path(part))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._broken = True
            raise EnvironmentFailed(refused(self.where, error)) from error
        except ValueError as error:
            raise Damaged(f"{self.where}: {error}; restore the journal from a copy") from None


def _block(seq: int, size: int) -> int:
    return (seq - 1) // size
