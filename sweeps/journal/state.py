"""The state of a sweep, rebuilt from its journal: the one truth that searcher, scheduler and commands read.

`replay` is pure: the same events give the same state, so a resumed sweep decides as the
uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from record import standing
from record.journal import events, machines
from record.journal.events import FINAL, FINISHED, Reason, Status
from record.journal.results import Event, Result, Told, result_of

_NOTHING = Result(0, math.nan, "", tflops=0.0)  # what a trial has before its first result


@dataclass
class TrialState:
    """One trial as the journal tells it.

    Attributes:
        number: of its config, in the order of suggestion; -1 for a trial of another sweep.
        seed: seed of the training, where the sweep trains a config several times; None = the base's.
        repeats: the trial whose config this one trains again with another seed; None for the first of its config.
        attrs: what the sampler wants to find again, see `sweeps.search.searcher`.
        changed: number of the event that gave it its status, 0 before the first.
        asked: the rule by which somebody asked for it (person, baseline); '' where the searcher did.
        collapsed_once: whether any of its results was.
    """

    id: str
    number: int
    params: dict[str, Any]
    seed: int | None = None
    repeats: str | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    status: Status = "suggested"
    results: list[Result] = field(default_factory=list)
    reason: Reason | None = None
    objective: float = math.nan
    changed: int = 0
    asked: str = ""
    collapsed_once: bool = False

    @property
    def rule(self) -> str:
        """What ended or paused it, '' where nothing did."""
        return self.reason.rule if self.reason else ""

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL

    @property
    def epoch(self) -> int:
        """The last validated epoch, 0 before the first."""
        return self.results[-1].epoch if self.results else 0

    @property
    def verdict(self) -> str:
        """The last verdict, '' before the first."""
        return self.results[-1].verdict if self.results else ""

    @property
    def tflops(self) -> float:
        """Operations so far, NaN counted as 0."""
        return _finite(self.results[-1].tflops) if self.results else 0.0

    @property
    def seconds(self) -> float:
        """Training time so far; where the last results do not know it, what was known before them."""
        return next((result.seconds for result in reversed(self.results) if math.isfinite(result.seconds)), 0.0)

    def best(self, maximise: bool) -> Result | None:
        """The result that the trial is ranked by, see `record.standing`."""
        return standing.judged(self.results, maximise)


def as_learned(trial: TrialState) -> TrialState:
    """The trial as a search learns from it, its own or the one that it starts from.

    A paused one is a stopped one until it runs again. What ended collapsed is worth what it ended with: its best is
    from before, and would draw the search to where codebooks die.
    """
    resting = replace(trial, status="stopped") if trial.status == "paused" else trial
    gone = resting.final and trial.verdict == "collapsed"
    return replace(resting, results=trial.results[-1:]) if gone else resting


@dataclass
class SweepState:
    """Everything the journal says.

    Attributes:
        prior: results of another sweep that the searcher starts from; they are no trials of this one.
        memo: what the searcher has derived from trials that do not change any more.
        indexes: what decisions have derived, each with how far in `touched` it has read.
        touched: id of the trial of each event that was about one, in their order.
        epochs, tflops, trial_seconds: of all trials: epochs, operations and training time so far.
        config_count: how many configs were suggested.
        machines: of the session: id of a machine that takes no trial -> why not, in words.
        waiting: what trials have been waiting for since when, '' while none does.
        halted: why the last session ended although there was work left.
        unjudged: the trial whose result was the last thing to happen: what follows from it may not be written.
    """

    trials: dict[str, TrialState] = field(default_factory=dict)
    prior: list[TrialState] = field(default_factory=list)
    seq: int = 0
    finished: str | None = None
    session_began: datetime | None = None
    machines: dict[str, str] = field(default_factory=dict)
    waiting: str = ""
    halted: str = ""
    unjudged: str | None = None
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    indexes: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    touched: list[str] = field(default_factory=list, repr=False)
    epochs: int = 0
    tflops: float = 0.0
    trial_seconds: float = 0.0
    config_count: int = 0
    _earlier_seconds: float = 0.0
    _latest: datetime = events.UNWRITTEN
    _repeats: dict[str, list[str]] = field(default_factory=dict, repr=False)
    _ranked: dict[tuple[Any, ...], list[tuple[TrialState, Result]]] = field(
        default_factory=dict, init=False, repr=False, compare=False)

    def apply(self, event: Event) -> None:
        """Take one event in."""
        self.seq = event.seq
        if isinstance(event, Told):  # as almost all are, where many are read
            self.measure(self.trials[event.trial], event.result)
        else:
            self._happen(event)
        self._latest = event.time

    @property
    def seconds(self) -> float:
        """Wall clock spent by all sessions, each from its first event to its last."""
        if self.session_began is None:
            return self._earlier_seconds
        return self._earlier_seconds + max(0.0, (self._latest - self.session_began).total_seconds())

    def _happen(self, event: events.JournalEvent) -> None:
        match event:
            case events.Result():
                self.measure(self.trials[event.trial], result_of(event))
            case events.Change():
                if event.event != "interrupted":
                    self.unjudged = None
                self._change(event)
            case events.WarmStarted():
                prior = TrialState(event.source, -1, event.params, status=event.state, results=[result_of(event)])
                self.prior.append(prior)
            case events.Session():
                self._earlier_seconds, self.session_began, self.finished = self.seconds, event.time, None
                self.machines, self.waiting, self.halted = {}, "", ""
            case events.SweepHalted():
                self.halted = event.reason
            case events.Waiting():
                self.waiting = event.reason
            case events.MachineEvent():
                self._machine(event)
            case events.SweepFinished():
                self.finished = event.reason

    def measure(self, trial: TrialState, result: Result) -> None:
        """Take a trial's next result in."""
        last, seconds = trial.results[-1] if trial.results else _NOTHING, trial.seconds
        trial.results.append(result)
        self.epochs += result.epoch - last.epoch
        self.trial_seconds += trial.seconds - seconds
        if result.tflops != last.tflops:
            self.tflops += _finite(result.tflops) - _finite(last.tflops)
        if result.verdict == "collapsed":
            trial.collapsed_once = True
        self.unjudged = trial.id
        self.touched.append(trial.id)

    def _suggest(self, event: events.Suggested) -> None:
        number = self.config_count if event.repeats is None else self.trials[event.repeats].number
        self.config_count += event.repeats is None
        if event.repeats is not None:
            self._repeats.setdefault(event.repeats, []).append(event.trial)
        self.touched.append(event.trial)
        self.trials[event.trial] = TrialState(event.trial, number, event.params, event.seed, event.repeats,
                                              event.attrs, asked=event.reason.rule if event.reason else "")

    def _machine(self, event: events.MachineEvent) -> None:
        self.machines.pop(event.node, None)
        if words := machines.words(event):
            self.machines[event.node] = words

    def _change(self, event: events.Change) -> None:
        if isinstance(event, events.Started):
            self.waiting = ""
        if isinstance(event, events.Suggested):
            self._suggest(event)
            return
        trial = self.trials[event.trial]
        self.touched.append(trial.id)
        trial.status, trial.changed = event.event, event.seq
        trial.reason = event.reason if isinstance(event, events.Cut) else None
        if isinstance(event, events.Completed):
            trial.objective = _number(event.objective)

    def with_status(self, *statuses: Status) -> list[TrialState]:
        """Trials in one of these states, in the order of suggestion."""
        return [trial for trial in self.trials.values() if trial.status in statuses]

    def at(self, now: datetime) -> SweepState:
        """A copy for display while a driver is at work: the clock of its session goes on between two events."""
        if self.session_began is None or self.finished is not None:
            return replace(self, trials=dict(self.trials))
        return replace(self, trials=dict(self.trials), _latest=max(now, self._latest))

    def abandoned(self) -> SweepState:
        """A copy for display when no driver is at work: nothing runs, and what did will go on."""
        trials = {name: replace(trial, status="interrupted") if trial.status == "started" else trial
                  for name, trial in self.trials.items()}
        return replace(self, trials=trials)

    @property
    def unfinished(self) -> list[TrialState]:
        """Trials that still have something to do."""
        return [trial for trial in self.trials.values() if not trial.final]

    def repeats_of(self, trial: TrialState) -> list[TrialState]:
        """All trainings of a trial's config, the trial itself first."""
        return [trial, *(self.trials[other] for other in self._repeats.get(trial.id, ()))]

    @property
    def configs(self) -> list[TrialState]:
        """The first trial of each config, in the order of suggestion."""
        return [trial for trial in self.trials.values() if trial.repeats is None]


def replay(journal: Iterable[Event]) -> SweepState:
    """The state after these events."""
    state = SweepState()
    for event in journal:
        state.apply(event)
    return state


def ranking(state: SweepState, maximise: bool, so_far: bool = False,
            codes: bool = False) -> list[tuple[TrialState, Result]]:
    """Configs that ended by themselves or by a rung, best first: the first trial of each, with its result.

    `record.standing` has the order; failed trials are left out.

    Args:
        so_far: for display: also configs that have not ended, each by its results up to now.
        codes: whether a model without codes is out of the contest.
    """
    asked = (state.seq, maximise, so_far, codes)
    if asked not in state._ranked:
        state._ranked = {key: rows for key, rows in state._ranked.items() if key[0] == state.seq}
        state._ranked[asked] = _ranking(state, maximise, so_far, codes)
    return list(state._ranked[asked])


def _ranking(state: SweepState, maximise: bool, so_far: bool, codes: bool) -> list[tuple[TrialState, Result]]:
    rows = [(trial, mean_result(state.repeats_of(trial), maximise)) for trial in state.configs
            if trial.status in FINISHED]
    if so_far:
        rows += [(trial, _joined([trial], maximise)) for trial in state.configs if not trial.final]
    found = [(trial, result) for trial, result in rows if result is not None]
    return sorted(found, key=lambda row: standing.order(row[1], row[0].number, maximise, codes))


def mean_result(trials: list[TrialState], maximise: bool) -> Result | None:
    """The result of a config from its trainings that have ended; None where none has a finite one."""
    return _joined([trial for trial in trials if trial.final], maximise)


def _joined(trials: list[TrialState], maximise: bool) -> Result | None:
    ended = [result for trial in trials if (result := standing.ended(trial.results, maximise))]
    return standing.mean_of_seeds(ended, maximise)


def pareto(state: SweepState, signs: dict[str, int], primary: str,
           codes: bool = False) -> list[tuple[TrialState, Result]]:
    """Rows of the ranking that no other row beats on every objective.

    Args:
        signs: objective -> 1 where higher is better, -1 where lower is.
    """
    rows = [row for row in ranking(state, signs[primary] > 0, codes=codes)
            if standing.is_sound(row[1].verdict, codes) and row[1].violation <= 0]
    points = [[sign * (row[1].objective if key == primary else row[1].values.get(key, math.nan))
               for key, sign in signs.items()] for row in rows]
    return [row for row, point in zip(rows, points, strict=True)
            if not any(_dominates(other, point) for other in points)]


def _dominates(a: list[float], b: list[float]) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _number(value: float | None) -> float:
    return math.nan if value is None else value
