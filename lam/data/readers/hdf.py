"""A folder of .h5 files, one video each: what `lam.data.h5` checks, opened to be read."""

from __future__ import annotations

from pathlib import Path

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
        try:
            file = h5py.File(path, "r", locking="best-effort", rdcc_nbytes=CHUNK_CACHE)
        except OSError as error:
            files.check_may_open(error)
            raise
        return Video(info, file[self.key], (lambda: file[ACTIONS][:]) if info.actions else None, path,
                     lambda: bytes_of(path), file.close)
