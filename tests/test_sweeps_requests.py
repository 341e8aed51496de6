"""What a person asks of a sweep: a trial that ends, a config that is tried. With a driver at work, and without."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import fake_training
import pytest
from small_sweep import make_sweep
from typer.testing import CliRunner

from lam import cli
from record.errors import BadInput
from record.journal.events import SweepStarted
from sweeps.journal import folders, requests, stores
from sweeps.journal.journal import Journal, read
from sweeps.journal.requests import Request
from sweeps.journal.state import SweepState, replay
from sweeps.spec.spec import Sweep
from sweeps.views import summary
from sweeps.workers.driver import HEED_SECONDS, SweepDriver
from sweeps.workers.engine import Job

SPACE = {"weight_decay": {"uniform": [0.0, 1.0]}, "quantizer": {"choice": ["ema", "vq"]},
         "ema_decay": {"uniform": [0.5, 0.9], "when": {"quantizer": "ema"}}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


Working = tuple[SweepDriver, Clock]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    made = make_sweep(tmp_path / "asked", base={"data_dir": "nowhere", "num_epochs": 3}, budget={"trials": 2},
                      search="random", scheduler="none", space=SPACE)
    folder = tmp_path / "demo"
    folder.mkdir()
    folders.write_identity(made, folder, "none")
    return made


@pytest.fixture
def at_work(sweep: Sweep, tmp_path: Path) -> Iterator[Working]:
    """A driver that holds the sweep."""
    folder, clock = tmp_path / "demo", Clock()
    with stores.hold(folder, folder) as store, contextlib.closing(Journal(folder, store)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        driver = SweepDriver(sweep, journal, "x:y", 1, lambda event: None, lambda: False, clock)
        driver.settle()
        yield driver, clock


def run(driver: SweepDriver, epochs: int = 3) -> Job:
    """Train the next job for some epochs."""
    job = driver.next()
    assert isinstance(job, Job)
    driver.started(job.id)
    config = driver.sweep.workload.read(job.config, "the test")
    for epoch in range(job.after + 1, job.after + epochs + 1):
        if not driver.record(job.id, fake_training.make_record(config, epoch)):
            driver.left(job.id, lost=False)
            break
    return job


def lam(*words: str) -> str:
    done = CliRunner().invoke(cli.build(), ["sweep", *words], catch_exceptions=False)
    assert done.exit_code == 0, done
    return done.output


def state_of(folder: Path) -> SweepState:
    return replay(read(folder))


def test_a_running_trial_ends_after_its_epoch_with_the_reason(at_work: Working, tmp_path: Path) -> None:
    driver, clock = at_work
    job = run(driver, 1)
    assert "asked; the driver that is at work takes it up" in lam(
        "stop", str(tmp_path / "demo"), job.id, "--because", "the GPU is needed")
    clock.now += HEED_SECONDS
    assert not driver.stopping()
    trial = driver.journal.state.trials[job.id]
    assert (trial.status, trial.rule, trial.epoch) == ("stopped", "person", 1)
    config = driver.sweep.workload.read(job.config, "the test")
    assert not driver.record(job.id, fake_training.make_record(config, 2)), "its worker is told"
    driver.left(job.id, lost=False)
    run(driver)
    assert driver.next() == "finished"
    assert summary.explain(driver.sweep, driver.journal.state, job.id)[0].endswith(
        "stopped at epoch 1: a person stopped it: the GPU is needed")
    assert list((tmp_path / "demo" / requests.FOLDER).iterdir()) == []


def test_a_config_of_ones_own_is_trained_beside_the_budget(at_work: Working, tmp_path: Path) -> None:
    driver, _ = at_work
    first, second = run(driver), run(driver)
    assert first.id != second.id
    lam("enqueue", str(tmp_path / "demo"), "--from", first.id, "--set", "weight_decay=0.25", "--because", "a hunch")
    third = run(driver)
    assert third.config["weight_decay"] == 0.25
    trial = driver.journal.state.trials[third.id]
    others = {name: value for name, value in trial.params.items() if name != "weight_decay"}
    assert others.items() <= driver.journal.state.trials[first.id].params.items()
    assert driver.next() == "finished"
    told = [event for event in driver.journal.store.read() if event.event == "suggested"][-1]
    assert told.reason is not None
    assert (told.reason.rule, told.reason.sentence) == (
        "person", f"a person asked for {first.id} with weight_decay=0.25: a hunch")


def test_without_a_driver_the_command_writes_it_itself(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with stores.hold(folder, folder) as store, contextlib.closing(Journal(folder, store)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        driver = SweepDriver(sweep, journal, "x:y", 1, lambda event: None, lambda: False)
        driver.settle()
        first = run(driver, 1)
        driver.release()
    assert "t0001 stopped after 1 epochs: a person stopped it" in lam("stop", str(folder), first.id)
    assert "no driver is at work" in lam("enqueue", str(folder), "--from", "t0001")
    state = state_of(folder)
    assert (state.trials["t0001"].status, state.trials["t0002"].status) == ("stopped", "suggested")
    assert state.trials["t0002"].params == state.trials["t0001"].params


@pytest.mark.parametrize(("request_", "said"), [
    (Request(ask="stop", trial="t0009"), "TRIAL: got 't0009', which is no trial of this sweep"),
    (Request(ask="stop", trial="t0001"), "TRIAL: t0001 has ended: completed"),
    (Request(ask="enqueue", trial="t0001", change={"decay": 1}),
     "--set: got 'decay', which is no knob of this sweep; its knobs are weight_decay, quantizer, ema_decay"),
    (Request(ask="enqueue", trial="t0001", change={"weight_decay": 2.0}),
     "--set: got weight_decay=2.0, which the space does not hold"),
])
def test_what_cannot_be_done_is_refused(at_work: Working, request_: Request, said: str) -> None:
    driver, _ = at_work
    run(driver)
    with pytest.raises(BadInput) as refused:
        requests.event_of(request_, driver.sweep, driver.journal.state)
    assert str(refused.value).startswith(said)


def test_knobs_that_a_change_makes_inactive_are_left_out(at_work: Working) -> None:
    driver, _ = at_work
    state, first = driver.journal.state, run(driver)

    def enqueued(source: str, **change: object) -> dict[str, object]:
        event = requests.event_of(Request(ask="enqueue", trial=source, change=change), driver.sweep, state)
        return dict(driver.journal.append(event).params)

    assert enqueued(first.id, quantizer="ema", ema_decay=0.6)["ema_decay"] == 0.6
    assert "ema_decay" not in enqueued("t0002", quantizer="vq")
    with pytest.raises(BadInput, match="ema_decay becomes active and has no value; add --set ema_decay=VALUE"):
        enqueued("t0003", quantizer="ema")


def test_a_file_that_is_no_request_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / requests.FOLDER).mkdir()
    (tmp_path / requests.FOLDER / "1.json").write_text('{"ask": "rm -rf"}')
    assert list(requests.waiting(tmp_path)) == []
    assert list((tmp_path / requests.FOLDER).iterdir()) == []


def test_stop_says_what_it_stops(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got neither a trial nor --address; 'lam sweep stop DIR TRIAL' ends a trial"):
        lam("stop", str(tmp_path))
