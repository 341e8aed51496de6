"""152 spoilt sweep folders: each is read or refused in words, by every command alike."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hostile_sweep
import pytest
from hostile_sweep import COMMANDS, Spoilt
from inputs import Unclear, Wrong, typed

ROWS = [row for rows in hostile_sweep.EVERY.values() for row in rows]
# What is damaged for `lam sweep` is damaged for the report. A pipe, and what never ends, is refused and not waited for.
READS = {"journal": {*COMMANDS}, "sweep": {*COMMANDS}, "metrics": {"report", "promote", "monitor"},
         "run": {"report", "promote", "monitor"}, "config": {"report", "promote", "monitor"},
         "confirm": {"report", "promote"}, "promotion": {"report"}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_sweep.sound(tmp_path_factory.mktemp("sound") / "s")


def readers_of(row: Spoilt) -> set[str]:
    """The commands that read its file."""
    return READS[Path(row.file).stem.partition("-")[0]]


def ask(sound: Path, root: Path, row: Spoilt, commands: list[str]) -> None:
    """Give these commands; where two that read the file differ in whether they refuse it, that is wrong."""
    folder = root / "box" / "s"
    shutil.copytree(sound, folder, copy_function=shutil.copy)
    row.how(folder / row.file)
    refused = {}
    for command in commands:
        given = typed(root, COMMANDS[command], codes=(0, 1, 2))
        refused[command] = given.code == 2
        named = (Path(row.file).stem, "no trial has finished", "event ")
        if refused[command] and not any(word in given.err for word in named):
            raise Unclear(f"{row.file} is not named: {given.err}")
        if refused[command] and command not in readers_of(row):
            raise Wrong(f"{command} does not read {row.file} and refuses: {given.err}")
    same = {refused[command] for command in commands if command in readers_of(row)}
    if len(same) > 1 and row.name not in TOLERATED:
        raise Wrong(f"some refuse and some do not: {refused}")


# The reader of one training judges it by what it has; those that compare trials need at least one that is whole.
TOLERATED = {"journal-000001: empty", "journal-000001: suggested.params {\"embed_dim\": 10000"}


@pytest.mark.parametrize(("number", "row"), [*enumerate(ROWS)], ids=[row.name for row in ROWS])
def test_a_spoilt_folder_is_read_or_refused_by_two_of_the_commands(
        sound: Path, tmp_path: Path, number: int, row: Spoilt) -> None:
    readers = sorted(readers_of(row))
    ask(sound, tmp_path, row, [*{readers[number % len(readers)], readers[(number + 2) % len(readers)]}])


@pytest.mark.nightly
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_spoilt_folder_is_read_or_refused_by_all_commands_alike(sound: Path, tmp_path: Path, row: Spoilt) -> None:
    ask(sound, tmp_path, row, [*COMMANDS])


def test_the_sound_folder_is_read_by_all(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound, tmp_path / "box" / "s")
    assert [typed(tmp_path, words, codes=(0, 1)).code for words in COMMANDS.values()] == [0, 0, 0, 1, 0, 0]


def test_so_many_were_tried() -> None:
    assert [len(rows) for rows in hostile_sweep.EVERY.values()] == [69, 25, 26, 16, 16]
    assert not Path(os.sep, "ESCAPED").exists()
