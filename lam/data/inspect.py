"""What lies in a data folder: shapes, splits, statistics, files that cannot be used, reading speed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from lam.config import from_mapping
from lam.data.h5 import check_same_shape
from lam.data.index import FileRecord, scan
from lam.data.manifest import FILE_NAME, SPLITS, read_manifest
from lam.data.readers.registry import reader_of
from lam.data.readers.statistics import pooled
from lam.data.readers.video import Reader
from lam.data.windows import open_split
from record.errors import BadInput
from record.progress import Screen
from record.storage import copies, sets

SEQUENCE = 8  # latent frames of the windows that are timed


@dataclass(frozen=True)
class FileRow:
    """One usable file."""

    name: str
    split: str | None
    shape: tuple[int, ...]
    actions: bool
    codec: bool
    low: float
    high: float
    constant: bool


@dataclass(frozen=True)
class Channel:
    """One latent channel over all usable files; std is over the population."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Speed:
    """Real training batches, read and assembled.

    Attributes:
        source: "files" (decoded at each read) or "cache" (the memory-mapped copy).
        samples_per_second: windows of SEQUENCE latent frames.
        gigabytes_per_second: of float32 latents.
    """

    source: str
    batches: int
    batch_size: int
    samples_per_second: float
    gigabytes_per_second: float


@dataclass(frozen=True)
class Inspection:
    """A data folder.

    Attributes:
        problems: [file, what is wrong] of every file that cannot be used.
        notes: what is usable but deserves a look.
        speed: None where no batch was read.
    """

    folder: str
    files: list[FileRow]
    problems: dict[str, str]
    notes: list[str]
    splits: dict[str, int]
    channels: list[Channel]
    action_names: list[str]
    speed: Speed | None

    def mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema": 1, **asdict(self)}


def inspect(folder: str | Path, batches: int = 0, cached: bool = False, latents: str | None = None) -> Inspection:
    """Read every file of a folder once (again only where it changed) and time `batches` batches.

    Raises:
        BadInput: no such folder, or it holds no video.
    """
    folder, reader = Path(folder), reader_of(folder, latents)
    scanned = scan(reader, reader.names())
    records, problems = scanned.records, {name: str(error) for name, error in scanned.problems.items()}
    split_of, splits, notes = _splits(reader)
    notes += [f"{name}: every channel is constant" for name, record in records.items() if record.constant]
    mixed = _mixed_shapes(records)
    if mixed:
        odd = mixed.partition(":")[0]
        problems[odd] = mixed
        records = {name: record for name, record in records.items() if name != odd}
    elif splits and batches and not problems:
        speed = _time(reader, records, batches, cached)
        return _inspection(folder, records, split_of, problems, notes, splits, speed)
    if batches:
        notes.append("no batch was timed: that needs a manifest and only usable files")
    return _inspection(folder, records, split_of, problems, notes, splits, None)


def _inspection(folder: Path, records: dict[str, FileRecord], split_of: dict[str, str], problems: dict[str, str],
                notes: list[str], splits: dict[str, int], speed: Speed | None) -> Inspection:
    rows = [_row(name, split_of.get(name), record) for name, record in records.items()]
    alike = len({record.info.channels for record in records.values()}) == 1
    names = next((record.info.action_names for record in records.values()), ())
    return Inspection(copies.where(folder), rows, {name: sets.by_address(text) for name, text in problems.items()},
                      [sets.by_address(text) for text in notes], splits, _channels(records.values()) if alike else [],
                      list(names), speed)


def _row(name: str, split: str | None, record: FileRecord) -> FileRow:
    info = record.info
    shape = (info.chunks, info.channels, info.chunk_frames, info.height, info.width)
    return FileRow(name, split, shape, info.actions, info.codec, min(record.low), max(record.high), record.constant)


def _splits(reader: Reader) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """(split of each file, files of each split, notes); a manifest that cannot be used is a note."""
    folder = reader.folder
    if not (folder / FILE_NAME).exists():
        return {}, {}, [f"no {FILE_NAME}; write one with: {shlex.join(['lam', 'data', 'manifest', str(folder)])}"]
    try:
        splits = read_manifest(folder / FILE_NAME, folder, reader)
    except BadInput as error:
        return {}, {}, [str(error)]
    return ({name: split for split in SPLITS for name in splits.of(split)},
            {split: len(splits.of(split)) for split in SPLITS}, [])


def _mixed_shapes(records: dict[str, FileRecord]) -> str | None:
    try:
        if records:
            check_same_shape({name: record.info for name, record in records.items()})
    except BadInput as error:
        return str(error)
    return None


def _channels(records: Iterable[FileRecord]) -> list[Channel]:
    """Statistics of each channel over all files, every latent value counted once."""
    found = pooled(records)
    return [Channel(*map(float, values)) for values in zip(found.mean, found.std, found.low, found.high, strict=True)]


def _time(reader: Reader, records: dict[str, FileRecord], batches: int, cached: bool) -> Speed:
    """Read `batches` random training batches; the first, which opens the files, is not timed."""
    shortest = min(record.info.latent_frames for record in records.values())
    values = {"data_dir": str(reader.folder), "sequence_length": max(3, min(SEQUENCE, shortest)), "cache": cached,
              "latents": reader.key}
    config = from_mapping(values, source=reader.folder)
    windows = open_split(config, "train")
    random = np.random.default_rng(0)
    order = [random.integers(len(windows), size=config.batch_size) for _ in range(batches + 1)]
    size = windows.batch(order[0]).latents.nbytes
    begin = time.perf_counter()
    for index in order[1:]:
        windows.batch(index)
    seconds = time.perf_counter() - begin
    return Speed("cache" if cached else "files", batches, config.batch_size, batches * config.batch_size / seconds,
                 batches * size / seconds / 1e9)


def show(found: Inspection) -> None:
    """Print an inspection as tables."""
    console = Screen()
    for part in _render(found):
        console.print(part, soft_wrap=isinstance(part, str))  # a table fits the screen, a message stays one line


def _render(found: Inspection) -> Iterable[Table | str]:
    splits = ", ".join(f"{split} {count}" for split, count in found.splits.items()) or "no manifest"
    yield f"{escape(found.folder)}: {len(found.files)} usable files ({splits})"
    if found.action_names:
        yield f"true actions: {escape(', '.join(found.action_names))}"
    if found.files:
        yield _files_table(found.files)
    if found.channels:
        yield _channels_table(found.channels)
    if found.speed:
        speed = found.speed
        yield (f"{speed.batches} batches of {speed.batch_size} from the {speed.source}: "
               f"{speed.samples_per_second:,.0f} samples/s, {speed.gigabytes_per_second:.2f} GB/s")
    yield from (f"note: {escape(note)}" for note in found.notes)
    yield from (f"cannot be used: {escape(problem)}" for problem in found.problems.values())


def _files_table(rows: list[FileRow]) -> Table:
    """One line for every shape and split, so that a folder of thousands still fits a screen."""
    table = Table("split", "files", "chunks", "CxTxHxW", "actions", "codec", "lowest", "highest")
    groups: dict[tuple[Any, ...], list[FileRow]] = {}
    for row in rows:
        groups.setdefault((row.split or "-", row.shape[1:], row.actions, row.codec), []).append(row)
    for (split, shape, actions, codec), members in sorted(groups.items()):
        table.add_row(split, str(len(members)), f"{sum(row.shape[0] for row in members):,}",
                      "x".join(map(str, shape)), "yes" if actions else "no", "yes" if codec else "no",
                      f"{min(row.low for row in members):.3g}", f"{max(row.high for row in members):.3g}")
    return table


def _channels_table(channels: list[Channel]) -> Table:
    table = Table("channel", "mean", "std", "lowest", "highest")
    for number, channel in enumerate(channels):
        table.add_row(str(number), *(f"{value:.3f}" for value in
                                     (channel.mean, channel.std, channel.low, channel.high)))
    return table
