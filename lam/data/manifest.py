"""Which file belongs to training, validation and test: the manifest.

Videos are split by file, never by frame, so that no frame of a validation video was trained on.
The split is seeded, and every split gets at least one file: an empty validation split would leave a
run silently unvalidated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, get_args

from numpy.random import default_rng  # now: a signal that meets the import of Cython modules is lost
from pydantic import BaseModel, ConfigDict, StrictStr, field_validator

from lam.data.h5 import FileInfo, check_same_shape
from lam.data.index import scan
from lam.data.readers.registry import reader_of
from lam.data.readers.video import Reader
from record import files
from record.errors import BadInput
from record.schema import Strict, build
from record.storage import copies

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
FILE_NAME = "manifest.json"
MOST_SHOWN = 10  # files that a refusal to replace a manifest names


class Ratios(NamedTuple):
    """Shares of the files; each above 0, together 1."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1


class Splits(Strict):
    """File names of each split, relative to the data folder."""

    train: tuple[StrictStr, ...]
    validation: tuple[StrictStr, ...]
    test: tuple[StrictStr, ...] = ()

    @field_validator("train", "validation", "test")
    @classmethod
    def _stay_inside(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            path = PurePosixPath(name)
            if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"got {name!r}, expected the name of a file inside the data folder")
        return names

    @field_validator("train", "validation")
    @classmethod
    def _not_empty(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("names no file; write the manifest again with 'lam data manifest'")
        return names

    def of(self, split: SplitName) -> tuple[str, ...]:
        """File names of one split."""
        names: tuple[str, ...] = getattr(self, split)
        return names

    def all(self) -> list[str]:
        """Every file name, training first."""
        return [name for split in SPLITS for name in self.of(split)]


class _Document(BaseModel):
    """A manifest file. Only `splits` is read; the other sections describe it to people."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    splits: Splits


def split_names(names: Sequence[str], ratios: Ratios, seed: int) -> Splits:
    """Deal file names into the splits, at random but the same for the same seed.

    Raises:
        BadInput: a ratio is not above 0, they do not add up to 1, or there are fewer files than splits.
    """
    if min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise BadInput(f"got train {ratios.train}, validation {ratios.validation} and test {ratios.test}",
                       key="split ratios", remedy="each must be above 0 and together they must be 1")
    if len(names) < len(SPLITS):
        raise BadInput(f"got {len(names)} file{'s' * (len(names) != 1)}, need at least {len(SPLITS)} so that training, "
                       "validation and test each have one", remedy="add more videos")
    shuffled = [sorted(names)[number] for number in default_rng(seed).permutation(len(names))]
    held_out = len(names) - 1  # training keeps at least one
    validation = min(max(1, round(len(names) * ratios.validation)), held_out - 1)
    test = min(max(1, round(len(names) * ratios.test)), held_out - validation)
    return Splits(train=tuple(sorted(shuffled[validation + test:])), validation=tuple(sorted(shuffled[:validation])),
                  test=tuple(sorted(shuffled[validation:validation + test])))


def write_manifest(folder: str | Path, ratios: Ratios = Ratios(), seed: int = 42, replace: bool = False,
                   latents: str | None = None) -> Path:
    """Check every video of `folder`, split them and write `folder`/manifest.json.

    Args:
        latents: their name in each video; see `reader_of`.
        replace: also where a manifest with another split is there; runs that go on would train on its test videos.

    Raises:
        BadInput: a file cannot be used, the files differ in shape, they cannot be split, or another split is there.
    """
    folder, reader = Path(folder), reader_of(folder, latents)
    names = reader.names()
    try:
        splits = split_names(names, ratios, seed)
    except BadInput as error:
        raise BadInput(str(error), source=folder) from None
    found, problems = scan(reader, names)  # in full, as inspect and train do: NaN is found now, not in a training
    if problems:
        raise next(iter(problems.values()))
    infos = {name: record.info for name, record in found.items()}
    check_same_shape(infos)
    if not replace:
        _check_same_split(folder / FILE_NAME, splits)
    return files.write_json(folder / FILE_NAME, document(folder, splits, ratios, seed, infos))


def _check_same_split(path: Path, splits: Splits) -> None:
    """Refuse to replace another split; a file that holds no split is none."""
    try:
        known = _read_splits(path, path.parent)
    except BadInput:
        return
    there, here = ({str(PurePosixPath(name)): split for split in SPLITS for name in each.of(split)}
                   for each in (known, splits))
    moved = [f"{name}: {there.get(name, 'absent')} -> {here.get(name, 'absent')}"
             for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    if moved:
        more = f"\n  and {len(moved) - MOST_SHOWN} more" * (len(moved) > MOST_SHOWN)
        raise BadInput(f"holds another split; {len(moved)} of {len({*there, *here})} files would move (there -> new):"
                       + "".join(f"\n  {line}" for line in moved[:MOST_SHOWN]) + more + "\n", source=path,
                       remedy="keep it, or replace it with --replace")


def document(folder: Path, splits: Splits, ratios: Ratios, seed: int, infos: dict[str, FileInfo]) -> dict[str, Any]:
    """The manifest as JSON values."""
    first = infos[splits.train[0]]
    return {
        "metadata": {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "data_directory": copies.where(folder.absolute()),
            "total_files": len(splits.all()),
            "seed": seed,
            "split_ratios": ratios._asdict(),
        },
        "data_format": {
            "shape": ["N_chunks", first.channels, first.chunk_frames, first.height, first.width],
            "description": "latents of one video per file, dataset 'embeddings'",
            "spatial_resolution": [first.height, first.width],
            "channels": first.channels,
        },
        "splits": {split: list(splits.of(split)) for split in SPLITS},
        "statistics": {split: _statistics([infos[name] for name in splits.of(split)]) for split in SPLITS},
    }


def _statistics(infos: list[FileInfo]) -> dict[str, int]:
    return {"num_files": len(infos), "num_chunks": sum(info.chunks for info in infos),
            "num_latent_frames": sum(info.latent_frames for info in infos)}


def read_manifest(path: str | Path, folder: str | Path, reader: Reader | None = None) -> Splits:
    """Read the splits and check that every named file lies in `folder` and in one split only.

    Args:
        reader: of the folder, where it is known.

    Raises:
        BadInput: naming the manifest, the key and the remedy.
    """
    path, folder = Path(path), Path(folder)
    if not folder.is_dir():
        raise BadInput("no such folder", source=folder, key="data_dir",
                       remedy="check the path, or make a demonstration with 'lam data demo'")
    splits = _read_splits(path, folder)
    _check_disjoint(splits, path)
    _check_present(splits, path, folder, reader)
    return splits


def _read_splits(path: Path, folder: Path) -> Splits:
    if not path.exists():
        raise BadInput("no such file", source=path, remedy=f"write one with 'lam data manifest {folder}'")
    try:
        values = files.parse_json(files.read_record(path))
    except ValueError as error:
        raise BadInput(f"not valid JSON: {error}", source=path,
                       remedy=f"write it again with 'lam data manifest {folder}'") from None
    if not isinstance(values, dict):
        raise BadInput(f"holds a {type(values).__name__}, expected an object with 'splits'", source=path,
                       remedy=f"write it again with 'lam data manifest {folder}'")
    return build(_Document, values, source=path).splits


def _check_disjoint(splits: Splits, path: Path) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for raw in splits.of(split):
            name = str(PurePosixPath(raw))
            if name in seen:
                where = f"stands in {seen[name]} too" if seen[name] != split else "stands here twice"
                raise BadInput(f"{name!r} {where}", source=path, key=f"splits.{split}",
                               remedy="keep each file in one split, once")
            seen[name] = split


def _check_present(splits: Splits, path: Path, folder: Path, reader: Reader | None) -> None:
    reader = reader or reader_of(folder)
    missing = [name for name in splits.all() if not reader.holds(name)]
    if missing:
        more = f" and {len(missing) - 1} more" * (len(missing) > 1)
        raise BadInput(f"names {missing[0]!r}{more}, not found in {folder}", source=path, key="splits",
                       remedy=f"put the files back, or write it again with 'lam data manifest {folder} --replace'")
