"""What training reads: windows of consecutive latent frames, in batches.

A window is `sequence_length` latent frames of one file; windows start every `window_stride` frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lam.config import RunConfig
from lam.data import mixture
from lam.data.checked import (
    Checked,
    Part,
    action_names,
    check,
    data_fingerprint,
    has_labels,
    of_data,
    summary,
)
from lam.data.codec import ARRAYS, Codec
from lam.data.h5 import CODEC, dataset, hard_link, open_file
from lam.data.index import FileRecord
from lam.data.labels import Labelled, check_numbers
from lam.data.manifest import SplitName
from lam.data.mixture import Joined
from lam.data.readers.statistics import ChannelStatistics, pooled
from lam.data.sources import Cached, Direct, Source, build_cache
from record.errors import BadInput

__all__ = ["Batch", "Checked", "Windows", "action_names", "check", "codec_in", "data_fingerprint", "has_labels",
           "load_codec", "open_split", "outline", "summary", "window_starts"]

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch  # imported where a batch is made: checking data before a sweep takes a second less without it


class Batch(NamedTuple):
    """B windows of T latent frames.

    Attributes:
        latents: float32 [B, T, C, H, W].
        actions: int64 [B, T], the true action that led into each frame; -1 where the file has none.
        file: int64 [B], number of the file in `Windows.files`.
        start: int64 [B], first latent frame of the window.
    """

    latents: torch.Tensor
    actions: torch.Tensor
    file: torch.Tensor
    start: torch.Tensor


class Windows:
    """The windows of one split. Pickles and forks safely: every process opens its own files.

    Attributes:
        files: names of the split's files; in a mixture they begin with the name of their folder.
        latent_shape: (C, H, W) of one latent frame.
        chunk_frames: latent frames that were encoded together (T_latent).
        sequence_length: latent frames of a window.
        frames: latent frames of each file.
        starts: int64 [N, 2], file number and first latent frame of every window, in order.
        scale: channel statistics of the training split, whichever split this is.
        sources: names of the folders; one without a name where there is no mixture.
        weights: of each folder.
        source_of: int64 [files], which folder each file is of.
    """

    def __init__(self, opened: Sequence[Opened], sequence_length: int, stride: int, scale: ChannelStatistics,
                 actions: mixture.ActionTable) -> None:
        infos = [record.info for each in opened for record in each.records]
        self.files = [each.part.shown(name) for each in opened for name in each.names]
        self.latent_shape, self.chunk_frames = infos[0].frame_shape, infos[0].chunk_frames
        self.sequence_length = sequence_length
        self.frames = [info.latent_frames for info in infos]
        self.starts = window_starts(self.frames, sequence_length, stride)
        self.scale = scale
        self.sources, self.weights = [each.part.name for each in opened], [each.part.weight for each in opened]
        counts = [len(each.names) for each in opened]
        self.source_of = np.repeat(np.arange(len(opened)), counts)
        self._source = opened[0].source if len(opened) == 1 else Joined(
            [each.source for each in opened], counts, actions.maps)

    @cached_property
    def by_source(self) -> list[NDArray[np.int64]]:
        """The windows of each folder."""
        mine = self.source_of[self.starts[:, 0]]
        return [np.flatnonzero(mine == number) for number in range(len(self.sources))]

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """The windows whose last transition's true action is known; reads no latents."""
        return np.flatnonzero(self.last_actions(np.arange(len(self))) >= 0)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: NDArray[np.integer]) -> Batch:
        """The windows with these numbers, in this order.

        Raises:
            IndexError: no such window.
            EnvironmentFailed: a file can no longer be read.
        """
        rows = self.starts[np.asarray(index)]
        length = self.sequence_length
        latents = np.empty((len(rows), length, *self.latent_shape), np.float32)
        actions = np.empty((len(rows), length), np.int64)
        for number, (file, start) in enumerate(rows.tolist()):
            latents[number] = self._source.frames(file, start, length)
            actions[number] = self._source.actions(file, start, length)
        import torch

        return Batch(*map(torch.from_numpy, (latents, actions, rows[:, 0].copy(), rows[:, 1].copy())))

    def actions_of(self, file: int) -> NDArray[np.int64]:
        """[frames] the true action that led into each frame of a file, -1 where unknown; the caller's own copy."""
        return self._source.actions(file, 0, self.frames[file]).copy()

    def latents_of(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        """[count, C, H, W] latent frames of a file from `first` on."""
        return self._source.frames(file, first, count)

    def last_actions(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """[N] the true action that led into the last frame of each window, -1 where unknown; reads no latents."""
        rows = self.starts[np.asarray(index)]
        found = np.empty(len(rows), np.int64)
        order = np.argsort(rows[:, 0], kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(rows[order, 0])) + 1) if len(rows) else ():
            file = int(rows[mine[0], 0])
            found[mine] = self._source.actions(file, 0, self.frames[file])[rows[mine, 1] + self.sequence_length - 1]
        return found


def window_starts(frames: list[int], sequence_length: int, stride: int) -> NDArray[np.int64]:
    """[N, 2] file number and first frame of every whole window, file by file."""
    parts = [np.arange(0, count - sequence_length + 1, stride) for count in frames]
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.stack([numbers, np.concatenate(parts)], axis=1).astype(np.int64)


class Opened(NamedTuple):
    """The files of one folder that a split's windows are of."""

    part: Part
    names: tuple[str, ...]
    records: tuple[FileRecord, ...]
    source: Source


@of_data()
def open_split(config: RunConfig, split: SplitName, *, stride: int | None = None,
               checked: Checked | None = None) -> Windows:
    """The windows of a split; the first call for a folder reads every file once and fills the cache.

    Args:
        checked: what `check` said of this config's data, to spare checking it again; so in the functions below.

    Raises:
        BadData: the manifest or a file cannot be used, or the split holds no window.
    """
    checked = checked or check(config)
    opened = [_opened(part, names, config) for part, names in _chosen(config, split, checked)]
    scale = pooled(part.records[name] for part in checked.parts for name in part.splits.train)
    return Windows(opened, config.sequence_length, stride or config.window_stride, scale, checked.actions)


def outline(config: RunConfig, split: SplitName) -> tuple[int, tuple[int, int, int]]:
    """(windows, latent shape) of a split, from headers alone."""
    checked = check(config)
    with of_data():
        chosen = _chosen(config, split, checked)
    frames = [part.headers[name].info.latent_frames for part, names in chosen for name in names]
    return len(window_starts(frames, config.sequence_length, config.window_stride)), checked.first[1].frame_shape


def _opened(part: Part, names: tuple[str, ...], config: RunConfig) -> Opened:
    records = tuple(part.records[name] for name in names)
    wanted = {name: part.records[name] for name in names}
    folder = build_cache(part.reader, wanted) if config.cache else None
    source: Source = Direct(part.reader, names, records) if folder is None else Cached(folder, records)
    if part.given.of:
        check_numbers(part.given, source, records)
        source = Labelled(source, [part.given.of.get(name, {}) for name in names])
    return Opened(part, names, records, source)


def _chosen(config: RunConfig, split: SplitName, checked: Checked) -> list[tuple[Part, tuple[str, ...]]]:
    """The files of a split that hold a sequence, folder by folder; a warning counts the others.

    Raises:
        BadInput: a folder has none.
    """
    found = []
    for part in checked.parts:
        names, usable = part.splits.of(split), part.long_enough(split, config)
        if not names:
            raise BadInput("names no file", source=part.manifest, key=f"splits.{split}", remedy="write the manifest "
                           f"again with 'lam data manifest {part.reader.folder} --replace'")
        if not usable:
            longest = max(part.headers[name].info.latent_frames for name in names)
            raise BadInput(f"no file of {split} has sequence_length {config.sequence_length} latent frames, the "
                           f"longest has {longest}", source=part.reader.folder, key=part.reader.key,
                           remedy=f"set sequence_length to {longest} or less, or add longer videos")
        if len(usable) < len(names):
            log.warning("%s: %d of %d files of %s are shorter than sequence_length %d and left out",
                        part.reader.folder, len(names) - len(usable), len(names), split, config.sequence_length)
        found.append((part, usable))
    return found


def load_codec(config: RunConfig, checked: Checked | None = None) -> Codec | None:
    """The codec that the first training file carries; None where it carries none. Of a mixture, of its first folder.

    Raises:
        BadInput: the codec is damaged.
    """
    part, info = (checked or check(config)).first
    return codec_in(part.reader.home(part.splits.train[0])) if info.codec else None


def codec_in(path: Path) -> Codec:
    """The codec that a file carries.

    Raises:
        BadInput: it carries none, or one that is damaged.
    """
    with open_file(path) as file:
        group = hard_link(file, CODEC, path)
        try:
            if not isinstance(group, h5py.Group):
                raise ValueError("is a dataset, expected a group")
            for key in ARRAYS:
                dataset(group, key, path)
            return Codec.load(group)
        except ValueError as error:
            raise BadInput(str(error), source=path, key=CODEC, remedy="write the file again") from None
