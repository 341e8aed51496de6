"""The driver of a sweep: turns what the engine reports into journal events, and the journal into decisions."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from typing import Any, Literal

from lam import health
from lam.config import RunConfig
from lam.errors import BadInput
from sweeps import scheduler, searcher
from sweeps.engine import Job
from sweeps.journal import Journal
from sweeps.spec import Sweep
from sweeps.state import TrialState

MAX_LOSSES = 3
SHOWN = ("val/control", "val/codebook_health", "val/perplexity_slot", "val/dsnr", "val/mse_loss")

Listener = Callable[[dict[str, Any]], None]


class SweepDriver:
    """`sweeps.engine.Jobs` of one sweep.

    Args:
        train: dotted path of the training function.
        concurrency: trials at a time.
        listen: called with each journal event after it is on disk.
        stopping: says whether a signal has asked for the end.
    """

    def __init__(self, sweep: Sweep, journal: Journal, train: str, concurrency: int,
                 listen: Listener, stopping: Callable[[], bool]) -> None:
        self.sweep, self.journal, self.stopping = sweep, journal, stopping
        self._train, self._concurrency, self._listen = train, concurrency, listen
        self._base = sweep.base.mapping()
        self._configs: dict[str, RunConfig] = {}
        self._losses: dict[str, int] = {}
        self._live: set[str] = set()
        self._waiting = [trial.id for trial in journal.state.unfinished]

    def next(self) -> Job | Literal["wait", "finished"]:
        """Trials that came back first, then new suggestions while the budget lasts."""
        if len(self._live) >= self._concurrency:
            return "wait"
        while self._waiting or not scheduler.spent_budget(self.sweep.spec.budget, self.journal.state):
            job = self._job(self._waiting.pop(0) if self._waiting else self._suggest())
            if job is not None:
                return job
        return "wait" if self._live else "finished"

    def _suggest(self) -> str:
        params = searcher.ask(self.sweep.spec, self._base, self.journal.state)
        trial = f"t{len(self.journal.state.trials) + 1:04d}"
        self._write("suggested", trial=trial, params=params)
        return trial

    def _job(self, trial_id: str) -> Job | None:
        """The trial's job; None, and the trial failed, where its parameters make no valid config."""
        trial = self._trial(trial_id)
        try:
            config = self._config(trial)
        except BadInput as error:
            self._fail(trial, {"rule": "invalid_config", "sentence": str(error)})
            return None
        self._live.add(trial_id)
        run_dir = self.journal.folder / "trials" / trial_id
        return Job(trial_id, self._train, config.mapping(), str(run_dir.absolute()), trial.epoch)

    def _config(self, trial: TrialState) -> RunConfig:
        if trial.id not in self._configs:
            self._configs[trial.id] = self.sweep.config(trial.params)
        return self._configs[trial.id]

    def started(self, job_id: str) -> None:
        """A worker has taken the trial."""
        self._write("started", trial=job_id)

    def record(self, job_id: str, record: dict[str, Any]) -> bool:
        """Journal a validated epoch and judge the trial; an epoch without validation passes unless it diverged."""
        trial = self._trial(job_id)
        verdict = health.verdict(record)
        if not _validated(record) and verdict != "nonfinite":
            return True
        if record["epoch"] > trial.epoch:
            self._write("result", trial=job_id, epoch=record["epoch"], objective=record.get(self.sweep.spec.objective),
                        verdict=verdict, metrics={key: record[key] for key in SHOWN if key in record},
                        tflops=record.get("total_tflops"))
        return self._judge(trial, record)

    def _judge(self, trial: TrialState, record: dict[str, Any]) -> bool:
        ending = scheduler.judge(self.sweep.spec, self.journal.state, trial, self._config(trial), record["step"])
        if ending is None:
            return True
        if ending.event == "completed":
            self._complete(trial)
        else:
            self._write(ending.event, trial=trial.id, epoch=trial.epoch, reason=ending.reason())
        return False

    def _complete(self, trial: TrialState) -> None:
        best = trial.best(self.sweep.spec.maximise)
        self._write("completed", trial=trial.id, epoch=trial.epoch, objective=best.objective if best else math.nan)

    def exhausted(self, job_id: str) -> None:
        """Training ended without a record that ends the trial: judged by what is known, else a failure."""
        trial = self._trial(job_id)
        if trial.epoch >= self._config(trial).num_epochs:
            self._complete(trial)
        else:
            self._fail(trial, {"rule": "ended_early", "sentence": f"training ended after epoch {trial.epoch} of "
                                                                  f"{self._config(trial).num_epochs}"})

    def failed(self, job_id: str, reason: dict[str, str]) -> None:
        """Training raised."""
        self._fail(self._trial(job_id), reason)

    def _fail(self, trial: TrialState, reason: dict[str, str]) -> None:
        self._write("failed", trial=trial.id, epoch=trial.epoch, reason=reason)

    def left(self, job_id: str, lost: bool) -> None:
        """The trial is off its worker; one without an ending comes back, up to MAX_LOSSES times in a session."""
        self._live.discard(job_id)
        trial = self._trial(job_id)
        if trial.final:
            return
        self._losses[job_id] = self._losses.get(job_id, 0) + lost
        if self._losses[job_id] >= MAX_LOSSES:
            self._fail(trial, {"rule": "process_lost", "sentence": f"its process died {MAX_LOSSES} times, last after "
                               f"epoch {trial.epoch}; see output.log in its folder (out of memory?)"})
            return
        self._write("interrupted", trial=job_id, epoch=trial.epoch)
        self._waiting.append(job_id)

    def release(self) -> None:
        """The engine has returned or failed: whatever it did not account for is interrupted."""
        for job_id in sorted(self._live):
            self.left(job_id, lost=False)

    def _trial(self, trial_id: str) -> TrialState:
        return self.journal.state.trials[trial_id]

    def _write(self, event: str, **fields: Any) -> None:
        self.journal.append(event, **fields)
        self._listen({"event": event, **fields})


def _validated(record: dict[str, Any]) -> bool:
    return any(key.startswith("val/") for key in record)




def session_event(sweep: Sweep) -> dict[str, Any]:
    """Fields of the event that opens a session."""
    return {"name": sweep.spec.name, "pid": os.getpid(), "host": socket.gethostname()}
