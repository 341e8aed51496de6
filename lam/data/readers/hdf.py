"""A folder of .h5 files, one video each: what `lam.data.h5` checks, opened to be read."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import h5py

from lam.data.h5 import ACTIONS, EMBEDDINGS, FileInfo, list_files, read_info
from lam.data.readers.video import OPEN_VIDEOS, Video, bytes_of
from record import files

CHUNK_CACHE = 16 << 20  # bytes of decoded storage chunks that each open file keeps


class Hdf:
    """The videos of a folder of .h5 files."""

    open_videos = OPEN_VIDEOS

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.folder, self.key = folder, key or EMBEDDINGS

    def names(self) -> list[str]:
        return list_files(self.folder)

    def home(self, name: str) -> Path:
        return self.folder / name

    def holds(self, name: str) -> bool:
        return self.home(name).exists()

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        path = self.home(name)
        info = known or read_info(path, self.key)
        values = _Latents(path, info)
        return Video(info, values, (lambda: values.file[ACTIONS][:]) if info.actions else None, path,
                     lambda: bytes_of(path), values.close)


class _Latents:
    """The latents of a checked file, which is opened when the first of them is asked for.

    Opening costs as much as reading a short video, and whoever wants a header or a hash wants neither.
    """

    def __init__(self, path: Path, info: FileInfo) -> None:
        self.path, self.key = path, info.key
        self.shape = (info.chunks, info.channels, info.chunk_frames, info.height, info.width)

    @cached_property
    def file(self) -> h5py.File:
        try:
            return h5py.File(self.path, "r", locking="best-effort", rdcc_nbytes=CHUNK_CACHE)
        except OSError as error:
            files.check_may_open(error)
            raise

    @cached_property
    def _values(self) -> h5py.Dataset:
        return self.file[self.key]

    def __getitem__(self, rows: slice) -> Any:
        return self._values[rows]

    def close(self) -> None:
        if "file" in self.__dict__:
            self.file.close()
