"""What was read of large sweeps, kept for the next report: in the user's own cache folder, never beside the records.

A block of runs is read again as soon as one of its files has another size, time of change or inode. What cannot be read
of a cache, or written to it, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from analysis.read.epochs.columns import Block, Epochs, apart
from record import files, provenance
from record.run import RunFolder

VERSION = 2
MOST_SWEEPS = 20
_KINDS: dict[str, type] = {"float": float, "int": int, "bool": bool}
# What a reader of npz meets in a damaged one, and what says that there is no home to keep it in.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError,
            struct.error, zlib.error, zipfile.BadZipFile)


def _version() -> list[Any]:
    """An update may read the same record otherwise."""
    return [VERSION, provenance.lamsweep()]


def stamps(runs: Sequence[RunFolder]) -> list[list[int]]:
    """Size, times and inode of each run's epoch records; empty where there are none."""
    return [_stamp(run.metrics_file) for run in runs]


def _stamp(path: Path) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def place(runs: Sequence[RunFolder]) -> Path:
    """Where the block of these runs is kept."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lamsweep" / "records"
    first = runs[0].path.absolute()
    sweep = hashlib.sha256(os.fsencode(first.parent)).hexdigest()[:16]
    return home / sweep / f"{hashlib.sha256(os.fsencode(first)).hexdigest()[:16]}.npz"


def is_kept(runs: Sequence[RunFolder]) -> bool:
    """Whether the records of the runs are kept as they are now."""
    try:
        with open(place(runs), "rb") as file, np.load(file, allow_pickle=False) as kept:
            return _head(kept, runs) is not None
    except _DAMAGED:
        return False


def _head(kept: Any, runs: Sequence[RunFolder]) -> dict[str, Any] | None:
    """What is said of the kept arrays; None where they are of other records."""
    head: dict[str, Any] = orjson.loads(kept["head"].tobytes())
    said = head["version"], head["runs"], head["stamps"]
    return head if said == (_version(), [str(run.path) for run in runs], stamps(runs)) else None


def load(runs: Sequence[RunFolder]) -> list[Epochs] | None:
    """The records of the runs; None where they are not kept, or have changed."""
    try:
        with open(place(runs), "rb") as file, np.load(file, allow_pickle=False) as kept:
            head = _head(kept, runs)
            if head is None:
                return None
            numbers, words = kept["numbers"], kept["words"]
            others = zip(head["others"].items(), words, strict=True)
            lists = {key: kept[f"lists{place}"] for place, key in enumerate(head["lists"])}
            block = Block(
                tuple(map(tuple, head["shapes"])), kept["shape"], dict(zip(head["numbers"], numbers, strict=True)),
                {key: _KINDS[kind] for key, kind in head["numbers"].items()},
                {key: _objects(texts, row) for (key, texts), row in others} | lists, {},
                dict(zip(head["whole"], kept["whole"], strict=True)))
            return apart(block, head["lengths"]) if _fits(block, head["lengths"]) else None
    except _DAMAGED:
        return None


def _fits(block: Block, lengths: Sequence[int]) -> bool:
    size = len(block.shape)
    return size == sum(lengths) and all(len(column) == size for column in (*block.numbers.values(),
                                                                           *block.others.values()))


def _objects(texts: Sequence[str], row: Any) -> Any:
    """Each distinct value once; a list stays JSON until it is asked for."""
    values = np.empty(len(texts), dtype=object)
    for number, text in enumerate(texts):
        values[number] = text.encode() if text.startswith("[") else orjson.loads(text)
    return values[row]


def keep(runs: Sequence[RunFolder], found: Sequence[Epochs], before: Sequence[list[int]]) -> None:
    """Keep what was read, where all of it is one block; `before`: its files' stamps before they were read."""
    block = found[0].block
    if any(epochs.block is not block for epochs in found):
        return
    try:
        lists = {key: column for key, column in block.others.items() if column.dtype != object}
        words = [key for key in block.others if key not in lists]
        tables = [_table(block.others[key]) for key in words]
        head = orjson.dumps({
            "version": _version(), "runs": [str(run.path) for run in runs], "stamps": before, "shapes": block.shapes,
            "lengths": [len(epochs) for epochs in found],
            "numbers": {key: block.kinds[key].__name__ for key in block.numbers},
            "others": dict(zip(words, (texts for texts, _ in tables), strict=True)),
            "lists": list(lists), "whole": list(block.whole)})
        arrays: dict[str, Any] = {"head": np.frombuffer(head, dtype=np.uint8), "shape": block.shape,
                  "numbers": np.array(list(block.numbers.values())),
                  "whole": np.array(list(block.whole.values()), dtype=np.bool_),
                  **{f"lists{place}": column for place, column in enumerate(lists.values())},
                  "words": np.array([row for _, row in tables], dtype=np.int32).reshape(len(tables), len(block.shape))}
        path = place(runs)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_atomic(path, lambda file: np.savez(file, **arrays))
        _forget_old(path.parent)
    except _DAMAGED:
        return


def _table(column: Any) -> tuple[list[str], list[int]]:
    """The distinct values as JSON, and which of them each record has."""
    places: dict[bytes, int] = {}
    row = [places.setdefault(value if type(value) is bytes else orjson.dumps(value), len(places)) for value in column]
    return [text.decode() for text in places], row


def _forget_old(folder: Path) -> None:
    """Leave what was kept of the latest sweeps alone."""
    with contextlib.suppress(OSError):
        os.utime(folder)
        known = sorted(folder.parent.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in known[:-MOST_SWEEPS]:
            shutil.rmtree(old, ignore_errors=True)
