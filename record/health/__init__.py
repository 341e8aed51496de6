"""Whether a run is healthy: codebook arithmetic, rules as data, the engine that judges, trajectory words.

    codebook     perplexity, collapse, the objective that ranks runs
    profile      a health profile: rules, diagnoses and what a family of runs logs, from YAML
    columns      records as columns
    findings     what the engine says of a run
    engine       columns in, findings out; the same in training, sweeps, reports and `lam monitor`
    facts        what rules may read about a run beside its records
    trends       one word for a trajectory, by stated rules
    diagnosis    the most likely cause of what fired, with its evidence
    identities   whether the numbers of a log fit together

No torch, no pandas. Sources: docs/decisions/0002-objective.md, docs/decisions/0004-collapse-grace.md.
"""

from record.health.codebook import (
    COLLAPSED_JOINT_PERPLEXITY,
    COLLAPSED_SLOT_PERPLEXITY,
    CodebookHealth,
    Preset,
    codebook_health,
    collapse_grace,
    health_of,
    is_collapsed,
    is_live,
    objective,
    perplexity,
    verdict,
)
from record.health.engine import Finding, Judgement, judge, judge_records
from record.health.facts import COLLAPSE_RULE, COLLAPSE_RULES, collapse, of_config, steps_per_epoch
from record.health.profile import Profile, load, shipped

__all__ = [
    "COLLAPSED_JOINT_PERPLEXITY",
    "COLLAPSED_SLOT_PERPLEXITY",
    "COLLAPSE_RULE",
    "COLLAPSE_RULES",
    "CodebookHealth",
    "Finding",
    "Judgement",
    "Preset",
    "Profile",
    "codebook_health",
    "collapse",
    "collapse_grace",
    "health_of",
    "is_collapsed",
    "is_live",
    "judge",
    "judge_records",
    "load",
    "objective",
    "of_config",
    "perplexity",
    "shipped",
    "steps_per_epoch",
    "verdict",
]
