"""Inputs that once surprised: what is made, what is typed, what is answered; the rows are in `tests/test_inputs_*.py`.

`python tests/tally_inputs.py` runs them all and counts by kind of input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typed import Answer, lam

LONGEST = 10.0  # seconds of processor time, the import of torch among them
KEPT_FOR_LATER = (".cache", "driver.lock", "__pycache__", ".lock")  # what a command may leave though it refuses


class Dangerous(AssertionError):
    """Something was written, or sent, where it must not be."""


class Crash(AssertionError):
    """A traceback."""


class Hang(AssertionError):
    """An answer that took too long."""


class Wrong(AssertionError):
    """Another exit code than the right one, or something half-written."""


class Unclear(AssertionError):
    """The words that help are missing."""


@dataclass(frozen=True)
class Row:
    """An input.

    Attributes:
        make: writes it into the folder in which the command is given.
        words: what is typed after `lam`.
        code: exit code: 0 done, 1 the answer is no, 2 the input is wrong, 3 the machine.
        says: stand in what is printed.
        writes: it may leave files although it ends with 2.
    """

    name: str
    make: Callable[[Path], Any]
    words: tuple[str, ...]
    code: int
    says: tuple[str, ...] = ()
    writes: bool = False


def nothing(box: Path) -> None:
    """The input is what is typed."""


def table(rows: Iterable[Row]) -> pytest.MarkDecorator:
    """Each row as a test."""
    found = list(rows)
    assert len({row.name for row in found}) == len(found), "two rows of one name"
    return pytest.mark.parametrize("row", found, ids=[row.name for row in found])


def entries(folder: Path) -> set[tuple[str, int]]:
    """Paths below a folder with their sizes; links are not followed."""
    return {(str(path.relative_to(folder)), path.lstat().st_size if not path.is_dir() else 0)
            for path in folder.rglob("*") if not any(part.endswith(KEPT_FOR_LATER) for part in path.parts)}


def answer(root: Path, row: Row) -> Answer:
    """Give the command in `root`/box and hold it to the row."""
    box = root / "box"
    box.mkdir(exist_ok=True)
    row.make(box)
    return typed(root, row.words, (row.code,), row.says, row.writes)


def typed(root: Path, words: Iterable[str], codes: Iterable[int], says: Iterable[str] = (),
          writes: bool = False) -> Answer:
    """Give a command in `root`/box: nothing changes outside the box, nothing stays of what is refused."""
    box = root / "box"
    before, outside = entries(box), entries(root) - {(f"box/{name}", size) for name, size in entries(box)}
    begin = time.process_time()
    try:
        given = lam(box, *words)
    except Exception as error:
        raise Crash(f"{type(error).__name__}: {error}") from error
    if time.process_time() - begin > LONGEST:
        raise Hang(f"{time.process_time() - begin:.1f} s")
    judge(given, codes, says)
    if outside != entries(root) - {(f"box/{name}", size) for name, size in entries(box)}:
        raise Dangerous(f"changed outside: {entries(root) ^ outside}")
    if given.code == 2 and not writes and entries(box) != before:
        raise Wrong(f"refused, and left {sorted(entries(box) ^ before)}")
    return given


def judge(given: Answer, codes: Iterable[int], says: Iterable[str] = ()) -> None:
    """Hold an answer to its exit codes and words; no byte of it steers a terminal."""
    said = given.out + given.err
    if not all(char.isprintable() or char in "\n" for char in said):
        raise Dangerous(f"steers the terminal: {said!r:.300}")
    if "Traceback" in said:
        raise Crash(said[-2000:])
    if given.code not in codes:
        raise Wrong(f"exit code {given.code}, expected {codes}: {said[-1500:]}")
    missing = [words for words in says if words not in " ".join(said.split())]
    if missing or (given.code in (2, 3) and not given.err.strip()):
        raise Unclear(f"{missing} not in: {said[:2000]}")
