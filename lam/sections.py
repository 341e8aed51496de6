"""Groups of the run config: which labels training uses, when a run ends early; and kinds of numbers in it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lam.metrics import TABLE
from record.schema import Strict
from record.storage import addresses
from record.workload.settings import Count, Whole

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[Whole, Field(lt=2**32)]
Positive = Annotated[float, Field(gt=0)]


def _is_place(value: str) -> str:
    if "://" in value and (wrong := addresses.problem(value)):
        raise ValueError(wrong)
    return value


def _is_file(value: str) -> str:
    if addresses.is_one(value):
        raise ValueError(f"got {value}, and a split file is read from a folder; leave it out where the data set on the "
                         "store has its own manifest.json")
    return value


Place = Annotated[str, AfterValidator(_is_place)]
SplitFile = Annotated[str, AfterValidator(_is_file)]


class DataPart(Strict):
    """One folder of a mixture."""

    dir: Place = Field(min_length=1, description="folder of videos, or the URI of one")
    weight: Positive = Field(1.0, description="how often its sequences are drawn for training, against the others'")
    name: str | None = Field(None, min_length=1, description="what metrics call it; default: the folder's name")
    manifest: SplitFile | None = Field(None, description="split file; default: dir/manifest.json")
    latents: str | None = Field(None, description="name of its latents; default: the config's `latents`")

    @property
    def called(self) -> str:
        """Its name in file names and metrics."""
        return self.name or Path(self.dir).name


class LabelRule(Strict):
    """Which true actions of the training split training may use."""

    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of them, drawn by file name and frame: the same in every run")
    files: tuple[str, ...] | None = Field(None, description="training files whose actions are used; null = all")


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
