"""What each arm did well, what it did not, whether that blocks it, and how its config differs. Pure.

Nothing here says why: arms that differ in several values at once show what goes together, never what causes what.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from analysis.decision.speech import axis, course, from_to, text_of, title, word
from analysis.judge.ranking import Standing
from analysis.judge.vitality import findings, gravest, has_no_codes, rules_reading
from analysis.read.study import SET_BY_SWEEP, Study, Trial, last_value, points_of
from record.text import number, printable, value_text


@dataclass(frozen=True)
class Concern:
    """What an arm did not do well; `blocking`: a rule says stop."""

    text: str
    blocking: bool


@dataclass(frozen=True)
class Change:
    """A config key in which an arm differs from the chosen one."""

    key: str
    before: str
    after: str


@dataclass(frozen=True)
class Arm:
    """One arm in sentences.

    Attributes:
        changes: config of this arm -> config of the chosen one.
    """

    label: str
    status: str
    well: tuple[str, ...]
    concerns: tuple[Concern, ...]
    changes: tuple[Change, ...] = ()


def review(study: Study, standings: Sequence[Standing], chosen: Trial | None, shown: Sequence[str],
           baseline: Trial | None = None) -> tuple[Arm, ...]:
    """The arms of a comparison, in its order."""
    trials = [trial for label in shown if (trial := study.trial(label)) is not None]
    trials += [baseline] if baseline is not None and baseline not in trials else []
    places = {item.label: item for item in standings}
    return tuple(
        Arm(trial.label, places[trial.label].status if trial.label in places else "baseline",
            tuple(_well(trial, trials)), tuple(_concerns(trial)),
            tuple(changes(trial, chosen)) if chosen is not None and trial != chosen else ())
        for trial in trials if trial.records)


def _well(trial: Trial, others: Sequence[Trial]) -> list[str]:
    known = trial.workload.reporting.roles
    found = [*_codebook(trial, known.usage, known.active_codes), *_ranks(trial, known.ranks),
             *_losses(trial, known.train_loss, known.loss), *_gaps(trial, others, known.loss),
             *_gradients(trial, others, known.grad_norm)]
    if trial.num_epochs and trial.last_epoch >= trial.num_epochs:
        found.append(f"All {trial.num_epochs} epochs were trained.")
    if not any(item.severity != "info" for item in findings(trial)):
        found.append("No health rule of severity warn or worse holds at the end.")
    return found


def _codebook(trial: Trial, usage: str | None, codes: str | None) -> list[str]:
    points = points_of(trial, usage) if usage else []
    if not usage or not points or _judged(trial, usage) == "bad":
        return []
    least = min(points, key=lambda point: point[1])
    most = max(value for _, value in points)
    lowest = f"{text_of(trial, usage, least[1])} at {axis(trial)} {least[0]:g}"
    found = [f"{title(trial, usage)}: {from_to(trial, usage)}, between {lowest} and {text_of(trial, usage, most)}; "
             f"{word(course(trial, usage, 'up'))}." if len(points) > 1 else f"{title(trial, usage)}: {lowest}, once."]
    used = [value for _, value in points_of(trial, codes)] if codes else []
    return [*found, f"{number(min(used))} to {number(max(used))} codes in use."] if used else found


def _ranks(trial: Trial, keys: Sequence[str]) -> list[str]:
    grown = [key for key in keys if (found := course(trial, key, "up")).points > 1 and found.last > found.first]
    return [f"{title(trial, key)}: {from_to(trial, key)}; {word(course(trial, key, 'up'))}." for key in grown]


def _losses(trial: Trial, train: str | None, loss: str | None) -> list[str]:
    found = []
    for key in dict.fromkeys(key for key in (train, loss) if key):
        told = course(trial, key, "down")
        if told.points > 1 and told.last < told.first:
            found.append(f"{title(trial, key)}: {from_to(trial, key)}; {word(told)}{_rise(trial, key)}.")
    return found


def _rise(trial: Trial, key: str) -> str:
    points = points_of(trial, key)
    rises = [(after - before, place) for (_, before), (place, after) in pairwise(points)]
    rise, place = max(rises, default=(0.0, 0.0))
    return f", its largest rise {number(rise)} at {axis(trial)} {place:g}" if rise > 0 else ", without a rise"


def _gaps(trial: Trial, others: Sequence[Trial], loss: str | None) -> list[str]:
    own = last_value(trial, loss) if loss else None
    if own is None or loss is None:
        return []
    gaps = [f"{100 * (own / value - 1):+.0f} % against {other.label}{' (no codes)' if has_no_codes(other) else ''}"
            for other in others if other != trial and (value := last_value(other, loss))]
    return [f"{title(trial, loss)} {number(own)} at the end: {', '.join(gaps)}."] if gaps else []


def _gradients(trial: Trial, others: Sequence[Trial], key: str | None) -> list[str]:
    if key is None or not points_of(trial, key) or _judged(trial, key) == "bad":
        return []
    spans = [(other.label, [value for _, value in points_of(other, key)]) for other in others if other != trial]
    against = [f"{number(min(values))} to {number(max(values))} in {label}" for label, values in spans if values]
    own = [value for _, value in points_of(trial, key)]
    tail = f" (against {', '.join(against[:3])})" if against else ""
    return [f"{title(trial, key)}: {number(min(own))} to {number(max(own))}{tail}."]


def _judged(trial: Trial, key: str) -> str:
    found = [item.severity for item in findings(trial) if item.rule in rules_reading(trial, key)]
    return "bad" if "abort" in found or "warn" in found else "watch" if found else "good"


def _concerns(trial: Trial) -> list[Concern]:
    found = [Concern(f"{item.meaning} Here {printable(item.sentence)}.", item.severity == "abort")
             for item in gravest(trial)]
    if trial.reason.get("sentence"):
        found.insert(0, Concern(f"{trial.state}: {printable(str(trial.reason['sentence']))}", trial.state == "failed"))
    if trial.stopped_early:
        found.append(Concern(f"It ended before its last epoch: {trial.stopped_early}.", False))
    if trial.num_epochs and trial.last_epoch < trial.num_epochs and not trial.reason and not trial.stopped_early:
        found.append(Concern(f"{trial.last_epoch} of {trial.num_epochs} epochs were trained.", False))
    if has_no_codes(trial):
        found.append(Concern("It has no discrete codes: a reference, not a candidate.", True))
    return found


def changes(before: Trial, after: Trial) -> list[Change]:
    """The config keys that differ between two arms and may change a number, from -> to."""
    aside = {*SET_BY_SWEEP, *before.workload.no_result, *before.workload.path_knobs}
    keys = dict.fromkeys([*before.config, *after.config])
    return [Change(key, *(_value(trial.config, key) for trial in (before, after))) for key in keys
            if before.config and after.config and key.split(".")[0] not in aside
            and json.dumps(before.config.get(key), default=str) != json.dumps(after.config.get(key), default=str)]


def _value(config: dict[str, Any], key: str) -> str:
    return value_text(config[key]) if key in config else "not set"
