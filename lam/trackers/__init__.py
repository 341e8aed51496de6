"""Trackers: views of a run's records in W&B and MLflow, which may fail without hurting the run.

The records in the run folder are the truth; a tracker is sent copies from a thread of its own, and
what it missed can be sent again at any time (`lam sync`). wandb and mlflow are imported only where
the config's group `tracking` asks for them.
"""

from __future__ import annotations

from lam.trackers.run import RunTrackers, check_address, sync

__all__ = ["RunTrackers", "check_address", "sync"]
