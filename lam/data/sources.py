"""Two ways to the same latents: the videos' own files, or a decoded memory-mapped copy of them.

Both answer the same two questions, about `count` latent frames of one file, and give the same bits.
Both open files lazily and forget them when pickled or forked, so that every process has its own.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import UNKNOWN_ACTION
from lam.data.index import FileRecord, Header, beat, cache_folder, locked, scan_file
from lam.data.readers import decoded
from lam.data.readers.video import OPEN_VIDEOS, Reader, Video, signature
from record import files
from record.errors import BadInput, EnvironmentFailed
from record.progress import track

log = logging.getLogger(__name__)

OPEN_ACTIONS = 1 << 14  # files whose actions are kept in memory; no file stays open for them
RETRY_SECONDS = (0.1, 0.5, 2.0)
Opened = TypeVar("Opened")


class Source(Protocol):
    """Latents and actions of numbered files."""

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        """[count, C, H, W] latent frames."""

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        """[count] actions that led into these frames; -1 where unknown."""


class _PerProcess(Generic[Opened]):
    """The most recently used opened things, by file number, of this process only."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.process = os.getpid()
        self.opened: OrderedDict[int, Opened] = OrderedDict()

    def get(self, number: int, make: Callable[[], Opened]) -> Opened:
        if self.process != os.getpid():  # forked: the parent's handles are not ours to use
            self.__init__(self.most)  # type: ignore[misc]
        if number not in self.opened:
            self.opened[number] = make()
            if len(self.opened) > self.most:
                self.opened.popitem(last=False)
        self.opened.move_to_end(number)
        return self.opened[number]

    def drop(self, number: int) -> None:
        self.opened.pop(number, None)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.most,)


class Direct:
    """Reads the files. One that stops being readable is tried again after each of `pauses`, then named."""

    def __init__(self, reader: Reader, names: Sequence[str], records: Sequence[Header],
                 pauses: Iterable[float] = RETRY_SECONDS, open_videos: int | None = None) -> None:
        self.reader, self.names, self.records, self._pauses = reader, names, records, pauses
        self._open: _PerProcess[Video] = _PerProcess(open_videos or reader.open_videos)

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        return self._read(file, lambda video: video.frames(first, count))

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        if not self.records[file].info.actions:
            return np.full(count, UNKNOWN_ACTION, np.int64)
        return self._read(file, lambda video: video.actions()[first:first + count])

    def _read(self, number: int, read: Callable[[Video], NDArray[Any]]) -> NDArray[Any]:
        problem: Exception | None = None
        for pause in itertools.chain(self._pauses, [None]):
            try:
                return read(self._open.get(number, lambda: self._opened(number)))
            except (OSError, BadInput, RuntimeError, ValueError) as error:  # each library's of damage
                if isinstance(error, OSError):
                    files.check_may_open(error)
                problem = error
            self._open.drop(number)
            if pause is not None:
                time.sleep(pause)
        raise EnvironmentFailed(f"{self.reader.home(self.names[number])}: can no longer be read ({problem}); put the "
                                "file back, then run the same command again")

    def _opened(self, number: int) -> Video:
        name, record = self.names[number], self.records[number]
        if not record.describes(signature(self.reader.home(name))):
            raise OSError("it changed since it was checked")
        return self.reader.opened(name, record.info)


class Cached:
    """Reads the decoded copies that `build_cache` made."""

    def __init__(self, folder: Path, records: tuple[FileRecord, ...]) -> None:
        self.folder, self.records = folder, records
        self._open: _PerProcess[NDArray[np.generic]] = _PerProcess(OPEN_VIDEOS)
        self._actions: _PerProcess[NDArray[np.int64]] = _PerProcess(OPEN_ACTIONS)

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        mapped = self._open.get(file, lambda: self._loaded(
            file, lambda record: decoded.mapped_latents(self.folder, record.sha256, record.info)))
        return decoded.as_float32(mapped[first:first + count])

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        return self._actions.get(file, lambda: self._loaded(
            file, lambda record: np.load(decoded.actions_entry(self.folder, record.sha256))))[first:first + count]

    def _loaded(self, number: int, load: Callable[[FileRecord], Opened]) -> Opened:
        try:
            return load(self.records[number])
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                files.check_may_open(error)
            raise EnvironmentFailed(f"{self.folder}: the cache of decoded latents is damaged ({error}); remove that "
                                    "folder, then run the same command again") from None


def build_cache(reader: Reader, records: Mapping[str, FileRecord]) -> Path | None:
    """Decode the videos that are not in the cache yet; returns the cache's folder, None where it has no room for them.

    Any number of processes may ask at once: one builds, the others wait and find it done.

    Raises:
        BadInput: a video cannot be read, or changed since it was.
    """
    folder = cache_folder(reader.folder)
    if not _missing(folder, records):
        return folder
    with locked(folder):
        missing = _missing(folder, records)
        if not has_room(folder, list(missing.values())):
            return None
        for name in track(missing, len(missing), f"decoding {reader.folder}"):
            beat(folder)
            if scan_file(reader, name, folder).sha256 != missing[name].sha256:
                raise BadInput("changed since it was checked", source=reader.home(name),
                               remedy="run the same command again")
    return folder


def has_room(folder: Path, headers: Sequence[Header]) -> bool:
    """Whether decoded copies of these videos fit the disk; where they do not, that is said."""
    needed, free = sum(decoded.decoded_bytes(each.info) for each in headers), shutil.disk_usage(folder).free
    if free < needed * 1.02:
        log.warning("%s: the cache of decoded latents needs %.1f GB, %.1f GB are free; the files are read directly, "
                    "which is slower", folder, needed / 1e9, free / 1e9)
    return free >= needed * 1.02


def _missing(folder: Path, records: Mapping[str, FileRecord]) -> dict[str, FileRecord]:
    return {name: each for name, each in records.items() if not decoded.complete(folder, each.sha256, each.info)}
