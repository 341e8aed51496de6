"""An object store on a local folder whose requests may be refused, and a journal on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow import fs

from record.journal import journal_objects, parsing
from record.journal.events import Suggested
from sweeps.journal.journal import Journal
from sweeps.journal.lease import Lease
from sweeps.journal.objects import ObjectStore


class Disk:
    """The requests that a store is given, on a local folder; `refuse` may raise before each of them."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.refuse: Callable[[str, str], None] = lambda request, name: None
        self._real = fs.LocalFileSystem()

    def __getattr__(self, request: str) -> Any:
        def asked(what: Any, **more: Any) -> Any:
            self.refuse(request, str(what).rpartition("/")[2])
            return getattr(self._real, request)(what, **more)
        return asked

    def open_append_stream(self, path: str) -> None:
        raise AssertionError("an object store cannot append")

    def names(self) -> list[str]:
        return sorted(path.name for path in Path(self.root).glob("journal-*"))


def refuse(*requests: str, matching: str = "", after: int = 0) -> Callable[[str, str], None]:
    """Refuses these requests for names that match, from the one number `after` on."""
    seen = [0]

    def act(request: str, name: str) -> None:
        if request in requests and re.search(matching, name):
            seen[0] += 1
            if seen[0] > after:
                raise OSError(28, "AWS Error SLOW_DOWN during PutObject operation")
    return act


def store_on(disk: Disk, **settings: float) -> ObjectStore:
    held = Lease(disk, disk.root, "mem://x", **{"settle_seconds": 0.02, **settings})
    return ObjectStore(disk, disk.root, "mem://x", held, blocks=(4, 8))


@contextlib.contextmanager
def journal_on(disk: Disk, folder: Path, **settings: float) -> Iterator[Journal]:
    with store_on(disk, **settings) as store:
        yield Journal(folder, store)


def fill(journal: Journal, count: int) -> None:
    for number in range(count):
        journal.append(Suggested(trial=f"t{journal.state.seq:04d}", params={"number": number}))


def seqs(disk: Disk) -> list[int]:
    return [event.seq for event in journal_objects.Reading(disk, disk.root, "mem://x", parsing.read_lines).more()]
