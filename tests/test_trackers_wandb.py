"""What W&B's files hold afterwards."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tracked import CANARY, config

from lam.metrics import TFLOPS_VIEWS
from lam.trackers import wandb_sink
from lam.training.loop import train
from record import files, yamlio
from record.run import RunFolder
from record.tracking.view import RunView

# mlflow's own dependencies warn about one another
pytestmark = pytest.mark.filterwarnings("ignore")


def wandb_records(folder: Path, rows: int = 4) -> list[Any]:
    """The records of a run folder's .wandb files, as soon as they hold so many rows.

    W&B's service process writes its last lines a moment after the run has finished.
    """
    deadline = time.monotonic() + 180
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


TRAINING = """
import sys
from lam.config import load
from lam.training.loop import train
list(train(load(sys.argv[1]), sys.argv[2]))
"""


def own_service() -> dict[str, str]:
    """The environment of a process that starts a W&B service of its own, and does not use this one's."""
    return {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}


@pytest.mark.nightly
def test_no_secret_reaches_a_file(tiny_data: Path, tmp_path: Path, secrets: None) -> None:
    yaml = files.write_text(tmp_path / "run.yaml", yamlio.dump_mapping(
        config(tiny_data, wandb="offline", mlflow=f"sqlite:///{tmp_path}/mlflow.db").mapping()))
    subprocess.run([sys.executable, "-c", TRAINING, yaml, tmp_path / "run", f"--token={CANARY}"], check=True,
                   env=own_service())
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


@pytest.mark.parametrize(("ending", "code"), [("finished", 0), ("stopped", 0), ("interrupted", 1), ("failed", 1)])
def test_a_run_that_was_stopped_is_no_failure(ending: str, code: int, tiny_data: Path, tmp_path: Path) -> None:
    class Open(wandb_sink.WandbSink):
        def open(self) -> None:
            self._run = SimpleNamespace(finish=lambda exit_code: codes.append(exit_code))

    codes: list[int] = []
    sink = Open(config(tiny_data).tracking, RunView("k", "n", tmp_path, {}, {}, fresh=True))
    sink.open()
    sink.close(ending)
    assert codes == [code]


def test_online_without_a_key_is_offline_and_says_so(tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # which holds no .netrc
    list(train(config(tiny_data, wandb="online"), tmp_path / "run"))
    assert len(history(wandb_records(tmp_path / "run"))) == 4
    assert "W&B writes files only: there is no API key" in caplog.text


def test_wandb_out_of_reach_is_one_warning_and_a_finished_run(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    assert len(list(train(config(tiny_data, wandb="online"), tmp_path))) == 3
    assert RunFolder(tmp_path).identity()["state"] == "finished"
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("record")]
    assert len(warnings) == 1
    assert warnings[0].startswith("W&B failed (CommError")
    assert warnings[0].endswith(f"lam sync {tmp_path}")


HANGING = """
import sys, time
import psutil
from lam.config import load
from record.tracking import feed
from lam.training.loop import train
feed.CLOSE_SECONDS = 2.0
for record in train(load(sys.argv[1]), sys.argv[2]):
    while record["epoch"] == 1 and not (found := [p for p in psutil.Process().children() if "wandb" in p.name()]):
        time.sleep(0.05)
    if record["epoch"] == 2:
        time.sleep(float(sys.argv[3]))
        found[0].suspend()
"""


@pytest.mark.nightly
@pytest.mark.parametrize("seconds", [0, 1.5])  # while it starts, while it works
def test_a_wandb_that_hangs_does_not_keep_the_process(tiny_data: Path, tmp_path: Path, seconds: float) -> None:
    yaml = files.write_text(tmp_path / "run.yaml", yamlio.dump_mapping(config(tiny_data, wandb="offline").mapping()))
    done = subprocess.run([sys.executable, "-c", HANGING, yaml, tmp_path / "run", str(seconds)], env=own_service(),
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "W&B" in line]
    assert len(lines) == 1
    assert lines[0].startswith("W&B has not taken everything in time; the records are complete without it; send them ")
    assert "Traceback" not in done.stderr
    assert RunFolder(tmp_path / "run").identity()["state"] == "finished"
