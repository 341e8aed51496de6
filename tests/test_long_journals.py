"""What long journals are read by: results like an accepted one, readers that go on from where they were."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_disk import Disk, journal_on
from test_sweeps_arrivals import STEP, Story

from lam.config import RunConfig
from record.errors import Damaged
from record.journal import following, journal_objects, journals, parsing, results
from record.journal.events import JournalEvent, Result, Suggested, SweepStarted
from sweeps.journal.journal import Journal
from sweeps.journal.state import SweepState, ranking
from sweeps.scheduling import scheduler
from sweeps.spec.spec import SweepSpec

WHOLE: dict[str, Any] = {
    "seq": 7, "time": "2026-11-22T12:34:42.510181+00:00", "event": "result", "trial": "t0099", "epoch": 2,
    "objective": 0.5, "verdict": "live", "error": 0.1, "metrics": {"val/mse_loss": 0.1}, "tflops": 1.5, "seconds": 2.0,
    "step": 20}
# What a hand, a newer version or damage could make of a field; most of it is of another kind, some only looks alike.
ODD = st.floats(allow_nan=False) | st.sampled_from([
    None, True, 0, -1, 3, 2**63, 2**64, 0.25, 1e300, "", "t0099", "t0100", "../x", "live", "2026-11-22T12:34:42+00:00",
    "2026-11-22T12:34:42.510181+01:00", "2026-11-22T12:34:42.510181", "20261122T123442.510181123456+00:00", [], {},
    {"val/mse_loss": None}, {"val/mse_loss": 1}, {"val/mse_loss": "x"}, {"val/mse_loss": 0.5}, {"a": {"b": 1.0}}])
CHANGES = st.dictionaries(st.sampled_from([*WHOLE, "values", "violation", "version", "later"]), ODD, max_size=3)


@given(change=CHANGES, left_out=st.sampled_from(["", "", "", "", *WHOLE]))
def test_what_is_taken_without_asking_is_what_its_class_would_have_read(change: dict[str, Any], left_out: str) -> None:
    line = json.dumps({name: value for name, value in {**WHOLE, **change}.items() if name != left_out}).encode()
    if (found := results.take(line)) is not None:
        known = parsing.read_event(line)
        assert isinstance(known, Result)
        assert repr(found) == repr(results.Told(known.seq, found.time, known.trial, results.result_of(known)))
        assert found.time == known.time


def test_results_are_taken_without_asking_unless_something_is_odd() -> None:
    for change in ({}, {"seq": 8}, {"epoch": 3, "objective": -0.25}, {"verdict": "collapsed"}, {"trial": "t0098"},
                   {"objective": None}, {"values": {"val/dsnr": None}, "violation": None}, {"epoch": 2**63 - 1}):
        assert results.take(json.dumps({**WHOLE, **change}).encode()) is not None, change
    for change in ({"seq": 0}, {"later": 1}, {"epoch": 2**63}, {"epoch": 1.0}, {"trial": "../x"}, {"version": 1},
                   {"time": "2026-11-22T12:34:42+00:00"}, {"event": "started"}, {"metrics": {"a": "1"}}):
        assert results.take(json.dumps({**WHOLE, **change}).encode()) is None, change
    whole = json.dumps(WHOLE).encode()
    for line in (b"", b"{", b"[]", whole[:-1], whole + b"}", whole.replace(b"live", b"\xff")):
        assert results.take(line) is None, line


def test_the_error_of_older_journals_stands_among_the_metrics() -> None:
    older = {name: value for name, value in WHOLE.items() if name != "error"}
    for line, error in ((WHOLE, 0.1), ({**WHOLE, "error": None}, math.nan), (older, 0.1),
                        ({**older, "metrics": {}}, math.nan), ({**older, "metrics": {"val/mse_loss": None}}, math.nan)):
        told = results.take(json.dumps(line).encode())
        assert told is not None
        assert told.result.mse == pytest.approx(error, nan_ok=True), line


def write(journal: Journal, number: int) -> None:
    journal.append(Suggested(trial=f"t{number:04d}", params={}))
    for epoch in (1, 2):
        journal.append(Result(trial=f"t{number:04d}", epoch=epoch, objective=0.1 * epoch * number, verdict="live",
                              tflops=1.0, seconds=1.0 * epoch))


def taken(reader: following.Follower[JournalEvent]) -> tuple[bool, list[int]]:
    anew, found = reader.more()
    return anew, [event.seq for event in found]


def test_a_follower_of_a_folder_reads_what_is_new(tmp_path: Path) -> None:
    reader = following.follower(tmp_path, parsing.read_lines)
    assert taken(reader) == (True, [])
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        write(journal, 1)
        assert taken(reader) == (True, [1, 2, 3, 4])
        assert taken(reader) == (False, [])
        write(journal, 2)
        assert taken(reader) == (False, [5, 6, 7])
    torn = journals.segments(tmp_path)[-1]
    with open(torn, "ab") as file:
        file.write(b'{"seq":8,"time"')
    assert taken(reader) == (False, []), "a line that is being written"
    with contextlib.closing(Journal(tmp_path)) as journal:
        write(journal, 3)
    assert taken(reader) == (False, [8, 9, 10]), "in a segment of its own, after a kill"
    with open(journals.segments(tmp_path)[-1], "ab") as file:
        file.write(b'{"seq":12,"time":"2026-11-22T12:34:42.510181+00:00","event":"started","trial":"t0003"}\n')
    with pytest.raises(Damaged, match="the event after number 10 has number 12"):
        taken(reader)


def test_a_follower_of_a_store_reads_what_is_new_and_begins_anew_after_another_driver(
        disk: Disk, tmp_path: Path) -> None:
    reader = following.OnStore(disk, disk.root, "mem://x", parsing.read_lines)
    with journal_on(disk, tmp_path) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        write(journal, 1)
        assert taken(reader) == (True, [1, 2, 3, 4])
        write(journal, 2)
        assert taken(reader) == (False, [5, 6, 7])
    with journal_on(disk, tmp_path) as journal:
        write(journal, 3)
    assert taken(reader) == (True, list(range(1, 11))), "the second session merged what the first had written"
    assert taken(reader) == (False, [])
    whole = journal_objects.Reading(disk, disk.root, "mem://x", parsing.read_told, portion=3)
    assert [event.seq for event in whole.more()] == list(range(1, 11)), "a few at a time"


def test_a_ranking_is_kept_until_something_happens() -> None:
    state = SweepState()
    state.apply(Suggested(seq=1, trial="t0001", params={}))
    state.apply(Result(seq=2, trial="t0001", epoch=1, objective=0.5, verdict="live", tflops=1.0))
    first = ranking(state, True, so_far=True)
    first.clear()
    assert [row[1].objective for row in ranking(state, True, so_far=True)] == [0.5], "the caller's list is its own"
    state.apply(Result(seq=3, trial="t0001", epoch=2, objective=0.75, verdict="live", tflops=1.0))
    assert [row[1].objective for row in ranking(state, True, so_far=True)] == [0.75]
    assert ranking(state, True) == []


@pytest.mark.parametrize("rule", [None, {"asha": {"max_epochs": 20, "grace_epochs": 2, "reduction_factor": 2.0,
                                                   "brackets": 2}}, {"median": {"max_epochs": 20}}])
@settings(max_examples=30)
@given(steps=st.lists(STEP, min_size=1, max_size=60))
def test_what_is_passed_over_in_a_replay_would_have_ended_no_trial(rule: Any, steps: list[Any]) -> None:
    spec = SweepSpec.model_validate({"name": "x", "base": {}, "space": {"weight_decay": {"uniform": [0.0, 1.0]}},
                                     "scheduler": rule or "none", "budget": {"trials": 99}})
    base, story, quiet = RunConfig(data_dir="nowhere", num_epochs=20), Story(), scheduler.Quiet(spec)
    for number, ahead, value, verdict, _ in steps:
        before = story.state.epochs
        story.take(number, ahead, value, verdict, "")
        trial = story.state.trials[f"t{number:04d}"]
        if story.state.epochs != before and quiet.at(trial, base):
            assert scheduler.judge(spec, story.state, trial, base) is None
