"""A kill between any two events: the same command ends with the trials of a sweep that nothing interrupted.

The real driver and journal, one trial at a time; a loop stands where Ray does, and a `Kill` where the power goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_training
import pytest

from lam.config import from_mapping
from record import yamlio
from record.errors import BadInput, EnvironmentFailed
from record.journal.events import (
    JournalEvent,
    Paused,
    Reason,
    Result,
    Stopped,
    Suggested,
    SweepFinished,
    SweepResumed,
    SweepStarted,
)
from record.run import RunFolder
from sweeps.commands import launching
from sweeps.journal.journal import Journal, read
from sweeps.journal.state import SweepState, TrialState
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep
from sweeps.views import summary
from sweeps.workers.driver import LATE_SECONDS, SweepDriver
from sweeps.workers.engine import Job


class Kill(Exception):
    """The end of the process."""


class Cut(Journal):
    """A journal whose process is killed before its event with number `last` + 1."""

    last: float = float("inf")

    def append(self, event: JournalEvent) -> JournalEvent:
        if self.state.seq >= self.last:
            raise Kill
        return super().append(event)


def make(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere", "num_epochs": 9}, "budget": {"trials": 10}, "search": "random",
        "space": {"weight_decay": {"uniform": [0.0, 0.8]}, "seed": {"choice": [1, 2, 3, 7, 9]}}, "concurrency": 1,
        "scheduler": {"asha": {"max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3}}, **changes}))
    return load(path)


def records(job: Job) -> Iterator[dict[str, Any]]:
    """What a worker sends: later epochs, none after the one that diverged."""
    config = from_mapping(job.config, "job")
    for epoch in range(1, config.num_epochs + 1):
        record = fake_training.make_record(config, epoch)
        if epoch > job.after:
            yield record
        if record["train/loss"] != record["train/loss"]:
            return


def session(sweep: Sweep, folder: Path, last: float = float("inf")) -> SweepState:
    """One session of the driver; a kill ends it without a word."""
    folder.mkdir(exist_ok=True)
    journal = Cut(folder)
    journal.last = last
    with contextlib.suppress(Kill):
        if not launching.is_over(sweep, journal.state):
            play(SweepDriver(sweep, journal, "x:y", 1, lambda event: None, lambda: False), journal)
    journal.close()
    return journal.state


def play(driver: SweepDriver, journal: Journal) -> None:
    journal.append((SweepResumed if journal.state.seq else SweepStarted)(name="demo", pid=1, host="here"))
    driver.settle()
    while isinstance(job := driver.next(), Job):
        driver.started(job.id)
        if all(driver.record(job.id, record) for record in records(job)):
            driver.exhausted(job.id)
        driver.left(job.id, lost=False)
    journal.append(SweepFinished(reason="the end"))


def story(trial: TrialState) -> tuple[Any, ...]:
    rule = trial.rule
    return trial.id, trial.params, trial.status, rule, trial.epoch, trial.seed, trial.repeats


ASHA = {"max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3}
MODES: dict[str, dict[str, Any]] = {
    "asha": {},
    "promote": {"scheduler": {"asha": {**ASHA, "promote": True}}},
    "brackets": {"scheduler": {"asha": {**ASHA, "brackets": 2}}},
    "median": {"scheduler": {"median": {"max_epochs": 9, "grace_epochs": 2, "min_trials": 3}}},
    "tflops": {"scheduler": {"asha": {"max_epochs": 20, "max_tflops": 4, "reduction_factor": 3}}},
    "epochs": {"budget": {"epochs": 28}},
    "seeds": {"seeds": 3, "budget": {"trials": 4}, "space": {"weight_decay": {"uniform": [0.0, 0.8]}}},
    "tpe": {"search": {"tpe": {"n_startup_trials": 2}}, "budget": {"trials": 5}},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_kill_after_any_event_changes_no_trial(mode: str, tmp_path: Path) -> None:
    sweep = make(tmp_path, **{"budget": {"trials": 7}, **MODES[mode]})
    whole = session(sweep, tmp_path / "whole")
    assert whole.unfinished == []
    wanted = [story(trial) for trial in whole.trials.values()]
    for last in range(1, whole.seq):
        folder = tmp_path / f"cut-{last}"
        session(sweep, folder, last)
        resumed = session(sweep, folder)
        assert [story(trial) for trial in resumed.trials.values()] == wanted, f"killed after event {last}"


def test_missing_seeds_are_trained_after_a_kill(tmp_path: Path) -> None:
    sweep = make(tmp_path, **{**MODES["seeds"], "budget": {"trials": 1}, "scheduler": "none"})
    state = session(sweep, tmp_path / "s", last=13)
    assert [trial.status for trial in state.trials.values()] == ["completed"]
    assert not launching.is_over(sweep, state)
    assert len(session(sweep, tmp_path / "s").with_status("completed")) == 3


def test_a_longer_sweep_promotes_what_was_never_promoted(tmp_path: Path) -> None:
    short, longer = (make(tmp_path, **MODES["promote"], budget={"trials": count}) for count in (6, 18))
    state = session(short, tmp_path / "a")
    assert state.with_status("stopped"), "left over, so ended"
    extended, whole = session(longer, tmp_path / "a"), session(longer, tmp_path / "b")
    assert {trial.id: trial.epoch for trial in extended.trials.values()} == {
        trial.id: trial.epoch for trial in whole.trials.values()}


def test_what_only_the_budget_stopped_goes_on_when_there_is_more(tmp_path: Path) -> None:
    short, longer = (make(tmp_path, scheduler="none", space={"weight_decay": {"uniform": [0.0, 0.8]}},
                          budget={"trials": 2, "epochs": epochs}) for epochs in (12, 100))
    assert [trial.epoch for trial in session(short, tmp_path / "a").with_status("stopped")] == [3]
    assert [trial.epoch for trial in session(longer, tmp_path / "a").with_status("completed")] == [9, 9]


def run_of(sweep: Sweep, folder: Path, trial: str) -> RunFolder:
    """The folder of a run under way, with the state that a resume needs."""
    run = RunFolder(folder / "trials" / trial)
    run.start(sweep.base.mapping(), {"state": "running"})
    (run.checkpoints / "last.pt").touch()
    return run


@pytest.mark.parametrize(("mode", "resumable"), [("asha", False), ("promote", True), ("epochs", True)])
def test_a_stopped_trials_run_says_why_and_keeps_a_state_only_where_it_may_go_on(
    mode: str, resumable: bool, tmp_path: Path
) -> None:
    sweep = make(tmp_path, **{**MODES[mode], **({"scheduler": "none"} if mode == "epochs" else {})})
    runs = {f"t{number:04d}": run_of(sweep, tmp_path / "s", f"t{number:04d}") for number in range(1, 11)}
    stopped = [trial for trial in session(sweep, tmp_path / "s").with_status("stopped")
               if trial.rule != "collapse"]
    assert stopped
    for trial in stopped:
        known = runs[trial.id].identity()
        assert (known["state"], known["reason"]) == ("stopped", trial.reason and trial.reason.sentence)
        assert runs[trial.id].can_resume == resumable


def test_a_paused_trials_run_is_left_as_it_is(tmp_path: Path) -> None:
    sweep = make(tmp_path, **MODES["promote"])
    session(sweep, tmp_path / "whole")
    first = next(event for event in read(tmp_path / "whole") if event.event == "paused")
    run = run_of(sweep, tmp_path / "cut", first.trial)
    assert session(sweep, tmp_path / "cut", last=first.seq).trials[first.trial].status == "paused"
    assert run.identity()["state"] == "running"
    assert run.can_resume


def test_what_the_machine_refuses_fails_no_trial(tmp_path: Path) -> None:
    """A disk that is full for a worker: the session ends, the trial comes back."""
    sweep = make(tmp_path)
    journal = Journal(tmp_path / "d")
    journal.folder.mkdir()
    driver = SweepDriver(sweep, journal, "x:y", 1, lambda event: None, lambda: False)
    journal.append(SweepStarted(name="demo", pid=1, host="here"))
    job = driver.next()
    assert isinstance(job, Job)
    driver.started(job.id)
    driver.failed(job.id, {"rule": "environment", "sentence": "[Errno 28] No space left on device"})
    assert driver.stopping()
    driver.left(job.id, lost=False)
    assert journal.state.trials["t0001"].status == "interrupted"
    error = launching.refused(journal.folder, str(driver.refused))
    assert isinstance(error, EnvironmentFailed)
    assert str(error) == (f"{journal.folder}: t0001: [Errno 28] No space left on device; all results so far are kept; "
                          "mend that, the same command then resumes")
    journal.close()
    assert len(session(sweep, tmp_path / "d").with_status("stopped", "completed", "failed")) == 10


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        yield journal


def begun(journal: Journal, clock: Clock | None = None, **changes: Any) -> SweepDriver:
    """A driver before its first trial."""
    return SweepDriver(make(journal.folder, **changes), journal, "x:y", 1, lambda event: None, lambda: False,
                       clock or Clock())


def started(driver: SweepDriver) -> Job:
    job = driver.next()
    assert isinstance(job, Job)
    driver.started(job.id)
    return job


def test_time_that_a_lost_trial_waits_is_not_taken_for_a_hang(journal: Journal) -> None:
    clock = Clock()
    driver = begun(journal, clock, hang_minutes=10)
    job = started(driver)
    driver.left(job.id, lost=True)
    clock.now = 3600.0
    assert isinstance(driver.next(), Job)
    driver.left(job.id, lost=True, error="the node was gone before the worker began")
    assert journal.state.trials[job.id].status == "interrupted"


def test_an_epoch_that_comes_again_is_not_judged_again(journal: Journal) -> None:
    """The first arrivals let the trial through; later and better ones must not end it at an epoch it has behind it."""
    driver = begun(journal)
    job = started(driver)
    config = from_mapping(job.config, "job").replace(seed=1)
    assert driver.record(job.id, fake_training.make_record(config.replace(weight_decay=0.7), 1))
    driver.left(job.id, lost=True)
    for number in range(2, 6):
        journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.1, "seed": 1}))
        journal.append(Result(trial=f"t{number:04d}", epoch=1, objective=0.9, verdict="live", tflops=0.5,
                       step=9))
    assert started(driver).id == job.id
    before = journal.state.seq
    assert driver.record(job.id, fake_training.make_record(config.replace(weight_decay=0.7), 1))
    assert journal.state.seq == before, "nothing is written of it"


def test_a_trial_without_memory_comes_back_once(journal: Journal) -> None:
    driver = begun(journal)
    reason = {"rule": "out_of_memory", "sentence": "training raised OutOfMemoryError: x"}
    for status in ("interrupted", "failed"):
        job = started(driver)
        driver.failed(job.id, reason)
        driver.left(job.id, lost=True, error="ProcessSpent")
        assert journal.state.trials["t0001"].status == status


def test_failures_in_a_row_end_the_session(journal: Journal) -> None:
    """A success in between starts the count again, a divergence neither counts nor does."""
    driver = begun(journal, budget={"trials": 99})
    for number in range(1, 22):
        assert not driver.stopping()
        job = started(driver)
        if number == 9:
            driver.record(job.id, fake_training.make_record(from_mapping(job.config, "job").replace(seed=1), 9))
        elif number == 15:
            driver.record(job.id, fake_training.make_record(from_mapping(job.config, "job").replace(seed=7), 2))
        else:
            driver.failed(job.id, {"rule": "raised", "sentence": "training raised ImportError: no module"})
        driver.left(job.id, lost=True)
        if driver.refused:
            break
    assert number == 20
    assert driver.stopping()
    assert driver.refused == ("10 trials in a row failed and none ended otherwise, the last one t0020: training raised "
                              "ImportError: no module; they stay failed")
    assert driver.next() == "finished"


def test_configs_that_are_all_invalid_end_the_session(journal: Journal) -> None:
    class Broken(Sweep):
        def config(self, params: Any) -> Any:
            raise BadInput("got 3, expected a multiple of 2", source="config")

    sweep = make(journal.folder, budget={"trials": 99})
    driver = SweepDriver(Broken(sweep.spec, sweep.base, sweep.source, sweep.text), journal, "x:y", 1,
                         lambda event: None, lambda: False)
    assert driver.next() == "finished"
    assert len(journal.state.trials) == 10
    assert driver.refused is not None
    assert "the last one t0010: config: got 3, expected a multiple of 2; they stay failed" in driver.refused


def test_a_worker_that_cannot_be_ended_ends_the_session(journal: Journal) -> None:
    """It waits for a disk that is gone, so its own clock cannot end it."""
    clock = Clock()
    driver = begun(journal, clock, hang_minutes=10)
    started(driver)
    clock.now = 20 * 60.0
    assert not driver.stopping()
    clock.now += 1
    assert driver.stopping()
    assert driver.refused == ("t0001: its worker has reported no epoch for 20 minutes and has not ended; a process "
                              "that waits for a disk that is gone cannot")
    driver.release()
    assert journal.state.trials["t0001"].status == "interrupted"


def test_hours_that_are_spent_in_the_middle_of_an_epoch_end_the_sweep(journal: Journal) -> None:
    """Not only after it: an epoch may take longer than all that is left."""
    clock = Clock()
    driver = begun(journal, clock, hang_minutes=600, budget={"hours": 2, "trials": 9})
    epoch = fake_training.make_record(from_mapping(started(driver).config, "job"), 1)
    assert driver.record("t0001", epoch)
    clock.now = 2 * 3600.0 - journal.state.seconds  # what passed between the events counts as well
    assert not driver.stopping(), "the next event may come a moment later"
    clock.now += 1.01 * LATE_SECONDS
    assert driver.stopping()
    trial = journal.state.trials["t0001"]
    assert (trial.status, trial.epoch) == ("stopped", 1)
    assert trial.reason is not None
    assert (trial.reason.rule, trial.reason.epochs_saved) == ("budget", 8)
    assert trial.reason.sentence == "the sweep's budget is spent: 2 of 2 hours"
    seq = journal.state.seq
    driver.started("t0001")
    assert not driver.record("t0001", {**epoch, "epoch": 2})
    driver.exhausted("t0001")
    driver.failed("t0001", {"rule": "raised", "sentence": "it was ended"})
    driver.left("t0001", lost=True)
    driver.release()
    assert (journal.state.seq, driver.stopping(), driver.refused) == (seq, True, None), "it has had its end"


def test_hours_count_those_of_earlier_sessions_and_from_event_to_event(journal: Journal) -> None:
    clock = Clock()
    driver = begun(journal, clock, hang_minutes=600, budget={"hours": 2, "trials": 9})
    job = started(driver)
    journal.state._earlier_seconds = 3600.0
    clock.now = 3599.0
    assert not driver.stopping()
    assert driver.record(job.id, fake_training.make_record(from_mapping(job.config, "job"), 1))
    journal.state._earlier_seconds = 7100.0  # as the journal's own clock has it by then
    assert not driver.stopping()
    clock.now += 100 + LATE_SECONDS
    assert driver.stopping()


def test_what_spent_hours_cut_short_goes_on_when_there_are_more(journal: Journal) -> None:
    clock = Clock()
    driver = begun(journal, clock, hang_minutes=600, budget={"hours": 2, "trials": 9})
    started(driver)
    clock.now = 8000.0
    assert driver.stopping()
    longer = begun(journal, hang_minutes=600, budget={"hours": 4, "trials": 9})
    longer.settle()
    assert journal.state.trials["t0001"].status == "interrupted"
    assert started(longer).id == "t0001"


@pytest.mark.parametrize("old", [False, True])
def test_what_was_never_promoted_is_told_by_a_field(journal: Journal, old: bool) -> None:
    """Journals of before said it at the end of the sentence."""
    sentence = "not among the best 1 of 3"
    reason = {"rule": "asha", "epochs_saved": 8, "sentence": sentence}
    driver = begun(journal, scheduler={"asha": {**ASHA, "promote": True}})
    journal.append(Suggested(trial="t0001", params={"weight_decay": 0.1, "seed": 1}))
    journal.append(Result(trial="t0001", epoch=1, objective=0.1, verdict="live", tflops=0.5, step=9))
    journal.append(Paused(trial="t0001", epoch=1, reason=reason))
    if old:
        journal.append(Stopped(trial="t0001", epoch=1,
                              reason={**reason, "sentence": f"{sentence}; it was paused and never promoted"}))
    else:
        driver._end_paused()
        assert journal.state.trials["t0001"].reason == Reason(**reason, paused=True)
        told = summary.explain(driver.sweep, journal.state, "t0001")
        assert told[0].endswith(f"{sentence}; it was paused and never promoted")
    driver.settle()
    trial = journal.state.trials["t0001"]
    assert (trial.status, trial.reason) == ("paused", Reason(**reason))
