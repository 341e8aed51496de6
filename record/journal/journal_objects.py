"""A journal kept as objects, on any pyarrow filesystem: for stores that cannot append.

    journal-<first>-<last>-<generation>-<token>.jsonl    events first..last, one a line; never overwritten
    lease-<generation>-<token>.json                      the claim of a writer (sweeps.journal.lease)

Each event is first an object of its own; full blocks are merged into larger objects, and only then the parts
are deleted, so an event may stand in several. (generation, token) names the session that wrote an object. Where
two sessions wrote the same number, the later one counts; what an earlier one wrote beyond that does not count,
since it had lost the lease. An object that a kill left half-written counts up to its last whole line.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, NamedTuple

from record import files
from record.errors import Damaged, EnvironmentFailed
from record.journal import parsing
from record.journal.parsing import E
from record.storage.store import first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

READERS = 16
ATTEMPTS = 5
PAUSE_SECONDS = 0.2
PORTION = 10_000

_NAME = re.compile(r"journal-(\d{12})-(\d{12})-(\d{6,})-([0-9a-f]{8})\.jsonl")

Key = tuple[int, str]


class ObjectPart(NamedTuple):
    """One object of the journal."""

    first: int
    last: int
    generation: int
    token: str

    @property
    def name(self) -> str:
        """Its name under the root."""
        return f"journal-{self.first:012d}-{self.last:012d}-{self.generation:06d}-{self.token}.jsonl"

    @property
    def key(self) -> Key:
        """The session that wrote it; a later session's is larger."""
        return self.generation, self.token


def listing(filesystem: FileSystem, root: str) -> list[FileInfo]:
    """Everything that lies directly under the root; nothing where it does not exist yet."""
    from pyarrow import fs

    found: list[FileInfo] = filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    return found


def parts(filesystem: FileSystem, root: str) -> list[ObjectPart]:
    """The journal's objects."""
    names = (_NAME.fullmatch(info.base_name) for info in listing(filesystem, root))
    return [ObjectPart(int(name[1]), int(name[2]), int(name[3]), name[4]) for name in names if name]


def load_parts(filesystem: FileSystem, root: str, wanted: Iterable[ObjectPart],
               lines: parsing.Lines[E]) -> dict[int, tuple[Key, E]]:
    """Sequence number -> (session, event): the latest session's, of the objects wanted.

    Args:
        lines: reads the events of an object.

    Raises:
        ValueError: an object is damaged before its last line.
        Damaged, EnvironmentFailed: an event in it is, or is of a newer version.
        FileNotFoundError: an object has been merged meanwhile.
    """
    ordered = sorted(wanted, key=lambda part: part.key)
    with ThreadPoolExecutor(READERS) as pool:
        texts = list(pool.map(lambda part: _read_object(filesystem, f"{root}/{part.name}"), ordered))
    found: dict[int, tuple[Key, E]] = {}
    for part, text in zip(ordered, texts, strict=True):
        for seq, event in enumerate(lines(text, part.name), part.first):
            if event.seq != seq:
                raise ValueError(f"{part.name}: expected the event with number {seq}, found number {event.seq}")
            found[seq] = (part.key, event)
    return found


def _read_object(filesystem: FileSystem, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        content: bytes = stream.read(files.MOST_BYTES + 1)
    if len(content) > files.MOST_BYTES:
        raise ValueError(f"{path} is larger than {files.MOST_BYTES:,} bytes")
    return content


def accepted(found: dict[int, tuple[Key, E]], after: int = 0, latest: Key = (0, "")) -> tuple[list[E], Key]:
    """(the events that count, the session of the last one); see the module's rule on sessions.

    Args:
        after, latest: the last event that counted before, and its session.
    """
    counted: list[E] = []
    while (entry := found.get(after + len(counted) + 1)) is not None and entry[0] >= latest:
        latest = entry[0]
        counted.append(entry[1])
    return counted, latest


class Reading(Generic[E]):
    """Reads a journal's objects in order, and later on from where it was.

    Args:
        lines: reads the events of an object.
        portion: events that are in memory at a time.
    """

    def __init__(self, filesystem: FileSystem, root: str, where: str, lines: parsing.Lines[E],
                 portion: int = PORTION) -> None:
        self._filesystem, self._root, self._where, self._lines = filesystem, root, where, lines
        self._portion = portion
        self._seq, self._latest = 0, (0, "")

    def is_superseded(self) -> bool:
        """Whether a later session may have written again what was read; then it must be read anew."""
        with self._told():
            return any(part.first <= self._seq and part.key > self._latest
                       for part in parts(self._filesystem, self._root))

    def more(self) -> Iterator[E]:
        """The events since those read before.

        A listing that was made while a writer merged objects can miss some; it is made again a few times.

        Raises:
            Damaged: an event is missing or no event.
            EnvironmentFailed: the store does not answer.
        """
        gap = "objects vanish while they are read"
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_SECONDS if attempt else 0)
            found: dict[int, tuple[Key, E]] = {}
            try:
                with self._told(), parsing.uncollected():
                    for portion in self._portions():
                        found |= load_parts(self._filesystem, self._root, portion, self._lines)
                        yield from self._counted(found)
            except FileNotFoundError:
                continue
            beyond = [seq for seq, (key, _) in found.items() if key >= self._latest]
            if not beyond:
                return
            gap = f"the event after number {self._seq} has number {min(beyond)}"
        raise Damaged(f"{self._where}: {gap}; restore the journal from a copy")

    def _counted(self, found: dict[int, tuple[Key, E]]) -> list[E]:
        """Take what counts out of what was found."""
        counted, self._latest = accepted(found, self._seq, self._latest)
        self._seq += len(counted)
        for seq in [seq for seq in found if seq <= self._seq]:
            del found[seq]
        return counted

    def _portions(self) -> Iterator[list[ObjectPart]]:
        """The objects with events that were not read, as many at a time as a portion holds, or a few more."""
        portion: list[ObjectPart] = []
        last = 0
        for part in sorted(part for part in parts(self._filesystem, self._root) if part.last > self._seq):
            if last - self._seq >= self._portion and part.first > last:
                yield portion
                portion = []
            portion.append(part)
            last = max(last, part.last)
        yield portion

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What a store refuses in the with-block as the error that commands end with."""
        try:
            yield
        except FileNotFoundError:
            raise
        except ValueError as error:
            raise Damaged(f"{self._where}: {error}; restore the journal from a copy") from None
        except OSError as error:
            raise EnvironmentFailed(f"{self._where}: the journal cannot be read ({first_line(error)}); check the "
                                    "network and the credentials in the environment") from error
