"""How one training is judged: at which epoch, as what, and how far outside the sweep's constraints. Pure.

A run of its own is judged at the epoch whose checkpoint is kept. A trial of a sweep is judged at the
epoch that the sweep ranks it by: a sound one before any other, then the one least outside the
constraints, then the best by the objective. The two are the same epoch unless the sweep has
constraints or another objective than val/objective, or the config keeps the last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from analysis.read.reading import FINISHED, Trial
from analysis.text import finite, number
from lam.metrics import TABLE
from record.bounds import Bound, total_violation
from record.health import verdict

LIVE = "live"
# Verdicts and statuses that may win; no_codes is of a model that has no codes to judge.
SOUND = (LIVE, "no_codes")
_DEAD = ("collapsed", "nonfinite")


def sign_of(objective: str) -> int:
    """1 where higher is better, -1 where lower is."""
    return -1 if TABLE[objective].direction == "down" else 1


def kept_record(trial: Trial, objective: str = "val/objective") -> dict[str, Any] | None:
    """The validated record whose checkpoint is kept; None before the first validation."""
    if not trial.validated:
        return None
    keep = trial.config.get("keep", "best")
    key = objective if keep == "all" else "val/objective"
    usable = [record for record in trial.validated if finite(record.get(key)) is not None]
    if keep == "last" or not usable:
        return trial.validated[-1]
    return max(usable, key=lambda record: sign_of(key) * record[key])


def judged_record(trial: Trial, objective: str = "val/objective") -> dict[str, Any] | None:
    """The validated record that a training is ranked by; None before the first validation."""
    usable = [record for record in trial.validated if finite(record.get(objective)) is not None]
    if trial.place is None or not usable:
        return kept_record(trial, objective)
    return max(usable, key=lambda record: (
        verdict(record) in SOUND, -total_violation(trial.limits, record), sign_of(objective) * record[objective]))


def status_of(trial: Trial, objective: str = "val/objective") -> str:
    """live, collapsed, actions_ignored, no_codes, nonfinite, failed, unfinished or no_result."""
    last = verdict(trial.validated[-1]) if trial.validated else None
    rule = trial.reason.get("rule")
    if trial.state == "failed":
        return "nonfinite" if "nonfinite" in (rule, last) else "failed"
    if rule in ("collapse", "nonfinite"):
        return "collapsed" if rule == "collapse" else "nonfinite"
    if trial.state not in FINISHED:
        return "unfinished"
    record = judged_record(trial, objective)
    if record is None or last is None:
        return "no_result"
    return last if last in _DEAD else verdict(record)


@dataclass(frozen=True)
class Judged:
    """One training at the epoch it is ranked by; numbers are None where they are not defined.

    Attributes:
        violation: how far outside the constraints, 0 inside, infinite where one is not measured.
        outside: a sentence for each constraint that is broken.
    """

    label: str
    seed: int | None
    status: str
    record: dict[str, Any]
    value: float | None
    violation: float = 0.0
    outside: tuple[str, ...] = ()

    def number(self, key: str) -> float | None:
        """A metric of the judged epoch."""
        return finite(self.record.get(key))


def judge(trial: Trial, objective: str) -> Judged:
    """A training as it stands."""
    record = judged_record(trial, objective) or {}
    return Judged(trial.label, trial.config.get("seed"), status_of(trial, objective), record,
                  finite(record.get(objective)), total_violation(trial.limits, record),
                  broken(trial, record) if record else ())


def judge_ended(trial: Trial, objective: str) -> Judged:
    """The same for a further training of a config, which counts with what it reached even if its process was lost."""
    return judge(replace(trial, state="stopped") if trial.state == "failed" else trial, objective)


def broken(trial: Trial, record: dict[str, Any]) -> tuple[str, ...]:
    """A sentence for each of the trial's constraints that an epoch record breaks."""
    return tuple(_sentence(key, bound, finite(record.get(key))) for key, bound in trial.limits.items()
                 if total_violation({key: bound}, record) > 0)


def _sentence(key: str, bound: Bound, value: float | None) -> str:
    if value is None:
        return f"{key} was not measured, asked was {bound.text}"
    return f"{key} {number(value)} is outside {bound.text} by {number(bound.violation(value))}"
