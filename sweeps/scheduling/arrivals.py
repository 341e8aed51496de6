"""What stopping rules compare, kept sorted as results come: a decision costs a look-up, not a walk over all trials.

Each index hangs on the sweep's state (`SweepState.indexes`) and reads on where it was in `SweepState.touched`, so it is
what a walk over the state would find, also after a replay. Pure.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from record import health
from record.journal.results import Result
from sweeps.journal.state import SweepState, TrialState
from sweeps.spec import rungs
from sweeps.spec.sections import Asha


class _Index:
    """Reads what happened to trials since it was asked last."""

    def __init__(self) -> None:
        self._read = 0

    def _catch_up(self, state: SweepState) -> None:
        touched = state.touched
        while self._read < len(touched):
            self._take(state, state.trials[touched[self._read]])
            self._read += 1

    def _take(self, state: SweepState, trial: TrialState) -> None:
        raise NotImplementedError


def _kept(state: SweepState, name: str, kind: type[Any], *made_of: Any) -> Any:
    """The state's index of this name; another one where the settings are others than it was made of."""
    known = state.indexes.get(name)
    if known is None or known[0] != made_of:
        known = state.indexes[name] = (made_of, kind(*made_of))
    known[1]._catch_up(state)
    return known[1]


class Ladder(_Index):
    """What trials were worth at each rung, and which are paused there."""

    def __init__(self, asha: Asha, maximise: bool) -> None:
        super().__init__()
        self._asha, self._maximise = asha, maximise
        self._arrived: dict[tuple[int, int], list[float]] = defaultdict(list)
        self._paused: dict[tuple[int, int], list[tuple[float, int, str]]] = defaultdict(list)
        self._resting: dict[str, tuple[tuple[int, int], tuple[float, int, str]]] = {}
        self._climbed: dict[str, tuple[int, int]] = {}  # results read, rungs arrived at
        self._levels: dict[int, list[float]] = {}

    @staticmethod
    def of(state: SweepState, asha: Asha, maximise: bool) -> Ladder:
        """The ladder of a sweep's state."""
        found: Ladder = _kept(state, "ladder", Ladder, asha, maximise)
        return found

    def arrivals(self, bracket: int, rung: int) -> Sequence[float]:
        """What all trials that came to a rung were worth there, the worst first."""
        return self._arrived[bracket, rung]

    def best_paused(self) -> Iterator[tuple[float, float, int, str, Sequence[float]]]:
        """(level, value, number, id, arrivals) of the best paused trial of each rung; of equals the first suggested."""
        for (bracket, rung), resting in self._paused.items():
            if resting:
                value, number, trial = resting[-1]
                yield self.levels(bracket)[rung], value, -number, trial, self._arrived[bracket, rung]

    def levels(self, bracket: int) -> list[float]:
        """Its rungs (`Asha.ladder`)."""
        if bracket not in self._levels:
            self._levels[bracket] = self._asha.ladder(bracket)
        return self._levels[bracket]

    def _take(self, state: SweepState, trial: TrialState) -> None:
        if trial.repeats is None:
            bracket = self._asha.bracket(trial.number)
            self._climb(trial, bracket, self.levels(bracket))
            self._rest(trial, bracket, self.levels(bracket))

    def _climb(self, trial: TrialState, bracket: int, levels: list[float]) -> None:
        read, rung = self._climbed.get(trial.id, (0, 0))
        for result in trial.results[read:]:
            while rung < len(levels) and self._asha.place(result) >= levels[rung]:
                bisect.insort(self._arrived[bracket, rung], rated(result, self._maximise))
                rung += 1
        if rung < len(levels) and is_lost(trial) and before(self._asha, trial) >= (levels[rung - 1] if rung else 0.0):
            bisect.insort(self._arrived[bracket, rung], rungs.NEVER)
            rung = len(levels)
        self._climbed[trial.id] = len(trial.results), rung

    def _rest(self, trial: TrialState, bracket: int, levels: list[float]) -> None:
        if trial.id in self._resting:
            where, entry = self._resting.pop(trial.id)
            self._paused[where].pop(bisect.bisect_left(self._paused[where], entry))
        if trial.status == "paused":
            reached = rungs.rung_reached(levels, 0.0, self._asha.place(trial.results[-1]))
            assert reached is not None, "a trial is paused at a rung"
            entry = rated(trial.results[-1], self._maximise), -trial.number, trial.id
            bisect.insort(self._paused[bracket, reached], entry)
            self._resting[trial.id] = (bracket, reached), entry


class Means(_Index):
    """The running mean of each trial at each epoch that it has come to."""

    def __init__(self, maximise: bool) -> None:
        super().__init__()
        self._maximise = maximise
        self._at: dict[int, list[float]] = defaultdict(list)
        self._sums: dict[str, tuple[int, float, int]] = {}  # results read, their sum, the last epoch
        self._best: dict[str, tuple[float, Result]] = {}

    @staticmethod
    def of(state: SweepState, maximise: bool) -> Means:
        """The means of a sweep's state."""
        found: Means = _kept(state, "means", Means, maximise)
        return found

    def others(self, trial: TrialState) -> Sequence[float]:
        """The means of the other trials at the trial's last epoch, the worst first."""
        means = self._at[trial.epoch]
        count, total, _ = self._sums[trial.id]
        return _Without(means, bisect.bisect_left(means, total / count))

    def best(self, trial: TrialState) -> Result:
        """The trial's best result, the first of equal ones."""
        return self._best[trial.id][1]

    def _take(self, state: SweepState, trial: TrialState) -> None:
        if trial.repeats is not None:
            return
        count, total, epoch = self._sums.get(trial.id, (0, 0.0, 0))
        for result in trial.results[count:]:
            for passed in range(epoch + 1, result.epoch) if count else ():
                bisect.insort(self._at[passed], total / count)
            value = rated(result, self._maximise)
            count, total, epoch = count + 1, total + value, result.epoch
            bisect.insort(self._at[epoch], total / count)
            if trial.id not in self._best or value > self._best[trial.id][0]:
                self._best[trial.id] = value, result
        self._sums[trial.id] = count, total, epoch


class _Without(Sequence[float]):
    """A sequence without one of its items; nothing is copied."""

    def __init__(self, items: Sequence[float], left_out: int) -> None:
        self._items, self._left_out = items, left_out

    def __len__(self) -> int:
        return len(self._items) - 1

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._items[index + (index >= self._left_out)]


class Unrepeated(_Index):
    """Configs whose first training completed and that want further seeds."""

    def __init__(self, seeds: int) -> None:
        super().__init__()
        self._seeds = seeds
        self._wanting: dict[int, str] = {}

    @staticmethod
    def of(state: SweepState, seeds: int) -> Unrepeated:
        """The index of a sweep's state."""
        found: Unrepeated = _kept(state, "unrepeated", Unrepeated, seeds)
        return found

    def first(self, state: SweepState) -> TrialState | None:
        """The first one in the order of suggestion."""
        return state.trials[self._wanting[min(self._wanting)]] if self._wanting else None

    def _take(self, state: SweepState, trial: TrialState) -> None:
        first = state.trials[trial.repeats] if trial.repeats else trial
        if first.status == "completed" and len(state.repeats_of(first)) < self._seeds:
            self._wanting[first.number] = first.id
        else:
            self._wanting.pop(first.number, None)


def rated(result: Result, maximise: bool) -> float:
    """A result as rungs and medians compare it: higher is better, minus infinity where it diverged or collapsed."""
    if result.verdict in ("nonfinite", "collapsed"):
        return rungs.NEVER
    return rungs.worth(result.objective if maximise else -result.objective)


def before(asha: Asha, trial: TrialState) -> float:
    """Where a trial was before its latest result."""
    return asha.place(trial.results[-2]) if len(trial.results) > 1 else 0.0


def is_lost(trial: TrialState) -> bool:
    """Whether a trial diverged or collapsed for good."""
    return trial.final and bool(trial.results) and trial.rule in ("nonfinite", *health.COLLAPSE_RULES)
