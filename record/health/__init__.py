"""Whether a run is healthy: rules as data, the engine that judges, trajectory words.

    profiles/    the shipped rules, one YAML a family of runs; `lam.yaml` has the rule of collapse
    profile      reads one: rules, diagnoses and what a family of runs logs
    expressions  arithmetic on keys, as rules write it
    columns      records as columns
    statistics   what a rule may ask of a window of a column
    engine       columns in, findings out; the same in training, sweeps, reports and `lam monitor`
    findings     what the engine says of a run
    facts        `collapse`: whether a sweep's trial ends by that rule; what rules read about a run beside its records
    limits       what a run must show before it is promoted
    production   what a production YAML watches, as rules
    trends       one word for a trajectory, by stated rules
    page         docs/health.md

No torch, no pandas. Sources: docs/decisions/0002-objective.md, docs/decisions/0004-collapse-grace.md.
"""

from record.health.engine import judge, judge_records
from record.health.facts import COLLAPSE_RULE, COLLAPSE_RULES, collapse, collapse_grace, of_config, steps_per_epoch
from record.health.profile import load

__all__ = ["COLLAPSE_RULE", "COLLAPSE_RULES", "collapse", "collapse_grace", "judge", "judge_records", "load",
           "of_config", "steps_per_epoch"]
