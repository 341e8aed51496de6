"""Which trial is best: statuses and order. Pure; `analysis.verdict` says why in words.

A trial is judged at the epoch whose checkpoint is kept (the best one by val/objective; the last one
where the config keeps the last). One that has since collapsed or diverged, that failed or has not
finished is out of the contest, however large its numbers are. Order of the standings:

    0  live, trained again with fresh seeds, every one of them live: by the mean over those seeds
    1  live
    2  live in the sweep, but not with every fresh seed
    3  not finished
    4  finished, but collapsed, without codes or with ignored actions
    5  nonfinite, failed, or without any result

then by value, ties by lower validation MSE, then by label.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from analysis.reading import FINISHED, Study, Trial
from analysis.text import finite
from lam.health import verdict
from lam.metrics import TABLE

LIVE = "live"
WORDS = {"actions_ignored": "ignored actions", "no_codes": "no codes"}
_DEAD = ("collapsed", "nonfinite")
# Ranked by how well it predicts, a run needs no codes; ranked by anything about codes, it needs live ones.
_WITHOUT_CODES = (LIVE, "actions_ignored", "no_codes")


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
class Standing:
    """One trial's place. Numbers are those of the kept epoch; None where they are not defined."""

    rank: int
    label: str
    tier: int
    state: str
    status: str
    value: float | None = None
    epoch: int | None = None
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
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def eligible(self) -> bool:
        """Whether it may win."""
        return self.tier <= 2 and self.score is not None

    @property
    def score(self) -> float | None:
        """What its tier is ordered by."""
        return self.confirmed.mean if self.tier == 0 and self.confirmed else self.value


def kept_record(trial: Trial, objective: str = "val/objective") -> dict[str, Any] | None:
    """The validated record whose checkpoint is kept; None before the first validation."""
    if not trial.validated:
        return None
    keep = trial.config.get("keep", "best")
    key = objective if keep == "all" else "val/objective"
    usable = [record for record in trial.validated if finite(record.get(key)) is not None]
    if keep == "last" or not usable:
        return trial.validated[-1]
    sign = -1 if TABLE[key].direction == "down" else 1
    return max(usable, key=lambda record: sign * record[key])


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
    record = kept_record(trial, objective)
    if record is None or last is None:
        return "no_result"
    return last if last in _DEAD else verdict(record)


def rank(study: Study) -> tuple[Standing, ...]:
    """Every trial of a study, best first."""
    standings = [_standing(trial, study) for trial in study.trials]
    sign = -1 if TABLE[study.objective].direction == "up" else 1

    def key(item: Standing) -> tuple[Any, ...]:
        score, mse = item.score, item.mse
        return (item.tier, score is None, sign * (score or 0.0), mse is None, mse or 0.0, item.label)

    return tuple(Standing(**{**vars(item), "rank": place}) for place, item in enumerate(sorted(standings, key=key), 1))


def _standing(trial: Trial, study: Study) -> Standing:
    status = status_of(trial, study.objective)
    record = kept_record(trial, study.objective) or {}
    confirmed = _confirmed(study.confirm.get(trial.label))
    preset = str(trial.config.get("objective_preset", "control_health"))
    collapsed = [finite(item.get("val/dsnr")) for item in trial.validated if item.get("val/collapsed")]
    return Standing(
        rank=0, label=trial.label, tier=_tier(status, confirmed, _needs_codes(study.objective, preset)),
        state=trial.state, status=status, value=finite(record.get(study.objective)), epoch=record.get("epoch"),
        last_epoch=trial.last_epoch, num_epochs=trial.num_epochs,
        control=finite(record.get("val/control")), control_low=finite(record.get("val/control_low")),
        control_high=finite(record.get("val/control_high")), health=finite(record.get("val/codebook_health")),
        dsnr=finite(record.get("val/dsnr")), dsnr_status=record.get("val/dsnr_status"),
        mse=finite(record.get("val/mse_loss")), mse_copy=finite(record.get("val/mse_copy")),
        raw_dsnr_max=max((dsnr for dsnr in collapsed if dsnr is not None), default=None),
        preset=preset, confirmed=confirmed, params=trial.params,
    )


def _needs_codes(objective: str, preset: str) -> bool:
    return not objective.endswith("loss") and not (objective == "val/objective" and preset == "mse")


def _tier(status: str, confirmed: Confirmed | None, needs_codes: bool) -> int:
    if status == "unfinished":
        return 3
    if status in ("nonfinite", "failed", "no_result"):
        return 5
    if status != LIVE and (needs_codes or status not in _WITHOUT_CODES):
        return 4
    if confirmed is None:
        return 1
    return 0 if confirmed.all_live and confirmed.mean is not None else 2


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
