"""What a production run should be: its config with a reason for each value, how it should end, how long it takes. Pure.

Ranges are those of `analysis.judge.bands`, from the curves of this comparison; where they do not reach, nothing is
said rather than guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.decision.arms import changes
from analysis.decision.speech import is_share, text_of, title
from analysis.judge.bands import Range, expect
from analysis.judge.ranking import Standing
from analysis.read.study import Study, Trial, last_value, points_of
from record.text import count, duration, number, value_text

LONGER = 2  # how many times the epochs a run that still improves is given
LEAST_PATIENCE = 5
LEAST_POINTS = 5  # of a curve before a range is told
BUDGET = ("epochs", "num_epochs")
STILL = 0.02  # expected gain over that, relative to the value, below which it is not


@dataclass(frozen=True)
class Setting:
    """One value of the recommended config and why it has it."""

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class Expected:
    """Where a metric should end: the cautious and the hopeful end of a 90 % range, and now."""

    key: str
    title: str
    now: str
    cautious: str
    expected: str
    hopeful: str
    basis: str


@dataclass(frozen=True)
class Production:
    """The recommended run.

    Attributes:
        base: label of the arm whose config it is.
        lasts: how long it takes, as a sentence; empty where no time was recorded.
    """

    base: str
    epochs: int | None
    settings: tuple[Setting, ...]
    expected: tuple[Expected, ...]
    lasts: str


def plan_production(study: Study, trial: Trial, standings: Sequence[Standing]) -> Production:
    """The chosen arm's config as a production run."""
    planned, why = _epochs(study, trial)
    return Production(trial.label, planned or None, (*_kept(study, trial, standings), *_run(trial, planned, why)),
                      tuple(_expectations(study, trial, planned)), _lasts(study, trial, planned))


def _epochs(study: Study, trial: Trial) -> tuple[int, str]:
    """How long, and why: the longest budget here, or twice as long where the loss is expected to fall on by STILL."""
    asked = trial.num_epochs or trial.last_epoch
    longest = max(study.trials, key=lambda one: one.num_epochs or 0)
    if (longest.num_epochs or 0) > asked:
        return int(longest.num_epochs or 0), f"the longest budget here, that of {longest.label}"
    key = trial.workload.reporting.roles.loss
    now = last_value(trial, key) if key else None
    found = _range(study, trial, key, LONGER * trial.last_epoch) if key and trial.last_epoch else None
    if found is not None and now is not None and now > 0 and (now - found.expected) / now > STILL:
        return LONGER * trial.last_epoch, "its loss is expected to go on falling"
    return asked, "as trained here: no gain worth the time is expected of more"


def _kept(study: Study, trial: Trial, standings: Sequence[Standing]) -> list[Setting]:
    """Each value in which the arms differ: as in the chosen one, and what became of the others' values."""
    values: dict[str, dict[str, list[str]]] = {}
    statuses = {item.label: item.status for item in standings}
    for other in study.configs[:200]:
        for change in changes(other, trial):
            told = f"{other.label} {statuses.get(other.label, '').replace('_', ' ')}".strip()
            values.setdefault(change.key, {}).setdefault(change.before, []).append(told)
    return [Setting(key, value_text(trial.config.get(key)), f"as in {trial.label}; " + "; ".join(
        f"with {value}: {', '.join(told[:3])}{f' and {len(told) - 3} more' if len(told) > 3 else ''}"
        for value, told in list(others.items())[:3]))
        for key, others in values.items() if key in trial.config and key not in BUDGET]


def _run(trial: Trial, epochs: int, why: str) -> list[Setting]:
    """How long, how patient, how often: what the run itself adds to the config."""
    if not epochs:
        return []
    stretch, settings = _longest_wait(trial), [Setting("epochs", str(epochs), why)]
    patience = max(LEAST_PATIENCE, min(round(1.5 * stretch), epochs // 2))
    settings.append(Setting("early stopping, patience", str(patience), _why_patience(patience, stretch, epochs)))
    settings.append(Setting("checkpoint every", count(max(1, epochs // 16), "epoch"), "a sixteenth of the run at most "
                                                                                      "is lost"))
    settings.append(Setting("health metrics", "every validation", "a rule can only fire where something was measured"))
    return settings


def _why_patience(patience: int, stretch: int, epochs: int) -> str:
    waited = f"the longest wait for a new best here ({count(stretch, 'epoch')})"
    wanted = round(1.5 * stretch)
    if patience == LEAST_PATIENCE != wanted:
        return "the least that is advised" + (f"; {waited} is shorter" if wanted < LEAST_PATIENCE else
                                              "; half of the run is shorter")
    return f"half as long again as {waited}" + (", but at most half of the run" if patience < wanted else "")


def _longest_wait(trial: Trial) -> int:
    """The most epochs that passed between two best values of what ranks it."""
    better = max if trial.workload.maximises(trial.workload.objective) else min
    best, since, longest = None, 0.0, 0.0
    for place, value in points_of(trial, trial.workload.objective):
        if best is None or better(value, best) == value != best:
            longest = max(longest, place - since) if best is not None else longest
            best, since = value, place
    return round(longest)


def _expectations(study: Study, trial: Trial, epochs: int) -> list[Expected]:
    roles = trial.workload.reporting.roles
    keys = [key for key in (roles.train_loss, roles.loss, study.objective, *roles.ranks, roles.usage) if key]
    found = []
    for key in dict.fromkeys(keys):
        made = _range(study, trial, key, epochs) if epochs else None
        if made is not None:
            lower = _is_lower_better(trial, key)
            low, mid, high = (text_of(trial, key, value) for value in (made.low, made.expected, made.high))
            found.append(Expected(key, title(trial, key), text_of(trial, key, last_value(trial, key)),
                                  high if lower else low, mid, low if lower else high, _BASES[made.basis]))
    return found


def _is_lower_better(trial: Trial, key: str) -> bool:
    return key in trial.workload.metrics and not trial.workload.maximises(key)


_BASES = {"seeds": "how far trainings of one config differ here", "steps": "how far one epoch differs from the next",
          "curves": "how the recorded curves went on", "extrapolated": "beyond every recorded epoch: the widest of "
          "several ways to go on"}


def _range(study: Study, trial: Trial, key: str, epoch: int) -> Range | None:
    pool = [[curve for one in study.trainings(first) if (curve := _curve(one, key))] for first in study.configs[:100]]
    metric = trial.workload.metrics.get(key)
    own = _curve(trial, key)
    if len(own) < LEAST_POINTS:
        return None
    stated = metric.bounds if metric else (-math.inf, math.inf)
    values = [value for group in pool for curve in group for value in curve.values()]
    bounds = max(stated[0], 0.0) if min(values) >= 0 else stated[0], \
        min(stated[1], 1.0) if is_share(trial, key) else stated[1]
    positive = bool(own) and min(own.values()) > 0 and _is_lower_better(trial, key)
    found = expect(own, [group for group in pool if group], [epoch], log=positive, bounds=bounds)
    return found[0] if found else None


def _curve(trial: Trial, key: str) -> dict[int, float]:
    return {round(place): value for place, value in points_of(trial, key) if place >= 1}


def _lasts(study: Study, trial: Trial, epochs: int) -> str:
    each = [spent / one.last_epoch for one in study.trainings(study.first(trial))
            if (spent := seconds_of(one)) and one.last_epoch]
    others = [spent / one.last_epoch for one in study.trials if (spent := seconds_of(one)) and one.last_epoch]
    if not each or not epochs:
        return ""
    own = sum(each) / len(each)
    low, high = min(others), max(others)
    span = f" ({duration(low * epochs)} to {duration(high * epochs)} at the pace of the other runs)" \
        if high > 1.1 * low else ""
    return f"{count(epochs, 'epoch')} at {number(own)} s each: about {duration(own * epochs)}{span}."


def seconds_of(trial: Trial) -> float | None:
    """Time of a run on the clock since it began, validations included; None where that is not recorded."""
    return last_value(trial, "seconds")
