"""Trackers: what W&B and MLflow hold afterwards, and that neither can hurt a run."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lam import config as config_module
from lam import files, trackers, yamlio
from lam.config import RunConfig
from lam.errors import BadInput, EnvironmentFailed
from lam.metrics import TFLOPS_VIEWS
from lam.records import RunFolder
from lam.trackers import feed, sweep, wandb_sink
from lam.trackers.feed import Feed
from lam.training import train

# mlflow's own dependencies warn about one another
pytestmark = pytest.mark.filterwarnings("ignore")

TINY = RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=16, codebook_dim=4,
                 sequence_length=4, batch_size=8, steps_per_epoch=3, num_epochs=3, threads=1, device="cpu",
                 sample_count=0)
CANARY = "canary-5d1f0c"


def config(data: Path, **tracking: Any) -> RunConfig:
    return TINY.replace(data_dir=str(data), tracking=tracking)


# ---- the feed


class Fake:
    """A sink that does what a test tells it to."""

    name = "Fake"

    def __init__(self, delay: float = 0.0, error: str | None = None, hang: threading.Event | None = None) -> None:
        self.delay, self.error, self.hang = delay, error, hang
        self.got: list[Any] = []
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")
        if self.hang:
            self.hang.wait()

    def send(self, items: list[Any]) -> None:
        time.sleep(self.delay)
        if self.error:
            raise OSError(self.error)
        self.got += items

    def close(self, ending: str) -> None:
        self.calls.append(f"close {ending}")

    def later(self) -> str:
        return "lam sync here"

    def abandon(self) -> None:
        self.calls.append("abandon")


def test_a_feed_delivers_everything_in_order() -> None:
    sink = Fake(delay=0.01)
    fed = Feed(sink)
    for number in range(200):
        fed.put(number)
    feed.close([fed], "finished")
    assert sink.got == list(range(200))
    assert sink.calls == ["open", "close finished"]


def test_a_slow_sink_costs_the_work_nothing() -> None:
    fed = Feed(Fake(delay=0.5))
    begin = time.perf_counter()
    for number in range(1000):
        fed.put(number)
    assert time.perf_counter() - begin < 0.1
    feed.close([fed], "finished")


def test_a_failing_sink_is_one_warning_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    fed = Feed(Fake(error="database is locked"))
    for number in range(5):
        fed.put(number)
        time.sleep(0.01)
    feed.close([fed], "finished")
    assert [record.getMessage() for record in caplog.records] == [
        "Fake failed (OSError: database is locked); the records are complete without it; "
        "send them later with: lam sync here"]


def test_a_hanging_sink_is_given_up_in_time(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    sink, other = Fake(hang=release), Fake(hang=release)
    begin = time.monotonic()
    feed.close([Feed(sink), Feed(other)], "finished", seconds=0.3)
    assert 0.3 <= time.monotonic() - begin < 0.6
    assert sink.calls == other.calls == ["open", "abandon"]
    assert "Fake has not taken everything in time" in caplog.text
    release.set()


def test_what_does_not_fit_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    sink = Fake(hang=release)
    fed = Feed(sink, capacity=10)
    for number in range(15):
        fed.put(number)
    release.set()
    feed.close([fed], "finished")
    assert sink.got == list(range(10))
    assert "5 records were left out" in caplog.text


# ---- the config


def test_a_password_in_the_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput, match="MLFLOW_TRACKING_PASSWORD") as caught:
        config_module.from_mapping({"tracking": {"mlflow": f"http://me:{CANARY}@host:5000"}}, source="run.yaml")
    assert CANARY not in str(caught.value)


def test_trackers_change_neither_the_fingerprint_nor_the_right_to_resume(tiny_data: Path, tmp_path: Path) -> None:
    plain, tracked = config(tiny_data), config(tiny_data, wandb="offline")
    assert plain.fingerprint() == tracked.fingerprint()
    epochs = train(plain, tmp_path)
    next(epochs)
    epochs.close()
    assert [record["epoch"] for record in train(tracked, tmp_path)] == [2, 3]
    assert RunFolder(tmp_path).config().tracking.wandb == "offline"


def test_a_trial_leaves_mlflow_to_its_sweep() -> None:
    trial = config_module.TrackingConfig(wandb="offline", mlflow="sqlite:///x.db").for_trial("vq")
    assert (trial.wandb, trial.mlflow, trial.group) == ("offline", None, "vq")


# ---- W&B


def wandb_records(folder: Path, rows: int = 4) -> list[Any]:
    """The records of a run folder's .wandb files, as soon as they hold so many rows.

    W&B's service process writes its last lines a moment after the run has finished.
    """
    deadline = time.monotonic() + 20
    while len(history(found := _read_wandb_files(folder))) < rows and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _read_wandb_files(folder: Path) -> list[Any]:
    """Oldest first: protocol buffers in LevelDB's log framing."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, place, part = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            room = 32768 - place % 32768
            if room < 7:
                place += room
                continue
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            part += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                found.append(Record.FromString(part))
                part = b""
    return found


def history(records: list[Any]) -> list[dict[str, Any]]:
    """Logged rows; nested keys are joined with '>'."""
    return [{">".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for record in records if record.WhichOneof("record_type") == "history"]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary where secrets live."""
    monkeypatch.setenv("WANDB_API_KEY", f"{CANARY}{'0' * 40}")
    monkeypatch.setenv("DATABASE_PASSWORD", CANARY)
    monkeypatch.setattr(sys, "argv", [*sys.argv, f"--token={CANARY}"])


def test_wandb_files_hold_the_run(tiny_data: Path, tmp_path: Path, secrets: None) -> None:
    records = list(train(config(tiny_data, wandb="offline", wandb_project="p", group="vq"), tmp_path / "t0001"))
    written = wandb_records(tmp_path / "t0001")
    rows = history(written)
    first, last = rows[1], rows[-1]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["data_stats/channel_00_std"] == pytest.approx(
        RunFolder(tmp_path / "t0001").identity()["data_stats"]["data_stats/channel_00_std"])
    assert last["val/mse_loss"] == pytest.approx(records[-1]["val/mse_loss"], rel=1e-12)
    for view, key in TFLOPS_VIEWS.items():
        if key in last:
            assert last[view] == last[key]
    assert first["tflops/x_axis"] == pytest.approx(records[0]["total_tflops"])
    defined = {key for key, value in records[0].items() if isinstance(value, (int, float)) and value == value}
    assert defined <= set(first)
    assert first["val/codebook_histogram>_type"] == "histogram"
    assert first["val/codebook_histogram>values"] == records[0]["val/codebook_histogram"]
    metrics = {record.metric.glob_name or record.metric.name: record.metric.step_metric for record in written
               if record.WhichOneof("record_type") == "metric"}
    assert metrics["tflops/*"] == "tflops/x_axis"
    run = next(record.run for record in written if record.WhichOneof("record_type") == "run")
    assert (run.project, run.run_group, run.display_name) == ("p", "vq", "t0001")
    sent = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (sent["embed_dim"], sent["num_train_trials"]) == (16, 8)
    assert sent["num_params"] > 0
    assert "tracking" not in sent


def test_no_secret_reaches_a_file(tiny_data: Path, tmp_path: Path, secrets: None) -> None:
    list(train(config(tiny_data, wandb="offline", mlflow=f"sqlite:///{tmp_path}/mlflow.db"), tmp_path / "run"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".wandb", ".db", ".jsonl", ".yaml"}
    assert not [path for path in written if CANARY.encode() in path.read_bytes()]


def test_a_resumed_run_is_the_same_wandb_run(tiny_data: Path, tmp_path: Path) -> None:
    epochs = train(config(tiny_data, wandb="offline"), tmp_path)
    next(epochs)
    epochs.close()
    list(train(config(tiny_data, wandb="offline"), tmp_path))
    written = wandb_records(tmp_path)
    assert len({record.run.run_id for record in written if record.WhichOneof("record_type") == "run"}) == 1
    assert [row["_step"] for row in history(written)] == [0, 1, 2, 3]


def test_online_without_a_key_is_offline_and_says_so(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(wandb_sink, "has_key", lambda: False)
    monkeypatch.setattr("lam.trackers.run.has_key", lambda: False)
    list(train(config(tiny_data, wandb="online"), tmp_path / "run"))
    assert len(history(wandb_records(tmp_path / "run"))) == 4
    assert "W&B writes files only: there is no API key" in caplog.text


def test_wandb_out_of_reach_is_one_warning_and_a_finished_run(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_sink, "CONNECT_SECONDS", 2.0)
    assert len(list(train(config(tiny_data, wandb="online"), tmp_path))) == 3
    assert RunFolder(tmp_path).identity()["state"] == "finished"
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("lam")]
    assert len(warnings) == 1
    assert warnings[0].startswith("W&B failed (CommError")
    assert warnings[0].endswith(f"lam sync {tmp_path}")


HANGING = """
import sys, time
import psutil
from lam.config import load
from lam.trackers import feed
from lam.training import train
feed.CLOSE_SECONDS = 2.0
for record in train(load(sys.argv[1]), sys.argv[2]):
    while record["epoch"] == 1 and not (found := [p for p in psutil.Process().children() if "wandb" in p.name()]):
        time.sleep(0.05)
    if record["epoch"] == 2:
        time.sleep(float(sys.argv[3]))
        found[0].suspend()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 1.5])  # while it starts, while it works
def test_a_wandb_that_hangs_does_not_keep_the_process(tiny_data: Path, tmp_path: Path, seconds: float) -> None:
    yaml = files.write_text(tmp_path / "run.yaml", yamlio.dump_mapping(config(tiny_data, wandb="offline").mapping()))
    begin = time.monotonic()
    # without this it would use the service process of this one
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    done = subprocess.run([sys.executable, "-c", HANGING, yaml, tmp_path / "run", str(seconds)], env=environment,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "W&B" in line]
    assert len(lines) == 1
    assert lines[0].startswith("W&B has not taken everything in time; the records are complete without it; send them ")
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begin < 30
    assert RunFolder(tmp_path / "run").identity()["state"] == "finished"


# ---- MLflow


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str, experiment: str = "lam") -> list[Any]:
    found = client(uri)
    return found.search_runs([found.get_experiment_by_name(experiment).experiment_id])


def points(uri: str, run: Any, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(uri).get_metric_history(run.info.run_id, key)]


def check_run(uri: str, run: Any, records: list[dict[str, Any]]) -> None:
    """The MLflow run holds exactly what the records say."""
    for key in ("val/mse_loss", "train/loss", "total_tflops"):
        assert points(uri, run, key) == [(record["epoch"], pytest.approx(record[key])) for record in records]
    assert points(uri, run, "tflops/x_axis") == points(uri, run, "total_tflops")
    assert points(uri, run, "tflops/val_recon_mse") == points(uri, run, "val/mse_loss")
    bins = [points(uri, run, f"val/codebook_histogram/{place:02d}") for place in range(12)]
    assert [[value for _, value in each] for each in bins] == [
        [record["val/codebook_histogram"][place] for record in records] for place in range(12)]
    defined = {key for key, value in records[-1].items() if isinstance(value, (int, float)) and value == value}
    assert defined <= set(run.data.metrics)
    assert points(uri, run, "data_stats/normalized_std")[0][0] == 0
    assert run.data.params["embed_dim"] == "16"
    assert run.data.params["health.patience"] == "2"
    assert run.data.params["num_train_trials"] == "8"
    assert run.data.tags["val/dsnr_status"] == records[-1]["val/dsnr_status"]


def test_mlflow_store_holds_the_run_and_a_resume_adds_only_what_is_missing(
    tiny_data: Path, tmp_path: Path, store: str
) -> None:
    tracked = config(tiny_data, mlflow=store)
    epochs = train(tracked, tmp_path / "run")
    next(epochs)
    epochs.close()
    assert [run.info.status for run in runs(store)] == ["KILLED"]
    list(train(tracked, tmp_path / "run"))
    trackers.sync(RunFolder(tmp_path / "run"), tracked.tracking)
    [run] = runs(store)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    check_run(store, run, RunFolder(tmp_path / "run").metrics())


def test_mlflow_out_of_reach_is_one_warning_and_a_finished_run(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(list(train(config(tiny_data, mlflow="http://127.0.0.1:9"), tmp_path))) == 3
    assert RunFolder(tmp_path).identity()["state"] == "finished"
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("lam")]
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow failed (")
    with pytest.raises(EnvironmentFailed, match="MLflow failed"):
        trackers.sync(RunFolder(tmp_path), config_module.TrackingConfig(mlflow="http://127.0.0.1:9"))


def test_sync_without_a_tracker_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    list(train(config(tiny_data), tmp_path))
    with pytest.raises(BadInput, match="no tracker is on; name one with --wandb or --mlflow"):
        trackers.sync(RunFolder(tmp_path), RunFolder(tmp_path).config().tracking)


def sweep_of_two(tiny_data: Path, folder: Path) -> list[dict[str, Any]]:
    """A sweep folder as the driver leaves it, and its journal."""
    files.write_json(folder / "sweep.json", {"name": "vq", "created_at": "2026-01-01", "fingerprint": "abc"})
    events: list[dict[str, Any]] = [{"event": "sweep_started", "name": "vq"}]
    for trial, width in (("t0001", 16), ("t0002", 24)):
        records = list(train(config(tiny_data).replace(embed_dim=width, head_dim=8), folder / "trials" / trial))
        events += [{"event": "suggested", "trial": trial, "params": {"embed_dim": width}},
                   {"event": "started", "trial": trial}]
        events += [{"event": "result", "trial": trial, "epoch": record["epoch"]} for record in records]
    events += [{"event": "completed", "trial": "t0001", "epoch": 3, "objective": 0.5},
               {"event": "stopped", "trial": "t0002", "epoch": 3, "reason": {"rule": "asha", "sentence": "rung 1"}},
               {"event": "sweep_finished", "reason": "budget spent: trials"}]
    return events


def check_sweep(uri: str, folder: Path) -> None:
    by_name = {run.info.run_name: run for run in runs(uri)}
    assert set(by_name) == {"vq", "t0001", "t0002"}
    parent = by_name["vq"]
    assert parent.info.status == "FINISHED"
    assert points(uri, parent, "objective") == [(1, 0.5)]
    for name, status in (("t0001", "FINISHED"), ("t0002", "KILLED")):
        child = by_name[name]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == status
        assert child.data.params["space.embed_dim"] == child.data.params["embed_dim"]
        assert points(uri, child, "val/mse_loss") == [
            (record["epoch"], pytest.approx(record["val/mse_loss"])) for record in
            RunFolder(folder / "trials" / name).metrics()]
    assert by_name["t0002"].data.tags["lam.reason"] == "rung 1"


def test_a_sweep_that_lost_mlflow_halfway_is_made_whole_from_its_journal(
    tiny_data: Path, tmp_path: Path, store: str
) -> None:
    events = sweep_of_two(tiny_data, tmp_path / "vq")
    tracking = config_module.TrackingConfig(mlflow=store)
    first = trackers.SweepTracker(tmp_path / "vq", tracking)
    for event in events[:5]:
        first.event(event)
    first.close()
    second = trackers.SweepTracker(tmp_path / "vq", tracking, history=events[:-1])
    second.event(events[-1])
    second.close()
    assert len(sweep.latest(events)) == 6
    check_sweep(store, tmp_path / "vq")


def test_a_sweep_without_mlflow_has_nothing_to_do(tmp_path: Path) -> None:
    tracker = trackers.SweepTracker(tmp_path, config_module.TrackingConfig())
    tracker.event({"event": "started", "trial": "t0001"})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on loopback, with a store of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
               "--default-artifact-root", str(tmp_path / "files")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(tmp_path / "server.log", "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while not answers(f"{url}/health"):
        assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        time.sleep(0.2)
    yield url
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_a_real_mlflow_server_holds_a_run_and_a_sweep(tiny_data: Path, tmp_path: Path, server: str) -> None:
    records = list(train(config(tiny_data, mlflow=server, mlflow_experiment="single"), tmp_path / "run"))
    [run] = runs(server, "single")
    assert run.info.status == "FINISHED"
    check_run(server, run, records)
    events = sweep_of_two(tiny_data, tmp_path / "vq")
    tracker = trackers.SweepTracker(tmp_path / "vq", config_module.TrackingConfig(mlflow=server))
    for event in events:
        tracker.event(event)
    tracker.close()
    check_sweep(server, tmp_path / "vq")


DRIVER = """
import sys
sys.path.insert(0, sys.argv[1])
import fake_training
from sweeps.launching import Options, launch
launch(sys.argv[2], options=Options(train="fake_training:train", prepare=fake_training.prepare, quiet=True))
"""


@pytest.mark.long
def test_a_launched_sweep_is_a_parent_with_a_child_for_each_trial(tmp_path: Path, store: str) -> None:
    spec = files.write_text(tmp_path / "sweep.yaml", yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere", "tracking": {"mlflow": store}},
        "storage": str(tmp_path / "runs"), "space": {"weight_decay": {"uniform": [0.0, 0.8]}},
        "scheduler": {"asha": {"max_epochs": 3}}, "budget": {"trials": 3}, "concurrency": 2}))
    done = subprocess.run([sys.executable, "-c", DRIVER, str(Path(__file__).parent), spec], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    by_name = {run.info.run_name: run for run in runs(store)}
    assert set(by_name) == {"demo", "t0001", "t0002", "t0003"}
    assert by_name["demo"].info.status == "FINISHED"
    for trial in ("t0001", "t0002", "t0003"):
        child = by_name[trial]
        folder = RunFolder(tmp_path / "runs" / "demo" / "trials" / trial)
        assert child.data.tags["mlflow.parentRunId"] == by_name["demo"].info.run_id
        assert child.info.status in ("FINISHED", "KILLED")
        assert points(store, child, "val/mse_loss") == [
            (record["epoch"], pytest.approx(record["val/mse_loss"])) for record in folder.metrics()]
        assert folder.config().tracking.mlflow is None
