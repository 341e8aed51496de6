"""From the best trial to production: gates, the YAML, its weights, the ledger of what was served, a model registry.

    candidates  which training is promoted, and what confirms it
    promoting   gates, then everything staged, then the YAML replaced
    target      which file may be replaced
    composing   what the YAML says: config, sections, where it came from
    production  the YAML's values and the reason beside each
    tested      the gate that reads the test split
    registry    MLflow's model registry, a mirror of the ledger
    artifacts   W&B's artifacts, another one
    history     list, show, rollback
    snapshots   what a promoted model sees in videos it was not trained on
    looking     whether new data are still like these
    ledger      what was promoted and rolled back, append-only; finishes what a kill left
"""

from analysis.promote.promoting import Promotion, Wish, promote, refusal, waivers

__all__ = ["Promotion", "Wish", "promote", "refusal", "waivers"]
