"""Where a journal is written: a folder, whose segments are appended to, or objects (`sweeps.journal.objects`)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol

from record import files
from record.errors import BadInput, EnvironmentFailed
from record.journal import journals, parsing
from record.journal.events import JournalEvent
from record.journal.results import Event
from record.storage import copies
from record.storage.store import PATIENCE_SECONDS, Patience, connect
from record.text import printable
from sweeps.journal import lease
from sweeps.journal.objects import ObjectStore

SEGMENT_EVENTS = 5000
LOCK_TRIES = 4
LOCK_PAUSE_SECONDS = 0.05
LONGEST_HOLDER = 1000  # characters of what names the holder of a lock


class Store(Protocol):
    """The one writer's hold on a journal."""

    @property
    def where(self) -> Path | str:
        """The place, for messages."""

    def read(self) -> Iterator[JournalEvent]:
        """All events in order."""

    def history(self) -> Iterator[Event]:
        """The same, results as decisions read them."""

    def append(self, seq: int, line: bytes) -> None:
        """Write one event; it is durable when this returns, or EnvironmentFailed."""

    def close(self) -> None:
        """No more events of this session."""


@contextlib.contextmanager
def hold(folder: Path, home: Path | str) -> Iterator[Store]:
    """The sweep folder and its journal for one driver, for the length of a with-block; a copy is refreshed first.

    Args:
        home: where the journal is kept (`record.storage.addresses.place`).

    Raises:
        BadInput: another driver holds one of them, or the journal's place does not exist.
        EnvironmentFailed: the journal's store does not answer, or refuses to be written.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(Lock(folder))
        if isinstance(home, Path):
            if home != folder:
                stack.enter_context(Lock(home))
            held: Store = FolderStore(home)
        else:
            patience = Patience(home, PATIENCE_SECONDS)
            held = stack.enter_context(ObjectStore(*connect(home), home, patience=patience))
        copies.refresh(folder)
        yield held


def at_work(folder: Path, home: Path | str) -> bool | None:
    """Whether a driver holds the sweep at this moment; None where that cannot be told. Disturbs none.

    Args:
        home: where the journal is kept (`record.storage.addresses.place`).
    """
    held = Lock(folder).held()
    if held is False and isinstance(home, Path) and home != folder:
        return Lock(home).held()
    if held is False and isinstance(home, str):  # the folder may be a copy: the claims tell of other machines
        try:
            return lease.is_held(*connect(home))
        except OSError:
            return None
    return held


def check_store(home: Path | str) -> None:
    """See that a journal can be written there, before anything starts.

    Raises:
        BadInput: no such place.
        EnvironmentFailed: it does not answer, or lets nothing be written or deleted.
    """
    if isinstance(home, str):
        try:
            lease.probe(*connect(home))
        except OSError as error:
            raise EnvironmentFailed(lease.refused(home, error)) from error


class FolderStore:
    """Appends to segments in a folder, each line forced to the disk.

    A session opens a segment of its own and never touches the earlier ones, so a line that a kill left
    half-written stays where it is and every reader leaves it out.
    """

    def __init__(self, folder: str | Path) -> None:
        self.where = Path(folder)
        self._folder = Path(folder)
        self._segment = len(journals.segments(folder))
        self._file: FileIO | None = None
        self._written = 0
        self._good = 0
        self._broken = False

    def read(self) -> Iterator[JournalEvent]:
        """All events in order."""
        return journals.read_at(self._folder, parsing.read_lines)

    def history(self) -> Iterator[Event]:
        """The same, results as decisions read them."""
        return journals.read_at(self._folder, parsing.read_told)

    def append(self, seq: int, line: bytes) -> None:
        """Write one event.

        Raises:
            EnvironmentFailed: the disk refused it (full, read-only, gone); the journal stays readable.
        """
        try:
            if self._broken:
                raise OSError(errno.EIO, "an earlier event could not be written")
            file = self._open()
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            self._take_back()
            raise EnvironmentFailed(f"{self._folder}: the journal cannot be written ({error.strerror}); free or repair "
                                    "the disk, the same command then resumes") from error
        self._written += 1
        self._good = file.tell()

    def _take_back(self) -> None:
        """Leave no part of a line that could not be written: the next event, if any, opens a segment of its own.

        Where even that is refused, nothing more is written; readers leave a half-written last line out.
        """
        if self._file is None:
            return
        handle, self._file = self._file, None
        try:
            os.ftruncate(handle.fileno(), self._good)
        except OSError:
            self._broken = True
        handle.close()

    def _open(self) -> FileIO:
        if self._file is None or self._written >= SEGMENT_EVENTS:
            self.close()
            self._segment += 1
            self._file = open(self._folder / f"journal-{self._segment:06d}.jsonl", "xb", buffering=0)  # noqa: SIM115
            files.sync_folder(self._folder)
            self._written = self._good = 0
        return self._file

    def close(self) -> None:
        """Close the segment; it never changes again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Lock:
    """Holds a sweep folder for one driver.

    The kernel releases the lock with its holder, however that ends, so a lock left by a dead
    process is taken over; the text in the file names the holder for the message only.

    Raises:
        BadInput: another driver holds it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.file = Path(folder) / "driver.lock"

    def __enter__(self) -> Lock:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = open(self.file, "a+", encoding="utf-8")
        try:
            self._take()
        except BlockingIOError:
            holder = self._holder()
            self._handle.close()
            raise BadInput(f"another driver is at work here ({holder})", source=self.file.parent,
                           remedy="wait for it, or stop it; or give this sweep another name") from None
        try:
            with files.naming(self.file):
                self._name_holder()
        except OSError:  # a full disk
            with contextlib.suppress(OSError):  # which tries to write once more
                self._handle.close()
            raise
        return self

    def _name_holder(self) -> None:
        self._handle.truncate(0)
        self._handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(),
                                       "since": datetime.now(UTC).isoformat(timespec="seconds")}))
        self._handle.flush()

    def _take(self) -> None:
        """Take the lock; a reader that looks whether it is held has it for a moment, so a few tries are made."""
        for _ in range(LOCK_TRIES - 1):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(LOCK_PAUSE_SECONDS)
        fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def held(self) -> bool | None:
        """Whether a driver holds it, for readers: it is neither made nor kept. None: the file system cannot tell."""
        try:
            with open(self.file, encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        except OSError:
            return None
        return False

    def _holder(self) -> str:
        self._handle.seek(0)
        try:
            told = files.parse_json(self._handle.read(LONGEST_HOLDER))
            return printable(f"process {told['pid']} on {told['host']} since {told['since']}")
        except (ValueError, KeyError, TypeError):
            return "it has not said which"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._handle.close()
