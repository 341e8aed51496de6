"""The manifest: a seeded split by file in which no split is empty, and a strict reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lam.data.manifest import SPLITS, Ratios, read_manifest, split_names, write_manifest
from record.errors import BadInput


def names(count: int) -> list[str]:
    return [f"v{number:03d}.h5" for number in range(count)]


@pytest.mark.parametrize(("count", "expected"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (10, (8, 1, 1)), (40, (32, 4, 4)),
                                                 (101, (81, 10, 10))])
def test_every_split_gets_a_file(count: int, expected: tuple[int, int, int]) -> None:
    splits = split_names(names(count), Ratios(), 42)
    assert tuple(len(splits.of(split)) for split in SPLITS) == expected
    assert sorted(splits.all()) == names(count)


def test_the_split_depends_on_the_seed_only() -> None:
    assert split_names(names(20), Ratios(), 1) == split_names(names(20)[::-1], Ratios(), 1)
    assert split_names(names(20), Ratios(), 1) != split_names(names(20), Ratios(), 2)


@pytest.mark.parametrize("ratios", [Ratios(0.8, 0.1, 0.2), Ratios(0.9, 0.1, 0.0), Ratios(1.2, -0.1, -0.1)])
def test_ratios_must_be_shares(ratios: Ratios) -> None:
    with pytest.raises(BadInput, match="each must be above 0 and together they must be 1"):
        split_names(names(10), ratios, 1)


@pytest.mark.parametrize("ratios", [Ratios(0.01, 0.98, 0.01), Ratios(0.01, 0.01, 0.98), Ratios(0.98, 0.01, 0.01)])
def test_extreme_ratios_leave_no_split_empty(ratios: Ratios) -> None:
    for count in range(3, 12):
        assert min(len(split_names(names(count), ratios, 1).of(split)) for split in SPLITS) >= 1


def test_too_few_files(tmp_path: Path, tiny_data: Path) -> None:
    for name in ("pong-0000.h5", "pong-0001.h5"):
        shutil.copy(tiny_data / name, tmp_path)
    with pytest.raises(BadInput, match=r"got 2 files, need at least 3 .*; add more videos") as caught:
        write_manifest(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "manifest.json").exists()


def test_a_written_manifest_has_the_documented_format(tmp_path: Path, tiny_data: Path) -> None:
    for path in tiny_data.glob("*.h5"):
        shutil.copy(path, tmp_path)
    value = json.loads(write_manifest(tmp_path, Ratios(0.6, 0.2, 0.2), seed=7).read_text())
    assert set(value) == {"metadata", "data_format", "splits", "statistics"}
    meta = value["metadata"]
    assert set(meta) == {"created_at", "data_directory", "total_files", "seed", "split_ratios"}
    assert (meta["total_files"], meta["seed"], meta["data_directory"]) == (10, 7, str(tmp_path))
    assert meta["split_ratios"] == {"train": 0.6, "validation": 0.2, "test": 0.2}
    assert value["data_format"]["shape"] == ["N_chunks", 16, 2, 8, 8]
    assert value["data_format"]["channels"] == 16
    assert {split: len(files) for split, files in value["splits"].items()} == {"train": 6, "validation": 2, "test": 2}
    assert value["statistics"]["train"] == {"num_files": 6, "num_chunks": 72, "num_latent_frames": 144}
    assert read_manifest(tmp_path / "manifest.json", tmp_path).train == tuple(value["splits"]["train"])


def test_another_split_is_replaced_only_when_asked(tmp_path: Path, tiny_data: Path) -> None:
    for path in tiny_data.glob("*.h5"):
        shutil.copy(path, tmp_path)
    path = write_manifest(tmp_path, seed=42)
    assert write_manifest(tmp_path, seed=42) == path  # the same split again
    first = path.read_bytes()
    there, new = (split_names([file.name for file in tmp_path.glob("*.h5")], Ratios(), seed) for seed in (42, 7))
    assert there.test != new.test
    with pytest.raises(BadInput) as caught:
        write_manifest(tmp_path, seed=7)
    assert f"{path}: holds another split; 4 of 10 files would move (there -> new):" in str(caught.value)
    assert f"\n  {there.test[0]}: test -> train\n" in str(caught.value)
    assert str(caught.value).endswith("; keep it, or replace it with --replace")
    assert path.read_bytes() == first
    assert json.loads(write_manifest(tmp_path, seed=7, replace=True).read_text())["splits"]["test"] == [*new.test]
    path.write_text("{")
    assert read_manifest(write_manifest(tmp_path), tmp_path) == there  # what holds no split has none to lose


def test_a_bad_file_is_found_before_anything_is_written(tmp_path: Path, tiny_data: Path) -> None:
    for path in tiny_data.glob("*.h5"):
        shutil.copy(path, tmp_path)
    (tmp_path / "pong-0004.h5").write_bytes(b"")
    with pytest.raises(BadInput, match=r"pong-0004\.h5: has 0 bytes"):
        write_manifest(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


A, B, C = "pong-0000.h5", "pong-0001.h5", "pong-0002.h5"
GOOD = {"train": [A], "validation": [B], "test": [C]}


@pytest.mark.parametrize(("value", "message"), [
    ("{", "manifest.json: not valid JSON"),
    ([], "manifest.json: holds a list, expected an object with 'splits'"),
    ({}, "manifest.json:splits: is missing"),
    ({"splits": [A]}, "manifest.json:splits: got ["),
    ({"splits": {**GOOD, "train": A}}, f"manifest.json:splits.train: got '{A}'"),
    ({"splits": {**GOOD, "train": [1]}}, "manifest.json:splits.train.0: got 1, it should be a valid string"),
    ({"splits": {**GOOD, "val": [B]}}, "manifest.json:splits.val: unknown key; known here: test, train, validation"),
    ({"splits": {**GOOD, "validation": []}}, "manifest.json:splits.validation: names no file; write the manifest"),
    ({"splits": {**GOOD, "test": ["../x.h5"]}}, "manifest.json:splits.test: got '../x.h5', expected the name of"),
    ({"splits": {**GOOD, "test": ["/etc/passwd"]}}, "splits.test: got '/etc/passwd', expected the name of a file"),
    ({"splits": {**GOOD, "test": [A]}}, f"manifest.json:splits.test: '{A}' stands in train too; keep each"),
    ({"splits": {**GOOD, "train": [A, f"./{A}"]}}, f"splits.train: '{A}' stands here twice"),
    ({"splits": {**GOOD, "train": [A, "gone.h5", "lost.h5"]}}, "splits: names 'gone.h5' and 1 more, not found in"),
])
def test_a_bad_manifest_is_named(tmp_path: Path, tiny_data: Path, value: Any, message: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(BadInput) as caught:
        read_manifest(path, tiny_data)
    assert message in str(caught.value)


def test_missing_manifest_or_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"manifest\.json: no such file; write one with 'lam data manifest"):
        read_manifest(tmp_path / "manifest.json", tmp_path)
    with pytest.raises(BadInput, match="data_dir: no such folder; check the path, or make a demonstration"):
        read_manifest(tmp_path / "manifest.json", tmp_path / "gone")


def test_what_a_manifest_says_beside_the_splits_is_left_alone(tmp_path: Path, tiny_data: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"splits": GOOD, "notes": "by hand"}))
    assert read_manifest(tmp_path / "m.json", tiny_data).all() == [A, B, C]
