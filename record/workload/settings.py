"""What the configs of all workloads have in common: the base of a config's schema, and two groups of its keys."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from record import files
from record.errors import BadInput
from record.schema import Strict, build
from record.storage import addresses

# Sections of a production YAML that describe where a config came from; they configure nothing.
PRODUCTION_SECTIONS = ("provenance", "gates", "alerts", "aborts", "expected", "cost")



def _no_truth(value: Any) -> Any:
    """`true` is no number of anything, though Python counts it as 1."""
    if isinstance(value, bool):
        raise ValueError(f"got {str(value).lower()}, expected a whole number")
    return value


Count = Annotated[int, BeforeValidator(_no_truth), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_no_truth), Field(ge=0)]


class HealthConfig(Strict):
    """By which rules a run is judged, and when a collapsed codebook ends it."""

    profile: str = Field("lam", description="health profile: lam, or a YAML file of one's own; see docs/health.md")
    abort: bool = Field(
        False, description="end the run when a rule of severity abort fires (a sweep's scheduler decides by itself)")
    grace_epochs: Whole | None = Field(
        None, description="epochs before collapse is judged; default: see docs/decisions/0004-collapse-grace.md")
    patience: Count = Field(2, description="validations in a row that must show collapse")


class TrackingConfig(Strict):
    """Where copies of the records go. Nothing here changes what is computed, so a resume may change it."""

    wandb: Literal["off", "offline", "online"] = Field(
        "off", description="W&B: offline = files in the run folder; online = offline unless an API key is set")
    wandb_project: str = Field("vvae-lam", min_length=1, description="W&B project")
    wandb_entity: str | None = Field(None, description="W&B team or user; null = the key's own")
    mlflow: str | None = Field(None, description="MLflow tracking URI, such as sqlite:///mlflow.db; null = off")
    mlflow_experiment: str = Field("lam", min_length=1, description="MLflow experiment")
    group: str | None = Field(None, description="W&B group of the run; a sweep gives its trials its own name")

    @model_validator(mode="after")
    def _holds_no_secret(self) -> TrackingConfig:
        if self.mlflow is not None and urlsplit(self.mlflow).password is not None:
            raise ValueError("mlflow holds a password, and configs are written to records; leave it out and set "
                             "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment")
        return self

    @property
    def on(self) -> bool:
        """Whether any tracker is asked for."""
        return self.wandb != "off" or self.mlflow is not None

    def for_trial(self, sweep: str) -> TrackingConfig:
        """The same for a trial: W&B in the sweep's group, MLflow left to the sweep's driver, its only writer."""
        return self.model_copy(update={"mlflow": None, "group": self.group or sweep})


class Settings(Strict):
    """Base of a workload's config: everything that one training depends on, frozen.

    A subclass has at least the keys below; `lam.config.RunConfig` is one.

    Attributes:
        num_epochs: epochs to train.
        seed: what makes two trainings of one config differ.
        threads: CPU threads; 0 = the sweep decides by its `resources.cpu`.
        health, tracking: how the run is judged, where copies of its records go.
    """

    if TYPE_CHECKING:
        @property
        def num_epochs(self) -> int: ...
        @property
        def seed(self) -> int: ...
        @property
        def threads(self) -> int: ...
        @property
        def health(self) -> HealthConfig: ...
        @property
        def tracking(self) -> TrackingConfig: ...

    @property
    def stops_early(self) -> bool:
        """Whether the training may end by itself before its last epoch."""
        return False

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again."""
        return build(type(self), self.model_dump() | changes, source="config")

    def mapping(self) -> dict[str, Any]:
        """Plain values of every field, in the schema's order."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """The values that tell this config from another, but for where its records are copied to."""
        return {key: value for key, value in self.mapping().items() if key != "tracking"}

    def comparable(self, aside: Iterable[str]) -> str:
        """Twelve hex digits of the values without those keys: what makes this no other run than one with others."""
        left_out = set(aside)
        kept = {key: value for key, value in self.identity().items() if key not in left_out}
        return digits(kept)

    def fingerprint(self) -> str:
        """Twelve hex digits of `identity`."""
        return digits(self.identity())


def digits(values: Mapping[str, Any]) -> str:
    """Twelve hex digits of values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def configuring(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a config YAML without the sections that promotion adds."""
    return {key: value for key, value in values.items() if key not in PRODUCTION_SECTIONS}


def absolute_profile(config: Settings, folder: Path) -> dict[str, Any]:
    """The change that makes the path of a health profile of one's own absolute; empty for a shipped one."""
    if not config.health.profile.endswith((".yaml", ".yml")):
        return {}
    return {"health": {**config.health.model_dump(), "profile": resolve(config.health.profile, folder)}}


def resolve(path: str, folder: Path) -> str:
    """The absolute path of one that a file in `folder` states: relative to it, or else to the current folder.

    The address of a store is one already.

    Raises:
        BadInput: it is longer than the system takes.
    """
    if addresses.is_one(path):
        return path
    beside = folder / path
    try:
        return str(files.plain(beside if beside.exists() else path))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise BadInput(f"holds a path of {len(path):,} characters, {path[:40]!r}..., and the system takes no such name",
                       source=folder, remedy="shorten it") from None
