"""Where a journal is kept: URIs, and sweeps with their journal on a real S3 server."""

from __future__ import annotations

import fcntl
import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import typer
from object_disk import Disk, refuse
from rich.console import Console
from sweep_driver import left_over, options, run, spec, start, state_of, until, wait_for
from typer.testing import CliRunner

from record.errors import BadInput, EnvironmentFailed
from record.journal import journals
from record.journal.events import SweepStarted
from record.storage import addresses
from record.storage.store import connect
from sweeps.commands import confirming, extending, register
from sweeps.commands.launching import launch
from sweeps.journal import folders, lease, stores
from sweeps.journal.journal import Journal
from sweeps.spec.load import load


def test_a_place_is_the_prefix_and_the_name() -> None:
    assert addresses.place("s3://b/p/?region=eu-west-1", "vq") == "s3://b/p/vq?region=eu-west-1"
    assert addresses.place("file:///shared/my%20journals", "vq") == Path("/shared/my journals/vq")
    assert journals.home("/nowhere") == Path("/nowhere")


@pytest.mark.parametrize(("uri", "message"), [
    ("journals", "got 'journals', expected a URI such as s3://bucket/prefix"),
    ("file:///", "which names no folder"),
    ("s3://AKIA:hunter2@bucket/p", "holds a credential.*give credentials in the environment"),
    ("abfs://c@account/p?account_key=hunter2", "holds a credential"),
])
def test_a_uri_that_cannot_be_is_refused(uri: str, message: str) -> None:
    wrong = addresses.problem(uri)
    assert wrong is not None
    assert re.search(message, wrong)
    assert "hunter2" not in wrong


@pytest.mark.parametrize("uri", ["s3://bucket/p", "gs://anonymous@b/p", "abfs://container@account/p", "file:///j"])
def test_a_uri_that_can_be_passes(uri: str) -> None:
    assert addresses.problem(uri) is None


def test_a_store_that_is_not_there_is_named(s3_server: str) -> None:
    with pytest.raises(BadInput, match=r"zz://b/p:journal: cannot be opened .*Unrecognized filesystem type.*s3://buc"):
        stores.check_store("zz://b/p")
    with pytest.raises(BadInput, match="s3://nobody/p:journal: there is no 'nobody'; create the bucket, or correct"):
        stores.check_store("s3://nobody/p")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentFailed, match=r"s3://bucket/p: the journal's store cannot be reached .*check"):
        stores.check_store("s3://bucket/p")


def test_a_store_that_cannot_be_written_is_named(disk: Disk) -> None:
    for request in ("open_output_stream", "delete_file"):
        disk.refuse = refuse(request)
        with pytest.raises(OSError, match="SLOW_DOWN"):
            lease.probe(disk, disk.root)
    with pytest.raises(EnvironmentFailed, match=r"file:///proc/x: the journal cannot be written .*may write and"):
        stores.check_store("file:///proc/x")


def test_whether_a_driver_is_at_work_is_told_by_lock_and_claim(tmp_path: Path) -> None:
    folder, other, objects = tmp_path / "demo", tmp_path / "shared" / "demo", tmp_path / "objects"
    for home in (folder, other, objects.as_uri()):
        assert stores.at_work(folder, home) is False
        with stores.hold(folder, home):
            assert stores.at_work(folder, home) is True
            assert stores.at_work(tmp_path / "a copy", home) is True, "the journal's place tells"
        assert stores.at_work(folder, home) is False
    objects.rmdir()
    objects.write_text("which cannot be listed")
    assert stores.at_work(folder, objects.as_uri()) is None


def test_a_reader_that_looks_keeps_no_driver_out(tmp_path: Path) -> None:
    """The lock is there for a reader's moment; a launch at that moment waits for it."""
    with stores.Lock(tmp_path):
        pass
    with open(tmp_path / "driver.lock", encoding="utf-8") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(stores.LOCK_PAUSE_SECONDS * 1.5, fcntl.flock, (reader, fcntl.LOCK_UN)).start()
        with stores.Lock(tmp_path) as lock:
            assert lock.held()


PLAIN: dict[str, Any] = {"space": {"weight_decay": {"uniform": [0.0, 0.8]}}, "search": "random", "scheduler": "none",
                         "base": {"data_dir": "nowhere", "num_epochs": 3}, "budget": {"trials": 4}}


def test_a_journal_that_is_not_this_folders_is_refused(s3: str, tmp_path: Path) -> None:
    sweep = load(spec(tmp_path, journal=s3, **PLAIN))
    folder, home = tmp_path / "runs" / "demo", sweep.home(tmp_path / "runs" / "demo")
    assert home == f"{s3}/demo"
    with stores.hold(folder, home) as store:
        folders.check_journal(folder, store)
        Journal(folder, store).append(SweepStarted(name="demo", pid=1, host="here"))
        with pytest.raises(BadInput, match=r"/demo: holds the journal that 'demo' began on here at .*another name or"):
            folders.check_journal(folder, store)
        folders.write_identity(sweep, folder, "fake-data")
        folders.check_journal(folder, store)
        assert journals.home(folder) == home
    (folder / "trials" / "t0001").mkdir(parents=True)
    with stores.hold(folder, f"{s3}/elsewhere") as store, pytest.raises(
            EnvironmentFailed, match=r"elsewhere: holds no event, and .*demo has trials; check that the address"):
        folders.check_journal(folder, store)


def test_a_journal_does_not_move(s3: str, tmp_path: Path) -> None:
    sweep = load(spec(tmp_path, journal=s3, **PLAIN))
    folders.write_identity(sweep, tmp_path / "demo", "fake-data")
    with pytest.raises(BadInput, match=r'journal: "s3://bucket/.*" -> absent'):
        folders.check_same(load(spec(tmp_path, **PLAIN)), tmp_path / "demo")


@pytest.mark.nightly
def test_a_sweep_with_its_journal_on_a_server_is_killed_and_resumed(
    s3: str, tmp_path: Path, ray_address: str
) -> None:
    """Every command reads the journal where it is; the sweep folder holds none."""
    path = spec(tmp_path, journal=s3, **PLAIN)
    folder = tmp_path / "runs" / "demo"
    call = f"launch({str(path)!r}, options=options)"
    process = start(call, epoch_seconds=60)  # still at work when the second one asks, however busy the machine
    until(lambda: "started" in {event.event for event in journals.read(folder)}, process, pause=0.5)
    _, err = run(call, code=2)
    assert f"another driver is at work here (process {process.pid} on" in err
    process.kill()
    process.communicate()
    before = list(journals.read(folder))
    extending.extend(folder, {"trials": 1}, None, options(ray_address))
    events = list(journals.read(folder))
    assert events[: len(before)] == before
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert len(state_of(folder).with_status("completed")) == 5
    assert not list(folder.glob("journal-*"))
    assert len(confirming.plan(*folders.open_sweep(folder), 1, 1)) == 1
    other = spec(tmp_path, name="next", journal=s3, **{**PLAIN, "search": "tpe"})
    terminal = io.StringIO()
    launch(other, options=options(ray_address, warm_start=str(folder)), console=Console(file=terminal))
    assert "warm start: 5 trials of demo taken over" in terminal.getvalue()
    check_commands(folder)


@pytest.mark.nightly
def test_a_sweep_that_loses_its_claim_ends_resumably(s3: str, tmp_path: Path) -> None:
    path = spec(tmp_path, journal=s3, **{**PLAIN, "base": {"data_dir": "nowhere", "num_epochs": 500}})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=0.2)
    wait_for(folder, 2, process)
    filesystem, root = connect(f"{s3}/demo")
    with filesystem.open_output_stream(f"{root}/lease-000009-0123abcd.json") as stream:
        stream.write(json.dumps({"pid": 12, "host": "far", "machine": "far 1", "began": "1", "since": "now"}).encode())
    _, err = process.communicate(timeout=600)
    assert process.returncode == 3, err
    assert "another driver (process 12 on far since now) has taken over the journal" in err
    assert left_over(process.pid) == []
    assert "sweep_finished" not in {event.event for event in journals.read(folder)}


@pytest.mark.slow
def test_a_launch_whose_bucket_is_not_there_writes_nothing(s3: str, tmp_path: Path) -> None:
    path = spec(tmp_path, journal="s3://nobody/p", **PLAIN)
    _, err = run(f"launch({str(path)!r}, options=options)", code=2)
    assert err.startswith("s3://nobody/p/demo:journal: there is no 'nobody'; create the bucket")
    assert not (tmp_path / "runs").exists()


def check_commands(folder: Path) -> None:
    """What only reads: status, explain, replay, export, and the reports' own reader."""
    app = typer.Typer()
    register(app)

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["sweep", arguments[0], str(folder), *arguments[1:]])
        assert result.exit_code == 0, result.output
        return result.output

    assert [trial["state"] for trial in json.loads(said("status", "--json"))["trials"]] == ["completed"] * 5
    assert "t0005 (weight_decay=" in said("explain")
    assert "the winner t000" in said("replay", "--policy", "asha:reduction_factor=2")
    assert "with 5 trials" in said("optuna", "--to", f"sqlite:///{folder}/studies.db")
    assert len([event for event in journals.read(folder) if event.event == "completed"]) == 5
