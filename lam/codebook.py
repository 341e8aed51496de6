"""Perplexity; whether one validation is collapsed; the verdict on a record; the objective that ranks it. No torch.

Pure functions of plain numbers and NumPy arrays; no torch. Sources: docs/decisions/0002-objective.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

COLLAPSED_SLOT_PERPLEXITY = 1.5
COLLAPSED_JOINT_PERPLEXITY = 2.0


def perplexity(counts: NDArray[Any]) -> float:
    """exp(entropy) of a histogram of counts; NaN for an empty one."""
    total = counts.sum()
    if total == 0:
        return math.nan
    shares = counts[counts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass(frozen=True)
class CodebookHealth:
    """Health of the codebooks over one split; see `lam.metrics` for the meaning of each number.

    `unique` is a mean over books; `histogram` has the books one after another.
    """

    histogram: list[int]
    unique: float
    perplexity_slot: float
    perplexity_joint: float
    entropy_ratio: float
    health: float
    collapsed: bool
    redundancy: float
    perplexity_by_slot: list[float]
    usage_by_slot: list[int]

    @property
    def joint_bits(self) -> float:
        """Entropy of the code tuples in bits."""
        return math.log2(self.perplexity_joint)


def codebook_health(codes: NDArray[np.integer], num_embeddings: int, full_health: float,
                    books: int = 1, control_low: float = math.nan) -> CodebookHealth:
    """Judge the codes of a split.

    Args:
        codes: [N, S] code of each slot of each action.
        num_embeddings: K.
        full_health: per-slot perplexity P* at which health reaches 1.
        books: codebooks: 1 for all slots, or S, one a slot.
        control_low: lower 95 % bound of control on the same split; NaN where it is not known.
    """
    slots = [np.bincount(slot, minlength=num_embeddings) for slot in codes.T]
    by_book = slots if books > 1 else [np.sum(slots, axis=0)]
    per_slot = np.array([perplexity(slot) for slot in slots])
    slot_mean = float(np.exp(np.log(per_slot).mean()))
    _, joint_counts = np.unique(codes, axis=0, return_counts=True)
    joint = perplexity(joint_counts)
    spread = math.log(num_embeddings)
    return CodebookHealth(
        histogram=[int(count) for book in by_book for count in book],
        unique=float(np.mean([(book > 0).sum() for book in by_book])),
        perplexity_slot=slot_mean,
        perplexity_joint=joint,
        entropy_ratio=float(np.log(per_slot).mean() / spread) if spread > 0 else 0.0,
        health=health_of(slot_mean, full_health),
        collapsed=is_collapsed(slot_mean, joint, books, control_low),
        redundancy=slot_redundancy(np.log(per_slot), math.log(joint)),
        perplexity_by_slot=[float(each) for each in per_slot],
        usage_by_slot=[int((slot > 0).sum()) for slot in slots],
    )


def slot_redundancy(entropy_S: NDArray[Any], joint: float) -> float:
    """How much the slots say alike: their total correlation, as a share of what S copies of the fullest slot have.

    (sum of the slots' entropies - joint entropy) / (that sum - the largest of them): 0 where slots are independent,
    1 where one of them tells all the others. NaN where no two slots say anything.
    """
    most = float(entropy_S.sum() - entropy_S.max())
    return (float(entropy_S.sum()) - joint) / most if most > 1e-9 else math.nan


def health_of(perplexity_slot: float, full_health: float) -> float:
    """clip((P - 1)/(P* - 1), 0, 1)."""
    return min(1.0, max(0.0, (perplexity_slot - 1) / (full_health - 1)))


def is_collapsed(perplexity_slot: float, perplexity_joint: float, books: int = 1,
                 control_low: float = math.nan) -> bool:
    """Whether the codes carry next to nothing and the decoder does not heed them: docs/decisions/0012-action-skill.md.

    A constant tuple such as (1, 5, 9) carries nothing. Slots with a book each are judged together: the first may say
    all there is, and then the rest has nothing to add.
    """
    if control_low > 0:
        return False
    if books > 1:
        return not perplexity_joint >= COLLAPSED_JOINT_PERPLEXITY
    return not (perplexity_slot >= COLLAPSED_SLOT_PERPLEXITY and perplexity_joint >= COLLAPSED_JOINT_PERPLEXITY)


ENOUGH_LABELS = 100  # a skill from 100 labels varies by .09 over draws of them, from 300 by .04
MANY_LABELS = 1000  # from so many on the skills of a probe vary less than information, counted by tuples, misleads
Preset = Literal["action", "control_health", "dsnr_health", "mse"]


def preset_of(record: Mapping[str, Any], asked: str) -> Preset:
    """What a validation is ranked by: `auto` is `action` where enough true actions are known, else `control_health`."""
    if asked != "auto":
        return cast(Preset, asked)
    enough = record.get("val/labelled_transitions", 0) >= ENOUGH_LABELS
    return "action" if enough and math.isfinite(_number(record, "val/action_skill")) else "control_health"


def objective(record: Mapping[str, Any], preset: Preset = "control_health") -> float:
    """The number that ranks runs, higher is better; NaN where the losses are not finite.

    A live run scores above 0. Every other run scores -mse/(mse + mse_copy), in (-1, 0), so that
    failures are ordered by how well they predict and lie below every live run.

    Args:
        record: an epoch record with `val/*` keys.
        preset: action = max(0, mean of action_skill, action_log_skill and, below 1,000 labels, action_nmi), for a
            live run that beats copying the last frame;
            control_health = control * health; dsnr_health = dsnr/(1 + dsnr) * health, for one whose DSNR is defined;
            mse = -mse/(mse + mse_copy) for every run.
    """
    mse, copy = _number(record, "val/mse_loss"), _number(record, "val/mse_copy")
    if not (math.isfinite(mse) and math.isfinite(copy)):
        return math.nan
    floor = -mse / (mse + copy) if mse + copy > 0 else 0.0
    if preset == "mse" or not is_live(record):
        return floor
    if preset == "action":
        skill = action_score(record)
        return max(0.0, skill) if mse < copy and math.isfinite(skill) else floor
    if preset == "dsnr_health":
        dsnr = _number(record, "val/dsnr")
        if record.get("val/dsnr_status") != "ok":
            return floor
        strength = dsnr / (1 + dsnr)
    else:
        strength = _number(record, "val/control")
    return strength * _number(record, "val/codebook_health")


def action_score(record: Mapping[str, Any]) -> float:
    """The mean of what was read of the same labels: both skills, and information where they are few.

    Information that cannot be told from chance counts as none.
    """
    skills = _number(record, "val/action_skill") + _number(record, "val/action_log_skill")
    if record.get("val/labelled_transitions", 0) >= MANY_LABELS:
        return skills / 2
    nmi = _number(record, "val/action_nmi")
    return (skills + (nmi if math.isfinite(nmi) else 0.0)) / 3


def is_live(record: Mapping[str, Any]) -> bool:
    """Not collapsed, and the lower 95 % bound of control above 0."""
    return record.get("val/collapsed") == 0 and _number(record, "val/control_low") > 0


def verdict(record: Mapping[str, Any]) -> str:
    """One word for the state of a validated record: nonfinite, collapsed, no_codes, actions_ignored or live."""
    if not all(math.isfinite(_number(record, key)) for key in ("val/mse_loss", "train/loss") if key in record):
        return "nonfinite"
    if record.get("val/collapsed") is None:
        return "no_codes"
    if record["val/collapsed"]:
        return "collapsed"
    return "live" if is_live(record) else "actions_ignored"


def settling_steps(config: Mapping[str, Any]) -> int:
    """Steps before collapse is judged: two revivals of dead codes, by the plain values of a config."""
    return 2 * int(config.get("vq_refresh_interval") or 0)


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    return math.nan if value is None else float(value)
