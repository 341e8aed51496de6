"""A folder of WebDataset shards: .tar files whose samples are videos.

A sample is the members that share a name up to the first dot: `KEY.embeddings.npy` (or `KEY.npy`) are its latents,
`KEY.actions.npy` its actions. Shards are looked through once; arrays are read where they lie in the file.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import ACTIONS, EMBEDDINGS, FileInfo
from lam.data.readers.arrays import damage_named
from lam.data.readers.video import BYTES, OPEN_VIDEOS, Video, described, signature
from record.errors import BadInput


class Member(NamedTuple):
    """Where in its shard a member's bytes lie."""

    offset: int
    size: int


class Tars:
    """The videos of a folder of shards, named SHARD.tar/KEY."""

    ending = ".tar"
    open_videos = OPEN_VIDEOS

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.folder, self.key = folder, key or EMBEDDINGS

    def names(self) -> list[str]:
        shards = sorted(each for each in self.folder.iterdir() if each.name.endswith(self.ending))
        return [f"{shard.name}/{key}" for shard in shards for key, members in sorted(samples(shard).items())
                if self._latents(members)]

    def home(self, name: str) -> Path:
        return self.folder / name.partition("/")[0]

    def holds(self, name: str) -> bool:
        return self.home(name).is_file() and name.partition("/")[2] in samples(self.home(name))

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        path = self.home(name)
        members = samples(path).get(name.partition("/")[2], {})
        latents = self._latents(members)
        if latents is None:
            raise BadInput(f"holds no latents {self.key}.npy of {name.partition('/')[2]!r}", source=path,
                           remedy=f"the sample holds: {', '.join(sorted(members)) or 'nothing'}")
        wanted = [latents, *([members[f"{ACTIONS}.npy"]] if f"{ACTIONS}.npy" in members else [])]
        with damage_named(path):
            values, *actions = [_mapped(path, member) for member in wanted]
        info = known or described(values.shape, values.dtype.name, actions[0] if actions else None,
                                  Path(f"{path}/{name.partition('/')[2]}"), self.key)
        return Video(info, values, (lambda: actions[0]) if actions else None, path, lambda: _bytes(path, wanted))

    def _latents(self, members: dict[str, Member]) -> Member | None:
        return members.get(f"{self.key}.npy") or members.get("npy")


def samples(shard: Path) -> dict[str, dict[str, Member]]:
    """The members of each sample of a shard, by what follows the first dot of their names."""
    return _samples(shard, signature(shard))


@functools.lru_cache(maxsize=1024)
def _samples(shard: Path, _: tuple[int, int, int]) -> dict[str, dict[str, Member]]:
    found: dict[str, dict[str, Member]] = {}
    with damage_named(shard), tarfile.open(shard, "r:") as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            stem, _dot, ending = name.partition(".")
            if member.isreg() and not member.issparse():
                found.setdefault(f"{folder}{slash}{stem}", {})[ending] = Member(member.offset_data, member.size)
    return found


def _mapped(shard: Path, member: Member) -> NDArray[Any]:
    """The .npy array that lies at a place of a file, not read yet."""
    with open(shard, "rb") as file:
        file.seek(member.offset)
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        begin = file.tell()
    if dtype.hasobject or begin + dtype.itemsize * int(np.prod(shape)) > member.offset + member.size:
        raise ValueError("an array of objects, or one that is cut off")
    return np.memmap(shard, dtype, "r", begin, shape, "F" if fortran else "C")


def _bytes(shard: Path, members: list[Member]) -> Iterator[bytes]:
    with open(shard, "rb") as file:
        for member in members:
            file.seek(member.offset)
            left = member.size
            while left and (part := file.read(min(BYTES, left))):
                left -= len(part)
                yield part
