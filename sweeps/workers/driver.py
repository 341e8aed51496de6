"""The driver of a sweep: turns what the engine reports into journal events, and the journal into decisions."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable
from typing import Any, Literal

from record.errors import BadInput
from record.journal import events
from record.journal.events import Reason
from record.standing import is_trained
from record.storage import copies
from record.storage.store import PATIENCE_SECONDS
from record.text import short
from record.workload.settings import Settings
from sweeps.journal import requests, runs
from sweeps.journal.journal import Journal
from sweeps.journal.state import TrialState
from sweeps.scheduling import scheduler
from sweeps.search import choosing
from sweeps.spec.spec import Sweep
from sweeps.workers import probe
from sweeps.workers.engine import Job
from sweeps.workers.entries import is_judged, promotable_again, result_event, was_paused, why
from sweeps.workers.lost import MAX_MEMORY_LOSSES, Losses, memory_sentence, why_lost
from sweeps.workers.machines import Machines

MAX_FAILURES_IN_A_ROW = 10  # a fault of the code, the data or the machine fails all trials; few spaces do
SILENCES = 2  # a worker ends itself after one hang_minutes; the driver gives up on one that could not after two
WAIT_SECONDS = 60.0  # for how long a trial has no place before that is said
HEED_SECONDS, STORE_SECONDS = 2.0, 10.0  # between two looks at what people ask: in a folder, on a store
MAX_BLAMED = 20  # trials in a row that leave their machine through its fault, with no epoch in between
LATE_SECONDS = 1.0  # what tells of spent hours is written late enough for any clock to find them spent

Listener = Callable[[events.JournalEvent], None]


class SweepDriver:
    """`sweeps.workers.engine.Jobs` of one sweep.

    Args:
        train: dotted path of the training function.
        concurrency: trials at a time, None = as many as the machines hold.
        machines: of the cluster; default: this one alone.
        listen: called with each journal event after it is on disk.
        stopping: says whether a signal has asked for the end.
        clock: seconds that only grow.

    Attributes:
        refused: why the session ends although there is work left: what the machine refused a trial (a full disk, data
            that is gone), a worker that cannot be ended, or trials that all fail.
    """

    def __init__(self, sweep: Sweep, journal: Journal, train: str, concurrency: int | None,
                 listen: Listener, stopping: Callable[[], bool], clock: Callable[[], float] = time.monotonic,
                 machines: Machines | None = None) -> None:
        self.sweep, self.journal, self._asked_to_stop = sweep, journal, stopping
        self.refused: str | None = None
        self._train, self._concurrency, self._listen, self._clock = train, concurrency, listen, clock
        self._base = sweep.base.mapping()
        self._configs: dict[str, Settings] = {}
        self._machines = machines or Machines()
        self._store = copies.of(journal.folder, PATIENCE_SECONDS)
        self._runs = runs.of_sweep(journal.folder, self._store)
        self._losses = Losses()
        self._failures = self._blamed = 0  # in a row
        self._heeds = 0.0
        self._out_of_hours = False
        self._live: set[str] = set()
        self._heard: dict[str, float] = {}
        self._placing: dict[str, float] = {}
        self._waiting: list[str] = []
        self._told = self._clock()  # when the journal heard last

    def settle(self) -> None:
        """Make up for how the last session ended, before anything runs.

        A kill may have come between a trial's result and what follows from it. A sweep that was extended has
        trials that were never promoted, and now may be, and others that only the budget stopped, which go on.
        """
        state = self.journal.state
        self._await_machines()
        self._heed(now=True)
        if state.unjudged is not None:
            self._judge(self._trial(state.unjudged))
        for trial in state.with_status("stopped"):
            if was_paused(reason := why(trial)):
                self._write(events.Paused(trial=trial.id, epoch=trial.epoch, reason=promotable_again(reason)))
            else:  # a kill may have come before the run was told
                self._mark_stopped(trial)
        for trial in scheduler.cut_short(self.sweep.spec, state):
            self._write(events.TrialInterrupted(trial=trial.id, epoch=trial.epoch))
        self._waiting = [trial.id for trial in state.unfinished if trial.status != "paused"]

    def next(self) -> Job | Literal["wait", "finished"]:
        """Trials that came back first, then promotions, further seeds, and new suggestions while the budget lasts."""
        room = self._machines.capacity if self._concurrency is None else self._concurrency
        if len(self._live) >= room:
            return "wait"
        while self.refused is None and (trial_id := self._next_trial()) is not None:
            job = self._job(trial_id)
            if job is not None:
                return job
        if self._live:
            return "wait"
        if self.refused is None and self._heed(now=True):
            return self.next()
        if self.refused is None:
            self._end_paused()
        return "finished"

    def _next_trial(self) -> str | None:
        if self._waiting:
            return self._waiting.pop(0)
        event = choosing.following(self.sweep, self._base, self.journal.state)
        if event is None:
            return None
        self._write(event)
        return event.trial

    def _end_paused(self) -> None:
        for trial in self.journal.state.with_status("paused"):
            reason = why(trial).model_copy(update={"paused": True})
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
        self._placing[trial_id] = self._clock()
        home = self.journal.folder.absolute()
        return Job(trial_id, self._train, config.mapping(), str(home / "trials" / trial_id), trial.epoch,
                   self.sweep.spec.hang_minutes * 60, self.sweep.spec.workload, self._machines.avoided,
                   str(home) if (home / "sweep.json").exists() else "", probe.versions(), copies.address(home) or "")

    def _config(self, trial: TrialState) -> Settings:
        if trial.id not in self._configs:
            params = trial.params if trial.seed is None else {**trial.params, "seed": trial.seed}
            self._configs[trial.id] = self.sweep.config(params)
        return self._configs[trial.id]

    def started(self, job_id: str, node: str = "") -> None:
        """A worker has taken the trial."""
        self._placing.pop(job_id, None)
        self._machines.started(job_id, node)
        if self._trial(job_id).final:
            return
        self._hear(job_id)
        self._write(events.Started(trial=job_id))

    def placed(self, job_id: str, nodes: list[str]) -> None:
        """The trial's workers are on these machines."""
        self._machines.started(job_id, *nodes)

    def _hear(self, job_id: str) -> None:
        """A worker has said something: the one that has been silent for longest stays the first."""
        self._heard.pop(job_id, None)
        self._heard[job_id] = self._clock()

    def record(self, job_id: str, record: dict[str, Any]) -> bool:
        """Journal a validated epoch and judge the trial; whether it goes on.

        An epoch without validation passes unless it diverged, and so does one that has been judged before, which a
        trial trains again whose checkpoint was lost.
        """
        self._hear(job_id)
        self._blamed = 0
        self._machines.reported(job_id)
        trial = self._trial(job_id)
        verdict = self.sweep.workload.verdict(record)
        if trial.final:
            return False
        if record["epoch"] <= trial.epoch or not is_judged(record, verdict):
            return not self._machines.leaves(job_id)
        self._write(result_event(self.sweep.spec, job_id, record, verdict))
        return self._judge(trial) and not self._machines.leaves(job_id)

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
        reason = why(trial)
        resumable = reason.rule == "budget" or was_paused(reason)
        self._runs.stop(trial.id, reason.sentence, for_good=not resumable)

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
        known = self._runs.document(trial.id)
        return Reason(rule=known.rule, sentence=known.reason or "") if known and known.rule else None

    def stopping(self) -> bool:
        """Whether everything should end now; hours that are spent in the middle of an epoch end it there."""
        if self._live and not self._out_of_hours and self._hours_are_spent():
            self._end_by_clock()
        self._heed()
        self._watch()
        limit = SILENCES * self.sweep.spec.hang_minutes * 60
        for job_id, heard in itertools.islice(self._heard.items(), 1):
            if self._clock() - heard > limit:
                self.refused = (f"{job_id}: its worker has reported no epoch for {limit / 60:g} minutes and has not "
                                "ended; a process that waits for a disk that is gone cannot")
        return self.refused is not None or self._out_of_hours or self._asked_to_stop()

    def _await_machines(self) -> None:
        """Until each machine of the cluster has answered its probe: what one lacks is said before the first trial."""
        for event in self._machines.answers(self._asked_to_stop):
            self._write(event)

    def _heed(self, now: bool = False) -> bool:
        """Do what people have asked meanwhile, looking every two seconds or `now`; whether there is a trial to run."""
        if not now and self._clock() < self._heeds:
            return False
        self._heeds = self._clock() + (HEED_SECONDS if self._store is None else STORE_SECONDS)
        for request in requests.waiting(self.journal.folder, self._store):
            with contextlib.suppress(BadInput):  # it has ended meanwhile
                event = requests.event_of(request, self.sweep, self.journal.state)
                self._write(event)
                self._waiting = [name for name in self._waiting if name != event.trial]
                if isinstance(event, events.Suggested):
                    self._waiting.append(event.trial)
                else:
                    self._mark_stopped(self._trial(event.trial))
        return bool(self._waiting)

    def _watch(self) -> None:
        """What the machines of the cluster do, and whether a trial has no place for long."""
        for event in self._machines.look():
            self._write(event)
        self.refused = self.refused or self._machines.hopeless() or None
        since = next(iter(self._placing.values()), math.inf)
        if self._clock() - since > WAIT_SECONDS and not self.journal.state.waiting:
            self._write(events.Waiting(reason=f"{len(self._placing)} of {len(self._live)} trials have waited for "
                                              f"{WAIT_SECONDS:g} s for {self.sweep.spec.resources.words()} each"
                                              f"{self._there()}"))

    def _there(self) -> str:
        has = self._machines.words()
        return f"; the cluster has {has}" if has else ""

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
        trial = self._trial(job_id)
        if reason["rule"] == "environment":
            out = self._machines.refused(job_id, reason["sentence"], reason.get("node", ""))
            for event in out or ():
                self._write(event)
            if out is None:
                self.refused = f"{job_id}: {reason['sentence']}"
        elif trial.final:
            return
        elif reason["rule"] != "out_of_memory" or self._losses.of(job_id, trial.epoch) + 1 >= MAX_MEMORY_LOSSES:
            self._strike(job_id, reason["sentence"])
            self._fail(trial, Reason(rule=reason["rule"], sentence=reason["sentence"]))

    def _strike(self, job_id: str, sentence: str) -> None:
        for event in self._machines.failed(job_id, sentence):
            self._write(event)

    def _fail(self, trial: TrialState, reason: Reason) -> None:
        self._write(events.Failed(trial=trial.id, epoch=trial.epoch, reason=reason))
        self._failures += 1
        if self._failures >= MAX_FAILURES_IN_A_ROW and self.refused is None:
            self.refused = (f"{self._failures} trials in a row failed and none ended otherwise, the last one "
                            f"{trial.id}: {reason.sentence}; they stay failed")

    def left(self, job_id: str, lost: bool, error: str = "") -> None:
        """The trial is off its worker; one without an ending comes back, a few times in a session."""
        self._live.discard(job_id)
        self._placing.pop(job_id, None)
        silent = self._clock() - self._heard.pop(job_id, math.inf)
        self._configs.pop(job_id, None)  # made again where it comes back: a long sweep keeps none
        trial, because = self._trial(job_id), self._machines.left(job_id, lost, error)
        if trial.final or trial.status == "paused":
            return
        if because:
            self._blame(because)
        elif lost and (reason := self._why_lost(trial, error, silent)) is not None:
            self._fail(trial, reason)
            return
        told = {"because": because} if because else {}
        self._write(events.TrialInterrupted(trial=job_id, epoch=trial.epoch, **told))
        self._waiting.append(job_id)

    def _why_lost(self, trial: TrialState, error: str, silent: float) -> Reason | None:
        losses = self._losses.add(trial.id, trial.epoch)
        reason = why_lost(losses, trial.epoch, error, silent, self.sweep.spec.hang_minutes)
        if not memory_sentence(error) and (reason is None or reason.rule == "process_lost"):
            self._strike(trial.id, "its process died")
        return reason

    def _blame(self, because: str) -> None:
        self._blamed += 1
        if self._blamed >= MAX_BLAMED and self.refused is None:
            self.refused = (f"{self._blamed} times in a row a trial left its machine, and none reported an epoch: "
                            f"{because}")

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
