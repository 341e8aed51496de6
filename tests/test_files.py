"""Files that are whole or absent, and stay so over a power cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from record import files


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
