"""Who a run is: run.json's code, data and software versions, and the refusal to resume on other data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from torch import nn

from lam.config import RunConfig
from lam.data import windows as data
from lam.data.windows import Checked, Windows
from record import provenance
from record.errors import BadData
from record.run import RunFolder


def identify(config: RunConfig, folder: RunFolder, model: nn.Module, train_set: Windows,
           checked: Checked | None = None) -> dict[str, Any]:
    """The contents of run.json at the start of a run."""
    return {
        "run_id": folder.path.name,
        "state": "running",
        "config_fingerprint": config.fingerprint(),
        "data_fingerprint": data.data_fingerprint(config, checked),
        "data": data.summary(config, checked),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_params": sum(parameter.numel() for parameter in model.parameters()),
        "num_train_trials": len(train_set.files),
        "data_stats": train_set.scale.metrics(),
    }


def refuse_other_data(folder: RunFolder, config: RunConfig, checked: Checked | None = None) -> None:
    """A resumed run continues on the data it began with.

    Raises:
        BadData: the data's content has changed since.
    """
    known, now = folder.identity().get("data_fingerprint"), data.data_fingerprint(config, checked)
    if known != now:
        raise BadData(f"the data changed since this run began (fingerprint {known}, now {now})",
                      source=config.data_dir, remedy="start a new run with --run-dir, or put the data back")
