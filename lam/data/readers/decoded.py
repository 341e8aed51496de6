"""Decoded copies of videos: .npy files named by their video's content, in the type that the latents were kept in.

NumPy has no bfloat16: the copy holds its 16 bits as whole numbers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import FileInfo
from record import files

_KINDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
_ENDINGS = {"float32": "", "float16": "16", "bfloat16": "b16"}


def entry(folder: Path, sha256: str, info: FileInfo) -> Path:
    """Decoded latents of a video, [frames, C, H, W]."""
    return folder / f"{sha256[:32]}.latents{_ENDINGS[info.stored]}.npy"


def actions_entry(folder: Path, sha256: str) -> Path:
    """Its actions, int64 [frames]."""
    return folder / f"{sha256[:32]}.actions.npy"


def decoded_bytes(info: FileInfo) -> int:
    """Bytes of the decoded latents."""
    return np.dtype(_KINDS[info.stored]).itemsize * info.latent_frames * int(np.prod(info.frame_shape))


def complete(folder: Path, sha256: str, info: FileInfo) -> bool:
    """Whether the copy of a video is there."""
    latents = entry(folder, sha256, info)
    return (latents.exists() and latents.stat().st_size > decoded_bytes(info)
            and actions_entry(folder, sha256).exists())


def remove_stale(folder: Path, live: Collection[str]) -> None:
    """Remove the copies of contents that no video has any more."""
    for path in folder.glob("*.npy"):
        if path.name.partition(".")[0] not in live:
            path.unlink(missing_ok=True)


@contextmanager
def writing(folder: Path, sha256: str, info: FileInfo,
            actions: NDArray[np.int64]) -> Iterator[Callable[[NDArray[np.float32]], object]]:
    """Write a copy block by block, [k, C, T, H, W] each; it appears when the with-block ends well."""
    path = entry(folder, sha256, info)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out:
            np.lib.format.write_array_header_1_0(out, {
                "descr": _KINDS[info.stored], "fortran_order": False,
                "shape": (info.latent_frames, *info.frame_shape)})
            yield lambda block: out.write(_as_kept(block.transpose(0, 2, 1, 3, 4), info).data)
            out.flush()
            os.fsync(out.fileno())
        files.write_atomic(actions_entry(folder, sha256), lambda file: np.save(file, actions))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_kept(values: NDArray[np.float32], info: FileInfo) -> NDArray[np.generic]:
    if info.stored != "bfloat16":
        return np.ascontiguousarray(values, _KINDS[info.stored])
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype("<u2")


def as_float32(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """What a copy holds, as float32; 16-bit numbers are bfloat16."""
    if values.dtype.kind == "u":
        return (values.astype(np.uint32) << 16).view(np.float32)
    found: NDArray[np.float32] = values.astype(np.float32, copy=False)
    return found


def mapped_latents(folder: Path, sha256: str, info: FileInfo) -> NDArray[np.generic]:
    """The decoded latents of a video, not yet read; a tenth of np.load's time, which parses the header."""
    with open(entry(folder, sha256, info), "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    values = np.frombuffer(mapped, _KINDS[info.stored], offset=len(mapped) - decoded_bytes(info))
    return values.reshape(info.latent_frames, *info.frame_shape)
