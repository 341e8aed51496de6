"""A sweep of one knob over data that nobody reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from record import yamlio
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    folder.mkdir(exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere", "num_epochs": 9}, "budget": {"trials": 6},
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, **changes}))
    return load(path)
