"""From symptoms to a cause: rules that hold together, and what usually lies behind them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from record.health.engine import Judgement
from record.health.profile import Profile


@dataclass(frozen=True)
class Cause:
    """A likely cause.

    Attributes:
        evidence: a sentence for each rule that speaks for it.
        silent: rules that would speak for it and do not hold or could not be judged.
    """

    name: str
    cause: str
    remedy: str
    evidence: tuple[str, ...]
    silent: tuple[str, ...]


def diagnose(judgement: Judgement, profile: Profile) -> tuple[Cause, ...]:
    """The causes whose every need holds, the one with the most evidence first; ties in the profile's order."""
    found = []
    for item in profile.diagnoses:
        if not all(name in judgement.holding for name in item.needs):
            continue
        asked = (*item.needs, *item.supports)
        held = [name for name in asked if name in judgement.holding]
        evidence = tuple(f"{name}: {judgement.holding[name].sentence}" for name in held)
        found.append(Cause(item.name, item.cause, item.remedy, evidence, tuple(set(asked) - set(held))))
    return tuple(sorted(found, key=lambda cause: -len(cause.evidence)))
