"""What trackers see of a run: its config without secrets, its name, its numbers in plain form."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record.run import RunFolder
from record.workload.settings import Settings


@dataclass(frozen=True)
class RunView:
    """A run as trackers show it.

    Attributes:
        key: names the run in every tracker; the same for a resume, another for another run.
        name: what people read.
        config: the config's mapping without the group `tracking`, and num_params and num_train_trials.
        data_stats: `data_stats/*`.
        fresh: no epoch was recorded when the view was made.
    """

    key: str
    name: str
    folder: Path
    config: dict[str, Any]
    data_stats: dict[str, float]
    fresh: bool


def view_of(config: Settings, folder: RunFolder, fresh: bool) -> RunView:
    """The view of a run that has begun."""
    known = folder.identity()
    group = config.tracking.group
    label = folder.path.absolute().name
    return RunView(
        key=f"{label}-{digest(label, group, known.get('started_at'), known.get('config_fingerprint'))}",
        name=label,
        folder=folder.path,
        config={**_without_tracking(config), **{name: known.get(name) for name in ("num_params", "num_train_trials")}},
        data_stats=known.get("data_stats", {}),
        fresh=fresh,
    )


def digest(*parts: Any) -> str:
    """Eight hex digits of these values."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:8]


def _without_tracking(config: Settings) -> dict[str, Any]:
    return {key: value for key, value in config.mapping().items() if key != "tracking"}


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """The values that exist: NaN, infinities and null mean "not defined" and are left out."""
    return {key: value for key, value in record.items()
            if value is not None and not (isinstance(value, float) and not math.isfinite(value))}
