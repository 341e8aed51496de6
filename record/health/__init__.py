"""Whether a run is healthy: codebook arithmetic, rules as data, the engine that judges, trajectory words.

    codebook     perplexity, collapse, the objective that ranks runs
    profile      a health profile: rules, diagnoses and what a family of runs logs, from YAML
    columns      records as columns
    findings     what the engine says of a run
    engine       columns in, findings out; the same in training, sweeps, reports and `lam monitor`
    facts        what rules may read about a run beside its records
    trends       one word for a trajectory, by stated rules

No torch, no pandas. Sources: docs/decisions/0002-objective.md, docs/decisions/0004-collapse-grace.md.
"""

from record.health.codebook import (
    Preset,
    codebook_health,
    collapse_grace,
    health_of,
    is_collapsed,
    objective,
    verdict,
)
from record.health.engine import judge_records
from record.health.facts import COLLAPSE_RULE, COLLAPSE_RULES, collapse, of_config, steps_per_epoch
from record.health.profile import load

__all__ = ["COLLAPSE_RULE", "COLLAPSE_RULES", "Preset", "codebook_health", "collapse", "collapse_grace", "health_of",
           "is_collapsed", "judge_records", "load", "objective", "of_config", "steps_per_epoch", "verdict"]
