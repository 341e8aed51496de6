"""Journals kept as objects: a real S3 server, and faults between any two requests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pyarrow import fs
from sweep_driver import left_over, run, spec, start, state_of, wait_for
from typer.testing import CliRunner

from analysis.sources import journal as events_of
from lam import journal_objects, journals
from lam.errors import BadInput, EnvironmentFailed
from lam.journals import Damaged
from sweeps import folders, lease, stores
from sweeps.commands import register
from sweeps.journal import Journal
from sweeps.lease import Lease
from sweeps.objects import ObjectStore
from sweeps.spec import load


class Disk:
    """The requests that a store is given, on a local folder; `refuse` may raise before each of them."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.refuse: Callable[[str, str], None] = lambda request, name: None
        self._real = fs.LocalFileSystem()

    def __getattr__(self, request: str) -> Any:
        def asked(what: Any, **more: Any) -> Any:
            self.refuse(request, str(what).rpartition("/")[2])
            return getattr(self._real, request)(what, **more)
        return asked

    def open_append_stream(self, path: str) -> None:
        raise AssertionError("an object store cannot append")

    def names(self) -> list[str]:
        return sorted(path.name for path in Path(self.root).glob("journal-*"))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.02)
    return Disk(tmp_path / "store")


def refuse(*requests: str, matching: str = "", after: int = 0) -> Callable[[str, str], None]:
    """Refuses these requests for names that match, from the one number `after` on."""
    seen = [0]

    def act(request: str, name: str) -> None:
        if request in requests and re.search(matching, name):
            seen[0] += 1
            if seen[0] > after:
                raise OSError(28, "AWS Error SLOW_DOWN during PutObject operation")
    return act


def store_on(disk: Disk, **settings: float) -> ObjectStore:
    held = Lease(disk, disk.root, "mem://x", **settings)
    return ObjectStore(disk, disk.root, "mem://x", held, blocks=(4, 8))


@contextlib.contextmanager
def journal_on(disk: Disk, folder: Path, **settings: float) -> Iterator[Journal]:
    with store_on(disk, **settings) as store:
        yield Journal(folder, store)


def fill(journal: Journal, count: int) -> None:
    for number in range(count):
        journal.append("suggested", trial=f"t{journal.state.seq:04d}", params={"number": number})


def seqs(disk: Disk) -> list[int]:
    return [event["seq"] for event in journal_objects.read(disk, disk.root, "mem://x")]


def test_full_blocks_are_merged_and_the_events_stay(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 7)
        assert [name[8:33] for name in disk.names()] == ["000000000001-000000000004", *(
            f"{seq:012d}-{seq:012d}" for seq in (5, 6, 7))]
        fill(journal, 4)
        whole = [event["params"]["number"] for event in journal.store.read()]
    assert disk.names()[0][8:33] == "000000000001-000000000008"
    assert len(disk.names()) == 4
    assert whole == [*range(7), *range(4)]
    assert seqs(disk) == list(range(1, 12))
    with journal_on(disk, tmp_path) as again:
        assert again.state.seq == 11
        assert list(again.state.trials) == [f"t{number:04d}" for number in range(11)]


def test_a_merge_that_ends_between_its_two_steps_is_read_and_finished_later(disk: Disk, tmp_path: Path) -> None:
    disk.refuse = refuse("delete_file", matching="^journal", after=2)
    with pytest.raises(EnvironmentFailed, match="cannot be written"), journal_on(disk, tmp_path) as journal:
        fill(journal, 4)
    assert len(disk.names()) == 3, "the merged object, and the parts that could not be deleted"
    assert seqs(disk) == [1, 2, 3, 4], "both are there, each event counts once"
    disk.refuse = lambda request, name: None
    with journal_on(disk, tmp_path) as journal:
        assert len(disk.names()) == 1
        fill(journal, 1)
    assert seqs(disk) == [1, 2, 3, 4, 5]


def test_a_merge_that_is_not_written_leaves_the_parts(disk: Disk, tmp_path: Path) -> None:
    disk.refuse = refuse("open_output_stream", matching="1-000000000004")
    with pytest.raises(EnvironmentFailed, match="cannot be written"), journal_on(disk, tmp_path) as journal:
        fill(journal, 4)
    assert len(disk.names()) == 4
    assert seqs(disk) == [1, 2, 3, 4]


def test_a_refused_write_ends_the_session_and_the_next_one_goes_on(disk: Disk, tmp_path: Path) -> None:
    disk.refuse = refuse("open_output_stream", matching="^journal", after=2)
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 2)
        message = r"mem://x: the journal cannot be written \(.*SLOW_DOWN.*\); check the network and that"
        with pytest.raises(EnvironmentFailed, match=message):
            fill(journal, 1)
        disk.refuse = lambda request, name: None
        with pytest.raises(EnvironmentFailed, match="an earlier event could not be written"):
            fill(journal, 1)
        assert journal.state.seq == 2
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 1)
    assert seqs(disk) == [1, 2, 3]


@pytest.mark.parametrize("eighth", range(8))
def test_an_object_that_a_kill_left_half_written_is_left_out(disk: Disk, tmp_path: Path, eighth: int) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 3)
    last = Path(disk.root) / disk.names()[-1]
    torn = last.read_bytes()[: last.stat().st_size * eighth // 8]
    last.write_bytes(torn)
    assert seqs(disk) == [1, 2]
    with journal_on(disk, tmp_path) as journal:
        journal.append("suggested", trial="after", params={})
        assert last.read_bytes() == torn, "nothing is overwritten"
        fill(journal, 1)
    assert seqs(disk) == [1, 2, 3, 4]
    assert list(journal.state.trials) == ["t0000", "t0001", "after", "t0003"]


def test_a_missing_and_a_damaged_event_are_said(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 3)
    gone = Path(disk.root) / disk.names()[1]
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(Damaged, match=r"mem://x: the event after number 1 has number 3; restore the journal from a"):
        seqs(disk)
    gone.write_bytes(b"{nonsense\n" + kept)
    with pytest.raises(Damaged, match=r"not JSON: .*restore the journal from a copy"):
        seqs(disk)
    gone.write_bytes(kept.replace(b'"seq":2', b'"seq":7'))
    with pytest.raises(Damaged, match="expected the event with number 2, found "):
        seqs(disk)


def test_a_merge_during_a_read_is_not_taken_for_a_gap(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 3)
        reader = Disk(Path(disk.root))
        done = threading.Event()

        def merge_first(request: str, name: str) -> None:
            if request == "open_input_stream" and not done.is_set():
                done.set()
                fill(journal, 1)

        reader.refuse = merge_first
        assert [event["seq"] for event in journal_objects.read(reader, reader.root, "mem://x")] == [1, 2, 3, 4]


def test_a_newer_version_is_refused(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 2)
    first = Path(disk.root) / disk.names()[0]
    assert json.loads(first.read_text())["version"] == 1
    first.write_text(first.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(EnvironmentFailed, match="was written as version 2, this one reads 1; update lamsweep"), \
            journal_on(disk, tmp_path):
        raise AssertionError("a newer journal was opened")


def test_a_second_writer_is_refused_by_name(disk: Disk, tmp_path: Path) -> None:
    told = rf"mem://x: another driver is at work here \(process {os.getpid()} on .* since .*\); wait for it, or stop it"
    with journal_on(disk, tmp_path) as journal:
        with pytest.raises(BadInput, match=told), store_on(disk):
            raise AssertionError("the journal was given twice")
        fill(journal, 1)
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 1)
    assert not list(Path(disk.root).glob("lease-*")), "given back"


def test_a_dead_process_of_this_machine_is_taken_over_at_once(disk: Disk, tmp_path: Path) -> None:
    code = ("import os, signal, sys\n"
            f"sys.path[:0] = {sys.path!r}\n"
            "from pyarrow import fs\nfrom sweeps.lease import Lease\n"
            f"with Lease(fs.LocalFileSystem(), {disk.root!r}, 'mem://x'):\n os.kill(os.getpid(), signal.SIGKILL)")
    subprocess.run([sys.executable, "-c", code], check=False)
    assert list(Path(disk.root).glob("lease-000001-*"))
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 1)
        assert [path.name[:12] for path in Path(disk.root).glob("lease-*")] == ["lease-000002"]


def elsewhere(disk: Disk, age: float) -> Path:
    """The claim of a process on another machine, renewed `age` seconds ago."""
    Path(disk.root).mkdir()
    claim = Path(disk.root) / "lease-000007-0123abcd.json"
    claim.write_text(json.dumps({"pid": 12, "host": "far", "machine": "far 1", "began": "1", "since": "yesterday"}))
    os.utime(claim, (time.time() - age,) * 2)
    return claim


def test_a_claim_from_another_machine_runs_out(disk: Disk, tmp_path: Path) -> None:
    claim = elsewhere(disk, age=50)
    with pytest.raises(BadInput, match=r"process 12 on far since yesterday.*given up after 60 seconds"), store_on(disk):
        raise AssertionError("a living driver was taken over")
    assert claim.exists()
    os.utime(claim, (time.time() - 70,) * 2)
    with journal_on(disk, tmp_path) as journal:
        fill(journal, 1)
    assert not claim.exists()
    assert "-000008-" in disk.names()[0], "sessions are numbered on"


def test_a_driver_that_lost_its_claim_stops_and_says_who_took_it(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path, beat_seconds=0.05) as first:
        fill(first, 2)
        (Path(disk.root) / "lease-000009-0123abcd.json").write_text(json.dumps(
            {"pid": 12, "host": "far", "machine": "far 1", "began": "1", "since": "now"}))
        time.sleep(0.3)
        with pytest.raises(EnvironmentFailed, match=r"another driver \(process 12 on far since now\) has taken over"):
            fill(first, 1)
    assert seqs(disk) == [1, 2]


def test_what_a_driver_writes_after_it_lost_its_claim_does_not_count(disk: Disk, tmp_path: Path) -> None:
    """Both believe for a moment that they hold the journal: readers agree with the later one."""
    with journal_on(disk, tmp_path, beat_seconds=60) as first:
        fill(first, 3)
        for claim in Path(disk.root).glob("lease-*"):
            os.utime(claim, (time.time() - 99,) * 2)
            claim.write_text(claim.read_text().replace('"machine": "', '"machine": "not '))
            os.utime(claim, (time.time() - 99,) * 2)
        with journal_on(disk, tmp_path) as second:
            first.append("suggested", trial="void", params={})
            first.append("suggested", trial="void too", params={})
            second.append("suggested", trial="counts", params={})
            assert [event["trial"] for event in second.store.read()] == ["t0000", "t0001", "t0002", "counts"]
            fill(second, 5)
    assert seqs(disk) == list(range(1, 10))
    assert "void" not in json.dumps(list(journal_objects.read(disk, disk.root, "mem://x")))


def test_two_that_claim_at_once_agree_on_one(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.5)
    outcomes: list[str] = []
    ready, over = threading.Barrier(2), threading.Event()

    def compete() -> None:
        ready.wait()
        try:
            with Lease(disk, disk.root, "mem://x"):
                outcomes.append("holds")
                over.wait(5)
        except BadInput:
            outcomes.append("refused")
            over.set()

    threads = [threading.Thread(target=compete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["holds", "refused"]


def test_a_claim_that_cannot_be_renewed_ends_the_writing(disk: Disk, tmp_path: Path) -> None:
    with journal_on(disk, tmp_path, lease_seconds=0.4, beat_seconds=0.05) as journal:
        fill(journal, 1)
        disk.refuse = refuse("open_output_stream", matching="^lease")
        time.sleep(0.3)
        with pytest.raises(EnvironmentFailed, match=r"could not be renewed for .* seconds \(.*SLOW_DOWN.*the same com"):
            fill(journal, 1)
        disk.refuse = lambda request, name: None
        fill(journal, 1)
    assert seqs(disk) == [1, 2]


def test_a_place_is_the_prefix_and_the_name() -> None:
    assert journals.place("s3://b/p/?region=eu-west-1", "vq") == "s3://b/p/vq?region=eu-west-1"
    assert journals.place("file:///shared/my%20journals", "vq") == Path("/shared/my journals/vq")
    assert journals.home("/nowhere") == Path("/nowhere")


@pytest.mark.parametrize(("uri", "message"), [
    ("journals", "got 'journals', expected a URI such as s3://bucket/prefix"),
    ("file:///", "which names no folder"),
    ("s3://AKIA:hunter2@bucket/p", "holds a credential.*give credentials in the environment"),
    ("abfs://c@account/p?account_key=hunter2", "holds a credential"),
])
def test_a_uri_that_cannot_be_is_refused(uri: str, message: str) -> None:
    wrong = journals.problem(uri)
    assert wrong is not None
    assert re.search(message, wrong)
    assert "hunter2" not in wrong


@pytest.mark.parametrize("uri", ["s3://bucket/p", "gs://anonymous@b/p", "abfs://container@account/p", "file:///j"])
def test_a_uri_that_can_be_passes(uri: str) -> None:
    assert journals.problem(uri) is None


def test_a_store_that_is_not_there_is_named(s3_server: str) -> None:
    with pytest.raises(BadInput, match=r"zz://b/p:journal: cannot be opened .*Unrecognized filesystem type.*s3://buc"):
        stores.check("zz://b/p")
    with pytest.raises(BadInput, match="s3://nobody/p:journal: there is no 'nobody'; create the bucket, or correct"):
        stores.check("s3://nobody/p")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentFailed, match=r"s3://bucket/p: the journal's store cannot be reached .*check"):
        stores.check("s3://bucket/p")


def test_a_store_that_cannot_be_written_is_named(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_objects, "connect", lambda uri: (disk, disk.root))
    for request in ("open_output_stream", "delete_file"):
        disk.refuse = refuse(request)
        with pytest.raises(EnvironmentFailed, match=r"s3://b/p: the journal cannot be written .*may write and delete"):
            stores.check("s3://b/p")


PLAIN: dict[str, Any] = {"space": {"weight_decay": {"uniform": [0.0, 0.8]}}, "search": "random", "scheduler": "none",
                         "base": {"data_dir": "nowhere", "num_epochs": 3}, "budget": {"trials": 4}}


def test_a_journal_that_is_not_this_folders_is_refused(s3: str, tmp_path: Path) -> None:
    sweep = load(spec(tmp_path, journal=s3, **PLAIN))
    folder, home = tmp_path / "runs" / "demo", sweep.home(tmp_path / "runs" / "demo")
    assert home == f"{s3}/demo"
    with stores.hold(folder, home) as store:
        folders.check_journal(folder, store)
        Journal(folder, store).append("sweep_started", name="demo", pid=1, host="here")
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


@pytest.mark.long
def test_a_sweep_with_its_journal_on_a_server_is_killed_and_resumed(s3: str, tmp_path: Path) -> None:
    """Every command reads the journal where it is; the sweep folder holds none."""
    path = spec(tmp_path, journal=s3, **PLAIN)
    folder = tmp_path / "runs" / "demo"
    call = f"launch({str(path)!r}, options=options)"
    process = start(call, epoch_seconds=0.2)
    wait_for(folder, 3, process)
    _, err = run(call, code=2)
    assert f"another driver is at work here (process {process.pid} on" in err
    process.kill()
    process.communicate()
    before = list(journals.read(folder))
    run(call)
    events = list(journals.read(folder))
    assert events[: len(before)] == before
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len(state_of(folder).with_status("completed")) == 4
    assert not list(folder.glob("journal-*"))
    run(f"extend({str(folder)!r}, {{'trials': 1}}, None, options)")
    run(f"confirm({str(folder)!r}, 1, 1, options)")
    other = spec(tmp_path, name="next", journal=s3, **PLAIN)
    out, _ = run(f"launch({str(other)!r}, options=Options(**common, warm_start={str(folder)!r}))")
    assert "warm start: 5 trials of demo taken over" in out
    check_commands(folder)


@pytest.mark.long
def test_a_sweep_that_loses_its_claim_ends_resumably(s3: str, tmp_path: Path) -> None:
    path = spec(tmp_path, journal=s3, **{**PLAIN, "base": {"data_dir": "nowhere", "num_epochs": 500}})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=0.2)
    wait_for(folder, 2, process)
    filesystem, root = journal_objects.connect(f"{s3}/demo")
    with filesystem.open_output_stream(f"{root}/lease-000009-0123abcd.json") as stream:
        stream.write(json.dumps({"pid": 12, "host": "far", "machine": "far 1", "began": "1", "since": "now"}).encode())
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "another driver (process 12 on far since now) has taken over the journal" in err
    assert left_over(process.pid) == []
    assert "sweep_finished" not in {event["event"] for event in journals.read(folder)}


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
    assert len([event for event in events_of(folder) if event["event"] == "completed"]) == 5
