"""Reads a sweep YAML: the spec, joined with its base run config and checked as far as that goes without data.

Nothing is started and nothing is written before that has passed; see `sweeps.spec.checks`.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import files, yamlio
from record.errors import BadInput
from record.schema import build
from record.storage import trust
from record.workload import workload
from record.workload.settings import Settings, resolve
from record.workload.workload import Workload
from sweeps.spec import checks
from sweeps.spec.spec import Sweep, SweepSpec


def load(path: str | Path) -> Sweep:
    """Read and check a sweep YAML.

    Raises:
        BadInput: naming the file, the key, the value and the remedy.
    """
    path = Path(path)
    values = yamlio.load_mapping(path)
    _refuse_a_run_config(values, path)
    spec = build(SweepSpec, values, path)
    if spec.journal and trust.is_a_record(path):
        trust.check(spec.journal, path, "journal")
    trained = workload.find(spec.workload)
    _make_absolute(values["space"], trained.path_knobs, path.parent)
    spec = build(SweepSpec, values, path)
    given, base_source = _base_values(spec, path)
    base = _complete(spec, trained, trained.read(given, base_source), Path(base_source).parent)
    sweep = Sweep(spec, base, str(path), files.read_record(path).decode("utf-8"))
    checks.check(sweep, given)
    return sweep


def _refuse_a_run_config(values: dict[str, Any], path: Path) -> None:
    """Say in one sentence what would otherwise be an unknown key after the other."""
    keys_of_runs = workload.default().config.model_fields.keys() - SweepSpec.model_fields.keys()
    if values.keys() & keys_of_runs and not values.keys() & {"space", "budget"}:
        raise BadInput("is a run config, expected a sweep file", source=path,
                       remedy=shlex.join(["lam", "train", str(path)]))


def _make_absolute(space: dict[str, Any], keys: Sequence[str], folder: Path) -> None:
    """Make swept paths absolute, as the base's are: a trial runs in another folder."""
    for key in keys:
        choices = space.get(key, {}).get("choice")
        if choices:
            space[key]["choice"] = [resolve(path, folder) if isinstance(path, str) else path for path in choices]


def _base_values(spec: SweepSpec, path: Path) -> tuple[dict[str, Any], str]:
    """(what the base config states, the file that states it)."""
    if isinstance(spec.base, dict):
        return spec.base, f"{path}:base"
    beside = path.parent / spec.base
    if not beside.exists():
        raise BadInput(f"got {spec.base!r}, no such file ({beside})", source=path, key="base",
                       remedy="write the path relative to the sweep file, or the run config itself")
    return yamlio.load_mapping(beside), str(beside)


def _complete(spec: SweepSpec, trained: Workload, base: Settings, folder: Path) -> Settings:
    """The base with what the sweep settles: absolute paths, the epochs, the validations, the threads of one trial."""
    changes: dict[str, Any] = {}
    if spec.scheduler:
        changes["num_epochs"] = spec.scheduler.rule.max_epochs
    if base.threads == 0:
        changes["threads"] = max(1, int(spec.resources.cpu))
    whole = trained.absolute(base, folder).replace(**changes)
    if not (spec.asha and spec.asha.on_tflops):
        return whole
    ladders = [spec.asha.ladder(bracket) for bracket in range(spec.asha.brackets)]
    return trained.validated_at(whole, sorted({*itertools.chain(*ladders), spec.asha.maximum}))
