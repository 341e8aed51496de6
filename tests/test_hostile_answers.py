"""Answers that were wrong although the input was sound: edited files, read-only places, names given twice."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from build_records import PLANTED, confirmed, write_sweep
from small_sweep import make_sweep
from typer.testing import CliRunner

from analysis.promote import promote
from analysis.promote.target import check_writable
from analysis.read import sources
from lam import cli
from lam.data import h5
from record.errors import BadInput, EnvironmentFailed
from record.journal.events import Started, Suggested, SweepInterrupted, SweepStarted, TrialInterrupted
from record.workload.settings import TrackingConfig
from sweeps.journal import folders, stores
from sweeps.journal.journal import Journal
from sweeps.views.tracking import MlflowSweepSink


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "pong", {"t0001": PLANTED["t0001"], "t0005": PLANTED["t0005"]},
                       confirm=[confirmed("t0005", [0.46, 0.47, 0.48])])


@pytest.mark.parametrize("edit", [
    ("threshold: ok", "threshold: fine"), ("# Train it", "# I train"), ("name: ", "name:  ")])
def test_whatever_was_edited_in_a_production_yaml_is_kept(sweep: Path, tmp_path: Path, edit: tuple[str, str]) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    assert promote(sweep, target).replaced, "nobody edited it"
    edited = target.read_text().replace(*edit)
    assert edited != target.read_text()
    target.write_text(edited)
    with pytest.raises(BadInput, match="was edited since it was promoted"):
        promote(sweep, target)
    assert target.read_text() == edited


def test_a_sweep_that_takes_no_promotion_json_is_refused_before_the_yaml_is_written(
        sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere: cannot be written, and promotion\.json belongs there; make it"):
        check_writable(tmp_path / "nowhere")
    check_writable(sweep)


def test_what_was_promoted_is_found_from_any_folder(
        sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    promote(sweep, "p.yaml")
    assert json.loads((sweep / "promotion.json").read_text())["target"] == str(tmp_path / "p.yaml")


@pytest.mark.parametrize(("number", "error", "message"), [
    (errno.EROFS, BadInput, "cannot be written .*choose another place with -o"),
    (errno.ENOSPC, EnvironmentFailed, "make room and give the same command again")])
def test_a_disk_that_is_read_only_is_not_told_to_make_room(
        tmp_path: Path, number: int, error: type[Exception], message: str) -> None:
    def refuse(path: Path, text: str) -> Path:
        raise OSError(number, os.strerror(number))

    with pytest.raises(error, match=message):
        sources.save(tmp_path / "r.html", "", refuse)


def test_a_sweep_that_is_named_twice_is_listed_once(sweep: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.build(), ["report", str(sweep), f"{sweep}/../pong", "-o", str(tmp_path / "r.md")])
    assert done.exit_code == 0, done.exception
    assert done.output.count("sweep folder") == 1


def test_a_trial_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    folders.write_identity(make_sweep(tmp_path / "yaml"), tmp_path / "demo", "data")
    journal = Journal(tmp_path / "demo")
    journal.append(SweepStarted(name="demo", pid=1, host="here"))
    for number in range(1, 8):
        journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.5}))
    journal.close()
    done = CliRunner().invoke(cli.build(), ["sweep", "explain", str(tmp_path / "demo"), "t0099"])
    assert str(done.exception).endswith("has no trial 't0099'; its trials are t0001 to t0007")


def test_commands_in_hints_can_be_given_as_they_stand(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.build(), ["init", str(tmp_path / "my sweep")])
    assert f"lam train '{tmp_path}/my sweep/run.yaml'   or   lam sweep launch '{tmp_path}/my" in done.output


def test_names_of_actions_that_nest_without_end_are_no_names() -> None:
    class File:
        attrs = {"action_names": "[" * 100_000}  # noqa: RUF012

    with pytest.raises(BadInput, match=r"attribute action_names: got .*, expected a JSON list of words"):
        h5._action_names(File(), "x.h5")


class Told:
    """A run of MLflow's that keeps how it was ended."""

    def __init__(self) -> None:
        self.endings: list[tuple[str, str | None]] = []

    def end(self, status: str, reason: str | None = None) -> None:
        self.endings.append((status, reason))


def test_an_interrupted_sweep_leaves_no_trial_running_in_mlflow(tmp_path: Path) -> None:
    sink, parent, running, ended = MlflowSweepSink(tmp_path, TrackingConfig()), Told(), Told(), Told()
    sink._parent, sink._trials = parent, {"t0001": running, "t0002": ended}  # type: ignore[assignment]
    sink._described = {"t0001", "t0002"}
    sink.send([Started(trial="t0001"), Started(trial="t0002"), TrialInterrupted(trial="t0002", epoch=1),
               SweepInterrupted(reason="signal 2")])
    assert running.endings == [("KILLED", "the sweep was interrupted (signal 2)")]
    assert (parent.endings, ended.endings) == ([("KILLED", "signal 2")], [])


@pytest.mark.parametrize("text", ["[]", "{}", "3", "[" * 100_000, '{"pid": 1, "host": "\\u001b]0;x", "since": "now"}'])
def test_whatever_a_lock_says_of_its_holder_it_is_one_sentence(tmp_path: Path, text: str) -> None:
    with stores.Lock(tmp_path):
        (tmp_path / "driver.lock").write_text(text)
        with pytest.raises(BadInput, match=r"another driver is at work here \((it has not said|process 1 on).*\)") as \
                caught, stores.Lock(tmp_path):
            raise AssertionError("two drivers")
    assert str(caught.value).isprintable()


def test_the_folder_of_the_sweeps_names_those_inside_it(tmp_path: Path) -> None:
    folders.write_identity(make_sweep(tmp_path / "yaml"), tmp_path / "runs" / "demo", "data")
    with pytest.raises(BadInput, match=r"runs: holds no sweep \(sweep.json is missing\); name one of those .*: demo"):
        folders.open_sweep(tmp_path / "runs")
    with pytest.raises(BadInput, match="name the folder that 'lam sweep launch' wrote"):
        folders.open_sweep(tmp_path)


def test_an_empty_space_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"sweep\.yaml:space: got {}, which is empty; name at least one"):
        make_sweep(tmp_path, space={})
