"""Events and documents: what is written is what is read, old and new files read, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fake_training
import jsonschema
import pytest
from build_records import Planted, confirmed, write_run, write_sweep
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from small_sweep import make_sweep

from analysis.promote import promote
from lam import records_page
from lam.config import from_mapping
from record import documents
from record.errors import BadInput, Damaged, EnvironmentFailed
from record.journal import events, journals, parsing
from record.run import RunFolder
from sweeps.journal import folders
from sweeps.journal.journal import Journal
from sweeps.workers.driver import SweepDriver
from sweeps.workers.engine import Job
from sweeps.workers.entries import session_event

BEFORE = Path(__file__).parent / "records_before" / "before"
VALIDATORS = {name.split(".")[0]: jsonschema.Draft202012Validator(json.loads(text))
              for name, text in records_page.schemas().items()}
WHEN = datetime(2030, 1, 1, tzinfo=UTC)
WHY = events.Reason(rule="asha", sentence="cut", epochs_saved=3, rung=2, value=None, cutoff=0.5, peers=4)
DRIVER = {"name": "demo", "pid": 1, "host": "here", "budget": {"trials": 6, "hours": 0.5}}
MACHINE: dict[str, Any] = {"node": "0a1b", "host": "worker-1"}
ONE_OF_EACH = [
    events.SweepStarted(**DRIVER), events.SweepResumed(**DRIVER),
    events.WarmStarted(source="other/t0001", params={"a": 1}, state="completed", epoch=9, objective=0.5,
                       verdict="live", tflops=1.0, values={}, violation=0.0),
    events.Suggested(trial="t0001", params={"a": 0.1, "b": "x", "c": None}, attrs={"d": [1]}, seed=3, repeats="t0000"),
    events.Started(trial="t0001"),
    events.Result(trial="t0001", epoch=1, objective=0.5, verdict="live", metrics={"val/mse_loss": 0.1}, tflops=1.0,
                  seconds=2.0, step=10, values={"val/dsnr": None}, violation=None),
    *(kind(trial="t0001", epoch=1, reason=WHY) for kind in (events.Stopped, events.Paused, events.Failed)),
    events.Completed(trial="t0001", epoch=1, objective=None), events.TrialInterrupted(trial="t0001", epoch=0),
    events.SweepFinished(reason="budget spent"), events.SweepInterrupted(reason="signal 2"),
    events.SweepHalted(reason="the disk is full"), events.Waiting(reason="2 trials wait"),
    events.MachineJoined(**MACHINE, fits=2), events.MachineLeftOut(**MACHINE, reason="has no data"),
    events.MachineDraining(**MACHINE, deadline="2026-01-01T00:00:00+00:00"), events.MachineLost(**MACHINE),
]


def written(event: events.JournalEvent, seq: int = 1) -> bytes:
    return event.model_copy(update={"seq": seq, "time": WHEN}).line()


def test_there_is_one_of_each() -> None:
    assert sorted(event.event for event in ONE_OF_EACH) == sorted(events.KINDS)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: event.event)
def test_what_is_written_is_what_is_read(event: events.JournalEvent) -> None:
    line = written(event)
    again = parsing.read_event(line)
    assert type(again) is type(event)
    assert again == event.model_copy(update={"seq": 1, "time": WHEN})
    assert again.line() == line
    VALIDATORS["event"].validate(json.loads(line))


@given(number=st.floats(), text=st.text(), values=st.dictionaries(st.text(), st.floats(allow_nan=False)))
def test_numbers_come_back_to_the_last_digit_and_what_is_not_finite_as_null(
        number: float, text: str, values: dict[str, float]) -> None:
    finite = {key: value for key, value in values.items() if math.isfinite(value)}
    event = events.Result(trial="t", epoch=1, objective=number, verdict=text, tflops=number, values=finite)
    again = parsing.read_event(written(event))
    assert isinstance(again, events.Result)
    assert again.objective == (number if math.isfinite(number) else None)
    assert (again.verdict, again.values) == (text, finite)
    params = parsing.read_event(written(events.Suggested(trial="t", params=finite)))
    assert isinstance(params, events.Suggested)
    assert params.params == finite


def test_a_status_is_the_name_of_an_event() -> None:
    changes = [name for name, kind in events.KINDS.items() if issubclass(kind, events.Change)]
    assert sorted(events.STATUSES) == sorted(changes)
    assert set(events.FINAL) < set(events.STATUSES)


@pytest.mark.parametrize("name", VALIDATORS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATORS[name].schema)


def test_a_journal_of_before_reads_and_would_be_written_the_same() -> None:
    lines = (BEFORE / "journal-000001.jsonl").read_bytes().splitlines(keepends=True)
    assert [parsing.read_event(line).line() for line in lines] == lines
    for line in lines:
        VALIDATORS["event"].validate(json.loads(line))


def documents_below(folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ((name, path) for name in documents.DOCUMENTS for path in folder.rglob(f"{name}.json"))


def check_documents(folder: Path) -> set[str]:
    """Each document is what its class would write again, and what its schema says; the names of those found."""
    found = dict[str, Path]()
    for name, path in documents_below(folder):
        content = json.loads(path.read_text())
        assert documents.load_document(documents.DOCUMENTS[name], path).as_written() == content
        VALIDATORS[name].validate(content)
        found[name] = path
    return set(found)


def test_documents_of_before_read_and_would_be_written_the_same() -> None:
    assert check_documents(BEFORE) == set(documents.DOCUMENTS)


def played(folder: Path) -> Path:
    """A sweep whose trials sent their records without Ray, by the driver that a launch has."""
    asha = {"asha": {"max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3, "promote": True}}
    sweep = make_sweep(folder / "yaml", scheduler=asha, constraints={"val/mse_loss": {"most": 0.5}})
    home = folder / "demo"
    folders.write_identity(sweep, home, "data")
    with contextlib.closing(Journal(home)) as journal:
        journal.append(session_event(sweep, begun=False))
        driver = SweepDriver(sweep, journal, "x:y", 1, lambda event: None, lambda: False)
        while isinstance(job := driver.next(), Job):
            RunFolder(job.run_dir).start(job.config, {"run_id": job.id, "state": "running"})
            driver.started(job.id)
            config = from_mapping(job.config, "job")
            for epoch in range(job.after + 1, config.num_epochs + 1):
                if not driver.record(job.id, fake_training.make_record(config, epoch)):
                    break
            driver.left(job.id, lost=False)
    return home


def test_what_a_driver_writes_is_what_the_schemas_say(tmp_path: Path) -> None:
    home = played(tmp_path)
    assert check_documents(home) == {"sweep", "run"}
    lines = [line for path in journals.segments(home) for line in path.read_bytes().splitlines(keepends=True)]
    seen = [json.loads(line) for line in lines]
    for line, event in zip(lines, seen, strict=True):
        VALIDATORS["event"].validate(event)
        assert parsing.read_event(line).line() == line
    assert {event["event"] for event in seen} >= {"suggested", "started", "result", "paused", "stopped", "completed"}
    assert all("violation" in event for event in seen if event["event"] == "result")


def test_what_a_promotion_writes_is_what_its_schema_says(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", confirm=[confirmed("t0005", [0.4, 0.42, 0.44])])
    promote(folder, tmp_path / "production.yaml")
    assert check_documents(folder) == set(documents.DOCUMENTS)


LINE = written(ONE_OF_EACH[5], seq=2)


@pytest.mark.parametrize(("change", "error", "message"), [
    ((b'"epoch":1', b'"epoch":"one"'), Damaged, r"j:2: result: epoch: got 'one', input should be a valid integer"),
    ((b'"epoch":1,', b""), Damaged, "j:2: result: epoch is missing; restore the journal from a copy"),
    ((b'"val/mse_loss":0.1', b'"val/mse_loss":"x"'), Damaged, r"j:2: result: metrics.val/mse_loss: got 'x'"),
    ((b'"time":"2030-01-01T00:00:00+00:00",', b""), Damaged, "j:2: result: time is missing"),
    ((b'"seq":2,', b""), Damaged, "j:2: an event lacks its seq or its name"),
    ((b'"event":"result",', b""), Damaged, "j:2: an event lacks its seq or its name"),
    ((LINE, b"[]\n"), Damaged, "j:2: an event lacks its seq or its name"),
    ((b'"seq":2', b'"version":2,"seq":2'), EnvironmentFailed, "j:2: was written as version 2, this one reads 1"),
    ((LINE, b"nonsense\n"), ValueError, "j:2: not JSON: Expecting value"),
])
def test_a_wrong_line_is_named_with_its_field(
        change: tuple[bytes, bytes], error: type[Exception], message: str) -> None:
    data = written(ONE_OF_EACH[0]) + LINE.replace(*change) + written(ONE_OF_EACH[4], seq=3)
    with pytest.raises(error, match=message):
        list(parsing.read_lines(data, "j"))


def test_a_torn_last_line_is_no_event() -> None:
    whole = written(ONE_OF_EACH[0])
    assert [len(list(parsing.read_lines(whole + LINE[:cut], "j"))) for cut in (0, 1, 40, len(LINE) - 2)] == [1] * 4


def test_what_a_newer_version_added_is_read_and_kept() -> None:
    lines = [LINE.replace(b'"epoch"', b'"added":[1],"epoch"'),
             b'{"seq":3,"time":"2030-01-01T00:00:00+00:00","event":"renamed","to":"x"}\n']
    more, other = (parsing.read_event(line) for line in lines)
    assert isinstance(more, events.Result)
    assert isinstance(other, events.Unknown)
    assert [json.loads(event.line()) for event in (more, other)] == [json.loads(line) for line in lines]


def test_a_document_keeps_what_a_newer_version_added(tmp_path: Path) -> None:
    run = write_run(tmp_path, Planted())
    run.update_identity(added={"by": "a newer version"})
    run.update_identity(state="interrupted")
    assert json.loads(run.identity_file.read_text())["added"] == {"by": "a newer version"}
    assert run.document().state == "interrupted"


@pytest.mark.parametrize(("content", "message"), [
    ('{"state": "done"}', r"run.json:state: got 'done', input should be 'running', .*restore it from a copy"),
    ('{"run_id": "x"}', "run.json: lacks its state; restore it from a copy"),
    ('{"state": "running", "data_stats": {"data_stats/std": "x"}}', r"run.json:data_stats.data_stats/std: got 'x'"),
    ('{"schema": 2, "state": "running"}', "run.json: has schema 2, this version reads 1; update lamsweep"),
    ('{"state": "running"', "run.json: is not JSON"), ("3", "run.json: holds a int, expected an object"),
])
def test_a_wrong_document_is_named_with_its_field(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        RunFolder(tmp_path).identity()


def test_every_field_says_what_it_is() -> None:
    def silent(model: type[BaseModel]) -> list[str]:
        return [f"{model.__name__}.{name}" for name, field in model.model_fields.items()
                if not field.description and name != "event"]

    kinds: list[Any] = [*events.KINDS.values(), events.Reason, *documents.DOCUMENTS.values(), documents.Confirmed,
                        documents.Difference, documents.GateAnswer, documents.Provenance]
    assert [name for kind in kinds for name in silent(kind)] == []
    assert all(kind.model_config["frozen"] for kind in kinds)
