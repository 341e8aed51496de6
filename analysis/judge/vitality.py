"""What the health engine says of a trial: the same rules as in training, over its records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.read.study import Trial, last_value, points_of, remembered
from record import health
from record.health import expressions
from record.health.engine import Finding, Judgement
from record.health.profile import Profile, Severity
from record.health.trends import NOT_DETERMINED, Trend, trend

# Metrics whose trajectories a run's assessment tells: key, name, which way is better.
TOLD = (("val/mse_loss", "validation MSE", "down"), ("val/control", "control", "up"),
        ("val/perplexity_slot", "slot perplexity", "up"))


def facts_of(trial: Trial) -> dict[str, float | str]:
    """What rules may read beside the records; collapse is judged after the grace that the trial's sweep gave it."""
    nested = {key: value for key, value in trial.config.items() if "." not in key}
    return health.of_config({**nested, "health": _settings(trial)}, health.steps_per_epoch(trial.epochs.lookups()),
                            trial.workload.settling_steps(trial.config), int(trial.scheduler.get("grace_epochs") or 0)
                            ) | trial.facts


def _settings(trial: Trial) -> dict[str, Any]:
    return {key.removeprefix("health."): value for key, value in trial.config.items() if key.startswith("health.")}


def findings(trial: Trial) -> tuple[Finding, ...]:
    """The rules of the trial's profile that hold at its last record, gravest first."""
    return judged(trial).findings if trial.records else ()


def gravest(trial: Trial) -> list[Finding]:
    """The findings without those that a graver one says of the same metric."""
    told: set[str] = set()
    found = []
    for item in findings(trial):
        rule = profile_for(trial).rule(item.rule)
        read = expressions.text(rule.metric) if rule.metric is not None and rule.statistic == "value" else item.rule
        if read not in told:
            found.append(item)
        told.add(read)
    return found


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
    return profile_for(trial), facts_of(trial)


def profile_for(trial: Trial) -> Profile:
    """The profile that the trial's config names, else its workload's."""
    return health.load(str(_settings(trial).get("profile") or trial.workload.profile or "lam"))


def told_by_rules(trial: Trial) -> str:
    """What became of another trainer's run, by its profile's rules over all of it.

    `collapsed` or `nonfinite` where such a rule says abort, `aborted` where another does, `unsound` where one holds
    that keeps a run of its family from winning, `no_codes` where it never logged any, else `live`.
    """
    known = profile_for(trial)
    judgement = judged(trial)
    aborts = [item.rule for item in judgement.aborts]
    if aborts:
        kinds = (word for word in ("nonfinite", "collapse") if any(word in rule for rule in aborts))
        return {"nonfinite": "nonfinite", "collapse": "collapsed"}.get(next(kinds, ""), "aborted")
    if any(rule in judgement.holding for rule in known.report.unsound):
        return "unsound"
    return "no_codes" if has_no_codes(trial) else "live"


def rules_reading(trial: Trial, key: str) -> dict[str, Severity]:
    """The rules of the trial's profile that read a metric, with their severities; those kept quiet left out."""
    return {rule.name: rule.severity for rule in profile_for(trial).rules if rule.metric is not None and not rule.quiet
            and key in expressions.names(rule.metric)}


def best_without_codes(trials: Sequence[Trial], key: str) -> Trial | None:
    """Of the runs that finished and never logged codes, the one that ends lowest by a metric; None without one."""
    bare = [trial for trial in trials if trial.state == "completed" and has_no_codes(trial)
            and last_value(trial, key) is not None]
    return min(bare, key=lambda trial: last_value(trial, key) or 0.0, default=None)


def has_no_codes(trial: Trial) -> bool:
    """Whether its config asks for none, or its family has codes and it never logged any."""
    if trial.config.get("quantizer") == "none":
        return True
    codes = trial.workload.reporting.codes
    return codes is not None and bool(trial.records) and codes not in trial.epochs.names()


def on_the_same_data(one: Trial, other: Trial) -> bool:
    """Whether two trainings read data of equal content, as far as that was recorded."""
    return bool(one.identity.get("data_fingerprint") == other.identity.get("data_fingerprint"))


@remembered
def judged(trial: Trial) -> Judgement:
    """What the trial's profile says of the whole of it."""
    known, facts = _rules_and_facts(trial)
    return health.judge(trial.epochs.table(facts), known)


def course_of(trial: Trial, key: str, better: str = "none") -> Trend:
    """The trend of a metric over the trial's epochs."""
    points = points_of(trial, key)
    return trend([epoch for epoch, _ in points], [value for _, value in points], better)


def trajectories(trial: Trial) -> str:
    """The trajectories that can be told, as a sentence; empty where none can."""
    found = [(name, course_of(trial, key, better)) for key, name, better in TOLD
             if key in trial.workload.metrics]
    told = [f"{name} {trend.told}" for name, trend in found if trend.word != NOT_DETERMINED]
    return f"Trajectories: {', '.join(told)}." if told else ""
