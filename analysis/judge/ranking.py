"""Which config is best: statuses and order. Pure; `analysis.judge.verdict` says why in words.

One standing a config: trainings of one config with several seeds (a sweep's `seeds`) stand together.
`analysis.judge.judging` says how each training is judged, and `record.standing` how they are joined and ordered, as
in the sweep itself. A trial that failed or has not finished is out of the contest, however large its numbers
are. Order of the standings:

    0  live, trained again with fresh seeds, every one of them live: by the mean over those seeds
    1  live
    2  live in the sweep, but not with every fresh seed
    3  live, but outside the sweep's constraints: the least outside first
    4  not finished
    5  finished, but collapsed, nonfinite, without codes or with ignored actions
    6  failed, or without any result

then by value, ties by lower validation MSE, then in the order of suggestion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any

import numpy as np

from analysis.judge.judging import Judged, judge, judge_ended, kept_record
from analysis.read.reading import Study, Trial
from record import standing as rules
from record.journal.events import FINAL, FINISHED
from record.text import finite

OUTSIDE = 3  # the tier of sound configs outside the constraints


@dataclass(frozen=True)
class Confirmed:
    """A config trained again with fresh seeds."""

    seeds: tuple[int | None, ...]
    values: tuple[float | None, ...]
    mean: float | None
    low: float | None
    high: float | None
    live: int
    outside: int = 0  # of the live ones, how many are outside the sweep's constraints

    @property
    def all_live(self) -> bool:
        """Whether every one may win."""
        return self.live - self.outside == len(self.seeds) > 0


@dataclass(frozen=True)
class Seeds:
    """The trainings of one config inside a sweep, the first one first; the interval is Student's t over them."""

    labels: tuple[str, ...]
    seeds: tuple[int | None, ...]
    statuses: tuple[str, ...]
    values: tuple[float | None, ...]
    mean: float | None
    low: float | None
    high: float | None

    @property
    def live(self) -> int:
        """How many of them are sound."""
        return sum(map(rules.is_sound, self.statuses))


@dataclass(frozen=True)
class Standing:
    """One config's place, under the label of its first training.

    Numbers are those of the epoch it is ranked by, means where it was trained with several seeds; None where
    they are not defined. Control's bounds are over videos, and over the seeds where there are several.

    Attributes:
        kept_epoch: the epoch whose checkpoint is kept.
        violation, outside: how far outside the sweep's constraints, 0 inside; and each broken one as a sentence.
        seeds: where the sweep trained it several times.
    """

    rank: int
    label: str
    tier: int
    state: str
    status: str
    value: float | None = None
    epoch: int | None = None
    kept_epoch: int | None = None
    last_epoch: int = 0
    num_epochs: int | None = None
    control: float | None = None
    control_low: float | None = None
    control_high: float | None = None
    health: float | None = None
    dsnr: float | None = None
    dsnr_status: str | None = None
    mse: float | None = None
    mse_copy: float | None = None
    raw_dsnr_max: float | None = None
    skill: float | None = None
    skill_low: float | None = None
    skill_high: float | None = None
    embedding: float | None = None
    preset: str = "control_health"
    confirmed: Confirmed | None = None
    violation: float = 0.0
    outside: tuple[str, ...] = ()
    seeds: Seeds | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def eligible(self) -> bool:
        """Whether it may win."""
        return self.tier <= 2 and self.score is not None

    @property
    def score(self) -> float | None:
        """What its tier is ordered by."""
        return self.confirmed.mean if self.tier == 0 and self.confirmed else self.value


def rank(study: Study) -> tuple[Standing, ...]:
    """Every config of a study, best first."""
    rows = sorted(((trial, _standing(trial, study)) for trial in study.configs),
                  key=lambda row: (row[1].tier, *_order(row[0], row[1], study), row[0].label))
    return tuple(replace(item, rank=number) for number, (_, item) in enumerate(rows, 1))


def _order(trial: Trial, item: Standing, study: Study) -> tuple[Any, ...]:
    outcome = rules.Outcome(item.epoch or 0, nan if item.score is None else item.score, item.status, item.violation,
                            nan if item.mse is None else item.mse)
    place = inf if trial.place is None else trial.place
    return rules.order(outcome, place, study.maximise, study.workload.needs_codes(study.objective, trial.config))


def _standing(trial: Trial, study: Study) -> Standing:
    first = judge(trial, study.objective)
    counted = _counted(study, trial, first)
    joined = rules.mean_of_seeds(counted, study.maximise) or first
    preset = str(joined.record.get("val/objective_preset") or trial.config.get("objective_preset", "control_health"))
    dead = trial.validated.true("val/collapsed")
    raw = trial.validated.column("val/dsnr")[dead] if dead.any() else np.zeros(0)
    confirmed, codes = _confirmed(study.confirm.get(trial.label)), study.workload.needs_codes(
        study.objective, trial.config)
    low, high = _bounds_of(counted, "val/control")
    skill_low, skill_high = _bounds_of(counted, "val/action_skill")
    means = {name: finite(joined.values.get(key)) for name, key in (
        ("control", "val/control"), ("health", "val/codebook_health"), ("dsnr", "val/dsnr"),
        ("mse_copy", "val/mse_copy"), ("skill", "val/action_skill"), ("embedding", "val/action_skill_embedding"))}
    return Standing(
        rank=0, label=trial.label, tier=_tier(trial.state, joined, confirmed, codes), state=trial.state,
        status=joined.status, value=joined.value, epoch=first.record.get("epoch"),
        kept_epoch=(kept_record(trial) or {}).get("epoch"), last_epoch=trial.last_epoch, num_epochs=trial.num_epochs,
        control_low=low, control_high=high,
        skill_low=skill_low, skill_high=skill_high, mse=finite(joined.mse),
        dsnr_status=joined.record.get("val/dsnr_status"), preset=preset,
        confirmed=confirmed, raw_dsnr_max=max(raw[np.isfinite(raw)].tolist(), default=None), violation=joined.violation,
        outside=_outside(counted), seeds=_seeds(counted, joined.value), params=trial.params, **means)


def _counted(study: Study, trial: Trial, first: Judged) -> list[Judged]:
    """The trainings that a config is judged by: the first, and each further one that has ended with a result."""
    if trial.state not in FINISHED:
        return [first]
    others = [judge_ended(other, study.objective) for other in study.trainings(trial)[1:] if other.state in FINAL]
    return [item for item in (first, *others) if item.record] or [first]


def _bounds_of(counted: Sequence[Judged], key: str) -> tuple[float | None, float | None]:
    """The bounds of a metric: its own of one training, over the seeds of several."""
    if len(counted) == 1:
        return counted[0].number(f"{key}_low"), counted[0].number(f"{key}_high")
    return bounds([item.number(key) for item in counted])


def bounds(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """95 % Student's t bounds of a mean over seeds; None below two values, or where one is missing."""
    _, low, high = rules.t_interval([nan if value is None else value for value in values])
    return finite(low), finite(high)


def _outside(counted: Sequence[Judged]) -> tuple[str, ...]:
    """The broken constraints of a config, with the training's label where there are several."""
    several = len(counted) > 1
    return tuple(f"{item.label}: {text}" if several else text for item in counted for text in item.outside)


def _seeds(counted: Sequence[Judged], mean: float | None) -> Seeds | None:
    if len(counted) < 2:
        return None
    values = [item.value for item in counted]
    low, high = bounds(values)
    return Seeds(tuple(item.label for item in counted), tuple(item.seed for item in counted),
                 tuple(item.status for item in counted), tuple(values), mean, low, high)


def _tier(state: str, joined: Judged, confirmed: Confirmed | None, codes: bool) -> int:
    if joined.status == "unfinished":
        return 4
    if state == "failed" or joined.status in ("failed", "no_result"):
        return 6
    if not rules.is_sound(joined.status, codes):
        return 5
    if joined.violation > 0:
        return OUTSIDE
    if confirmed is None:
        return 1
    return 0 if confirmed.all_live and confirmed.mean is not None else 2


def _confirmed(entry: dict[str, Any] | None) -> Confirmed | None:
    if entry is None:
        return None
    return Confirmed(
        seeds=tuple(entry["seeds"]), values=tuple(finite(value) for value in entry["values"]),
        mean=finite(entry["mean"]), low=finite(entry.get("low")), high=finite(entry.get("high")),
        live=int(entry["live"]), outside=int(entry.get("outside", 0)),
    )


def state_word(state: str) -> str:
    """A journal state as a reader sees it."""
    return {"started": "not finished", "suggested": "not started"}.get(state, state)
