"""Two ways to the same latents: the H5 files themselves, or a decoded memory-mapped copy of them.

Both answer the same two questions, about `count` latent frames of one file, and give the same bits.
Both open files lazily and forget them when pickled or forked, so that every process has its own.
"""

from __future__ import annotations

import itertools
import mmap
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import ACTIONS, EMBEDDINGS, UNKNOWN_ACTION, dataset, open_file, read_frames
from lam.data.index import FileRecord, Header, beat, blocks, cache_folder, locked, stored_records
from record import files
from record.errors import BadInput, EnvironmentFailed
from record.progress import track

OPEN_FILES = 64  # files of latents that one source keeps open in a process; systems allow as few as 256 in all
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
    """Reads the H5 files. A file that stops being readable is tried again after each of `pauses`, then named."""

    def __init__(self, folder: Path, names: Sequence[str], records: Sequence[Header],
                 pauses: Iterable[float] = RETRY_SECONDS, open_files: int = OPEN_FILES) -> None:
        self.paths = [folder / name for name in names]
        self.records, self._pauses = records, pauses
        self._open: _PerProcess[h5py.File] = _PerProcess(open_files)

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        return self._read(file, lambda opened: read_frames(opened[EMBEDDINGS], first, count))

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        if not self.records[file].info.actions:
            return np.full(count, UNKNOWN_ACTION, np.int64)
        return self._read(file, lambda opened: opened[ACTIONS][first:first + count].astype(np.int64))

    def _read(self, number: int, read: Callable[[h5py.File], NDArray[Any]]) -> NDArray[Any]:
        problem: Exception | None = None
        for pause in itertools.chain(self._pauses, [None]):
            try:
                return read(self._open.get(number, lambda: self._opened(number)))
            except OSError as error:
                files.check_may_open(error)
                problem = error
            self._open.drop(number)
            if pause is not None:
                time.sleep(pause)
        raise EnvironmentFailed(f"{self.paths[number]}: can no longer be read ({problem}); put the file back, "
                                "then run the same command again")

    def _opened(self, number: int) -> h5py.File:
        path, record = self.paths[number], self.records[number]
        if not record.describes(path.stat()):
            raise OSError("it changed since it was checked")
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=16 << 20)


class Cached:
    """Reads the decoded copies that `build_cache` made."""

    def __init__(self, folder: Path, records: tuple[FileRecord, ...]) -> None:
        self.folder, self.records = folder, records
        self._open: _PerProcess[NDArray[np.floating]] = _PerProcess(OPEN_FILES)
        self._actions: _PerProcess[NDArray[np.int64]] = _PerProcess(OPEN_ACTIONS)

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        mapped = self._open.get(file, lambda: self._loaded(file, _mapped))
        return mapped[first:first + count].astype(np.float32, copy=False)

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        return self._actions.get(file, lambda: self._loaded(file, _actions))[first:first + count]

    def _loaded(self, number: int, load: Callable[[Path, FileRecord], Opened]) -> Opened:
        try:
            return load(self.folder, self.records[number])
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                files.check_may_open(error)
            raise EnvironmentFailed(f"{self.folder}: the cache of decoded latents is damaged ({error}); remove that "
                                    "folder, then run the same command again") from None


def _mapped(folder: Path, record: FileRecord) -> NDArray[np.floating]:
    """The decoded latents of one file, not yet read; a tenth of np.load's time, which parses the header."""
    with open(entry(folder, record), "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    values = np.frombuffer(mapped, _kind(record), offset=len(mapped) - _bytes(record))
    return values.reshape(record.info.latent_frames, *record.info.frame_shape)


def _actions(folder: Path, record: FileRecord) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.load(_actions_entry(folder, record))
    return found


def entry(folder: Path, record: FileRecord) -> Path:
    """Decoded latents of one file, named by its content: [frames, C, H, W] of float32, or of float16 as in the file."""
    return folder / f"{record.sha256[:32]}.latents{'16' if record.info.half else ''}.npy"


def _kind(record: FileRecord) -> str:
    return "<f2" if record.info.half else "<f4"


def _actions_entry(folder: Path, record: FileRecord) -> Path:
    return folder / f"{record.sha256[:32]}.actions.npy"


def build_cache(data_dir: Path, records: dict[str, FileRecord]) -> Path:
    """Decode the files that are not in the cache yet; returns the cache's folder.

    Any number of processes may ask at once: one builds, the others wait and find it done.

    Raises:
        EnvironmentFailed: the disk has not enough room.
        BadInput: a file cannot be read.
    """
    folder = cache_folder(data_dir)
    if all(_complete(folder, record) for record in records.values()):
        return folder
    with locked(folder):
        missing = {name: record for name, record in records.items() if not _complete(folder, record)}
        _check_room(folder, sum(_bytes(record) for record in missing.values()))
        for name in track(missing, len(missing), f"decoding {data_dir}"):
            beat(folder)
            _decode(data_dir / name, folder, records[name])
        _remove_stale(folder)
    return folder


def _remove_stale(folder: Path) -> None:
    """Remove decoded copies of contents that no file of the data folder has any more."""
    live = {record.sha256[:32] for record in stored_records(folder).values()}
    for path in folder.glob("*.npy"):
        if path.name.partition(".")[0] not in live:
            path.unlink(missing_ok=True)


def _bytes(record: FileRecord) -> int:
    return np.dtype(_kind(record)).itemsize * record.info.latent_frames * int(np.prod(record.info.frame_shape))


def _complete(folder: Path, record: FileRecord) -> bool:
    latents = entry(folder, record)
    return latents.exists() and latents.stat().st_size > _bytes(record) and _actions_entry(folder, record).exists()


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02:
        raise EnvironmentFailed(f"{folder}: the cache of decoded latents needs {needed / 1e9:.1f} GB, "
                                f"{free / 1e9:.1f} GB are free; make room, or set cache: false")


def _decode(path: Path, folder: Path, record: FileRecord) -> None:
    with open_file(path) as file:
        if not record.describes(path.stat()):
            raise BadInput("changed since it was checked", source=path, remedy="run the same command again")
        actions = np.full(record.info.latent_frames, UNKNOWN_ACTION, np.int64)
        if record.info.actions:
            actions[:] = dataset(file, ACTIONS, path)[:]
        data = dataset(file, EMBEDDINGS, path)
        files.write_atomic(_actions_entry(folder, record), lambda out: np.save(out, actions))
        files.write_atomic(entry(folder, record), lambda out: _write_latents(out, data, path, record))


def _write_latents(out: IO[bytes], data: h5py.Dataset, path: Path, record: FileRecord) -> None:
    """An .npy file, written block by block so that no video has to fit the memory."""
    shape = (record.info.latent_frames, *record.info.frame_shape)
    header = {"descr": _kind(record), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    for _, block in blocks(data, path):
        out.write(np.ascontiguousarray(block.transpose(0, 2, 1, 3, 4), _kind(record)).data)
