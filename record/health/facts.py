"""When a sweep's trial has collapsed by its profile's rule, from which epoch that is asked, and what rules read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from record.files import as_number
from record.health.engine import Finding, judge_records
from record.health.profile import Profile, load

COLLAPSE_RULE = "codebook_collapsed"
# The rules that a journal's reason gives to a trial that ended collapsed; older journals say `collapse`.
COLLAPSE_RULES = frozenset({COLLAPSE_RULE, "collapse"})


def collapse_grace(max_epochs: int, steps_per_epoch: int, settling_steps: int, first_rung: int) -> int:
    """Epochs before collapse is judged: see docs/decisions/0004-collapse-grace.md.

    Args:
        settling_steps: optimizer steps that codes need first; the workload says how many.
        first_rung: the first rung in epochs, 0 where there is none.
    """
    settled = math.ceil(settling_steps / max(1, steps_per_epoch))
    return min(max(first_rung, math.ceil(0.4 * max_epochs), settled), max(1, max_epochs // 2))


def of_config(config: Mapping[str, Any], steps_per_epoch: int, settling_steps: int = 0,
              first_rung: int = 0) -> dict[str, float | str]:
    """Facts of a run.

    Args:
        config: the run's config as plain values (`Settings.mapping()`).
        steps_per_epoch: optimizer steps of one epoch.
        settling_steps, first_rung: as in `collapse_grace`.

    Returns:
        every number and word of the config by its name, and `steps_per_epoch`, `grace_epochs` (epochs before
        collapse is judged) and `collapse_patience` (validations in a row that must show it).
    """
    facts: dict[str, float | str] = {key: value if isinstance(value, str) else as_number(value)
                                     for key, value in config.items() if isinstance(value, (str, int, float))}
    health = config.get("health") or {}
    grace = health.get("grace_epochs")
    if grace is None:
        grace = collapse_grace(int(config.get("num_epochs") or 1), steps_per_epoch, settling_steps, first_rung)
    return {**facts, "steps_per_epoch": float(steps_per_epoch), "grace_epochs": float(grace),
            "collapse_patience": float(health.get("patience") or 2)}


def steps_per_epoch(records: Iterable[Mapping[str, Any]]) -> int:
    """Optimizer steps of one epoch, from the first record that tells; 1 where none does."""
    for record in records:
        if record.get("step") and record.get("epoch"):
            return max(1, int(record["step"]) // int(record["epoch"]))
    return 1


def collapse(epochs: Sequence[int], collapsed: Sequence[bool], grace: int, patience: int,
             profile: str = "lam") -> Finding | None:
    """A profile's verdict on collapse from a sweep's journal alone; None where the run goes on.

    A profile whose rule `codebook_collapsed` is missing, is no abort or reads more than `val/collapsed`, which is
    all that a journal tells, ends no run.

    Args:
        epochs, collapsed: each validation's epoch, and whether the codebook was collapsed then.
        profile: the one that the run's config names (`health.profile`).
    """
    if not any(collapsed):
        return None
    records = [{"epoch": epoch, "val/collapsed": float(flag)} for epoch, flag in zip(epochs, collapsed, strict=True)]
    facts = {"grace_epochs": float(grace), "collapse_patience": float(patience)}
    return next(iter(judge_records(records, _collapse_alone(profile), facts).aborts), None)


@cache
def _collapse_alone(profile: str) -> Profile:
    """The profile with its one rule about collapse; without a rule where it has none."""
    full = load(profile)
    alone = [rule for rule in full.rules if rule.name == COLLAPSE_RULE]
    return full.model_copy(update={"rules": alone, "diagnoses": []})
