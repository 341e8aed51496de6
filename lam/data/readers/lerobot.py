"""A LeRobot data set, version 2 or 3: each episode is a video, its latents a feature of shape [C, H, W].

The feature is `observation.latent`, or the only one of that shape, or the one that `latents` names. LeRobot's action at
a frame is the one taken there, so it led into the next frame; whole numbers are true actions, a robot's continuous ones
are left out. Files are Parquet, so an episode is read whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import UNKNOWN_ACTION, FileInfo
from lam.data.readers.arrays import damage_named
from lam.data.readers.video import Video, described
from record import files
from record.errors import BadInput

INFO = Path("meta/info.json")
ACTION, EPISODE, FAVOURITE = "action", "episode_index", "observation.latent"
FLOATS = ("float16", "float32", "float64")
PLACES = re.compile(r"(?:[^{}]|\{\w+(?::0?\d{1,2}d)?\})+")  # names of files with numbers in them, and no other format


class Episode(NamedTuple):
    """Where an episode's rows lie: `frames` of them from row `first` of a file on."""

    file: Path
    first: int
    frames: int


class LeRobot:
    """The episodes of a LeRobot data set."""

    open_videos = 8  # each is in memory

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.folder = folder
        self.about = self._about()
        self.key = self._feature(key)

    def names(self) -> list[str]:
        return sorted(self._episodes)

    def home(self, name: str) -> Path:
        return self._episodes[name].file if name in self._episodes else self.folder / name

    def holds(self, name: str) -> bool:
        return name in self._episodes

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        if name not in self._episodes:
            raise BadInput(f"has no {name}", source=self.folder, remedy="check the manifest")
        episode = self._episodes[name]
        with damage_named(episode.file):
            columns = self._columns(name, episode)
            values, done = self._latents(columns[self.key]), columns.get(ACTION)
        actions = None
        if done is not None:
            actions = np.concatenate([np.full_like(done[:1], UNKNOWN_ACTION), done[:-1]])
        info = known or described(values.shape, values.dtype.name, actions, episode.file, self.key)
        hashed = [np.ascontiguousarray(values).data, *([] if actions is None else [actions.tobytes()])]
        return Video(info, values, None if actions is None else (lambda: actions), episode.file, lambda: hashed)

    def _about(self) -> dict[str, Any]:
        path = self.folder / INFO
        try:
            found = files.parse_json(files.read_record(path))
            if str(found["codebase_version"]).lstrip("v")[0] not in "23":
                raise BadInput(f"is of version {found['codebase_version']}, versions 2 and 3 are read", source=path,
                               remedy="convert it with LeRobot")
            if not PLACES.fullmatch(found["data_path"]):
                raise ValueError(f"data_path {found['data_path']!r:.80}")
            return {"features": {name: dict(each) for name, each in found["features"].items()},
                    "data_path": found["data_path"], "chunk": int(found.get("chunks_size") or 1000)}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise BadInput(f"is damaged ({type(error).__name__}: {error})", source=path,
                           remedy="copy the data set again") from None

    def _feature(self, asked: str | None) -> str:
        """The feature that holds the latents."""
        features = self.about["features"]
        fit = [name for name, each in features.items() if _is_latent(each)]
        key = asked or (FAVOURITE if FAVOURITE in fit else fit[0] if len(fit) == 1 else None)
        if key in fit and key is not None:
            return key
        pictures = any(each.get("dtype") in ("video", "image") for each in features.values())
        said = f"feature {asked!r} is no latent" if asked else "has no feature" if not fit else "has several features"
        raise BadInput(f"{said} of shape [C, H, W] and floats" + ("" if asked or not fit else f": {', '.join(fit)}"),
                       source=self.folder / INFO, key="features", remedy=f"set latents to one of {', '.join(fit)}"
                       if fit else "encode its pictures and add the latents as such a feature" if pictures else
                       f"it has {', '.join(features)}")

    @cached_property
    def _episodes(self) -> Mapping[str, Episode]:
        with damage_named(self.folder / "meta"):
            old = self.folder / "meta/episodes.jsonl"
            return self._of_lines(old) if old.is_file() else self._of_tables()

    def _of_lines(self, path: Path) -> dict[str, Episode]:
        """Version 2: a file an episode."""
        found = {}
        for line in files.read_record(path).splitlines():
            each = files.parse_json(line)
            number = int(each[EPISODE])
            where = self._place(episode_chunk=number // self.about["chunk"], episode_index=number)
            found[_name(number)] = Episode(where, 0, int(each["length"]))
        return found

    def _of_tables(self) -> dict[str, Episode]:
        """Version 3: many episodes a file, one after another."""
        from pyarrow import dataset

        columns = (EPISODE, "length", "data/chunk_index", "data/file_index", "dataset_from_index")
        table = dataset.dataset(self.folder / "meta/episodes", format="parquet").to_table(list(columns))
        begins: dict[tuple[int, int], int] = {}
        rows = sorted(zip(*(table[name].to_pylist() for name in columns), strict=True), key=lambda row: row[4])
        found = {}
        for number, length, chunk, file, first in rows:
            begin = begins.setdefault((chunk, file), first)
            where = self._place(chunk_index=chunk, file_index=file)
            found[_name(number)] = Episode(where, first - begin, length)
        return found

    def _place(self, **numbers: int) -> Path:
        """The file that info.json means, which may be none outside of the data set."""
        named = Path(self.about["data_path"].format(**numbers))
        if named.is_absolute() or ".." in named.parts:
            raise BadInput(f"names {str(named)!r:.200}, which lies outside of the data set", source=self.folder / INFO,
                           key="data_path", remedy="copy the data set again, whole")
        return self.folder / named

    def _columns(self, name: str, episode: Episode) -> dict[str, Any]:
        """Latents and actions of an episode, from the row groups that hold it."""
        from pyarrow import parquet

        wanted = [EPISODE, self.key, *([ACTION] if ACTION in self.about["features"] else [])]
        with parquet.ParquetFile(episode.file) as file:
            ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
            first, last = np.searchsorted(ends, [episode.first, episode.first + episode.frames - 1], side="right")
            table = file.read_row_groups(list(range(first, last + 1)), wanted)
        before = int(ends[first - 1]) if first else 0
        rows = table.slice(episode.first - before, episode.frames)
        if set(rows[EPISODE].to_pylist()) != {int(name.rpartition("-")[2])} or len(rows) != episode.frames:
            raise ValueError(f"the rows of {name} are not where meta/episodes says")
        found = {self.key: rows[self.key].combine_chunks()}
        if ACTION in wanted:
            done = rows[ACTION].combine_chunks()
            found[ACTION] = np.array(done.to_pylist()) if done.type.num_fields else done.to_numpy(zero_copy_only=False)
            if found[ACTION].ndim == 2 and found[ACTION].shape[1] == 1 and found[ACTION].dtype.kind in "iu":
                found[ACTION] = found[ACTION][:, 0]
        return found

    def _latents(self, nested: Any) -> NDArray[Any]:
        """[frames, C, H, W] of Parquet's lists of lists."""
        feature = self.about["features"][self.key]
        values = nested.storage if hasattr(nested, "storage") else nested
        frames = len(values)
        while values.type.num_fields:
            values = values.flatten()
        found = values.to_numpy(zero_copy_only=False).reshape(frames, *feature["shape"])
        return found.transpose(0, 3, 1, 2) if _channels_last(feature) else found


def _is_latent(feature: Mapping[str, Any]) -> bool:
    shape = feature.get("shape")
    return feature.get("dtype") in FLOATS and isinstance(shape, list) and len(shape) == 3


def _channels_last(feature: Mapping[str, Any]) -> bool:
    names = feature.get("names")
    return isinstance(names, list) and len(names) == 3 and str(names[2]).startswith("channel")


def _name(number: int) -> str:
    return f"episode-{number:06d}"
