"""A report of a large sweep is given again only where nothing that it was made from has changed since."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from build_records import Planted, confirmed, write_sweep
from typer.testing import CliRunner

import analysis
from analysis.commands import register
from analysis.read.reading import read_study
from analysis.report.delivery import again
from analysis.report.render import render_html
from analysis.report.report import build_report

APP = typer.Typer()
register(APP)
ASKED: dict[str, str | None] = {"baseline": None, "objective": None, "profile": None}
FIRST = "trials/t0001/"
OPENED: list[str] | None = None


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep that counts as large; a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(again, "KEPT_FROM", 2)
    return write_sweep(tmp_path / "pong", {"t0001": Planted(epochs=3), "t0005": Planted(control=0.47, epochs=3)},
                       confirm=[confirmed("t0005", [0.4, 0.45])])


def report(*words: str) -> str:
    told = CliRunner().invoke(APP, ["report", *words])
    assert told.exit_code == 0, told.output
    return str(told.output)


def test_the_second_report_is_the_first_one_and_says_so(sweep: Path, tmp_path: Path) -> None:
    first = report(str(sweep))
    page = (sweep / "report.html").read_text()
    second = report(str(sweep), "-o", str(tmp_path / "other.html"))
    assert second.startswith("Nothing has changed since 20")
    assert second.splitlines()[1:-2] == first.splitlines()[:-2]
    assert (tmp_path / "other.html").read_text() == page
    assert not report(str(sweep), "-o", str(tmp_path / "other.md")).startswith("Nothing"), "another format is made"


def test_what_changed_is_read_again(sweep: Path) -> None:
    """The same size, and the time of change put back: the inode still tells."""
    report(str(sweep))
    log = sweep / FIRST / "metrics.jsonl"
    state = log.stat()
    log.write_text(log.read_text().replace('"val/control":0.4,', '"val/control":0.9,'))
    os.utime(log, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert log.stat().st_size == state.st_size
    said = report(str(sweep), "-o", str(sweep / "report.json"), "-o", str(sweep / "report.html"))
    assert not said.startswith("Nothing")
    assert "0.9" in {row["label"]: str(row["control"]) for row in json.loads(
        (sweep / "report.json").read_text())["standings"]}["t0001"]


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("change", [
    lambda sweep: _append(sweep / FIRST / "run.json"),
    lambda sweep: _append(sweep / FIRST / "config.yaml"),
    lambda sweep: _append(sweep / "sweep.json"),
    lambda sweep: _append(sweep / "confirm.json"),
    lambda sweep: (sweep / "confirm.json").unlink(),
    lambda sweep: _append(sweep / "journal-000002.jsonl"),
    lambda sweep: (sweep / "journal-000003.jsonl").write_text(""),
    lambda sweep: (sweep / "trials" / "t0009").mkdir(),
    lambda sweep: (sweep / FIRST / "metrics.jsonl").unlink(),
    lambda sweep: (sweep / FIRST / "samples" / "epoch-2.npz").write_bytes(b""),
], ids=["run.json", "config.yaml", "sweep.json", "confirm.json", "no confirm.json", "the journal", "a further journal",
        "a further trial", "no metrics", "a sample"])
def test_every_record_counts(sweep: Path, change: Callable[[Path], object]) -> None:
    before = again.made_of([str(sweep)], ASKED)
    assert before is not None
    assert again.made_of([str(sweep)], ASKED) == before
    change(sweep)
    assert again.made_of([str(sweep)], ASKED) not in (before, None)


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if OPENED is not None and event == "open" and isinstance(given[0], (str, bytes, os.PathLike)):
        OPENED.append(os.fsdecode(given[0]))


def test_what_a_report_opens_is_what_counts(sweep: Path, tmp_path: Path) -> None:
    """Each file of the sweep that is opened tells a change; everything else is this program or a library."""
    global OPENED
    sys.addaudithook(_hear)
    OPENED = []
    render_html(build_report(sweep, study=read_study(sweep)))
    opened, OPENED = sorted(set(OPENED)), None
    own = [path for path in opened if path.startswith(str(sweep))]
    assert {Path(path).suffix for path in own} == {".json", ".jsonl", ".yaml", ".npz"}
    for path in own:
        before = again.made_of([str(sweep)], ASKED)
        os.utime(path)
        assert again.made_of([str(sweep)], ASKED) != before, path
    code = Path(str(analysis.__file__)).parent.parent
    python = [place for prefix in (sys.prefix, sys.base_prefix) for place in (prefix, str(Path(prefix).resolve()))]
    known = (str(sweep), str(code), *python, "/proc", "/dev", "/usr", "/etc")
    assert [path for path in opened if not path.startswith(known)] == []


def test_what_lies_elsewhere_is_never_kept(sweep: Path, tmp_path: Path) -> None:
    assert again.made_of([str(sweep)], {**ASKED, "baseline": str(sweep / FIRST)}) is None
    assert again.made_of([str(sweep)], {**ASKED, "baseline": "t0001"}) is not None
    assert again.made_of([str(sweep)], {**ASKED, "profile": "lam"}) is None
    assert again.made_of([str(sweep / FIRST)], ASKED) is None, "no sweep"
    assert again.made_of([str(sweep)], ASKED) != again.made_of([str(sweep)], {**ASKED, "objective": "val/control"})
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_text("")
    (sweep / FIRST / "steps.jsonl").symlink_to(elsewhere)
    assert again.made_of([str(sweep)], ASKED) is None, "a link's target may change unseen"


def test_a_profile_of_ones_own_and_a_journal_elsewhere_are_not_kept(sweep: Path, tmp_path: Path) -> None:
    known, study = again.made_of([str(sweep)], ASKED), read_study(sweep)
    study.trials[0].config["health.profile"] = str(tmp_path / "mine.yaml")
    again.keep_report(known, again.Said({".html": "x"}, (), "then"), study)
    assert again.find(known, [".html"]) is None
    document = json.loads((sweep / "sweep.json").read_text())
    document["spec"]["journal"] = (tmp_path / "journals").as_uri()
    (sweep / "sweep.json").write_text(json.dumps(document))
    assert again.made_of([str(sweep)], ASKED) is None


@pytest.mark.parametrize("damage", ["said.json", "report.html"])
def test_what_is_kept_and_damaged_is_as_if_it_were_not_there(sweep: Path, damage: str) -> None:
    known, study = again.made_of([str(sweep)], ASKED), read_study(sweep)
    again.keep_report(known, again.Said({".html": "page"}, ("line",), "then"), study)
    assert again.find(known, [".html"]) == again.Said({".html": "page"}, ("line",), "then")
    assert again.find(known, [".md"]) is None
    (file,) = Path(os.environ["XDG_CACHE_HOME"]).rglob(damage)
    file.write_bytes(file.read_bytes()[:-2] + b"\xff")
    assert again.find(known, [".html"]) is None


def test_a_few_reports_are_kept_and_the_oldest_forgotten(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "MOST_REPORTS", 2)
    study = read_study(sweep)
    for place, name in enumerate("abc"):
        again.keep_report(name * 32, again.Said({".html": name}, (), "then"), study)
        folder = again._home() / (name * 32)
        if folder.exists():
            os.utime(folder, (place, place))
    assert [again.find(name * 32, [".html"]) is not None for name in "abc"] == [False, True, True]
