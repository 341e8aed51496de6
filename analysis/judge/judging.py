"""How one training is judged: at which epoch, as what, and how far outside the sweep's constraints. Pure.

A run of its own is judged at the epoch whose checkpoint is kept. A trial of a sweep is judged at the
epoch that the sweep ranks it by. `record.standing` says which ones these are. The two are the same epoch
unless the sweep has constraints or another objective than val/objective, or the config keeps the last
checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from analysis.judge.vitality import told_by_rules
from analysis.read.reading import Trial
from record import standing
from record.bounds import Bound, total_violation
from record.health import COLLAPSE_RULES
from record.journal.events import FINISHED
from record.text import finite, number

LIVE = "live"
# What a standing shows beside its value: the mean over seeds where there are several.
MEANS = ("val/control", "val/codebook_health", "val/dsnr", "val/mse_copy", "val/action_skill",
         "val/action_skill_embedding")


class Judged(standing.Outcome):
    """One training at the epoch it is ranked by, with its status as its verdict.

    Attributes:
        outside: a sentence for each constraint that is broken.
    """

    label: str = ""
    seed: int | None = None
    record: Mapping[str, Any] = {}
    outside: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """live, collapsed, actions_ignored, no_codes, nonfinite, failed, unfinished or no_result."""
        return self.verdict

    @property
    def value(self) -> float | None:
        """The objective; None where it is not defined."""
        return finite(self.objective)

    def number(self, key: str) -> float | None:
        """A metric of the judged epoch."""
        return finite(self.record.get(key))


def kept_record(trial: Trial) -> Mapping[str, Any] | None:
    """The validated record whose checkpoint is kept; None before the first validation."""
    return trial.validated.row(_kept(trial)) if trial.validated else None


def _kept(trial: Trial) -> int:
    objectives = trial.validated.column(trial.workload.objective)
    return standing.kept(objectives, trial.config.get("keep", "best"),
                         trial.workload.maximises(trial.workload.objective))


def judge(trial: Trial, objective: str | None = None) -> Judged:
    """A training as it stands; ranked by the workload's own objective unless another is named."""
    objective = objective or trial.workload.objective
    place = f"judged by {objective}"
    if place not in trial.memo:
        trial.memo[place] = _judge(trial, objective)
    found: Judged = trial.memo[place]
    return found


def _judge(trial: Trial, objective: str) -> Judged:
    if not trial.validated:
        return Judged(0, math.nan, _status(trial, "no_result", ""), total_violation(trial.limits, {}),
                      label=trial.label, seed=trial.config.get("seed"))
    last = trial.validated.row(-1)
    best = _epoch(trial, kept_record(trial) or last, objective) if trial.place is None else _ranked(trial, objective)
    return replace(best, verdict=_status(trial, best.verdict, trial.workload.verdict(last)),
                   outside=broken(trial, best.record) if trial.limits else ())


def _ranked(trial: Trial, objective: str) -> Judged:
    """The epoch that a sweep ranks the trial by; the last one where no objective is finite."""
    epochs = trial.validated
    place = standing.judged_place(epochs.column(objective), _violations(trial),
                                  lambda place: standing.is_sound(trial.workload.verdict(epochs.row(place))),
                                  trial.workload.maximises(objective))
    return _epoch(trial, epochs.row(-1 if place is None else place), objective)


def _violations(trial: Trial) -> NDArray[np.float64]:
    """How far each validated epoch is outside the constraints, [N]."""
    if not trial.limits:
        return np.zeros(len(trial.validated))
    columns = [trial.validated.values(key) for key in trial.limits]
    return np.array([total_violation(trial.limits, dict(zip(trial.limits, row, strict=True)))
                     for row in zip(*columns, strict=True)])


def judge_ended(trial: Trial, objective: str) -> Judged:
    """The same for a further training of a config, which counts with what it reached even if its process was lost."""
    return judge(dataclasses.replace(trial, state="stopped") if trial.state == "failed" else trial, objective)


def _epoch(trial: Trial, record: Mapping[str, Any], objective: str) -> Judged:
    return Judged(record["epoch"], _number(record, objective), trial.workload.verdict(record),
                  total_violation(trial.limits, record), _number(record, trial.workload.error),
                  {key: _number(record, key) for key in MEANS}, trial.label,
                  trial.config.get("seed"), record)


def _number(record: Mapping[str, Any], key: str) -> float:
    value = finite(record.get(key))
    return math.nan if value is None else value


def _status(trial: Trial, judged: str, last: str) -> str:
    """The verdict at the end, or why there is none; what ended the training by a rule is known without its records."""
    rule = trial.reason.get("rule")
    if trial.workload.judged_by_rules and last and trial.state in FINISHED:
        return told_by_rules(trial)
    if trial.state == "failed":
        return "nonfinite" if "nonfinite" in (rule, last) else "failed"
    if rule in COLLAPSE_RULES or rule == "nonfinite":
        return "collapsed" if rule in COLLAPSE_RULES else "nonfinite"
    return standing.verdict_at_end(judged, last) if trial.state in FINISHED else "unfinished"


def broken(trial: Trial, record: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each of the trial's constraints that an epoch record breaks."""
    return tuple(_sentence(key, bound, finite(record.get(key))) for key, bound in trial.limits.items()
                 if total_violation({key: bound}, record) > 0)


def _sentence(key: str, bound: Bound, value: float | None) -> str:
    if value is None:
        return f"{key} was not measured, asked was {bound.text}"
    return f"{key} {number(value)} is outside {bound.text} by {number(bound.violation(value))}"
