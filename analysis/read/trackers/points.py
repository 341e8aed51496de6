"""What trackers keep is points (key, step, value); a report reads records. Databases are read as copies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from record.errors import BadInput
from record.text import finite

EPOCH_KEYS = ("epoch", "train/epoch", "trainer/epoch")


def records(points: Iterable[tuple[str, float, Any]]) -> tuple[dict[str, Any], ...]:
    """Points as records by step, placed at the epoch that was logged with them, else at the step."""
    rows: dict[float, dict[str, Any]] = {}
    for key, step, value in points:
        rows.setdefault(step, {})[key] = value
    return tuple({"step": step, **rows[step], "epoch": epoch_of(rows[step], step)} for step in sorted(rows))


def epoch_of(row: Mapping[str, Any], step: float) -> float:
    """The epoch logged with a record, else its step."""
    logged = next((finite(row[key]) for key in EPOCH_KEYS if key in row), None)
    return step if logged is None else logged


def database_tables(path: Path | str) -> set[str]:
    """The tables of an sqlite file; none where it is no such file."""
    import sqlite3

    file = sqlite_file(path)
    if file is None or not file.is_file():
        return set()
    try:
        with open(file, "rb") as start:
            if start.read(15) != b"SQLite format 3":
                return set()
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
    except (OSError, sqlite3.Error):
        return set()
    try:
        return {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    except (sqlite3.Error, UnicodeDecodeError):
        return set()
    finally:
        connection.close()


def sqlite_file(path: Path | str) -> Path | None:
    """The file of an sqlite address or of a path; None of another address."""
    address, _ = split_name(path)
    return _file_of(address) if isinstance(path, Path) or address.startswith("sqlite:") else None


def split_name(place: Path | str) -> tuple[str, str]:
    """A store, and what of it is named after a `#`; a `#` in the path of a file that is there belongs to the path."""
    text = str(place)
    for end in (len(text), *(at for at in reversed(range(len(text))) if text[at] == "#")):
        if os.path.isfile(_file_of(text[:end])):
            return text[:end], text[end + 1 :]
    address, _, name = text.partition("#")
    return address, name


def _file_of(address: str) -> Path:
    return Path(address.removeprefix("sqlite:").removeprefix("///") if address.startswith("sqlite:") else address)


@contextmanager
def copied(address: str) -> Iterator[str]:
    """The address of a copy of an sqlite file: a tracker's library creates and migrates what it opens.

    Raises:
        BadInput: there is no such file.
        sqlite3.Error: it is none of sqlite's.
    """
    import sqlite3

    file = _file_of(address)
    if not file.is_file():
        raise BadInput("no such file", source=address, remedy="check the path")
    with tempfile.TemporaryDirectory(prefix="lam-report-") as folder:
        copy = Path(folder) / "copy.db"
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as source, \
                closing(sqlite3.connect(copy)) as made:
            source.backup(made)
        yield f"sqlite:///{copy}"
