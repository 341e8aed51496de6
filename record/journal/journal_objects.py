"""A journal kept as objects, on any pyarrow filesystem: for stores that cannot append.

    journal-<first>-<last>-<generation>-<token>.jsonl    events first..last, one a line; never overwritten
    lease-<generation>-<token>.json                      the claim of a writer (sweeps.journal.lease)

Each event is first an object of its own; full blocks are merged into larger objects, and only then the parts
are deleted, so an event may stand in several. (generation, token) names the session that wrote an object. Where
two sessions wrote the same number, the later one counts; what an earlier one wrote beyond that does not count,
since it had lost the lease. An object that a kill left half-written counts up to its last whole line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from record import files
from record.errors import Damaged, EnvironmentFailed
from record.journal import events, parsing
from record.storage.store import first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

READERS = 16
ATTEMPTS = 5
PAUSE_SECONDS = 0.2

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


def load_parts(
    filesystem: FileSystem, root: str, wanted: Iterable[ObjectPart]
) -> dict[int, tuple[Key, events.JournalEvent]]:
    """Sequence number -> (session, event): the latest session's, of the objects wanted.

    Raises:
        ValueError: an object is damaged before its last line.
        Damaged, EnvironmentFailed: an event in it is, or is of a newer version.
        FileNotFoundError: an object has been merged meanwhile.
    """
    ordered = sorted(wanted, key=lambda part: part.key)
    with ThreadPoolExecutor(READERS) as pool:
        texts = list(pool.map(lambda part: _read_object(filesystem, f"{root}/{part.name}"), ordered))
    found: dict[int, tuple[Key, events.JournalEvent]] = {}
    for part, text in zip(ordered, texts, strict=True):
        for seq, event in enumerate(parsing.read_lines(text, part.name), part.first):
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


def accepted(found: dict[int, tuple[Key, events.JournalEvent]]) -> tuple[list[events.JournalEvent], int | None]:
    """(the events that count, the number of an event after a gap); see the module's rule on sessions."""
    counted: list[events.JournalEvent] = []
    latest: Key = (0, "")
    while (entry := found.get(len(counted) + 1)) is not None and entry[0] >= latest:
        latest = entry[0]
        counted.append(entry[1])
    beyond = [seq for seq, (key, _) in found.items() if seq > len(counted) and key >= latest]
    return counted, min(beyond, default=None)


def read_objects(filesystem: FileSystem, root: str, where: str) -> list[events.JournalEvent]:
    """All events in order.

    A listing that was made while a writer merged objects can miss some; it is made again a few times.

    Raises:
        Damaged: an event is missing or no event.
        EnvironmentFailed: the store does not answer.
    """
    gap = "objects vanish while they are read"
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_SECONDS if attempt else 0)
        try:
            with parsing.uncollected():
                counted, beyond = accepted(load_parts(filesystem, root, parts(filesystem, root)))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise Damaged(f"{where}: {error}; restore the journal from a copy") from None
        except OSError as error:
            raise EnvironmentFailed(f"{where}: the journal cannot be read ({first_line(error)}); check the network and "
                                    "the credentials in the environment") from error
        if beyond is None:
            return counted
        gap = f"the event after number {len(counted)} has number {beyond}"
    raise Damaged(f"{where}: {gap}; restore the journal from a copy")
