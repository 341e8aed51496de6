"""The state of a sweep, rebuilt from its journal: the one truth that searcher, scheduler and commands read.

`replay` is pure: the same events give the same state, so a resumed sweep decides as the
uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Status = Literal["suggested", "started", "stopped", "completed", "failed", "interrupted"]
FINAL: tuple[Status, ...] = ("stopped", "completed", "failed")


@dataclass(frozen=True)
class Result:
    """One validated epoch of a trial; `objective` is NaN where it is not finite."""

    epoch: int
    objective: float
    verdict: str
    tflops: float


@dataclass
class TrialState:
    """One trial as the journal tells it."""

    id: str
    number: int
    params: dict[str, Any]
    status: Status = "suggested"
    results: list[Result] = field(default_factory=list)
    reason: dict[str, Any] | None = None
    objective: float = math.nan

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
        last = self.results[-1].tflops if self.results else 0.0
        return last if math.isfinite(last) else 0.0

    def best(self, maximise: bool) -> Result | None:
        """The result that ranks highest: a live one before any other, then by objective."""
        finite = [result for result in self.results if math.isfinite(result.objective)]
        sign = 1 if maximise else -1
        return max(finite, key=lambda result: (is_sound(result.verdict), sign * result.objective), default=None)


def is_sound(verdict: str) -> bool:
    """Whether a trial with this verdict may win: live, or of a kind that has no codes to judge."""
    return verdict in ("live", "no_codes")


@dataclass
class SweepState:
    """Everything the journal says.

    Attributes:
        seconds: wall clock spent by all sessions, each from its first event to its last.
    """

    trials: dict[str, TrialState] = field(default_factory=dict)
    seq: int = 0
    seconds: float = 0.0
    finished: str | None = None
    session_began: datetime | None = None
    _earlier_seconds: float = 0.0

    def apply(self, event: dict[str, Any]) -> None:
        """Take one event in."""
        self.seq = event["seq"]
        kind = event["event"]
        if kind in ("sweep_started", "sweep_resumed"):
            self._earlier_seconds, self.session_began, self.finished = self.seconds, _time(event), None
        elif kind == "sweep_finished":
            self.finished = event["reason"]
        elif kind == "suggested":
            trial = TrialState(event["trial"], len(self.trials), event["params"])
            self.trials[trial.id] = trial
        elif kind == "result":
            self.trials[event["trial"]].results.append(
                Result(event["epoch"], _number(event["objective"]), event["verdict"], _number(event["tflops"])))
        elif kind != "sweep_interrupted":
            self._change(event)
        if self.session_began is not None:
            self.seconds = self._earlier_seconds + max(0.0, (_time(event) - self.session_began).total_seconds())

    def _change(self, event: dict[str, Any]) -> None:
        trial = self.trials[event["trial"]]
        trial.status = event["event"]
        trial.reason = event.get("reason")
        if event["event"] == "completed":
            trial.objective = _number(event["objective"])

    def with_status(self, *statuses: Status) -> list[TrialState]:
        """Trials in one of these states, in the order of suggestion."""
        return [trial for trial in self.trials.values() if trial.status in statuses]

    @property
    def unfinished(self) -> list[TrialState]:
        """Trials that still have something to do."""
        return [trial for trial in self.trials.values() if not trial.final]

    @property
    def epochs(self) -> int:
        """Epochs trained by all trials."""
        return sum(trial.epoch for trial in self.trials.values())

    @property
    def tflops(self) -> float:
        """Operations of all trials."""
        return sum(trial.tflops for trial in self.trials.values())


def replay(events: Iterable[dict[str, Any]]) -> SweepState:
    """The state after these events."""
    state = SweepState()
    for event in events:
        state.apply(event)
    return state


def ranking(state: SweepState, maximise: bool) -> list[tuple[TrialState, Result]]:
    """Trials that ended by themselves or by a rung, best first, each with its best result.

    A trial whose best result is not sound stands behind every one whose best is; failed ones are left out.
    """
    rows = [(trial, trial.best(maximise)) for trial in state.with_status("completed", "stopped")]
    sign = -1 if maximise else 1
    found = [(trial, result) for trial, result in rows if result is not None]
    return sorted(found, key=lambda row: (not is_sound(row[1].verdict), sign * row[1].objective, row[0].number))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _time(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["time"])
