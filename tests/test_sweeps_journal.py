"""The journal of a sweep: order, one writer, and that its state is the replay of its events.

What a sweep does wherever its journal is kept is tested in a folder and on an S3 server; what each store keeps to,
in `test_sweeps_any_store`; what only objects do, in `test_sweeps_objects`.
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from record.errors import BadInput, Damaged, EnvironmentFailed
from record.journal import journals, parsing
from record.journal.events import (
    Failed,
    Result,
    Started,
    Suggested,
    SweepFinished,
    SweepInterrupted,
    SweepResumed,
    SweepStarted,
)
from sweeps.journal.journal import Journal, Lock, read, segments
from sweeps.journal.state import replay
from sweeps.journal.stores import hold


@pytest.fixture(params=["folder", "other folder", "objects"])
def sweep_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A sweep folder whose sweep.json says where the journal is kept."""
    uri = {"folder": lambda: None, "other folder": lambda: (tmp_path / "far away").as_uri(),
           "objects": lambda: request.getfixturevalue("s3")}[request.param]()
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({
        "name": "demo", "spec": {"journal": uri}, "base": {}, "asked": {}, "fingerprint": "f",
        "data_fingerprint": "d"}))
    return folder


@contextlib.contextmanager
def session(folder: Path) -> Iterator[Journal]:
    with hold(folder, journals.home(folder)) as store, contextlib.closing(Journal(folder, store)) as journal:
        yield journal


def write_events(journal: Journal) -> Journal:
    journal.append(SweepStarted(name="demo", pid=1, host="here"))
    journal.append(Suggested(trial="t0001", params={"embed_dim": 64}))
    journal.append(Started(trial="t0001"))
    journal.append(Result(trial="t0001", epoch=1, objective=0.5, verdict="live", metrics={}, tflops=2.0))
    journal.append(Result(trial="t0001", epoch=2, objective=math.nan, verdict="nonfinite", metrics={}, tflops=3.0))
    journal.append(Failed(trial="t0001", epoch=2, reason={"rule": "nonfinite", "sentence": "not finite"}))
    journal.append(Suggested(trial="t0002", params={"embed_dim": 32}))
    return journal


def write_some(folder: Path) -> Journal:
    return write_events(Journal(folder))


def test_sequence_numbers_run_on_over_sessions(sweep_folder: Path) -> None:
    with session(sweep_folder) as journal:
        write_events(journal)
    with session(sweep_folder) as again:
        assert again.state.seq == 7
        again.append(SweepResumed(name="demo", pid=2, host="here"))
    events = list(read(sweep_folder))
    assert [event.seq for event in events] == list(range(1, 9))
    assert [event.version for event in events] == [1, *[None] * 7]


def test_each_session_has_a_segment_of_its_own(tmp_path: Path) -> None:
    write_some(tmp_path).close()
    again = Journal(tmp_path)
    again.append(SweepResumed(name="demo", pid=2, host="here"))
    again.close()
    assert [path.name for path in segments(tmp_path)] == ["journal-000001.jsonl", "journal-000002.jsonl"]
    assert [event.seq for event in read(tmp_path)] == list(range(1, 9))


def test_not_finite_is_null_in_the_journal_and_nan_in_the_state(sweep_folder: Path) -> None:
    with session(sweep_folder) as journal:
        write_events(journal)
    assert [event.objective for event in read(sweep_folder) if event.event == "result"] == [0.5, None]
    trial = journal.state.trials["t0001"]
    assert math.isnan(trial.results[1].objective)
    assert trial.status == "failed"
    assert trial.best(True) == trial.results[0]


def test_the_state_is_the_replay_of_the_events(sweep_folder: Path) -> None:
    with session(sweep_folder) as journal:
        write_events(journal)
        assert repr(replay(read(sweep_folder))) == repr(journal.state), "while it is written"
    assert repr(replay(read(sweep_folder))) == repr(journal.state)


def test_a_second_session_is_refused_while_the_first_writes(sweep_folder: Path) -> None:
    with session(sweep_folder) as journal:
        with pytest.raises(BadInput, match=r"another driver is at work here \(process"), session(sweep_folder):
            raise AssertionError("the journal was given twice")
        other = sweep_folder.parent / "copy"
        other.mkdir()
        (other / "sweep.json").write_text((sweep_folder / "sweep.json").read_text())
        if journals.home(sweep_folder) != sweep_folder:
            with pytest.raises(BadInput, match=r"another driver is at work here \(process"), session(other):
                raise AssertionError("the journal was given to another folder")
        write_events(journal)
    assert len(list(read(sweep_folder))) == 7


@pytest.mark.long
def test_a_hundred_events_are_merged_on_the_server(s3: str, tmp_path: Path) -> None:
    from record.journal import journal_objects
    from record.storage.store import connect

    with hold(tmp_path, s3) as store:
        journal = Journal(tmp_path, store)
        for number in range(103):
            journal.append(Suggested(trial=f"t{number:04d}", params={}))
    assert len(journal_objects.parts(*connect(s3))) == 4
    assert [event.seq for event in journals.read_at(s3, parsing.read_lines)] == list(range(1, 104))


def test_damage_in_the_middle_is_said_and_not_skipped(tmp_path: Path) -> None:
    write_some(tmp_path).close()
    segment = segments(tmp_path)[0]
    lines = segment.read_text().splitlines()
    segment.write_text("\n".join([*lines[:2], lines[2][:10], *lines[3:]]) + "\n")
    with pytest.raises(Damaged, match=r"journal-000001.jsonl:3: not JSON.*restore the journal from a copy"):
        Journal(tmp_path)


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone")
    with pytest.raises(EnvironmentFailed, match=r"gone: the journal cannot be written \(No such file"):
        journal.append(SweepStarted(name="demo", pid=1, host="here"))


def test_time_is_spent_by_sessions_and_not_between_them(tmp_path: Path) -> None:
    driver = {"name": "demo", "pid": 1, "host": "here"}
    events = [
        SweepStarted(seq=1, time=datetime.fromisoformat("2030-01-01T00:00:00+00:00"), **driver),
        SweepInterrupted(seq=2, time=datetime.fromisoformat("2030-01-01T00:01:00+00:00"), reason="signal"),
        SweepResumed(seq=3, time=datetime.fromisoformat("2030-01-02T00:00:00+00:00"), **driver),
        SweepFinished(seq=4, time=datetime.fromisoformat("2030-01-02T00:00:30+00:00"), reason="budget"),
    ]
    assert replay(events).seconds == 90


def test_a_second_driver_is_refused_by_name(tmp_path: Path) -> None:
    code = (f"import sys, json; sys.path[:0] = {sys.path!r}\n"
            "from sweeps.journal.journal import Lock\n"
            f"with Lock({str(tmp_path)!r}):\n print('held', flush=True)\n sys.stdin.read()")
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told = rf"another driver is at work here \(process {holder.pid} on .*; wait for it"
        with pytest.raises(BadInput, match=told), Lock(tmp_path):
            raise AssertionError("the lock was given twice")
        holder.kill()
        holder.wait()
        with Lock(tmp_path) as lock:
            assert json.loads(lock.file.read_text())["pid"] != holder.pid
    finally:
        holder.kill()
        holder.communicate()
