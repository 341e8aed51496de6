"""One video of latents, opened, whatever it lies in; and what finds and opens the videos of a folder."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import UNKNOWN_ACTION, FileInfo, check_expansion, usable_actions
from record import files
from record.errors import BadInput

READ_BYTES = 32 << 20  # latents decoded at a time where a whole video is read
BYTES = 1 << 20  # of a file that is hashed at a time
OPEN_VIDEOS = 64  # that one source keeps open in a process; systems allow as few as 256 files in all
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes of a number
EXPECTED = "expected [frames, C, H, W] or [N_chunks, C, T_latent, H, W] of floats"


class Signature(NamedTuple):
    """What the file system says of the file or folder that a video lies in."""

    size: int
    mtime_ns: int
    ctime_ns: int


def signature(path: Path) -> Signature:
    """Of a file, or of all files of a folder together: their bytes and the latest of their times.

    Raises:
        FileNotFoundError: there is none.
    """
    stats = [path.stat()] if not path.is_dir() else [
        os.stat(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names]
    return Signature(sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0),
                     max((stat.st_ctime_ns for stat in stats), default=0))


class Reader(Protocol):
    """The videos of one folder.

    Attributes:
        folder: where they lie.
        key: the name of the latents in each.
        open_videos: how many of them may be open at once; of those that are read whole, few.
    """

    folder: Path
    key: str
    open_videos: int

    def names(self) -> list[str]:
        """Of all videos, sorted."""

    def home(self, name: str) -> Path:
        """The file or folder that a video lies in; it need not be there."""

    def holds(self, name: str) -> bool:
        """Whether there is such a video."""

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        """Open a video; one whose header is known is not looked at again.

        Raises:
            BadInput: naming the file, what is wrong and the remedy.
        """


class Video:
    """An opened video.

    Attributes:
        info: what its header says.
        values: [frames, C, H, W] or [chunks, C, T, H, W] of floats: whatever has a shape and gives arrays for slices.
    """

    def __init__(self, info: FileInfo, values: Any, actions: Callable[[], NDArray[Any]] | None, path: Path,
                 hashed: Callable[[], Iterable[Any]], close: Callable[[], object] = lambda: None) -> None:
        self.info, self.values, self.path, self.close = info, values, path, close
        self._actions, self._hashed = actions, hashed

    def frames(self, first: int, count: int) -> NDArray[np.float32]:
        """[count, C, H, W] latent frames from `first` on."""
        if len(self.values.shape) == 5:
            chunk, offset = divmod(first, self.info.chunk_frames)
            block = _floats(self.values[chunk : (first + count - 1) // self.info.chunk_frames + 1])
            return block.transpose(0, 2, 1, 3, 4).reshape(-1, *self.info.frame_shape)[offset : offset + count]
        return _floats(self.values[first : first + count])

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(first chunk, [k, C, T, H, W]) over the video, each block of bounded size.

        Raises:
            BadInput: the storage of a block is damaged.
        """
        at_once = max(1, READ_BYTES // (4 * math.prod(self.values.shape[1:])))
        for first in range(0, self.info.chunks, at_once):
            try:
                block = _floats(self.values[first : first + at_once])
            except Exception as error:  # each library has its own of a storage that is damaged
                if isinstance(error, OSError):
                    files.check_may_open(error)
                last = min(first + at_once, self.info.chunks) - 1
                raise BadInput(f"chunks {first} to {last} cannot be read ({error})", source=self.path,
                               key=self.info.key, remedy="the file is damaged; copy or encode it again") from None
            yield first, block if block.ndim == 5 else block[:, :, None]

    def actions(self) -> NDArray[np.int64]:
        """[frames] the true action that led into each frame; -1 where unknown."""
        if self._actions is None or not self.info.actions:
            return np.full(self.info.latent_frames, UNKNOWN_ACTION, np.int64)
        return np.asarray(self._actions()).astype(np.int64)

    def digest(self) -> str:
        """SHA-256 of the content, 64 hex digits."""
        found = hashlib.sha256()
        for part in self._hashed():
            found.update(part)
        return found.hexdigest()


def _floats(block: Any) -> NDArray[np.float32]:
    """A block as float32; of torch's tensors too, which know bfloat16."""
    block = block.float().numpy() if hasattr(block, "numpy") else np.asarray(block)
    found: NDArray[np.float32] = block.astype(np.float32, copy=False)
    return found


def described(shape: Iterable[int], stored: str, actions: NDArray[Any] | None, path: Path, key: str,
              names: tuple[str, ...] = ()) -> FileInfo:
    """The header of a video in a format that has none of its own.

    Args:
        stored: the latents' type, as NumPy or torch name it.

    Raises:
        BadInput: its latents or actions are of another shape or type.
    """
    shape = list(shape)
    if len(shape) not in (4, 5) or 0 in shape:
        raise BadInput(f"got shape {shape}, {EXPECTED}", source=path, key=key, remedy="write it with these axes")
    if stored not in SIZES:
        hint = "; npy has no bfloat16, safetensors has" if stored == "void16" else ""
        raise BadInput(f"got type {stored}, {EXPECTED}", source=path, key=key, remedy=f"write it as float32{hint}")
    check_expansion(math.prod(shape) * SIZES[stored], on_disk(path), path, key)
    chunks, channels, chunk_frames, height, width = shape if len(shape) == 5 else [*shape[:2], 1, *shape[2:]]
    return FileInfo(
        chunks=chunks, channels=channels, chunk_frames=chunk_frames, height=height, width=width, codec=False, key=key,
        actions=actions is not None and usable_actions(actions, chunks * chunk_frames, path),
        action_names=names, stored=stored if stored in ("float16", "bfloat16") else "float32")


def on_disk(path: Path) -> int:
    """Bytes that a file, all of a folder, or the shard that a sample lies in take on the disk."""
    path = path if path.exists() else path.parent
    found = [path] if not path.is_dir() else [each for each in path.rglob("*") if each.is_file()]
    return sum(512 * each.stat().st_blocks for each in found)


def bytes_of(path: Path) -> Iterator[bytes]:
    """A file's bytes, or those of all files of a folder with their names."""
    for file in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            yield str(file.relative_to(path)).encode()
        with open(file, "rb") as raw:
            while part := raw.read(BYTES):
                yield part
