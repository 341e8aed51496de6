"""What the health engine says of a trial: the same rules as in training, over its records."""

from __future__ import annotations

from typing import Any

from analysis.read.reading import Trial
from record import health
from record.health.engine import Finding
from record.health.profile import Profile
from record.health.trends import NOT_DETERMINED, trend_of

# Metrics whose trajectories a run's assessment tells: key, name, which way is better.
TOLD = (("val/mse_loss", "validation MSE", "down"), ("val/control", "control", "up"),
        ("val/perplexity_slot", "slot perplexity", "up"))


def facts_of(trial: Trial) -> dict[str, float | str]:
    """What rules may read beside the records; collapse is judged after the grace that the trial's sweep gave it."""
    nested = {key: value for key, value in trial.config.items() if "." not in key}
    return health.of_config({**nested, "health": _settings(trial)}, health.steps_per_epoch(trial.records),
                            trial.workload.settling_steps(trial.config), int(trial.scheduler.get("grace_epochs") or 0))


def _settings(trial: Trial) -> dict[str, Any]:
    return {key.removeprefix("health."): value for key, value in trial.config.items() if key.startswith("health.")}


def findings(trial: Trial) -> tuple[Finding, ...]:
    """The rules of the trial's profile that hold at its last record, gravest first."""
    if not trial.records:
        return ()
    known, facts = _rules_and_facts(trial)
    return health.judge_records(trial.records, known, facts).findings


def collapse_unjudged(trial: Trial) -> str:
    """That the codes were collapsed at the last validation without a finding, and why; empty where that is not so."""
    shown = trial.validated and trial.validated[-1].get("val/collapsed")
    if not shown or any(item.rule in health.COLLAPSE_RULES for item in findings(trial)):
        return ""
    known, facts = _rules_and_facts(trial)
    if all(rule.name != health.COLLAPSE_RULE for rule in known.rules):
        return f"collapsed, which profile {known.name} does not judge"
    return (f"collapsed, not judged yet: that takes {facts['collapse_patience']:g} validations in a row and epoch "
            f"{facts['grace_epochs']:g}")


def _rules_and_facts(trial: Trial) -> tuple[Profile, dict[str, float | str]]:
    """The profile that the trial's config names, and what its rules may read about it."""
    return health.load(str(_settings(trial).get("profile", "lam"))), facts_of(trial)


def trajectories(trial: Trial) -> str:
    """The trajectories that can be told, as a sentence; empty where none can."""
    found = [(name, trend_of(trial.records, key, better)) for key, name, better in TOLD
             if key in trial.workload.metrics]
    told = [f"{name} {trend.word}" for name, trend in found if trend.word != NOT_DETERMINED]
    return f"Trajectories: {', '.join(told)}." if told else ""
