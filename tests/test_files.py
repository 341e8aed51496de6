"""Files that are whole or absent, and stay so over a power cut."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from no_room import no_room

from record import files
from record.run import RunFolder


def test_a_replaced_file_is_in_its_folder_for_good(tmp_path: Path) -> None:
    seen: list[str] = []
    listening = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:  # an audit hook cannot be taken off again
        if listening and event == "os.rename":
            seen.append(f"renamed to {Path(arguments[1]).name}")
        elif listening and event == "open" and arguments[0] == str(tmp_path):
            seen.append("folder opened, to be forced to the disk")

    sys.addaudithook(hear)
    files.write_text(tmp_path / "a.txt", "whole")
    listening = False
    assert seen == ["renamed to a.txt", "folder opened, to be forced to the disk"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def full(file: IO[bytes]) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told_with_the_file_and_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/deep/run.json'") as caught:
        files.write_atomic(tmp_path / "deep" / "run.json", full)
    assert re.fullmatch(r" \(\d+\.\d GB are free there\)", files.room(caught.value))
    assert files.room(PermissionError(errno.EACCES, "no", "x")) == ""
    assert os.listdir(tmp_path / "deep") == []


def test_a_record_that_cannot_be_added_names_its_file(tmp_path: Path) -> None:
    with no_room(), pytest.raises(OSError, match=r"metrics\.jsonl"):
        RunFolder(tmp_path).append({"epoch": 1})


def test_what_is_no_error_of_the_system_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^torn$") as caught, files.naming(tmp_path):
        raise OSError("torn")
    assert caught.value.filename is None


def test_a_path_is_told_without_the_way_that_was_typed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert files.plain(tmp_path / "a" / ".." / "a" / "new") == tmp_path / "a" / "new"
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    assert files.plain(tmp_path / "link" / ".." / "b") == tmp_path / "link" / ".." / "b"
