"""Words that steer a terminal, in every place where a file can hold them: none of them reaches it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text

from lam import cli
from record.progress import Screen
from record.text import gist, printable, shown

BEFORE = Path(__file__).parent / "records_before" / "before"
EVIL = "\x1b]0;x\x07\x9b2K‮"
# Fields that are read by their words: another one is refused, not shown.
MEANT = ("event", "trial", "repeats", "rule", "time", "state", "workload", "verdict", "journal", "objective", "name",
         "host", "schema", "config_fingerprint", "data_fingerprint", "data_dir", "search", "tpe")


def test_lines_stay_lines_and_nothing_else_steers() -> None:
    assert shown(f"a\n{EVIL}b\tc") == "a\n" + printable(EVIL) + "b�c"
    assert gist(ValueError(EVIL)) == printable(EVIL)
    assert printable("\ud800 é") == "� é"


@pytest.mark.parametrize("what", [EVIL, Text(EVIL), Table(EVIL, title=EVIL)], ids=["str", "text", "table"])
def test_a_screen_shows_no_text_that_steers(what: Any) -> None:
    said = io.StringIO()
    Screen(file=said, force_terminal=True, color_system=None, width=80).print(what, markup=False, highlight=False)
    assert not {"\x1b", "\x07", "\x9b", "‮"} & set(said.getvalue())
    assert "]0;x" in said.getvalue()


def spoiled(value: Any, key: str = "") -> Any:
    """The same, with an escape sequence at the end of each string that is no word of the program."""
    if isinstance(value, dict):
        return {name: spoiled(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item, key) for item in value]
    return f"{value}{EVIL}" if isinstance(value, str) and key not in MEANT else value


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit):
        cli.main([str(word) for word in arguments])
    return "".join(capsys.readouterr())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep folder with an escape sequence in every string of its journal and documents."""
    folder = Path(shutil.copytree(BEFORE, tmp_path / "before"))
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps(spoiled(json.loads(path.read_text()))))
    for path in folder.rglob("*.jsonl"):
        path.write_text("".join(json.dumps(spoiled(json.loads(line))) + "\n" for line in path.read_text().splitlines()))
    return folder


@pytest.mark.parametrize("command", [
    ["sweep", "status"], ["sweep", "explain"], ["sweep", "replay", "--policy", "none"], ["report"],
    ["promote", "-o", "p.yaml"], ["sweep", "extend", "--hours", "1"]], ids=lambda words: " ".join(words[:2]))
def test_no_command_about_a_sweep_passes_them_on(
        folder: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    said = told(capsys, *command, folder)
    assert all(char.isprintable() or char in "\n" for char in said), said


def test_no_command_about_a_run_passes_them_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "monitor", folder / "trials" / "t0002")
    assert all(char.isprintable() or char in "\n" for char in said), said


def test_no_key_of_a_yaml_passes_them_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k.yaml").write_text('"\\e]0;OWN\\a\\nlam: all is well": 1\n')
    said = told(capsys, "train", tmp_path / "k.yaml")
    assert said.count("\n") == said.count("\nlam: ") + 1
    assert "unknown key" in said
    assert "]0;OWN" in said
    assert "\x1b" not in said
    assert "\nlam: all" not in said
