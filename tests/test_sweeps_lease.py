"""One writer at a time, where there are no locks: claims that are taken, lost and taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from object_disk import Disk, fill, journal_on, refuse, seqs, store_on

from record.errors import BadInput, EnvironmentFailed
from record.journal import journal_objects, parsing
from record.journal.events import Suggested
from sweeps.journal import lease
from sweeps.journal.lease import Lease


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
            "from pyarrow import fs\nfrom sweeps.journal.lease import Lease\n"
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
            first.append(Suggested(trial="void", params={}))
            first.append(Suggested(trial="void-too", params={}))
            second.append(Suggested(trial="counts", params={}))
            assert [event.trial for event in second.store.read()] == ["t0000", "t0001", "t0002", "counts"]
            fill(second, 5)
    assert seqs(disk) == list(range(1, 10))
    assert "void" not in str(list(journal_objects.Reading(disk, disk.root, "mem://x", parsing.read_lines).more()))


def test_two_that_claim_at_once_agree_on_one(disk: Disk) -> None:
    outcomes: list[str] = []
    ready, over = threading.Barrier(2), threading.Event()

    def compete() -> None:
        ready.wait()
        try:
            with Lease(disk, disk.root, "mem://x", settle_seconds=0.5):
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


def test_a_reader_sees_whether_a_claim_is_alive(disk: Disk, tmp_path: Path) -> None:
    assert not lease.is_held(disk, disk.root)
    with store_on(disk):
        before = sorted(os.listdir(disk.root))
        assert lease.is_held(disk, disk.root)
        assert sorted(os.listdir(disk.root)) == before, "a reader writes nothing"
    assert not lease.is_held(disk, disk.root)


@pytest.mark.parametrize(("age", "held"), [(50, True), (70, False)])
def test_a_reader_gives_up_a_claim_from_another_machine(disk: Disk, age: float, held: bool) -> None:
    elsewhere(disk, age)
    assert lease.is_held(disk, disk.root) is held
