"""Reading run configs: from YAML with overrides, from a run's record, from records of older versions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lam.schema import BEFORE, PLACES, RunConfig
from record import yamlio
from record.errors import BadInput
from record.run import RunFolder
from record.schema import build
from record.workload.settings import TrackingConfig, absolute_profile, configuring, resolve

__all__ = ["RunConfig", "TrackingConfig", "from_mapping", "load", "of_run", "relative_paths_from"]

# What promotion leaves out of a config, so that the defaults hold.
_LEFT_OUT = ("tracking", "threads")


def from_mapping(values: dict[str, Any], source: str | Path) -> RunConfig:
    """Validate a mapping; the sections that promotion adds are accepted and left out.

    A complete record of an older version means what it meant to that version (`BEFORE`); what a person writes has
    today's defaults.
    """
    given = configuring(values)
    absent = _absent_of(given)
    config = build(RunConfig, {**given, **{key: BEFORE[key] for key in absent}}, source)
    config._absent = absent
    return config


def _absent_of(given: dict[str, Any]) -> frozenset[str]:
    """The keys of `BEFORE` that a complete record lacks; none where a person left out what has a default."""
    complete = given.keys() >= RunConfig.model_fields.keys() - BEFORE.keys() - set(_LEFT_OUT)
    return frozenset(BEFORE.keys() - given.keys()) if complete else frozenset()


def of_run(folder: RunFolder) -> RunConfig:
    """The complete config of a run.

    Raises:
        BadInput: config.yaml is missing or damaged.
    """
    return from_mapping(folder.config(), source=folder.config_file)


def load(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a run YAML, with ``key=value`` overrides on top.

    Raises:
        BadInput: naming file, key, value and remedy.
    """
    values = yamlio.load_mapping(path)
    if values.keys() >= {"space", "budget"}:
        raise BadInput("is a sweep file, expected a run config", source=path,
                       remedy=shlex.join(["lam", "sweep", "launch", str(path)]))
    for text in overrides or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"got {text!r}, expected key=value", source="--set", remedy="for example --set seed=1")
        _assign(values, key.strip().split("."), yamlio.parse_mapping(f"v: {value}", source=f"--set {key}")["v"])
    return from_mapping(values, source=path)


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
    values[path[-1]] = value


def relative_paths_from(config: RunConfig, folder: Path) -> RunConfig:
    """The config with paths made absolute: of the data and of one's own health profile, which may be beside `folder`.

    A config may be read from anywhere, so the absolute path is what records keep.
    """
    changes: dict[str, Any] = {"data_dir": resolve(config.data_dir, folder), "data": [
        part.model_dump() | {key: resolve(value, folder) for key, value in part.model_dump().items()
                             if key in PLACES and value} for part in config.data]}
    for key in ("manifest_path", "init_from"):
        if getattr(config, key):
            changes[key] = resolve(getattr(config, key), folder)
    return config.replace(**changes, **absolute_profile(config, folder))
