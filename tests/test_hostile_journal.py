"""A journal that someone else wrote: ids that leave the sweep folder, events about trials that nobody suggested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_sweep import make_sweep

from analysis.read.reading import read_study
from record.errors import Damaged
from record.journal import events
from sweeps.commands import confirming
from sweeps.commands.launching import Options
from sweeps.journal import folders
from sweeps.journal.journal import Journal

OUTSIDE = ("..", ".", "", "/tmp/x", "../../x", "a/b", "a\\b", ".hidden", "\x1b]0;x\x07", "t\n1", "‮t", "x" * 101)


def lines(*more: dict[str, object]) -> str:
    """A journal of one trial, with what is asked for after it."""
    head = {"name": "demo", "pid": 1, "host": "here"}
    first = [{"event": "sweep_started", **head}, {"event": "suggested", "trial": "t0001", "params": {}}]
    return "".join(json.dumps({"seq": seq, "time": "2030-01-01T00:00:00+00:00", **event}) + "\n"
                   for seq, event in enumerate([*first, *more], 1))


def sweep_with(folder: Path, *more: dict[str, object]) -> Path:
    """A sweep folder whose journal has these events at its end."""
    folders.write_identity(make_sweep(folder.parent / "yaml"), folder, "data")
    (folder / "journal-000001.jsonl").write_text(lines(*more))
    return folder


def readers(folder: Path) -> tuple[Callable[[], object], ...]:
    return (lambda: folders.open_sweep(folder), lambda: read_study(folder), lambda: Journal(folder),
            lambda: confirming.confirm(folder, 1, 1, Options(prepare=lambda configs: "data")))


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_trial_whose_id_is_no_plain_name_is_refused_by_all_who_read(tmp_path: Path, name: str) -> None:
    folder = sweep_with(tmp_path / "demo", {"event": "suggested", "trial": name, "params": {}})
    for read in readers(folder):
        with pytest.raises(Damaged, match=r"journal-000001.jsonl:3: suggested: trial: got .*, expected a plain "
                                          "name such as t0001: no sweep wrote this") as caught:
            read()
        assert str(caught.value).isprintable()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "yaml"]


@pytest.mark.parametrize(("more", "message"), [
    ([{"event": "started", "trial": "t0002"}], "event 3: started: trial 't0002' was never suggested"),
    ([{"event": "suggested", "trial": "t0001", "params": {}}], "suggested: trial 't0001' was suggested before"),
    ([{"event": "suggested", "trial": "t0002", "params": {}, "repeats": "t0009"}],
     "repeats trial 't0009', which was never suggested"),
    ([{"event": "suggested", "trial": "t0002", "params": {}, "repeats": "t0002"}],
     "repeats trial 't0002', which was never suggested"),
])
def test_an_event_about_a_stranger_is_damage(tmp_path: Path, more: list[dict[str, object]], message: str) -> None:
    for read in readers(sweep_with(tmp_path / "demo", *more)):
        with pytest.raises(Damaged, match=message):
            read()


def test_the_damage_of_a_journal_is_an_input_that_is_wrong_for_every_command(tmp_path: Path) -> None:
    folder = sweep_with(tmp_path / "demo")
    (folder / "journal-000001.jsonl").write_text("{nonsense\n{}\n")
    for read in readers(folder):
        with pytest.raises(Damaged) as caught:
            read()
        assert caught.value.exit_code == 2


def test_the_schema_says_what_an_id_is() -> None:
    schema = events.schema()["$defs"]["Started"]["properties"]["trial"]
    assert schema["pattern"] == "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
