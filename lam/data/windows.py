"""What training reads: windows of consecutive latent frames, in batches.

A window is `sequence_length` latent frames of one file; windows start every `window_stride` frames.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from lam.config import RunConfig
from lam.data import labels
from lam.data.codec import ARRAYS, Codec
from lam.data.h5 import CODEC, EMBEDDINGS, check_same_shape, dataset, hard_link, open_file
from lam.data.index import FileRecord, scan
from lam.data.labels import GivenLabels, Labelled
from lam.data.manifest import SPLITS, SplitName, Splits, read_manifest
from lam.data.sources import Cached, Direct, Source, build_cache
from lam.data.statistics import ChannelStatistics, pooled
from record.errors import BadData, BadInput

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
        files: names of the split's files.
        latent_shape: (C, H, W) of one latent frame.
        chunk_frames: latent frames that were encoded together (T_latent).
        sequence_length: latent frames of a window.
        frames: latent frames of each file.
        starts: int64 [N, 2], file number and first latent frame of every window, in order.
        scale: channel statistics of the training split, whichever split this is.
    """

    def __init__(self, names: tuple[str, ...], records: tuple[FileRecord, ...], source: Source, sequence_length: int,
                 stride: int, scale: ChannelStatistics) -> None:
        self.files = list(names)
        self.latent_shape = records[0].info.frame_shape
        self.chunk_frames = records[0].info.chunk_frames
        self.sequence_length = sequence_length
        self.frames = [record.info.latent_frames for record in records]
        self.starts = window_starts(self.frames, sequence_length, stride)
        self.scale = scale
        self._source = source

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
        last = self.sequence_length - 1
        return np.array([self._source.actions(file, start + last, 1)[0] for file, start in
                         self.starts[np.asarray(index)].tolist()], np.int64)


def window_starts(frames: list[int], sequence_length: int, stride: int) -> NDArray[np.int64]:
    """[N, 2] file number and first frame of every whole window, file by file."""
    parts = [np.arange(0, count - sequence_length + 1, stride) for count in frames]
    numbers = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.stack([numbers, np.concatenate(parts)], axis=1).astype(np.int64)


@contextlib.contextmanager
def _of_data() -> Iterator[None]:
    """Whatever is wrong inside the with-block is wrong with the data."""
    try:
        yield
    except BadInput as error:
        raise BadData(str(error)) from error.__cause__


class Checked(NamedTuple):
    """Data that a run can use. Whoever asks several things checks once.

    Attributes:
        splits: the files of each split.
        records: what is known of every file.
        given: what labels.csv says beside them.
    """

    splits: Splits
    records: dict[str, FileRecord]
    given: GivenLabels

    def long_enough(self, split: SplitName, config: RunConfig) -> tuple[str, ...]:
        """Names of a split's files that hold a whole sequence; the others are left out."""
        return tuple(name for name in self.splits.of(split)
                     if self.records[name].info.latent_frames >= config.sequence_length)


@_of_data()
def open_split(config: RunConfig, split: SplitName, *, stride: int | None = None,
               checked: Checked | None = None) -> Windows:
    """The windows of a split; the first call for a folder reads every file once and fills the cache.

    Args:
        checked: what `check` said of this config's data, to spare checking it again; so in the functions below.

    Raises:
        BadData: the manifest or a file cannot be used, or the split holds no window.
        EnvironmentFailed: no room for the cache.
    """
    checked = checked or check(config)
    (splits, records, given), folder = checked, Path(config.data_dir)
    names = splits.of(split)
    if not names:
        raise BadInput("names no file", source=config.manifest, key=f"splits.{split}",
                       remedy=f"write the manifest again with 'lam data manifest {folder} --replace'")
    names = _without_short(names, checked.long_enough(split, config), config, split, records)
    chosen = tuple(records[name] for name in names)
    source: Source
    if config.cache:
        source = Cached(build_cache(folder, {name: records[name] for name in names}), chosen)
    else:
        source = Direct(folder, names, chosen)
    if given.of:
        source = Labelled(source, [given.of.get(name, {}) for name in names])
    scale = pooled(records[name] for name in splits.train)
    return Windows(names, chosen, source, config.sequence_length, stride or config.window_stride, scale)


def _without_short(names: tuple[str, ...], long_enough: tuple[str, ...], config: RunConfig, split: str,
                   records: dict[str, FileRecord]) -> tuple[str, ...]:
    """`long_enough`, with a warning that counts what is missing.

    Raises:
        BadInput: nothing is left.
    """
    if not long_enough:
        longest = max(records[name].info.latent_frames for name in names)
        raise BadInput(f"no file of {split} has sequence_length {config.sequence_length} latent frames, the longest "
                       f"has {longest}", source=config.data_dir, key=EMBEDDINGS,
                       remedy=f"set sequence_length to {longest} or less, or add longer videos")
    if len(long_enough) < len(names):
        log.warning("%s: %d of %d files of %s are shorter than sequence_length %d and left out", config.data_dir,
                    len(names) - len(long_enough), len(names), split, config.sequence_length)
    return long_enough


def data_fingerprint(config: RunConfig, checked: Checked | None = None) -> str:
    """Twelve hex digits that name the data: the split, name, size and content of every file, and labels.csv."""
    splits, records, given = checked or check(config)
    lines: list[Any] = [[split, name, records[name].size, records[name].sha256] for split in SPLITS for name in
                        sorted(splits.of(split))]
    lines += [given.digest] if given.digest else []
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:12]


def summary(config: RunConfig, checked: Checked | None = None) -> dict[str, Any]:
    """The data in numbers: files, those too short for a sequence, channels, grid [H, W], frames a chunk and in all."""
    checked = checked or check(config)
    records = checked.records
    first = next(iter(records.values())).info
    short = len(records) - sum(len(checked.long_enough(split, config)) for split in SPLITS)
    return {"files": len(records), "too_short": short, "channels": first.channels, "grid": [first.height, first.width],
            "chunk_frames": first.chunk_frames,
            "latent_frames": sum(record.info.latent_frames for record in records.values())}


def load_codec(config: RunConfig, checked: Checked | None = None) -> Codec | None:
    """The codec that the first training file carries; None where it carries none.

    Raises:
        BadInput: the codec is damaged.
    """
    splits, records, _ = checked or check(config)
    name = splits.train[0]
    if not records[name].info.codec:
        return None
    return codec_in(Path(config.data_dir) / name)


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


def action_names(config: RunConfig, checked: Checked | None = None) -> list[str]:
    """Names of the true actions, by number, as the first training file or labels.csv has them; else empty."""
    return list((checked or check(config)).given.names)


def has_labels(config: RunConfig, checked: Checked | None = None) -> bool:
    """Whether there are true actions of the validation split, in its files or in labels.csv."""
    splits, records, given = checked or check(config)
    return any(records[name].info.actions or name in given.of for name in splits.validation)


@_of_data()
def check(config: RunConfig) -> Checked:
    """The splits and the record of every file.

    Raises:
        BadData: something keeps a run from using them.
    """
    splits = read_manifest(config.manifest, config.data_dir)
    result = scan(config.data_dir, splits.all())
    if result.problems:
        raise next(iter(result.problems.values()))
    check_same_shape({name: record.info for name, record in result.records.items()})
    names = result.records[splits.train[0]].info.action_names if splits.train else ()
    return Checked(splits, result.records, labels.read(Path(config.data_dir), result.records, names))
