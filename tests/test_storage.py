"""Sweeps on stores: copies of what is there, what workers publish, what is refused, a store that stops answering."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from sweep_driver import spec

from record.errors import BadInput, EnvironmentFailed
from record.journal import journals
from record.run import LAST_STATE, RunFolder
from record.storage import addresses, copies
from record.storage.store import Patience, Store
from sweeps.journal import folders, requests, runs
from sweeps.spec.load import load

CUT = OSError("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7, Couldn't connect to server")
PLAIN: dict[str, Any] = {"space": {"weight_decay": {"uniform": [0.0, 0.8]}}, "search": "random", "scheduler": "none",
                         "base": {"data_dir": "nowhere", "num_epochs": 3}, "budget": {"trials": 4}}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A prefix that is a folder of this machine; its requests go through pyarrow as those of any store."""
    return tmp_path / "store" / "demo"


def put(there: Path, name: str, text: str, seconds: float = 5000) -> Path:
    """An object, written so many seconds ago."""
    file = there / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    when = file.stat().st_mtime_ns - int(seconds * 1e9)
    os.utime(file, ns=(when, when))
    return file


# ---- a store that stops answering


class Flaky:
    """Fails so many times; its clock moves with each pause."""

    def __init__(self, fails: int, error: OSError = CUT) -> None:
        self.fails, self.error, self.now, self.asked = fails, error, 0.0, 0
        self.said: list[str] = []

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.fails:
            raise self.error
        return "here"

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def patience(self, seconds: float) -> Patience:
        return Patience(f"s3://{id(self)}", seconds, self.said.append, lambda: self.now, self.sleep)


def test_a_store_that_is_cut_off_is_asked_again_and_that_is_said_once() -> None:
    flaky = Flaky(9)
    assert flaky.patience(120)(flaky) == "here"
    assert flaky.now == pytest.approx(0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 4 * 5)
    assert len(flaky.said) == 2
    assert re.search(r"does not answer \(AWS Error NETWORK_CONNECTION .* is asked again for 120 seconds", flaky.said[0])
    assert flaky.said[1].endswith("answers again after 26 seconds")


def test_who_does_not_ask_again_takes_no_words_from_who_does() -> None:
    flaky = Flaky(3)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        flaky.patience(0)(flaky)
    patient = flaky.patience(120)
    patient.trouble(flaky.error)
    flaky.patience(0).over()
    patient.over()
    assert [re.search("does not answer|answers again", text)[0] for text in flaky.said] == [  # type: ignore[index]
        "does not answer", "answers again"]


def test_a_store_that_stays_away_ends_the_wait() -> None:
    flaky = Flaky(1000)
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        flaky.patience(30)(flaky)
    assert flaky.now <= 30


@pytest.mark.parametrize("error", [OSError("AWS Error ACCESS_DENIED during PutObject"), FileNotFoundError("gone"),
                                   OSError(28, "No space left on device")])
def test_a_refusal_is_final(error: OSError) -> None:
    flaky = Flaky(1, error)
    with pytest.raises(OSError, match=r"ACCESS|gone|space"):
        flaky.patience(120)(flaky)
    assert (flaky.asked, flaky.said) == (1, [])


# ---- copies


def test_a_copy_has_records_alone_and_follows_its_store(there: Path) -> None:
    for name in ("sweep.json", "sweep.yaml", "trials/t0001/metrics.jsonl", "trials/t0001/samples/epoch-1.npz",
                 "trials/t0001/checkpoints/best.safetensors", "trials/t0001/checkpoints/last.pt",
                 "journal-000000000001-000000000001-000001-0123abcd.jsonl", "lease-000001-0123abcd.json",
                 "requests/1.json", "trials/t0002/run.json"):
        put(there, name, name)
    copy = copies.at_hand(there.as_uri())
    names = {file.relative_to(copy).as_posix() for file in copy.rglob("*") if file.is_file()}
    assert names == {".store", "sweep.json", "sweep.yaml", "trials/t0001/metrics.jsonl",
                     "trials/t0001/samples/epoch-1.npz", "trials/t0002/run.json"}
    assert copy.parent.parent.parent.stat().st_mode & 0o077 == 0, "readable by its user alone"
    (there / "trials/t0002/run.json").unlink()
    put(there, "trials/t0001/metrics.jsonl", "longer than before", 4000)
    assert copies.at_hand(there.as_uri()) == copy
    assert not (copy / "trials/t0002/run.json").exists()
    assert (copy / "trials/t0001/metrics.jsonl").read_text() == "longer than before"
    copies.bring_weights(copy / "trials/t0001")
    assert (copy / "trials/t0001/checkpoints/best.safetensors").exists()
    assert not (copy / "trials/t0001/checkpoints/last.pt").exists()


@pytest.mark.parametrize(("seconds", "fetched"), [(5000, False), (60, True)])
def test_what_may_have_changed_within_a_tick_of_the_stores_clock_is_fetched_again(
    there: Path, seconds: float, fetched: bool
) -> None:
    put(there, "run.json", "first")
    object_ = put(there, "metrics.jsonl", "first", seconds)
    copy = copies.at_hand(there.as_uri()) / "metrics.jsonl"
    when = object_.stat().st_mtime_ns
    object_.write_text("other")
    os.utime(object_, ns=(when, when))
    copies.at_hand(there.as_uri())
    assert (copy.read_text() == "other") is fetched


def test_a_copy_knows_where_it_comes_from(there: Path, tmp_path: Path) -> None:
    put(there, "sweep.json", "{}")
    copy = copies.at_hand(there.as_uri())
    assert copies.address(copy) == there.as_uri()
    assert copies.where(copy / "confirm.json") == f"{there.as_uri()}/confirm.json"
    assert copies.where(tmp_path / "runs") == str(tmp_path / "runs")
    (tmp_path / ".store").write_text("s3://b/p\n")
    assert copies.address(tmp_path) is None, "nothing is sent where somebody's folder says so"
    (copy / ".store").write_text("s3://b/p?endpoint_override=127.0.0.1:9&scheme=http\n")
    with pytest.raises(BadInput, match=r"\.store: got 's3://b/p.*names a server; name the bucket alone"):
        copies.of(copy)


@pytest.mark.parametrize(("uri", "message"), [
    ("s3://b/p?scheme=http", "--storage: got 's3://b/p.scheme=http', which names a server; name the bucket alone and "
                             "the server in AWS_ENDPOINT_URL, or set LAM_JOURNALS="),
    ("s3://AKIA:hunter2@b/p", "--storage: holds a credential"),
    ("s3://b/../p", "--storage: got 's3://b/../p'; leave '..' out"),
    ("ftp://b/p", "--storage: got 'ftp://b/p', which no store has; it begins with one of s3, gs"),
])
def test_a_storage_that_cannot_be_is_refused_before_it_is_asked(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        folders.sweep_folder(load(spec(tmp_path, **PLAIN)), uri)
    assert "hunter2" not in str(refused.value)


def test_objects_that_would_leave_the_copy_are_refused(tmp_path: Path) -> None:
    for name in ("trials/../../../x", "/etc/passwd", "a\0b"):
        with pytest.raises(BadInput, match="would lie outside of its copy"):
            copies.inside(tmp_path, name)


def test_what_is_no_sweep_is_named_with_what_is(there: Path) -> None:
    put(there, "sweep.json", "{}")
    with pytest.raises(BadInput, match=r"/store: holds neither a sweep .*; name one of those inside it: demo"):
        copies.at_hand(there.parent.as_uri())


def test_a_store_that_refuses_is_named(s3_server: str) -> None:
    with pytest.raises(BadInput, match="s3://nobody/p:storage: there is no 'nobody'; create the bucket, or correct"):
        Store("s3://nobody/p")
    folder = copies.begun(f"{s3_server}/refused")
    (folder / "confirm.json").write_text("{}")
    (folder / copies.ORIGIN).write_text("file:///proc/x\n")
    with pytest.raises(EnvironmentFailed, match=r"file:///proc/x: the store refused .*may do there"):
        copies.publish(folder, "confirm.json")


# ---- the driver's side


def test_a_sweep_on_a_store_is_known_from_there_alone(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = load(spec(tmp_path, storage=s3, **PLAIN))
    folder = folders.sweep_folder(sweep)
    folders.write_identity(sweep, folder, "fake-data")
    assert sweep.home(folder) == journals.home(folder) == f"{s3}/demo"
    assert folders.resume_command(folder) == f"lam sweep launch {s3}/demo/sweep.yaml --storage {s3}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    again = folders.sweep_folder(sweep)
    assert again != folder
    folders.check_same(sweep, again)
    assert (again / "sweep.json").read_bytes() == (folder / "sweep.json").read_bytes()
    Store(f"{s3}/demo").delete("sweep.json")
    copies.refresh(again)
    assert not (again / "sweep.json").exists(), "the store is the truth"


def test_what_a_person_asks_on_another_machine_reaches_the_driver(s3: str, tmp_path: Path) -> None:
    folder = copies.begun(f"{s3}/demo")
    files = [f"requests/{number}.json" for number in (1, 2)]
    (folder / "requests").mkdir()
    (folder / files[0]).write_text('{"ask": "stop", "trial": "t0001", "because": "it is mine"}')
    (folder / files[1]).write_text("{")
    copies.publish(folder, *files)
    store = Store(f"{s3}/demo")
    assert [asked.because for asked in requests.waiting(tmp_path, store)] == ["it is mine"]
    assert list(requests.waiting(tmp_path, store)) == []


# ---- the worker's side


def trained(run: RunFolder, epochs: range) -> None:
    """As training does: the record, then the checkpoint that covers it."""
    if not run.exists():
        run.start({"num_epochs": 3}, {"run_id": "t0001", "state": "running"})
    for epoch in epochs:
        run.append({"epoch": epoch})
        (run.checkpoints / LAST_STATE).write_text(f"epoch {epoch}")


def test_a_trial_goes_on_elsewhere_from_what_was_published(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = runs.Published(f"{s3}/demo", "trials/t0001")
    here.fetch()
    trained(RunFolder(here.folder), range(1, 3))
    here.publish()
    trained(RunFolder(here.folder), range(3, 4))  # and the machine is gone
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    elsewhere = runs.Published(f"{s3}/demo", "trials/t0001")
    (elsewhere.folder / "samples").mkdir(parents=True)
    (elsewhere.folder / "samples" / "left.npz").touch()
    elsewhere.fetch()
    run = RunFolder(elsewhere.folder)
    assert [record["epoch"] for record in run.metrics()] == [1, 2]
    assert (run.checkpoints / LAST_STATE).read_text() == "epoch 2"
    assert not (elsewhere.folder / "samples").exists(), "what is left of an earlier try is not the run's"
    (run.checkpoints / LAST_STATE).unlink()
    run.update_identity(state="finished")
    elsewhere.publish()
    elsewhere.close()
    assert list(elsewhere.folder.iterdir()) == []
    store = Store(f"{s3}/demo")
    assert sorted(store.listed("trials")) == [f"trials/t0001/{name}" for name in (
        "config.yaml", "metrics.jsonl", "run.json")]
    known = runs.of_sweep(tmp_path, store).document("t0001")
    assert known is not None
    assert known.state == "finished"


def test_a_kill_while_publishing_leaves_a_checkpoint_that_its_records_cover(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk: a record may be beyond its checkpoint, never the other way round."""
    worker = runs.Published(there.as_uri(), "trials/t0001")
    worker.fetch()
    sent: list[str] = []
    real = Store.send

    def send(store: Store, file: Path, name: str) -> None:
        real(store, file, name)
        sent.append(name.rpartition("/")[2])

    monkeypatch.setattr(Store, "send", send)
    for epoch in (1, 2):
        trained(RunFolder(worker.folder), range(epoch, epoch + 1))
        worker.publish()
    assert sent == ["config.yaml", "run.json", "metrics.jsonl", LAST_STATE, "metrics.jsonl", LAST_STATE]


@pytest.mark.parametrize("for_good", [True, False])
def test_a_stop_is_told_to_the_store_and_no_worker_takes_it_back(there: Path, for_good: bool, tmp_path: Path) -> None:
    worker = runs.Published(there.as_uri(), "trials/t0001")
    worker.fetch()
    trained(RunFolder(worker.folder), range(1, 2))
    worker.publish()
    driver = runs.of_sweep(tmp_path, Store(there.as_uri()))
    driver.stop("t0001", "the worst of four", for_good)
    driver.stop("t0009", "never began", for_good)
    assert (there / "trials/t0001/checkpoints" / LAST_STATE).exists() is not for_good
    RunFolder(worker.folder).update_identity(state="finished")
    worker.publish()
    known = RunFolder(there / "trials/t0001").document()
    assert (known.state, known.reason) == ("stopped", "the worst of four")


def test_places_below_and_above_an_address() -> None:
    assert addresses.below("s3://b/p?region=x", "t/1") == "s3://b/p/t/1?region=x"
    assert addresses.above("s3://b/p/demo?region=x") == ("s3://b/p?region=x", "demo")
    assert not addresses.is_one("runs/demo")
    assert not addresses.is_one("sqlite:///x.db")
