"""What each `sweeps.workers.engine.Jobs` keeps to: the driver of a sweep, and that of a confirmation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_training
import pytest
from rich.console import Console
from small_sweep import make_sweep

from lam.config import from_mapping
from record.journal.events import SweepStarted
from sweeps.commands import confirming
from sweeps.commands.launching import Options
from sweeps.journal.journal import Journal
from sweeps.workers.driver import SweepDriver
from sweeps.workers.engine import Job

EPOCHS = 3
Both = SweepDriver | confirming._ConfirmJobs


class Asked:
    """A user who may ask for the end."""

    stop = False

    def __call__(self) -> bool:
        return self.stop


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture(params=["sweep", "confirmation"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path, asked: Asked) -> Iterator[Both]:
    """Three jobs of three epochs, two at a time."""
    sweep = make_sweep(tmp_path, base={"data_dir": "nowhere", "num_epochs": EPOCHS}, budget={"trials": 3},
                       search="random", scheduler="none")
    if request.param == "confirmation":
        reruns = [confirming.Rerun("t0001", seed, sweep.config({"weight_decay": 0.5}).replace(seed=seed),
                                   "a fingerprint")
                  for seed in (1000, 1001, 1002)]
        yield confirming._ConfirmJobs(sweep, tmp_path, reruns, Options(train="x:y"), 2, Console(quiet=True), asked)
        return
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        yield SweepDriver(sweep, journal, "x:y", 2, lambda event: None, asked)


def take(jobs: Both) -> Job:
    job = jobs.next()
    assert isinstance(job, Job)
    jobs.started(job.id)
    return job


def train(jobs: Both, job: Job, epochs: int = EPOCHS, **changes: Any) -> list[bool]:
    """A worker's records of the job's next epochs, on disk and reported; what each was answered."""
    config = from_mapping(job.config, "job").replace(**changes)
    worker = fake_training.train(config, job.run_dir)
    answers = [jobs.record(job.id, next(worker)) for _ in range(epochs)]
    worker.close()
    return answers


def finish(jobs: Both) -> list[str]:
    """Train whatever still comes, one at a time; the ids."""
    done = []
    while isinstance(job := jobs.next(), Job):
        done.append(job.id)
        jobs.started(job.id)
        assert train(jobs, job, EPOCHS - job.after)[-1] is False
        jobs.left(job.id, lost=False)
    assert job == "finished"
    return done


def test_as_many_at_a_time_as_may_run(jobs: Both) -> None:
    first, second = take(jobs), take(jobs)
    assert first.id != second.id
    assert jobs.next() == "wait"
    jobs.left(first.id, lost=False)
    assert isinstance(jobs.next(), Job)


def test_each_job_is_trained_once_to_its_end(jobs: Both) -> None:
    job = take(jobs)
    assert (job.train, job.after) == ("x:y", 0)
    assert Path(job.run_dir).is_absolute()
    assert train(jobs, job) == [True, True, False], "the last epoch ends it"
    jobs.left(job.id, lost=False)
    done = finish(jobs)
    assert len({job.id, *done}) == 3
    assert job.id not in done
    assert jobs.next() == "finished", "and stays so"
    assert not jobs.stopping()


@pytest.mark.parametrize("lost", [False, True])
def test_a_job_without_an_ending_comes_back_after_its_last_epoch(jobs: Both, lost: bool) -> None:
    job = take(jobs)
    assert train(jobs, job, 2) == [True, True]
    jobs.left(job.id, lost=lost, error="the actor died" if lost else "")
    others = [take(jobs), take(jobs)]
    for other in others:
        if other.id != job.id:
            train(jobs, other)
        jobs.left(other.id, lost=False)
    again = next((other for other in others if other.id == job.id), None) or take(jobs)
    assert (again.id, again.run_dir, again.after) == (job.id, job.run_dir, 2)


def test_a_job_whose_process_dies_each_time_is_given_up(jobs: Both) -> None:
    job = take(jobs)
    for _ in range(2):
        jobs.left(job.id, lost=True)
        while (again := take(jobs)).id != job.id:
            train(jobs, again)
            jobs.left(again.id, lost=False)
    jobs.left(job.id, lost=True)
    assert job.id not in finish(jobs)


def test_a_job_that_diverged_ends_there(jobs: Both) -> None:
    job = take(jobs)
    assert train(jobs, job, 2, seed=7) == [True, False]
    jobs.left(job.id, lost=False)
    assert len(finish(jobs)) == 2


def test_a_job_that_raised_does_not_come_back_and_the_others_go_on(jobs: Both) -> None:
    job = take(jobs)
    jobs.failed(job.id, {"rule": "raised", "sentence": "the encoder exploded"})
    jobs.left(job.id, lost=False)
    assert not jobs.stopping()
    assert len(finish(jobs)) == 2


def test_a_job_with_no_epoch_left_does_not_come_back(jobs: Both) -> None:
    job = take(jobs)
    jobs.exhausted(job.id)
    jobs.left(job.id, lost=False)
    assert len(finish(jobs)) == 2


def test_what_the_machine_refuses_ends_everything_and_names_the_job(jobs: Both) -> None:
    job = take(jobs)
    jobs.failed(job.id, {"rule": "environment", "sentence": "[Errno 28] No space left on device"})
    assert jobs.stopping()
    assert jobs.refused == f"{job.id}: [Errno 28] No space left on device"


def test_a_user_who_asks_for_the_end_gets_it(jobs: Both, asked: Asked) -> None:
    assert not jobs.stopping()
    asked.stop = True
    assert jobs.stopping()
