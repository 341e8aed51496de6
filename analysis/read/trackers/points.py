"""What trackers keep is points (key, step, value); a report reads records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    except sqlite3.Error:
        return set()
    finally:
        connection.close()


def sqlite_file(path: Path | str) -> Path | None:
    """The file of an sqlite address or of a path; None of another address."""
    text = str(path)
    if text.startswith("sqlite:"):
        return Path(text.removeprefix("sqlite:").removeprefix("///").partition("#")[0])
    return path if isinstance(path, Path) else None
