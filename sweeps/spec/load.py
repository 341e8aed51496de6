"""Reads a sweep YAML: the spec, joined with its base run config and checked as far as that goes without data.

Nothing is started and nothing is written before that has passed; see `sweeps.spec.checks`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from lam import config as config_module
from lam.config import RunConfig
from record import yamlio
from record.errors import BadInput
from record.schema import build
from sweeps.spec import checks
from sweeps.spec.spec import Sweep, SweepSpec


def load(path: str | Path) -> Sweep:
    """Read and check a sweep YAML.

    Raises:
        BadInput: naming the file, the key, the value and the remedy.
    """
    path = Path(path)
    values = yamlio.load_mapping(path)
    _make_absolute(values.get("space"), path.parent)
    spec = build(SweepSpec, values, path)
    given, base_source = _base_values(spec, path)
    base = _complete(spec, config_module.from_mapping(given, base_source), Path(base_source).parent)
    sweep = Sweep(spec, base, str(path), path.read_text(encoding="utf-8"))
    checks.check(sweep, given)
    return sweep


def _make_absolute(space: Any, folder: Path) -> None:
    """Make swept data paths absolute, as the base's are: a trial runs in another folder."""
    for key in ("data_dir", "manifest_path"):
        domain = space.get(key) if isinstance(space, dict) else None
        choices = domain.get("choice") if isinstance(domain, dict) else None
        if isinstance(domain, dict) and isinstance(choices, list):
            domain["choice"] = [str(config_module.resolve(path, folder)) if isinstance(path, str) else path
                                for path in choices]


def _base_values(spec: SweepSpec, path: Path) -> tuple[dict[str, Any], str]:
    """(what the base config states, the file that states it)."""
    if isinstance(spec.base, dict):
        return spec.base, f"{path}:base"
    beside = path.parent / spec.base
    if not beside.exists():
        raise BadInput(f"got {spec.base!r}, no such file ({beside})", source=path, key="base",
                       remedy="write the path relative to the sweep file, or the run config itself")
    return yamlio.load_mapping(beside), str(beside)


def _complete(spec: SweepSpec, base: RunConfig, folder: Path) -> RunConfig:
    """The base with what the sweep settles: absolute paths, the epochs, the validations, the threads of one trial."""
    changes: dict[str, Any] = {}
    if spec.scheduler:
        changes["num_epochs"] = spec.scheduler.rule.max_epochs
    if spec.asha and spec.asha.on_tflops:
        ladders = [spec.asha.ladder(bracket) for bracket in range(spec.asha.brackets)]
        changes["val_at_tflops"] = sorted({*itertools.chain(*ladders), spec.asha.maximum})
    if base.threads == 0:
        changes["threads"] = max(1, int(spec.resources.cpu))
    return config_module.relative_paths_from(base, folder).replace(**changes)
