"""Links, weights and pictures that someone changed, and folders of others: 37 answers."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from build_records import Planted, write_run
from inputs import Row, Wrong, answer, table

SECRET = "hunter2"
Make = Callable[[Path], Any]


def run(change: Callable[[Path], Any]) -> Make:
    """A run with pictures and weights, then changed; a secret lies beside it."""
    def make(box: Path) -> None:
        (box / "secret").write_text(f"{SECRET}\n{SECRET}\n")
        folder = write_run(box / "run", Planted(epochs=3), samples=True)
        folder.checkpoints.mkdir(exist_ok=True)
        change(folder.path)
    return make


def linked(file: str, target: str) -> Make:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.symlink(target, folder / file)
    return run(change)


def other(file: str, content: bytes) -> Make:
    return run(lambda folder: (folder / file).write_bytes(content))


def row(name: str, make: Make, words: str, code: int, *says: str) -> Row:
    return Row(name, make, tuple(words.split()), code, says)


def tensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


MONITOR, REPORT, EXPORT = "monitor run", "report run -o r.json", "export run -o m"
LINKS = [row(f"{file} is a link to {name}, {words.split()[0]}", linked(file, target), words, 2, Path(file).name)
         for file in ("run.json", "metrics.jsonl", "config.yaml")
         for name, target in (("a device", "/dev/zero"), ("a secret", "../secret"))
         for words in (MONITOR, REPORT)]
LINKS += [row("the run is a link to itself", lambda box: os.symlink("run", box / "run"), MONITOR, 2, "run"),
          row("run.json is a link to nothing", linked("run.json", "gone"), MONITOR, 2,
              "run.json: is a link that leads nowhere"),
          row("metrics.jsonl is a link to itself", linked("metrics.jsonl", "metrics.jsonl"), REPORT, 2,
              "metrics.jsonl: is a link that leads nowhere", "restore it")]
BEST = "checkpoints/best.safetensors"
WEIGHTS = [row(f"weights: {name}", other(BEST, content), EXPORT, 2, "best")
           for name, content in {
               "empty": b"", "short": b"abc", "a huge header": tensors(b"{}", 2**60), "no JSON": tensors(b"{nope"),
               "offsets beyond": tensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
               "a negative shape": tensors(b'{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,0]}}'),
               "100,000 deep": tensors(b"[" * 100_000),
               "a pickle": b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."}.items()]
PICTURE = "samples/epoch-3.npz"


def objects(folder: Path) -> None:
    np.savez(folder / PICTURE, pictures=np.array([os.getcwd, {}], dtype=object))


def renamed(folder: Path) -> None:
    (folder / PICTURE).rename(folder / "samples" / "epoch-\u00b2\u00b3.npz")


PICTURES = [row(f"pictures: {name}", make, REPORT, 0) for name, make in {
    "empty": other(PICTURE, b""), "a text": other(PICTURE, b"pictures"),
    "half an archive": other(PICTURE, b"PK\x03\x04"),
    "objects": run(objects), "a strange name": run(renamed), "a link to a device": linked(PICTURE, "/dev/zero"),
    "a link to a secret": linked(PICTURE, "../../secret"),
    "a pipe": run(lambda folder: ((folder / PICTURE).unlink(), os.mkfifo(folder / PICTURE)))}.items()]


def elsewhere(box: Path) -> None:
    run(lambda folder: None)(box)
    shutil.move(box / "run", box / "moved")


def keys(box: Path) -> None:
    (box / "log.jsonl").write_text('{"my/epoch": 1, "my/loss": 2}\n{"my/epoch": 2, "my/loss": 1}\n')


FOREIGN = [
    row("a run that was moved", elsewhere, "report moved -o r.json", 0),
    row("a log with keys of its own", keys, "report log.jsonl -o r.json", 0),
    row("a folder of texts", lambda box: (box / "run").mkdir(), MONITOR, 2, "run"),
    row("a picture as a log", lambda box: (box / "run").write_bytes(b"\x89PNG\r\n" * 100), MONITOR, 2, "run"),
    row("an empty log", lambda box: (box / "log.jsonl").write_text(""), "monitor log.jsonl", 2, "log.jsonl"),
    row("a table of words", lambda box: (box / "log.csv").write_text("a,b\nx,y\n"), "monitor log.csv", 2, "log.csv"),
]
ROWS = LINKS + WEIGHTS + PICTURES


@table(ROWS)
def test_what_someone_changed_is_named(row: Row, tmp_path: Path) -> None:
    given = answer(tmp_path, row)
    if SECRET in given.out + given.err:
        raise Wrong("quotes what a link leads to")
    assert not [*tmp_path.rglob("owned")]


@table(FOREIGN)
def test_a_folder_of_others(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


def test_so_many_were_tried() -> None:
    assert (len(ROWS), len(FOREIGN)) == (31, 6)
