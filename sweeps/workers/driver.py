"""The driver of a sweep: turns what the engine reports into journal events, and the journal into decisions."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Literal

from record.bounds import total_violation
from record.errors import BadInput
from record.journal import events
from record.journal.events import Reason
from record.run import RunFolder
from record.standing import is_trained
from record.text import short
from record.workload.metric import is_validated
from record.workload.settings import Settings
from record.workload.workload import find
from sweeps.journal.journal import Journal
from sweeps.journal.state import TrialState
from sweeps.scheduling import scheduler
from sweeps.search import searcher
from sweeps.spec.spec import Sweep, SweepSpec
from sweeps.workers.engine import Job
from sweeps.workers.lost import MAX_MEMORY_LOSSES, why_lost

MAX_FAILURES_IN_A_ROW = 10  # a fault of the code, the data or the machine fails all trials; few spaces do
SILENCES = 2  # a worker ends itself after one hang_minutes; the driver gives up on one that could not after two
NEVER_PROMOTED = "; it was paused and never promoted"  # what journals say that have no field `paused`
LATE_SECONDS = 1.0  # what tells of spent hours is written late enough for any clock to find them spent

Listener = Callable[[events.JournalEvent], None]


class SweepDriver:
    """`sweeps.workers.engine.Jobs` of one sweep.

    Args:
        train: dotted path of the training function.
        concurrency: trials at a time.
        listen: called with each journal event after it is on disk.
        stopping: says whether a signal has asked for the end.
        clock: seconds that only grow.

    Attributes:
        refused: why the session ends although there is work left: what the machine refused a trial (a full disk, data
            that is gone), a worker that cannot be ended, or trials that all fail.
    """

    def __init__(self, sweep: Sweep, journal: Journal, train: str, concurrency: int,
                 listen: Listener, stopping: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self.sweep, self.journal, self._asked_to_stop = sweep, journal, stopping
        self.refused: str | None = None
        self._train, self._concurrency, self._listen, self._clock = train, concurrency, listen, clock
        self._base = sweep.base.mapping()
        self._configs: dict[str, Settings] = {}
        self._losses: dict[str, int] = {}
        self._failures = 0  # in a row
        self._out_of_hours = False
        self._live: set[str] = set()
        self._heard: dict[str, float] = {}
        self._waiting: list[str] = []
        self._told = self._clock()  # when the journal heard last

    def settle(self) -> None:
        """Make up for how the last session ended, before anything runs.

        A kill may have come between a trial's result and what follows from it. A sweep that was extended has
        trials that were never promoted, and now may be, and others that only the budget stopped, which go on.
        """
        state = self.journal.state
        if state.unjudged is not None:
            self._judge(self._trial(state.unjudged))
        for trial in state.with_status("stopped"):
            if was_paused(reason := _why(trial)):
                self._write(events.Paused(trial=trial.id, epoch=trial.epoch, reason=_promotable_again(reason)))
            else:  # a kill may have come before the run was told
                self._mark_stopped(trial)
        for trial in scheduler.cut_short(self.sweep.spec, state):
            self._write(events.TrialInterrupted(trial=trial.id, epoch=trial.epoch))
        self._waiting = [trial.id for trial in state.unfinished if trial.status != "paused"]

    def next(self) -> Job | Literal["wait", "finished"]:
        """Trials that came back first, then promotions, further seeds, and new suggestions while the budget lasts."""
        if len(self._live) >= self._concurrency:
            return "wait"
        while self.refused is None and (trial_id := self._next_trial()) is not None:
            job = self._job(trial_id)
            if job is not None:
                return job
        if self._live:
            return "wait"
        if self.refused is None:
            self._end_paused()
        return "finished"

    def _next_trial(self) -> str | None:
        if self._waiting:
            return self._waiting.pop(0)
        spec, state = self.sweep.spec, self.journal.state
        if scheduler.spent_budget(spec, state, trials=False):
            return None
        promoted = scheduler.promotable(spec, state)
        if promoted is not None:
            self._write(events.TrialInterrupted(trial=promoted.id, epoch=promoted.epoch))
            return promoted.id
        first = scheduler.wants_another_seed(spec, state)
        if first is not None:
            number = len(state.repeats_of(first))
            return self._add(first.params, seed=self.sweep.base.seed + number, repeats=first.id)
        if scheduler.spent_budget(spec, state):
            return None
        asked = searcher.ask(spec, self._base, state)
        return None if asked is None else self._add(asked[0], attrs=asked[1] or None, seed=self._first_seed())

    def _first_seed(self) -> int | None:
        return self.sweep.base.seed if self.sweep.spec.seeds > 1 else None

    def _add(self, params: dict[str, Any], **more: Any) -> str:
        trial = f"t{len(self.journal.state.trials) + 1:04d}"
        self._write(events.Suggested(trial=trial, params=params,
                                     **{name: value for name, value in more.items() if value is not None}))
        return trial

    def _end_paused(self) -> None:
        for trial in self.journal.state.with_status("paused"):
            reason = _why(trial).model_copy(update={"paused": True})
            self._write(events.Stopped(trial=trial.id, epoch=trial.epoch, reason=reason))
            self._mark_stopped(trial)

    def _job(self, trial_id: str) -> Job | None:
        """The trial's job; None, and the trial failed, where its parameters make no valid config."""
        trial = self._trial(trial_id)
        try:
            config = self._config(trial)
        except BadInput as error:
            self._fail(trial, Reason(rule="invalid_config", sentence=str(error)))
            return None
        self._live.add(trial_id)
        run_dir = self.journal.folder / "trials" / trial_id
        return Job(trial_id, self._train, config.mapping(), str(run_dir.absolute()), trial.epoch,
                   self.sweep.spec.hang_minutes * 60, self.sweep.spec.workload)

    def _config(self, trial: TrialState) -> Settings:
        if trial.id not in self._configs:
            params = trial.params if trial.seed is None else {**trial.params, "seed": trial.seed}
            self._configs[trial.id] = self.sweep.config(params)
        return self._configs[trial.id]

    def started(self, job_id: str) -> None:
        """A worker has taken the trial."""
        if self._trial(job_id).final:
            return
        self._heard[job_id] = self._clock()
        self._write(events.Started(trial=job_id))

    def record(self, job_id: str, record: dict[str, Any]) -> bool:
        """Journal a validated epoch and judge the trial; whether it goes on.

        An epoch without validation passes unless it diverged, and so does one that has been judged before, which a
        trial trains again whose checkpoint was lost.
        """
        self._heard[job_id] = self._clock()
        trial = self._trial(job_id)
        verdict = self.sweep.workload.verdict(record)
        if trial.final:
            return False
        if record["epoch"] <= trial.epoch or not is_judged(record, verdict):
            return True
        self._write(result_event(self.sweep.spec, job_id, record, verdict))
        return self._judge(trial)

    def _judge(self, trial: TrialState) -> bool:
        ending = scheduler.judge(self.sweep.spec, self.journal.state, trial, self._config(trial))
        if ending is None:
            return True
        self._write(ending.of(trial, self.sweep.spec.maximise))
        if ending.event in ("stopped", "completed"):  # its worker, told by the return value, finds it marked
            self._mark_stopped(trial)
        return False

    def _mark_stopped(self, trial: TrialState) -> None:
        """Tell the run that it is over; where a longer budget lets it go on, it keeps what a resume needs."""
        reason = _why(trial)
        resumable = reason.rule == "budget" or was_paused(reason)
        RunFolder(self.journal.folder / "trials" / trial.id).stop(reason.sentence, for_good=not resumable)

    def exhausted(self, job_id: str) -> None:
        """Training ended without a record that ends the trial: judged by what is known, else a failure."""
        trial = self._trial(job_id)
        if trial.final:
            return
        config, aborted = self._config(trial), self._aborted(trial)
        if aborted is not None and trial.epoch < config.num_epochs:
            self._fail(trial, aborted)
        elif is_trained(trial.epoch, config.num_epochs, config.stops_early):
            self._write(scheduler.completed(trial, self.sweep.spec.maximise))
        else:
            self._fail(trial, Reason(rule="ended_early", sentence=f"training ended after epoch {trial.epoch} of "
                                                                  f"{self._config(trial).num_epochs}"))

    def _aborted(self, trial: TrialState) -> Reason | None:
        """The health rule that ended the run itself (`health.abort`), from its run.json; None where none did."""
        run = RunFolder(self.journal.folder / "trials" / trial.id)
        known = run.document() if run.exists() else None
        return Reason(rule=known.rule, sentence=known.reason or "") if known and known.rule else None

    def stopping(self) -> bool:
        """Whether everything should end now; hours that are spent in the middle of an epoch end it there."""
        if self._live and not self._out_of_hours and self._hours_are_spent():
            self._end_by_clock()
        limit = SILENCES * self.sweep.spec.hang_minutes * 60
        for job_id, heard in self._heard.items():
            if self._clock() - heard > limit:
                self.refused = (f"{job_id}: its worker has reported no epoch for {limit / 60:g} minutes and has not "
                                "ended; a process that waits for a disk that is gone cannot")
        return self.refused is not None or self._out_of_hours or self._asked_to_stop()

    def _hours_are_spent(self) -> bool:
        """By the clock: the journal's own time stands still between two events."""
        hours = self.sweep.spec.budget.hours
        spent = self.journal.state.seconds + self._clock() - self._told
        return hours is not None and spent >= hours * 3600 + LATE_SECONDS

    def _end_by_clock(self) -> None:
        """Stop what runs and what would run again; a longer budget lets it go on from its last checkpoint."""
        self._out_of_hours = True
        hours = short(self.sweep.spec.budget.hours)
        for trial_id in sorted({*self._live, *self._waiting}):
            trial = self._trial(trial_id)
            if not trial.final:
                left = scheduler.epochs_left(self.sweep.spec, trial, self._config(trial))
                ending = scheduler.out_of_budget(f"{hours} of {hours} hours", left)
                self._write(ending.of(trial, self.sweep.spec.maximise))
                self._mark_stopped(trial)
        self._waiting.clear()
        self._end_paused()

    def failed(self, job_id: str, reason: dict[str, str]) -> None:
        """Training raised, and its process ends.

        Where the machine is to blame the trial does not fail, it comes back when that is mended; where memory ran out
        it comes back once at once, since what others had taken may be free by then.
        """
        if reason["rule"] == "environment":
            self.refused = f"{job_id}: {reason['sentence']}"
        elif self._trial(job_id).final:
            return
        elif reason["rule"] != "out_of_memory" or self._losses.get(job_id, 0) + 1 >= MAX_MEMORY_LOSSES:
            self._fail(self._trial(job_id), Reason.model_validate(reason))

    def _fail(self, trial: TrialState, reason: Reason) -> None:
        self._write(events.Failed(trial=trial.id, epoch=trial.epoch, reason=reason))
        self._failures += 1
        if self._failures >= MAX_FAILURES_IN_A_ROW and self.refused is None:
            self.refused = (f"{self._failures} trials in a row failed and none ended otherwise, the last one "
                            f"{trial.id}: {reason.sentence}; they stay failed")

    def left(self, job_id: str, lost: bool, error: str = "") -> None:
        """The trial is off its worker; one without an ending comes back, a few times in a session."""
        self._live.discard(job_id)
        silent = self._clock() - self._heard.pop(job_id, math.inf)
        trial = self._trial(job_id)
        if trial.final or trial.status == "paused":
            return
        self._losses[job_id] = self._losses.get(job_id, 0) + lost
        reason = why_lost(self._losses[job_id], trial.epoch, error, silent, self.sweep.spec.hang_minutes) if lost \
            else None
        if reason is not None:
            self._fail(trial, reason)
            return
        self._write(events.TrialInterrupted(trial=job_id, epoch=trial.epoch))
        self._waiting.append(job_id)

    def release(self) -> None:
        """The engine has returned or failed: whatever it did not account for is interrupted."""
        for job_id in sorted(self._live):
            self.left(job_id, lost=False)

    def _trial(self, trial_id: str) -> TrialState:
        return self.journal.state.trials[trial_id]

    def _write(self, event: events.JournalEvent) -> None:
        stored = self.journal.append(event)
        self._told = self._clock()
        if isinstance(event, events.Completed | events.Stopped | events.Paused):
            self._failures = 0
        self._listen(stored)


def is_judged(record: dict[str, Any], verdict: str) -> bool:
    """Whether an epoch record is a result: it holds a validation, or the loss was not finite."""
    return verdict == "nonfinite" or is_validated(record)


def _why(trial: TrialState) -> Reason:
    return trial.reason or Reason(rule="full_budget", sentence="it has had its full budget")


def was_paused(reason: Reason) -> bool:
    """Whether a trial that ended as stopped was paused and never promoted."""
    return reason.paused or reason.sentence.endswith(NEVER_PROMOTED)


def _promotable_again(reason: Reason) -> Reason:
    """Why a trial was paused, from why it was stopped at the end."""
    sentence = reason.sentence.removesuffix(NEVER_PROMOTED)
    kept = {key: value for key, value in reason.as_written().items() if key != "paused"}
    return Reason.model_validate({**kept, "sentence": sentence})


def result_event(spec: SweepSpec, trial: str, record: dict[str, Any], verdict: str) -> events.Result:
    """What the journal says of an epoch record."""
    more: dict[str, Any] = {"values": {key: record.get(key) for key in spec.told}} if spec.told else {}
    if spec.constraints:
        more["violation"] = total_violation(spec.constraints, record)
    trained = find(spec.workload)
    return events.Result(
        trial=trial, epoch=record["epoch"], objective=record.get(spec.primary), verdict=verdict,
        error=record.get(trained.error), metrics={key: record[key] for key in trained.shown if key in record},
        tflops=record.get("total_tflops"),
        seconds=record.get("seconds", 0.0), step=record["step"], **more)


def session_event(sweep: Sweep, begun: bool) -> events.Session:
    """The event that opens a session, of a sweep that has `begun` or is new."""
    kind = events.SweepResumed if begun else events.SweepStarted
    return kind(name=sweep.spec.name, pid=os.getpid(), host=socket.gethostname(),
                budget=sweep.spec.budget.model_dump(exclude_none=True))
