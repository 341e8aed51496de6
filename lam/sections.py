"""The groups of the run config: by which rules a run is judged, when it ends early, where its records are copied."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from lam.metrics import TABLE
from record.schema import Strict

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class HealthConfig(Strict):
    """By which rules a run is judged, and when a collapsed codebook ends it."""

    profile: str = Field("lam", description="health profile: lam, or a YAML file of one's own; see docs/health.md")
    abort: bool = Field(
        False, description="end the run when a rule of severity abort fires (a sweep's scheduler decides by itself)")
    grace_epochs: Whole | None = Field(
        None, description="epochs before collapse is judged; default: see docs/decisions/0004-collapse-grace.md")
    patience: Count = Field(2, description="validations in a row that must show collapse")


class EarlyStopping(Strict):
    """When a run that no longer gets better ends before its last epoch."""

    metric: str = Field("val/objective", description="what is watched, a key of the metric table")
    patience: Count = Field(10, description="validations in a row without an improvement that end the run")
    min_delta: Weight = Field(0.0, description="the smallest change that counts as an improvement")
    mode: Literal["auto", "min", "max"] = Field("auto", description="which way is better; auto = the metric's own")

    @model_validator(mode="after")
    def _has_a_direction(self) -> EarlyStopping:
        if self.metric not in TABLE:
            near = get_close_matches(self.metric, TABLE, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{self.metric!r} is no metric{hint}")
        if TABLE[self.metric].measured == "evaluate":
            raise ValueError(f"metric {self.metric} is measured by 'lam evaluate' only; watch val/objective")
        if self.mode == "auto" and TABLE[self.metric].direction == "none":
            raise ValueError(f"metric {self.metric} has no better direction of its own; set mode to min or max")
        return self

    @property
    def higher_is_better(self) -> bool:
        """The direction that `mode` or the metric table says."""
        return self.mode == "max" or (self.mode == "auto" and TABLE[self.metric].direction == "up")


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
