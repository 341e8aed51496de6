"""Data folders and H5 files that are odd or hostile: 65 asked of two commands and trained on, 31 hostile ones read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from inputs import Row, answer, table

SHAPE = (4, 4, 2, 4, 4)
TINY = ["--set", "embed_dim=16", "--set", "num_epochs=1", "--set", "steps_per_epoch=1", "--set", "sequence_length=3",
        "--set", "encoder_depth=1", "--set", "decoder_depth=1", "--set", "head_dim=8", "--set", "patch_dim=8",
        "--set", "codebook_dim=8", "--set", "batch_size=4", "--set", "sample_count=0", "--set", "eval_sequences=4",
        "--set", "device=cpu", "--set", "threads=1"]
INSPECT = ("data", "inspect", "d", "--batches", "0")
MANIFEST = ("data", "manifest", "d")
TRAIN = ("train", "run.yaml", "--run-dir", "run", *TINY)
Make = Callable[[Path], Any]


def latents(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def write(path: Path, data: Any = None, **attributes: Any) -> None:
    with h5py.File(path, "w") as file:
        file["embeddings"] = latents() if data is None else data
        file.attrs.update(attributes)


def folder(box: Path, files: int = 5) -> Path:
    """A sound folder of so many files, with a YAML beside it."""
    (box / "d").mkdir()
    for number in range(files):
        write(box / "d" / f"v{number}.h5")
    (box / "run.yaml").write_text("data_dir: d\n")
    return box / "d"


def spoilt(change: Make, files: int = 5) -> Make:
    """A sound folder, a manifest, and then one file changed."""
    def make(box: Path) -> None:
        data = folder(box, files)
        names = [f"v{number}.h5" for number in range(files)]
        (data / "manifest.json").write_text(json.dumps({"splits": {
            "train": names[:-2], "validation": names[-2:-1], "test": names[-1:]}}))
        change(data / "v0.h5")
    return make


def replaced(data: Any) -> Make:
    return lambda path: write(path, data)


def at(value: float) -> np.ndarray:
    found = latents()
    found[2, 1] = value
    return found


def edit(change: Callable[[h5py.File], Any]) -> Make:
    def make(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)
    return make


def group(file: h5py.File) -> None:
    del file["embeddings"]
    file.create_group("embeddings")


def link(target: Any) -> Make:
    def change(file: h5py.File) -> None:
        del file["embeddings"]
        file["embeddings"] = target
    return edit(change)


def external(path: Path) -> None:
    (path.parent / "raw").write_bytes(latents().tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", SHAPE, "f4", external=[(str(path.parent / "raw"), 0, h5py.h5f.UNLIMITED)])


def virtual(path: Path) -> None:
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout(SHAPE, "f4")
        layout[:] = h5py.VirtualSource("gone.h5", "embeddings", SHAPE)
        file.create_virtual_dataset("embeddings", layout)


def claim(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", (1_000_000, 16, 2, 64, 64), "f4", chunks=(1, 16, 2, 64, 64))


def actions(values: Any, **attributes: Any) -> Make:
    return edit(lambda file: (file.__setitem__("actions", values), file.attrs.update(attributes)))


# What is changed in one of five files, and the words of all three commands.
ODD: dict[str, tuple[Make, str]] = {
    "NaN": (replaced(at(np.nan)), "holds NaN in chunk 2"),
    "infinity": (replaced(at(np.inf)), "holds infinity in chunk 2"),
    "1e30": (replaced(at(1e30)), "holds values up to 1e+30"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:3000]), "truncated"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "a text": (lambda path: path.write_text("latents"), "not an H5 file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    "no dataset": (edit(lambda file: file.move("embeddings", "latents")), "dataset is missing; the file holds"),
    "a group": (edit(group), "is a group, expected a dataset"),
    "a scalar": (replaced(np.float32(1)), "expected [N_chunks, C, T_latent, H, W]"),
    "four axes": (replaced(latents(SHAPE[1:])), "expected [N_chunks, C, T_latent, H, W]"),
    "no rows": (replaced(latents((0, *SHAPE[1:]))), "embeddings"),
    "int16": (replaced(latents().astype(np.int16)), "of floats"),
    "complex": (replaced(latents().astype(np.complex64)), "of floats"),
    "words": (replaced(np.array(["a", "b"], dtype=h5py.string_dtype())), "embeddings"),
    "other channels": (replaced(latents((4, 5, 2, 4, 4))), "channels"),
    "another grid": (replaced(latents((4, 4, 2, 8, 8))), "rows of latent cells"),
    "never written": (claim, "embeddings"),
    "short actions": (actions(np.zeros(3, np.int64)), "expected [8] of integers"),
    "actions below": (actions(np.full(8, -7)), "holds -7"),
}
ODD_ROWS = [Row(f"{name}, {words[0] if words[0] != 'data' else words[1]}", spoilt(change), words,
                1 if words is INSPECT else 2, (says,), writes=True)
            for name, (change, says) in ODD.items() for words in (INSPECT, MANIFEST, TRAIN)]
FOLDERS = [
    Row("one file, inspect", lambda box: folder(box, 1), INSPECT, 1, ("needs 3",)),
    Row("two files, manifest", lambda box: folder(box, 2), MANIFEST, 2, ("need at least 3",)),
    Row("no folder, inspect", lambda box: None, INSPECT, 2, ("d: no such folder",)),
    Row("no folder, train", lambda box: (box / "run.yaml").write_text("data_dir: d\n"), TRAIN, 2, ("no such folder",)),
    Row("hdf5 endings, manifest", lambda box: [path.rename(path.with_suffix(".hdf5")) for path in
                                               sorted(folder(box).iterdir())], MANIFEST, 2, ("rename its 5 HDF5",)),
]
HOSTILE: dict[str, tuple[Make, str]] = {
    "an external link": (link(h5py.ExternalLink("/etc/passwd", "/x")), "is a link to '/etc/passwd:/x'"),
    "a soft link": (link(h5py.SoftLink("/other")), "is a link to '/other'"),
    "a soft link to itself": (link(h5py.SoftLink("/embeddings")), "is a link"),
    "external storage": (external, "keeps its data outside the file"),
    "a virtual dataset": (virtual, "is a virtual dataset"),
    "a huge claim": (claim, "embeddings"),
    "header overwritten": (lambda path: path.write_bytes(b"\0" * 64 + path.read_bytes()[64:]), "not an H5 file"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 40), "not an H5 file"),
    "a pickle": (lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."), "not an H5 file"),
    "names nest": (edit(lambda file: (file.__setitem__("actions", np.zeros(8, np.int64)),
                                      file.attrs.__setitem__("action_names", "[" * 30_000))), "action_names"),
    "names are numbers": (edit(lambda file: file.attrs.__setitem__("action_names", "[1, 2]")), "JSON list of words"),
    "a reference": (edit(lambda file: (file.__delitem__("embeddings"), file.create_dataset(
        "embeddings", (1,), h5py.ref_dtype))), "embeddings"),
    "a link to a device": (lambda path: (path.unlink(), path.symlink_to("/dev/null")), "v0.h5"),
    "actions through a link": (edit(lambda file: file.__setitem__("actions", h5py.ExternalLink("/etc/passwd", "/x"))),
                               "actions"),
    "a dangling link": (lambda path: (path.unlink(), path.symlink_to("nowhere")), "v0.h5"),
}
HOSTILE_ROWS = [Row(f"{name} in H5", spoilt(change), INSPECT, 1, (says,), writes=True)
                for name, (change, says) in HOSTILE.items()]


def steering(box: Path) -> None:
    data = folder(box)
    with h5py.File(data / "v0.h5", "r+") as file:
        file["actions"] = np.zeros(8, np.int64)
        file.attrs["action_names"] = '["\\u001b]0;OWN\\u0007", "b"]'


def splits(text: Any) -> Make:
    def make(box: Path) -> None:
        (folder(box) / "manifest.json").write_text(text if isinstance(text, str) else json.dumps(text))
    return make


GOOD = {"train": ["v0.h5", "v1.h5"], "validation": ["v2.h5"], "test": ["v3.h5"]}
MANIFESTS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "not valid JSON"), "a list": ([], "holds a list"), "no splits": ({}, "splits: is missing"),
    "100,000 deep": ("[" * 100_000, "manifest.json"),
    "a parent": ({"splits": {**GOOD, "test": ["../x.h5"]}}, "'../x.h5'"),
    "absolute": ({"splits": {**GOOD, "test": ["/etc/passwd"]}}, "inside the data folder"),
    "numbers": ({"splits": {**GOOD, "test": [1]}}, "valid string"),
    "an empty split": ({"splits": {**GOOD, "validation": []}}, "names no file"),
    "a file twice": ({"splits": {**GOOD, "test": ["v0.h5"]}}, "stands in train too"),
    "a missing file": ({"splits": {**GOOD, "test": ["gone.h5"]}}, "gone.h5"),
    "an unknown split": ({"splits": {**GOOD, "val": ["v4.h5"]}}, "unknown key"),
    "a NUL": ({"splits": {**GOOD, "test": ["a\0b"]}}, "inside the data folder"),
    "a word": ({"splits": {**GOOD, "train": "v0.h5"}}, "splits.train"),
    "an escape sequence": ({"splits": {**GOOD, "test": ["\x1b]0;x\x07"]}}, "manifest.json"),
}
MANIFEST_ROWS = [Row(f"{name} in the manifest", splits(text), TRAIN, 2, (says,), writes=True)
                 for name, (text, says) in MANIFESTS.items()]
MORE = [Row("names that steer", steering, INSPECT, 0, ("]0;OWN",)),
        Row("the manifest is a pipe", lambda box: os.mkfifo(folder(box) / "manifest.json"), TRAIN, 2,
            ("is no regular file",), writes=True)]
ROWS = ODD_ROWS + FOLDERS
ROWS_HOSTILE = HOSTILE_ROWS + MANIFEST_ROWS + MORE


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@table(ROWS)
def test_an_odd_folder_is_answered_in_words(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


@table(ROWS_HOSTILE)
def test_a_hostile_file_is_named(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)
    assert not [*tmp_path.rglob("owned")]
    shutil.rmtree(tmp_path)


def test_so_many_were_tried() -> None:
    assert (len(ROWS), len(ROWS_HOSTILE)) == (65, 31)
