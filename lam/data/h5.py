"""Reading one H5 file of latents: what it must hold, and one clear error where it does not.

A file is one video: dataset `embeddings` [N_chunks, C, T_latent, H, W] of floats, optional `actions`
[N_chunks * T_latent] of integers (the action that led into each latent frame). Data that lies
outside the file (external links, external raw storage, virtual datasets) is refused, never read: such
a file would read anything on the machine, or silently read zeros.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py

from record import files
from record.errors import BadInput, is_out_of_memory
from record.schema import Strict

log = logging.getLogger(__name__)

EMBEDDINGS = "embeddings"
ACTIONS = "actions"
CODEC = "codec"
UNKNOWN_ACTION = -1
MOST_KINDS = 1000  # numbers of actions that have no names; a larger one is a mistake
LARGE_BYTES = 1 << 28  # below, what it unpacks to does no harm
MOST_EXPANSION = 200  # of constant latents it is 1,000, of others 1 to 4
EXPECTED = "expected [N_chunks, C, T_latent, H, W] of floats"


class FileInfo(Strict):
    """What the header of a file says.

    Attributes:
        chunks, channels, chunk_frames, height, width: the shape of `embeddings`.
        actions: whether the file holds true actions.
        codec: whether it holds what decoding to pixels needs.
        action_names: names of the actions, by number; empty where the file does not say.
        stored: the latents' type, which the cache keeps; what is wider than float32 is kept as that.
        key: the name of the latents.
    """

    chunks: int
    channels: int
    chunk_frames: int
    height: int
    width: int
    actions: bool
    codec: bool
    action_names: tuple[str, ...] = ()
    stored: Literal["float32", "float16", "bfloat16"] = "float32"
    key: str = EMBEDDINGS

    @property
    def latent_frames(self) -> int:
        """Latent frames of the video."""
        return self.chunks * self.chunk_frames

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent frame."""
        return self.channels, self.height, self.width


def list_files(folder: str | Path) -> list[str]:
    """Names of the .h5 files of a folder, sorted.

    Raises:
        BadInput: no such folder, or it holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, expected a folder of .h5 files" if folder.exists() else "no such folder"
        raise BadInput(what, source=folder, remedy="check the path, or make a demonstration with 'lam data demo'")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".h5") and entry.name[0] != ".")
    if not names:
        others = sum(entry.suffix in (".hdf5", ".hdf", ".he5") for entry in folder.iterdir())
        remedy = (f"rename its {others} HDF5 files so that they end in .h5" if others else "name the folder with the "
                  "latents (.h5, .zarr, .safetensors, .tar, .npy or a LeRobot data set), or make a demonstration with "
                  "'lam data demo'")
        raise BadInput("holds no .h5 file", source=folder, remedy=remedy)
    return names


@contextmanager
def open_file(path: str | Path) -> Iterator[h5py.File]:
    """Open an H5 file for reading.

    Raises:
        BadInput: missing, a folder, empty, truncated, or no H5 file.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput("no such file", source=path, remedy="check the path or the manifest")
    if path.is_dir():
        raise BadInput("is a folder, expected an H5 file", source=path, remedy="take it out of the data folder")
    if path.stat().st_size == 0:
        raise BadInput("has 0 bytes", source=path, remedy="copy or encode it again")
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        files.check_may_open(error)
        raise BadInput(f"cannot be opened as an H5 file ({_reason(error)})", source=path,
                       remedy="copy or encode it again, or take it out of the data folder") from None
    with file:
        try:
            yield file
        except (RuntimeError, KeyError) as error:  # what h5py says of a damaged tree of objects
            if is_out_of_memory(error) or (isinstance(error, KeyError) and "Unable to" not in str(error)):
                raise
            raise BadInput(f"is damaged ({error})", source=path, remedy="copy or encode it again") from None


def _reason(error: OSError) -> str:
    """HDF5's own words, without what it wraps around them."""
    text = str(error)
    for known, words in (("truncated file", "truncated"), ("file signature not found", "not an H5 file"),
                         ("unable to lock file", "another program is writing it"),
                         ("Permission denied", "no permission to read it")):
        if known in text:
            return words
    return text


def read_info(path: str | Path, key: str = EMBEDDINGS) -> FileInfo:
    """Check the header of one file; reads no latents.

    Args:
        key: the dataset that holds the latents.

    Raises:
        BadInput: naming the file, the dataset and the remedy.
    """
    with open_file(path) as file:
        data = dataset(file, key, path)
        _check_embeddings(data, path, key)
        frames = data.shape[0] * data.shape[2]
        has_actions = ACTIONS in file and usable_actions(dataset(file, ACTIONS, path), frames, path)
        chunks, channels, chunk_frames, height, width = data.shape
        return FileInfo(chunks=chunks, channels=channels, chunk_frames=chunk_frames, height=height, width=width,
                        actions=has_actions, codec=file.get(CODEC, getlink=True) is not None,
                        action_names=_action_names(file, path),
                        stored="float16" if data.dtype.itemsize == 2 else "float32", key=key)


def dataset(file: h5py.File | h5py.Group, name: str, path: str | Path) -> h5py.Dataset:
    """The dataset `name`, if its data lies inside the file and can be read.

    Raises:
        BadInput: missing, a group, a link, stored outside the file, behind an unknown filter, or not written.
    """
    item = hard_link(file, name, path)
    if not isinstance(item, h5py.Dataset):
        raise BadInput("is a group, expected a dataset", source=path, key=name, remedy=f"{EXPECTED}; write it again")
    if item.is_virtual:
        raise BadInput("is a virtual dataset, whose data lies in other files", source=path, key=name,
                       remedy="copy the data into the file")
    if item.external:
        raise BadInput(f"keeps its data outside the file ({item.external[0][0]!r})", source=path, key=name,
                       remedy="copy the data into the file")
    _check_filters(item, path)
    _check_written(item, path)
    _check_expansion(item, path)
    return item


def hard_link(file: h5py.File | h5py.Group, name: str, path: str | Path) -> Any:
    """The object that `name` is a hard link to; links to elsewhere are refused before they are followed."""
    link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118 - "in file" follows links
    if link is None:
        held = ", ".join(sorted(file.keys())) or "nothing"
        raise BadInput("dataset is missing", source=path, key=name, remedy=f"the file holds: {held}")
    if not isinstance(link, h5py.HardLink):
        where = f"{link.filename}:{link.path}" if isinstance(link, h5py.ExternalLink) else link.path
        raise BadInput(f"is a link to {where!r}, expected data in the file itself", source=path, key=name,
                       remedy="copy the data into the file")
    return file[name]


def _check_filters(data: h5py.Dataset, path: str | Path) -> None:
    plist = data.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            title = name.decode(errors="replace") or "no name"
            raise BadInput(f"is compressed with filter {code} ({title}), which this h5py cannot read", source=path,
                           key=data.name.lstrip("/"), remedy="write it again with gzip or without compression")


def _check_written(data: h5py.Dataset, path: str | Path) -> None:
    """Refuse a shape with less data behind it: HDF5 would make up zeros for the rest."""
    if data.shape is None or data.size == 0:
        return
    if data.chunks:
        expected = math.prod(math.ceil(size / chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
        written = data.id.get_num_chunks()
        complete = written == expected
        detail = f"{written:,} of {expected:,} storage chunks"
    else:
        stored, expected = data.id.get_storage_size(), data.size * data.dtype.itemsize
        complete = stored >= expected
        detail = f"{stored:,} of {expected:,} bytes"
    if not complete:
        raise BadInput(f"claims shape {list(data.shape)} but only {detail} were written", source=path,
                       key=data.name.lstrip("/"), remedy="write the file again, it is incomplete")


def _check_expansion(data: h5py.Dataset, path: str | Path) -> None:
    stored = min(data.id.get_storage_size(), os.stat(path).st_blocks * 512)
    check_expansion(data.size * data.dtype.itemsize, stored, path, data.name.lstrip("/"))


def check_expansion(unpacked: int, stored: int, path: str | Path, key: str) -> None:
    """Refuse large latents that next to nothing on the disk unpacks to: none compress like that."""
    if unpacked > LARGE_BYTES and unpacked > MOST_EXPANSION * stored:
        raise BadInput(f"takes {stored:,} bytes and unpacks to {unpacked:,}, which no latents do", source=path,
                       key=key, remedy="encode the video again, or take the file out")


def _check_embeddings(data: h5py.Dataset, path: str | Path, key: str) -> None:
    shape = list(data.shape) if data.shape is not None else None
    if shape is None or len(shape) != 5:
        raise BadInput(f"got shape {shape}, {EXPECTED}", source=path, key=key, remedy="write it with five axes")
    if data.dtype.kind != "f":
        raise BadInput(f"got type {data.dtype}, {EXPECTED}", source=path, key=key, remedy="write it as float32")
    if 0 in shape:
        raise BadInput(f"got shape {shape}, which holds no data", source=path, key=key,
                       remedy="encode the video again, or take the file out of the data folder")


@functools.cache
def _warn_of_continuous(folder: Path) -> None:
    """Said once for a folder, not once for each of its thousands of files."""
    log.warning("%s: continuous actions, which no code can be compared with, are left out", folder)


def usable_actions(data: Any, frames: int, path: str | Path) -> bool:
    """Whether actions are numbers of actions; continuous ones, as a robot has, are nothing to compare codes with.

    Args:
        data: whatever has a shape and a dtype.
    """
    if data.dtype.kind == "f":
        _warn_of_continuous(Path(path).parent)
        return False
    if data.shape != (frames,) or data.dtype.kind not in "iu":
        raise BadInput(f"got shape {list(data.shape or ())} of {data.dtype}, expected [{frames}] of integers, one for "
                       "each latent frame", source=path, key=ACTIONS, remedy="write it again, or leave it out")
    return True


def _action_names(file: h5py.File, path: str | Path) -> tuple[str, ...]:
    text = file.attrs.get("action_names")
    if text is None:
        return ()
    try:
        names = files.parse_json(text)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    except (TypeError, ValueError):
        names = text
    raise BadInput(f"got {names!r:.80}, expected a JSON list of words", source=path, key="attribute action_names",
                   remedy='for example ["NOOP", "LEFT", "RIGHT"]')


def check_same_shape(infos: dict[str, FileInfo]) -> None:
    """All files must agree in channels, chunk frames and grid.

    Raises:
        BadInput: naming the first file that differs from the first one.
    """
    first_name, first = next(iter(infos.items()))
    for name, info in infos.items():
        for key, words in (("channels", "channels"), ("chunk_frames", "latent frames a chunk"),
                           ("height", "rows of latent cells"), ("width", "columns of latent cells")):
            got, expected = getattr(info, key), getattr(first, key)
            if got != expected:
                raise BadInput(f"got {got} {words}, but {first_name} has {expected}", source=name, key=info.key,
                               remedy="encode all videos alike, or keep the others in a folder of their own")
