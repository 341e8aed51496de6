"""Which config is best: statuses and order. Pure; `analysis.judge.verdict` says why in words.

One standing a config: trainings of one config with several seeds (a sweep's `seeds`) stand together, by
their mean, as sound as the least sound of them. `analysis.judge.judging` says how each training is judged. A
trial that has since collapsed or diverged, that failed or has not finished is out of the contest,
however large its numbers are. Order of the standings:

    0  live, trained again with fresh seeds, every one of them live: by the mean over those seeds
    1  live
    2  live in the sweep, but not with every fresh seed
    3  live, but outside the sweep's constraints: the least outside first
    4  not finished
    5  finished, but collapsed, nonfinite, without codes or with ignored actions
    6  failed, or without any result

then by value, ties by lower validation MSE, then in the order of suggestion. Fresh seeds apart, this is
the order in which the sweep itself ranks its configs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.judge.judging import LIVE, SOUND, Judged, judge, judge_ended, kept_record, sign_of
from analysis.read.reading import FINISHED, Study, Trial
from analysis.text import finite
from record import intervals

OUTSIDE = 3  # the tier of sound configs outside the constraints
WORDS = {"actions_ignored": "ignored actions", "no_codes": "no codes"}


@dataclass(frozen=True)
class Confirmed:
    """A config trained again with fresh seeds."""

    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    mean: float | None
    low: float | None
    high: float | None
    live: int

    @property
    def all_live(self) -> bool:
        return self.live == len(self.seeds) > 0


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
        return sum(status in SOUND for status in self.statuses)


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
    sign = -sign_of(study.objective)

    def key(row: tuple[Trial, Standing]) -> tuple[Any, ...]:
        trial, item = row
        score, mse, place = item.score, item.mse, trial.place
        return (item.tier, score is None, item.violation, sign * (score or 0.0), mse is None, mse or 0.0,
                place is None, place or 0, item.label)

    rows = sorted(((trial, _standing(trial, study)) for trial in study.configs), key=key)
    return tuple(replace(item, rank=number) for number, (_, item) in enumerate(rows, 1))


def _standing(trial: Trial, study: Study) -> Standing:
    first = judge(trial, study.objective)
    counted = _counted(study, trial, first)
    worst = min(counted, key=lambda item: _soundness(item, study.objective))
    status = worst.status if trial.state in FINISHED else first.status
    confirmed = _confirmed(study.confirm.get(trial.label))
    preset = str(trial.config.get("objective_preset", "control_health"))
    raw = [finite(record.get("val/dsnr")) for record in trial.validated if record.get("val/collapsed")]
    low, high = _control_bounds(counted)
    means = {name: _mean([item.number(key) for item in counted]) for name, key in (
        ("control", "val/control"), ("health", "val/codebook_health"), ("dsnr", "val/dsnr"), ("mse", "val/mse_loss"),
        ("mse_copy", "val/mse_copy"))}
    standing = Standing(
        rank=0, label=trial.label, tier=0, state=trial.state, status=status,
        value=_mean([item.value for item in counted]), epoch=first.record.get("epoch"),
        kept_epoch=(kept_record(trial, study.objective) or {}).get("epoch"), last_epoch=trial.last_epoch,
        num_epochs=trial.num_epochs, control_low=low, control_high=high,
        dsnr_status=worst.record.get("val/dsnr_status"), preset=preset, confirmed=confirmed,
        raw_dsnr_max=max((dsnr for dsnr in raw if dsnr is not None), default=None), violation=worst.violation,
        outside=_outside(counted), seeds=_seeds(counted), params=trial.params, **means)
    return replace(standing, tier=_tier(standing, _needs_codes(study.objective, preset)))


def _counted(study: Study, trial: Trial, first: Judged) -> list[Judged]:
    """The trainings that a config is judged by: the first, and each further one that has ended with a value."""
    others = [judge_ended(other, study.objective) for other in study.trainings(trial)[1:]
              if other.state in (*FINISHED, "failed")]
    if trial.state not in FINISHED:
        return [first]
    return [item for item in (first, *others) if item.value is not None] or [first]


def _soundness(item: Judged, objective: str) -> tuple[bool, float, float]:
    return item.status in SOUND, -item.violation, sign_of(objective) * (item.value or 0.0)


def _control_bounds(counted: Sequence[Judged]) -> tuple[float | None, float | None]:
    if len(counted) == 1:
        return counted[0].number("val/control_low"), counted[0].number("val/control_high")
    return bounds([item.number("val/control") for item in counted])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def bounds(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """95 % Student's t bounds of a mean over seeds; None below two values, or where one is missing."""
    known = np.array([value for value in values if value is not None])
    if len(known) < len(values) or len(known) < 2:
        return None, None
    estimate = intervals.mean(known, np.arange(len(known)))
    return estimate.low, estimate.high


def _outside(counted: Sequence[Judged]) -> tuple[str, ...]:
    """The broken constraints of a config, with the training's label where there are several."""
    several = len(counted) > 1
    return tuple(f"{item.label}: {text}" if several else text for item in counted for text in item.outside)


def _seeds(counted: Sequence[Judged]) -> Seeds | None:
    if len(counted) < 2:
        return None
    values = [item.value for item in counted]
    low, high = bounds(values)
    return Seeds(tuple(item.label for item in counted), tuple(item.seed for item in counted),
                 tuple(item.status for item in counted), tuple(values), _mean(values), low, high)


def _needs_codes(objective: str, preset: str) -> bool:
    """Ranked by how well it predicts, a run needs no codes; ranked by anything about codes, it needs live ones."""
    return not objective.endswith("loss") and not (objective == "val/objective" and preset == "mse")


def _tier(item: Standing, needs_codes: bool) -> int:
    if item.status == "unfinished":
        return 4
    if item.state == "failed" or item.status in ("failed", "no_result"):
        return 6
    if item.status != LIVE and (needs_codes or item.status not in SOUND):
        return 5
    if item.violation > 0:
        return OUTSIDE
    if item.confirmed is None:
        return 1
    return 0 if item.confirmed.all_live and item.confirmed.mean is not None else 2


def _confirmed(entry: dict[str, Any] | None) -> Confirmed | None:
    if entry is None:
        return None
    return Confirmed(
        seeds=tuple(entry["seeds"]), values=tuple(finite(value) for value in entry["values"]),
        mean=finite(entry["mean"]), low=finite(entry.get("low")), high=finite(entry.get("high")),
        live=int(entry["live"]),
    )


def word(status: str) -> str:
    """A status as a reader sees it."""
    return WORDS.get(status, status.replace("_", " "))


def state_word(state: str) -> str:
    """A journal state as a reader sees it."""
    return {"started": "not finished", "suggested": "not started"}.get(state, state)
