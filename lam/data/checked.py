"""Data that a run can use: its folders, their splits, and what is known of their videos.

A check looks at headers only. Videos are read in full, once, when somebody asks for their records: for a fingerprint,
for statistics, to train.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lam.config import RunConfig
from lam.data import labels, mixture
from lam.data.h5 import FileInfo, check_same_shape
from lam.data.index import FileRecord, Header, cache_folder, headers, scan
from lam.data.labels import GivenLabels
from lam.data.manifest import SPLITS, SplitName, Splits, read_manifest
from lam.data.readers.registry import reader_of
from lam.data.readers.video import Reader
from lam.data.sources import has_room
from lam.sections import DataPart
from record.errors import BadData, BadInput
from record.storage import sets


@contextlib.contextmanager
def of_data() -> Iterator[None]:
    """Whatever is wrong inside the with-block is wrong with the data."""
    try:
        yield
    except BadInput as error:
        raise BadData(sets.by_address(str(error))) from error.__cause__


@dataclass(frozen=True)
class Part:
    """One folder of data.

    Attributes:
        name: what its videos' names begin with in a mixture; "" where it is the only one.
        splits: the files of each split, by their names in the folder.
        headers: what is known of each without reading its latents.
        given: what labels.csv says beside them.
        weight: of its sequences in training, against those of the other parts.
        cache: whether decoded copies are written where there is room.
    """

    name: str
    reader: Reader
    manifest: Path
    splits: Splits
    headers: Mapping[str, Header]
    given: GivenLabels
    weight: float
    cache: bool

    @cached_property
    def records(self) -> Mapping[str, FileRecord]:
        """What is known of each file that was read in full, which the first question does.

        Raises:
            BadData: something keeps a run from using one.
        """
        keep = {name for split in ("train", "validation") for name in self.splits.of(split)}
        with of_data():
            room = self.cache and has_room(cache_folder(self.reader.folder), [self.headers[name] for name in keep])
            found = scan(self.reader, self.splits.all(), keep=keep if room else ())
            if found.problems:
                raise next(iter(found.problems.values()))
        return found.records

    def shown(self, name: str) -> str:
        """The name of one of its files, as the whole data have it."""
        return f"{self.name}/{name}" if self.name else name

    def long_enough(self, split: SplitName, config: RunConfig) -> tuple[str, ...]:
        """Names of a split's files that hold a whole sequence; the others are left out."""
        return tuple(name for name in self.splits.of(split)
                     if self.headers[name].info.latent_frames >= config.sequence_length)


@dataclass(frozen=True)
class Checked:
    """The data of a run. Whoever asks several things checks once."""

    parts: tuple[Part, ...]

    @property
    def infos(self) -> dict[str, FileInfo]:
        """The header of every file."""
        return {part.shown(name): header.info for part in self.parts for name, header in part.headers.items()}

    @property
    def first(self) -> tuple[Part, FileInfo]:
        """The first part and its first training file's header."""
        part = self.parts[0]
        return part, part.headers[part.splits.train[0]].info

    @cached_property
    def actions(self) -> mixture.ActionTable:
        """One table of actions for all parts."""
        return mixture.actions([part.given.names for part in self.parts],
                               [any(header.info.actions for header in part.headers.values()) or bool(part.given.of)
                                for part in self.parts], [part.name for part in self.parts])


@of_data()
def check(config: RunConfig) -> Checked:
    """The splits and the header of every file.

    Raises:
        BadData: something keeps a run from using them.
    """
    parts = config.data or (DataPart(dir=config.data_dir, manifest=config.manifest_path),)
    checked = Checked(tuple(_part(part, config) for part in parts))
    check_same_shape(checked.infos)
    return checked


def _part(part: DataPart, config: RunConfig) -> Part:
    folder = sets.brought(part.dir)
    manifest = Path(part.manifest) if part.manifest else folder / "manifest.json"
    if not folder.is_dir():
        read_manifest(manifest, folder)  # says what is wrong
    reader = reader_of(folder, part.latents or config.latents)
    splits = read_manifest(manifest, folder, reader)
    found, problems = headers(reader, splits.all())
    if problems:
        raise next(iter(problems.values()))
    names = found[splits.train[0]].info.action_names
    return Part(part.called if config.data else "", reader, manifest, splits, found,
                labels.read(folder, found, names), part.weight, config.cache)


def data_fingerprint(config: RunConfig, checked: Checked | None = None) -> str:
    """Twelve hex digits that name the data: the split, name, size and content of every file, and labels.csv.

    Of a mixture those of its parts, in order; where they lie and how they are weighted is not of the data.
    """
    found = [_fingerprint(part) for part in (checked or check(config)).parts]
    return found[0] if len(found) == 1 else hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]


def _fingerprint(part: Part) -> str:
    lines: list[Any] = [[split, name, part.records[name].size, part.records[name].sha256] for split in SPLITS
                        for name in sorted(part.splits.of(split))]
    lines += [part.given.digest] if part.given.digest else []
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:12]


def summary(config: RunConfig, checked: Checked | None = None) -> dict[str, Any]:
    """The data in numbers: files, those too short for a sequence, channels, grid [H, W], frames a chunk and in all."""
    checked = checked or check(config)
    infos, (_, first) = checked.infos, checked.first
    short = len(infos) - sum(len(part.long_enough(split, config)) for part in checked.parts for split in SPLITS)
    found = {"files": len(infos), "too_short": short, "channels": first.channels, "grid": [first.height, first.width],
             "chunk_frames": first.chunk_frames, "latent_frames": sum(info.latent_frames for info in infos.values())}
    return found | ({"sources": [part.name for part in checked.parts]} if len(checked.parts) > 1 else {})


def action_names(config: RunConfig, checked: Checked | None = None) -> list[str]:
    """Names of the true actions, by number, as the first training file or labels.csv has them; else empty."""
    return list((checked or check(config)).actions.names)


def has_labels(config: RunConfig, checked: Checked | None = None) -> bool:
    """Whether there are true actions of the validation split, in its files or in labels.csv."""
    return any(part.headers[name].info.actions or name in part.given.of
               for part in (checked or check(config)).parts for name in part.splits.validation)
