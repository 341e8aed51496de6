"""Whether a run is healthy: rules as data, the engine that judges, trajectory words.

    profile      a health profile: rules, diagnoses and what a family of runs logs, from YAML
    columns      records as columns
    findings     what the engine says of a run
    engine       columns in, findings out; the same in training, sweeps, reports and `lam monitor`
    facts        what rules may read about a run beside its records
    trends       one word for a trajectory, by stated rules

No torch, no pandas. Sources: docs/decisions/0002-objective.md, docs/decisions/0004-collapse-grace.md.
"""

from record.health.engine import judge_records
from record.health.facts import COLLAPSE_RULE, COLLAPSE_RULES, collapse, collapse_grace, of_config, steps_per_epoch
from record.health.profile import load

__all__ = ["COLLAPSE_RULE", "COLLAPSE_RULES", "collapse", "collapse_grace", "judge_records", "load", "of_config",
           "steps_per_epoch"]
