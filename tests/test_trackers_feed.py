"""Trackers beside a run: order, patience, and that none can hurt it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tracked import CANARY, config

from lam import config as config_module
from lam.config import of_run
from lam.training.loop import train
from record.errors import BadInput
from record.run import RunFolder
from record.tracking import feed
from record.tracking.feed import Feed

# mlflow's own dependencies warn about one another
pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_a_history_longer_than_the_queue_is_delivered_whole() -> None:
    opened = threading.Event()
    sink = Fake(hang=opened)
    fed = Feed(sink, capacity=10, history=range(50))
    for number in range(50, 60):
        fed.put(number)
    opened.set()
    feed.close([fed], "finished")
    assert sink.got == list(range(60))


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
    assert time.perf_counter() - begin < 0.5, "the sink takes that long for its first item"
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
    feed.close([Feed(sink), Feed(other)], "finished", seconds=1.5)
    assert 1.5 <= time.monotonic() - begin < 3.0, "together, not one after the other"
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
    assert of_run(RunFolder(tmp_path)).tracking.wandb == "offline"


def test_a_trial_leaves_mlflow_to_its_sweep() -> None:
    trial = config_module.TrackingConfig(wandb="offline", mlflow="sqlite:///x.db").for_trial("vq")
    assert (trial.wandb, trial.mlflow, trial.group) == ("offline", None, "vq")
