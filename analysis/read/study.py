"""What was read: a `Study` of `Trial`s, whoever trained them. Nothing here judges; see `analysis.judge.ranking`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from analysis.read.epochs.columns import Epochs
from record.bounds import Bound
from record.text import finite, printable
from record.workload import workload as workloads
from record.workload.workload import Workload

# What a sweep sets for its trials and is no part of the model's config.
SET_BY_SWEEP = ("tracking", "threads")
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Trial:
    """What one run left on disk.

    Attributes:
        label: what a report calls it; unique in its study.
        id: its id inside the sweep, or the run's id.
        state: the last of its journal events (`events.STATUSES`); a run of its own is mapped to the same words.
        params: what the sampler chose; for runs of their own the config keys in which they differ.
        config: the complete config, dotted keys; empty before the trial has started.
        records: epoch records in order.
        reason: why it was stopped or failed (rule, sentence, ...), empty otherwise.
        place: its place in its sweep's order of suggestion, from 0; None for a run of its own.
        repeats: label of the trial whose config this one trains again with another seed.
        limits: the constraints of its sweep, by metric.
        scheduler: settings of the rule by which its sweep ends trials early; empty where there is none.
        workload: what was trained.
        facts: numbers that hold for a whole run of another trainer.
        memo: what was computed from it already; see `remembered`.
    """

    label: str
    id: str
    path: Path
    state: str
    params: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    records: Sequence[dict[str, Any]] = ()
    reason: dict[str, Any] = field(default_factory=dict)
    place: int | None = None
    repeats: str | None = None
    limits: dict[str, Bound] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    workload: Workload = field(default_factory=workloads.default)
    facts: dict[str, float | str] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @cached_property
    def epochs(self) -> Epochs:
        """The records as columns."""
        return Epochs.of(self.records)

    @cached_property
    def validated(self) -> Epochs:
        """The records that hold a validation."""
        return self.epochs.having(self.workload.is_validated)

    @cached_property
    def last_epoch(self) -> int:
        """Epochs trained so far."""
        return int(np.fmax.reduce(self.epochs.column("epoch"), initial=0)) if len(self.records) else 0

    @property
    def stopped_early(self) -> str | None:
        """Why its own `early_stopping` ended it before its last epoch; None where it did not."""
        reason = self.identity.get("stopped_early")
        return printable(str(reason)) if reason else None

    @property
    def num_epochs(self) -> int | None:
        """The full budget of epochs."""
        return self.config.get("num_epochs") or self.identity.get("num_epochs")


T = TypeVar("T")


def remembered(function: Callable[[Trial], T]) -> Callable[[Trial], T]:
    """The function, computed once for each trial; a changed copy of a trial is another trial."""

    @wraps(function)
    def ask(trial: Trial) -> T:
        name = f"{function.__module__}.{function.__qualname__}"
        if name not in trial.memo:
            trial.memo[name] = function(trial)
        answer: T = trial.memo[name]
        return answer

    return ask


def series(records: Sequence[dict[str, Any]], key: str) -> list[float]:
    """The finite values of a key, in order."""
    if isinstance(records, Epochs):
        values = records.column(key)
        found: list[float] = values[np.isfinite(values)].tolist()
        return found
    return [value for record in records if (value := finite(record.get(key))) is not None]


def last_value(trial: Trial, key: str) -> float | None:
    """The last record that holds the key: None where it was not finite there, however good it was before."""
    return finite(trial.epochs.last(key))


def points_of(trial: Trial, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of every record that has a finite value of the key; the record's number where it has no epoch."""
    return trial.epochs.points(key)


@dataclass(frozen=True)
class Study:
    """Trials that are looked at together.

    Attributes:
        objective: key of the metric that ranks them, from the workload's table.
        objectives: every objective that was asked for; the first one ranks.
        knobs: the swept keys in order of appearance.
        sweep: sweep.json where the study is one sweep, else empty.
        stops: the trials that were stopped early, with their reasons.
        confirm: label -> entry of confirm.json (seeds, values, mean, low, high, live).
        differences: paired differences over fresh seeds (a, b, mean, low, high), a and b being labels.
        baseline: label of the trial that has the config in production, where the sweep was launched with it.
        notes: what a reader of the numbers should know of how they were read.
        workload: what was trained, the same in all.
    """

    name: str
    objective: str
    trials: tuple[Trial, ...]
    knobs: tuple[str, ...]
    sources: tuple[Path | str, ...]
    sweep: dict[str, Any] = field(default_factory=dict)
    confirm: dict[str, dict[str, Any]] = field(default_factory=dict)
    differences: tuple[dict[str, Any], ...] = ()
    objectives: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    workload: Workload = field(default_factory=workloads.default)
    baseline: str | None = None

    @property
    def maximise(self) -> bool:
        """Whether a higher objective is better."""
        return self.workload.maximises(self.objective)

    @cached_property
    def _by_label(self) -> dict[str, Trial]:
        return {trial.label: trial for trial in self.trials}

    @cached_property
    def _repeats(self) -> dict[str, list[Trial]]:
        found: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if trial.repeats is not None:
                found.setdefault(trial.repeats, []).append(trial)
        return found

    @property
    def stops(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state == "stopped")

    @property
    def configs(self) -> tuple[Trial, ...]:
        """The first training of each config."""
        labels = {trial.label for trial in self.trials}
        return tuple(trial for trial in self.trials if trial.repeats not in labels)

    def trainings(self, first: Trial) -> tuple[Trial, ...]:
        """All trainings of a config, the first one first."""
        return first, *self._repeats.get(first.label, ())

    def first(self, trial: Trial) -> Trial:
        """The first training of a trial's config; the trial itself where it is that."""
        return self._by_label.get(trial.repeats or "", trial)

    def named(self, name: str) -> tuple[Trial, ...]:
        """The trial with this label, or else every trial with this id: ids name one trial of one sweep only."""
        labelled = self._by_label.get(name)
        return (labelled,) if labelled else tuple(trial for trial in self.trials if trial.id == name)

    def source_of(self, trial: Trial) -> Path:
        """The folder among the sources that a trial lies in: its sweep's, or its own."""
        folders = [Path(source) for source in self.sources]
        return next((folder for folder in folders if trial.path.is_relative_to(folder)), trial.path)

    def trial(self, name: str) -> Trial | None:
        """The trial with this label or id, the first one where several have the id; None where there is none."""
        return next(iter(self.named(name)), None)
