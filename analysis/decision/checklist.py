"""What is required of a config before production, item by item, with evidence. Pure.

`met`, `close` and `not met` are read off records and the rules of the health profile; `not checked` means that nothing
was recorded to check it by, never that it is fine. Only `met` counts as met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.decision.speech import course, from_to, text_of, title, word
from analysis.judge.ranking import Standing, state_word
from analysis.judge.vitality import best_without_codes, findings, rules_reading
from analysis.read.study import Study, Trial, last_value, points_of
from record.text import count, number

Status = Literal["met", "close", "not met", "not checked"]
FALLING = ("collapsing", "slow decline", "volatile")


@dataclass(frozen=True)
class Requirement:
    """One line of the checklist."""

    title: str
    status: Status
    evidence: str


def checklist(study: Study, trial: Trial, standing: Standing, baseline: Trial | None = None) -> tuple[Requirement, ...]:
    """Every requirement of one config; `baseline` is the arm that it is held against, else the best without codes."""
    checks = [*_CHECKS, *([_skill] if trial.workload.reporting.roles.skill else [])]
    return tuple(check(study, trial, standing, baseline) for check in checks)


def counted(found: Sequence[Requirement]) -> str:
    """`5 of 6 requirements met, 1 close`."""
    statuses = [item.status for item in found]
    rest = [f"{statuses.count(status)} {status}" for status in ("close", "not met", "not checked")
            if status in statuses]
    return ", ".join([f"{statuses.count('met')} of {count(len(found), 'requirement')} met", *rest])


def _codes(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    name = "Discrete codes in use"
    key = trial.workload.reporting.roles.active_codes or trial.workload.reporting.codes
    points = [value for _, value in points_of(trial, key)] if key else []
    if not points or key is None:
        return Requirement(name, "not met" if key else "not checked", "no codes were logged")
    span = f"{text_of(trial, key, min(points))} to {text_of(trial, key, max(points))}"
    shown = f"{title(trial, key)}: {span}, {text_of(trial, key, points[-1])} at the end"
    return Requirement(name, "met" if points[-1] > _least_codes(trial, key) else "not met", shown)


def _least_codes(trial: Trial, key: str) -> float:
    return 1.0 if key == trial.workload.reporting.roles.active_codes else 0.0


def _codebook(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    name, key = "A stable, diverse codebook", trial.workload.reporting.roles.usage
    points = points_of(trial, key) if key else []
    if not points or key is None:
        return Requirement(name, "not checked", "the use of codes was not logged")
    told = course(trial, key, "up")
    values = [value for _, value in points]
    evidence = f"{title(trial, key)} {text_of(trial, key, min(values))} to {text_of(trial, key, max(values))}, " \
               f"{word(told)}{_rules_text(trial, [key])}"
    status = _by_rules(trial, [key])
    return Requirement(name, "not met" if told.word in FALLING[:1] else "close" if told.word in FALLING[1:]
                       and status == "met" else status, evidence)


def _objective(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    name, key = "The loss decreases", trial.workload.reporting.roles.loss
    told = course(trial, key, "down") if key else None
    if key is None or told is None or told.points < 2:
        return Requirement(name, "not checked", "fewer than two validations")
    falls = told.last < told.first
    status: Status = "met" if falls and told.word not in ("volatile", "rising") else "close" if falls else "not met"
    return Requirement(name, status, f"{title(trial, key)} {from_to(trial, key)}, {word(told)}")


def _embedding(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    name, keys = "A healthy embedding", [key for key in trial.workload.reporting.roles.ranks if points_of(trial, key)]
    if not keys:
        return Requirement(name, "not checked", "no effective rank was logged")
    told = {key: course(trial, key, "up") for key in keys}
    evidence = "; ".join(f"{title(trial, key)} {from_to(trial, key) or number(found.last)}, {word(found)}"
                         for key, found in told.items()) + _rules_text(trial, keys)
    falling = any(found.word in FALLING[:2] for found in told.values())
    status = _by_rules(trial, keys)
    return Requirement(name, "close" if falling and status == "met" else status, evidence)


def _completes(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    asked, done = standing.num_epochs, standing.last_epoch
    evidence = f"{done}/{asked or '?'} epochs, {state_word(trial.state)}"
    if trial.stopped_early:
        return Requirement("Training completes", "met" if trial.state == "completed" else "not met",
                           f"{evidence}; by its own early stopping: {trial.stopped_early}")
    over = trial.state == "completed" and (asked is None or done >= asked)
    return Requirement("Training completes", "met" if over else "not met", evidence)


def _competitive(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    asked = trial.workload.reporting.competitive
    key = asked.metric if asked else study.objective
    met, close = (asked.met, asked.close) if asked else (0.05, 0.10)
    name = f"Within {100 * met:.0f} % of the arm without codes"
    other = baseline or best_without_codes(study.trials, key)
    own, reference = last_value(trial, key), last_value(other, key) if other else None
    if other is None or own is None or not reference or other == trial:
        return Requirement(name, "not checked", "no arm without codes here; name one with --baseline RUN")
    lower = not trial.workload.maximises(key)
    gap = (own / reference - 1) * (1 if lower else -1)
    status: Status = "met" if gap <= met else "close" if gap <= close else "not met"
    return Requirement(name, status, f"{title(trial, key)} {number(own)} against {number(reference)} of {other.label}: "
                                     f"{100 * gap:+.0f} % (close up to {100 * close:.0f} %)")


def _skill(study: Study, trial: Trial, standing: Standing, baseline: Trial | None) -> Requirement:
    name = "The codes mean the actions"
    if standing.skill is None:
        return Requirement(name, "not checked", "no true actions to check it by")
    low = standing.skill_low if standing.skill_low is not None else standing.skill
    status: Status = "met" if low > 0 else "close" if standing.skill > 0 else "not met"
    return Requirement(name, status, f"action skill {number(standing.skill)}, at least {number(low)} with 95 %")


def _by_rules(trial: Trial, keys: Sequence[str]) -> Status:
    """Of the rules that read these metrics and hold: an abort or warning is not met, a remark is close."""
    held = [item.severity for item in findings(trial) if any(item.rule in rules_reading(trial, key) for key in keys)]
    return "not met" if "abort" in held or "warn" in held else "close" if "info" in held and _ends_low(
        trial, keys) else "met"


def _ends_low(trial: Trial, keys: Sequence[str]) -> bool:
    """Whether a remark is not outweighed by growth: a metric below its target that grows is on its way."""
    return not all(course(trial, key, "up").word in ("growing", "oscillating", "recovered", "stable") or
                   course(trial, key, "up").change == "grew" for key in keys)


def _rules_text(trial: Trial, keys: Sequence[str]) -> str:
    held = [item.rule for item in findings(trial) if any(item.rule in rules_reading(trial, key) for key in keys)]
    return f" ({', '.join(held)})" if held else ""


_CHECKS: tuple[Callable[[Study, Trial, Standing, Trial | None], Requirement], ...] = (
    _codes, _codebook, _objective, _embedding, _completes, _competitive)
