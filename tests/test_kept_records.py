"""What was read of a large sweep is kept for the next report, and never believed once a file has changed."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from analysis.read.epochs import ahead, bulk, kept
from lam.workload import LAM
from record.errors import BadInput, Damaged
from record.journal import journals
from record.run import RunFolder

LINES = '{"epoch":1,"train/loss":0.5,"val/dsnr_status":"ok"}\n' \
    '{"epoch":2,"train/loss":null,"val/codebook_histogram":[1,2]}\n'


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunFolder]:
    """Three runs of a sweep that counts as large; a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(bulk, "KEPT_FROM", 3)
    found = [RunFolder(tmp_path / "sweep" / name) for name in "abc"]
    for run in found[:2]:
        run.path.mkdir(parents=True)
        run.metrics_file.write_text(LINES)
    return found


def _read(runs: list[RunFolder]) -> list[list[dict[str, object]]]:
    return [list(epochs) for epochs in bulk.read_epochs(runs, LAM)]


def test_the_second_reading_is_of_what_the_first_one_kept(runs: list[RunFolder]) -> None:
    first = _read(runs)
    assert first == [run.metrics() for run in runs]
    found = kept.load(runs)
    assert found is not None
    assert [list(epochs) for epochs in found] == first
    assert _read(runs) == first
    assert sorted(path.name for path in runs[0].path.parent.iterdir()) == ["a", "b"]  # nothing beside the records


@pytest.mark.parametrize("text", [
    LINES + '{"epoch":3}\n', LINES[:60], LINES.replace("0.5", "0.6"), "", LINES + '{"epoch":3,"torn'])
def test_a_changed_file_is_read_again(runs: list[RunFolder], text: str) -> None:
    _read(runs)
    runs[1].metrics_file.write_text(text)
    assert _read(runs) == [run.metrics() for run in runs]


def test_a_file_of_the_same_size_and_time_in_its_place_is_another_one(runs: list[RunFolder]) -> None:
    _read(runs)
    state = os.stat(runs[0].metrics_file)
    other = runs[0].path / "copy"
    other.write_text(LINES.replace("0.5", "0.7"))
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(other, runs[0].metrics_file)
    assert _read(runs)[0][0]["train/loss"] == 0.7


def test_a_new_or_removed_run_is_noticed(runs: list[RunFolder]) -> None:
    _read(runs)
    runs[2].path.mkdir()
    runs[2].metrics_file.write_text(LINES)
    assert len(_read(runs)[2]) == 2
    runs[0].metrics_file.unlink()
    assert _read(runs)[0] == []


def test_many_portions_are_read_by_other_processes_with_the_same_result(
        runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "TOGETHER", 1)
    more = [*runs, *(RunFolder(runs[0].path.parent / name) for name in "de")]
    for run in more[3:]:
        run.path.mkdir()
        run.metrics_file.write_text(LINES)
    assert _read(more) == [run.metrics() for run in more]
    assert all(kept.is_kept([run]) for run in more)
    more[4].metrics_file.write_text('{"epoch":1}\nno JSON\n{"epoch":2}\n')
    assert not kept.is_kept(more[4:])
    for run in more:
        kept.place([run]).unlink()
    with pytest.raises(BadInput, match=r"e/metrics\.jsonl"):
        _read(more)


def test_a_portion_is_read_ahead_elsewhere_and_one_that_cannot_be_is_left(tmp_path: Path) -> None:
    def read(portion: ahead.Portion) -> None:
        portion[0].path.write_text(str(os.getpid()))

    portions = [[RunFolder(tmp_path / name)] for name in ("a", "b", "none/c", "d")]
    with ahead.keeping(portions, read) as waited:
        for portion in portions:
            waited(portion)
    alone = threading.active_count() > 1 or len(os.sched_getaffinity(0)) < 2 or sys.platform != "linux"
    told = [path.read_text() for path in sorted(tmp_path.iterdir())]
    assert told == [] if alone else len(told) == 3 and str(os.getpid()) not in told


def test_what_was_begun_for_other_runs_than_are_asked_for_is_read_again(
        runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is no trial, and a trial that has no folder yet."""
    monkeypatch.setattr(bulk, "TOGETHER", 2)
    stranger = RunFolder(runs[0].path.parent / "0")
    stranger.path.mkdir()
    stranger.metrics_file.write_text("no JSON\nat all\n")
    with bulk.reading([stranger, *runs[:2]], LAM) as read:
        assert [list(epochs) for epochs in read(runs)] == [run.metrics() for run in runs]


def test_work_begun_elsewhere_is_done_here_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("nothing is forked here")
    monkeypatch.setattr(ahead, "_processors", lambda: 2)
    here = os.getpid()
    assert ahead.begun(lambda: os.getpid() != here)()
    assert ahead.begun(lambda: lambda: 1)()() == 1  # what cannot be handed over
    with pytest.raises(ZeroDivisionError):
        ahead.begun(lambda: 1 // 0)()
    monkeypatch.setattr(ahead, "_processors", lambda: 1)
    assert ahead.begun(os.getpid)() == here


RESULT = '"epoch":1,"objective":0.5,"verdict":"live","tflops":1.0}'


@pytest.mark.parametrize(("last", "message"), [
    (f'{{"seq":5,"time":"2030-01-01T00:00:00+00:00","event":"result","trial":"t0009",{RESULT}',
     "event 5: result: trial 't0009' was never suggested"),
    (f'{{"seq":6,"time":"2030-01-01T00:00:00+00:00","event":"result","trial":"t0001",{RESULT}', "has number 6"),
    (f'{{"seq":"5","time":"2030-01-01T00:00:00+00:00","event":"result","trial":"t0001",{RESULT}',
     "journal-000001.jsonl:5"),
    ('{"seq":5,"time":"2030-01-01T00:00:00+00:00","event":"result","trial":"t0001","epoch":"two"}', "epoch"),
    ('{"seq":5,"time":"2030-01-01T00:00:00+00:00","event":"result","tri', "journal-000001.jsonl:5: not JSON")])
def test_who_reads_no_results_refuses_what_is_none(tmp_path: Path, last: str, message: str) -> None:
    head = '"time":"2030-01-01T00:00:00+00:00","event"'
    lines = [f'{{"seq":1,{head}:"sweep_started","name":"s","pid":1,"host":"h"}}',
             f'{{"seq":2,{head}:"suggested","trial":"t0001","params":{{}}}}',
             f'{{"seq":3,{head}:"result","trial":"t0001",{RESULT}',
             f'{{"seq":4,{head}:"machine_lost","node":"n","host":"far"}}', last,
             f'{{"seq":6,{head}:"completed","trial":"t0001","epoch":1,"objective":0.1}}']
    journal = tmp_path / "journal-000001.jsonl"
    journal.write_text("\n".join([*lines[:4], lines[5].replace('"seq":6', '"seq":5')]) + "\n")
    assert [event.event for event in journals.changes(tmp_path)] == ["suggested", "machine_lost", "completed"]
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(Damaged, match=message):
        list(journals.changes(tmp_path))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no archive", None])
def test_a_damaged_cache_is_as_if_it_were_not_there(runs: list[RunFolder], damage: bytes | None) -> None:
    first = _read(runs)
    file = kept.place(runs)
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert _read(runs) == first
    assert kept.load(runs) is not None  # it was made anew


def test_a_cache_that_lacks_rows_or_holds_objects_is_refused(runs: list[RunFolder]) -> None:
    _read(runs)
    with np.load(kept.place(runs)) as found:
        arrays = dict(found)
    np.savez(kept.place(runs), **{**arrays, "numbers": arrays["numbers"][:, :1]})  # type: ignore[arg-type]
    assert kept.load(runs) is None
    np.savez(kept.place(runs), **{**arrays, "shape": np.array([{}], dtype=object)})  # type: ignore[arg-type]
    assert kept.load(runs) is None  # nothing is unpickled


def test_a_cache_folder_that_cannot_be_made_costs_nothing_but_time(
        runs: list[RunFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert _read(runs) == [run.metrics() for run in runs]


def test_the_oldest_sweeps_are_forgotten(runs: list[RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_SWEEPS", 2)
    home = kept.place(runs).parent.parent
    for age, name in enumerate(("newer", "older")):
        (home / name).mkdir(parents=True)
        os.utime(home / name, (1000 - age, 1000 - age))
    _read(runs)
    assert sorted(path.name for path in home.iterdir()) == sorted(["newer", kept.place(runs).parent.name])
