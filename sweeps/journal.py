"""The journal of a sweep: append-only JSON lines in numbered segments, one writer at a time.

A session opens a segment of its own and never touches the earlier ones, so a line that a kill left
half-written stays where it is and every reader leaves it out. Each line is on the disk before
`append` returns.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from lam import files
from lam.errors import BadInput, EnvironmentFailed
from sweeps.state import SweepState

SEGMENT_EVENTS = 5000


def read(folder: str | Path) -> Iterator[dict[str, Any]]:
    """The events of a sweep in order; half-written lines are left out.

    Raises:
        EnvironmentFailed: a line in the middle is damaged, or a sequence number is missing.
    """
    expected = 1
    for segment in segments(folder):
        try:
            for event in files.read_json_lines(segment):
                if event["seq"] != expected:
                    raise EnvironmentFailed(f"{segment}: the event after number {expected - 1} has number "
                                            f"{event['seq']}; restore the journal from a copy of the sweep folder")
                yield event
                expected += 1
        except ValueError as error:
            raise EnvironmentFailed(f"{error}; restore the journal from a copy of the sweep folder") from None


def segments(folder: str | Path) -> list[Path]:
    """Journal files in order."""
    return sorted(Path(folder).glob("journal-[0-9]*.jsonl"))


class Journal:
    """The one writer of a sweep's journal, and the state that its events add up to.

    Use it inside a `Lock`. `state` always equals `replay(read(folder))`.

    Attributes:
        listen: called with each event after it is on the disk.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.state = SweepState()
        for event in read(self.folder):
            self.state.apply(event)
        self._segment = len(segments(self.folder))
        self._file: FileIO | None = None
        self._written = 0
        self._good = 0
        self._broken = False
        self.listen: Callable[[dict[str, Any]], None] | None = None

    def append(self, event: str, **fields: Any) -> None:
        """Write one event and take it into `state`.

        Raises:
            EnvironmentFailed: the disk refused it (full, read-only, gone); the journal stays readable.
        """
        line = files.jsonable({"seq": self.state.seq + 1, "time": datetime.now(UTC).isoformat(),
                               "event": event, **fields})
        try:
            if self._broken:
                raise OSError(errno.EIO, "an earlier event could not be written")
            file = self._open()
            data = (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            self._take_back()
            raise EnvironmentFailed(f"{self.folder}: the journal cannot be written ({error.strerror}); free or repair "
                                    "the disk, the same command then resumes") from error
        self._written += 1
        self._good = file.tell()
        self.state.apply(line)
        if self.listen is not None:
            self.listen(line)

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
            self._file = open(self.folder / f"journal-{self._segment:06d}.jsonl", "xb", buffering=0)  # noqa: SIM115
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
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            self._handle.close()
            raise BadInput(f"another driver is at work here ({holder})", source=self.file.parent,
                           remedy="wait for it, or stop it; or give this sweep another name") from None
        self._handle.truncate(0)
        self._handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(),
                                       "since": datetime.now(UTC).isoformat(timespec="seconds")}))
        self._handle.flush()
        return self

    def _holder(self) -> str:
        self._handle.seek(0)
        try:
            told = json.loads(self._handle.read())
        except ValueError:
            return "it has not said which"
        return f"process {told['pid']} on {told['host']} since {told['since']}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._handle.close()
