"""The sweep config: what to vary, how to search, when to stop. One YAML, validated as a whole.

`load` reads it, joins it with its base run config and checks what can be checked without data; see
`sweeps.checks`. Nothing is started and nothing is written before that has passed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from lam import config as config_module
from lam import yamlio
from lam.config import RunConfig
from lam.errors import BadInput
from lam.metrics import TABLE
from lam.validation import Strict, build, suggest
from sweeps.space import Knob, Scalar

Policy = Literal["complete", "pruned", "infeasible", "full_budget_only"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
Amount = Annotated[float, Field(gt=0)]
Count = Annotated[StrictInt, Field(ge=1)]


class Tpe(Strict):
    """Optuna's tree-structured Parzen estimator."""

    n_startup_trials: Count = Field(default=10, description="random trials before the model is asked")


class Random(Strict):
    """Independent random draws."""


class Search(Strict):
    """Exactly one searcher."""

    tpe: Tpe | None = None
    random: Random | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Search:
        if (self.tpe is None) == (self.random is None):
            raise ValueError("expected exactly one of tpe, random; for example {tpe: {}}")
        return self


class Asha(Strict):
    """Asynchronous successive halving over our own epochs."""

    max_epochs: Count = Field(description="epochs of a trial that is never stopped; sets num_epochs")
    grace_epochs: Count = Field(1, description="first rung, in epochs")
    reduction_factor: float = Field(3.0, gt=1, description="eta: one in eta goes on at each rung")

    @model_validator(mode="after")
    def _ordered(self) -> Asha:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(f"grace_epochs {self.grace_epochs} is above max_epochs {self.max_epochs}")
        return self


class Scheduler(Strict):
    """How trials are ended early."""

    asha: Asha


class Budget(Strict):
    """What may be spent; the first one that is spent ends the sweep."""

    trials: Count | None = None
    hours: Amount | None = None
    epochs: Count | None = None
    tflops: Amount | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Budget:
        if not any((self.trials, self.hours, self.epochs, self.tflops)):
            raise ValueError("says nothing, expected at least one of trials, hours, epochs, tflops")
        return self


class Resources(Strict):
    """What one trial occupies."""

    cpu: Amount = 1
    gpu: Annotated[float, Field(ge=0)] = 0


class SweepSpec(Strict):
    """One sweep, as asked."""

    name: str = Field(description="folder of the sweep under its storage")
    base: str | dict[str, Any] = Field(description="run YAML, relative to the sweep file, or the mapping itself")
    space: dict[str, Knob] = Field(min_length=1)
    objective: str = Field("val/objective", description="validation metric that ranks; its direction is the table's")
    search: Search = Field(default_factory=lambda: Search(tpe=Tpe()))
    scheduler: Scheduler | None = Field(None, description="how trials end early; none: they do not")
    budget: Budget
    seed: Annotated[StrictInt, Field(ge=0)] = 0
    resources: Resources = Field(default_factory=Resources)
    storage: str = Field("runs", description="folder that holds the sweeps")
    concurrency: Count | None = Field(None, description="trials at a time; default: as many as the resources hold")
    policy: Policy = Field("complete", description="what the searcher is told of a trial that was stopped")

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"got {name[:40]!r}, expected 1 to 100 letters, digits, '.', '_' or '-', "
                             "the first one a letter or digit")
        return name

    @field_validator("scheduler", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("search", mode="before")
    @classmethod
    def _word_is_enough(cls, value: Any) -> Any:
        return {value: {}} if isinstance(value, str) else value

    @field_validator("objective")
    @classmethod
    def _rankable(cls, key: str) -> str:
        if key not in TABLE:
            raise ValueError(f"got {key!r}, which is no metric; {suggest(key, _rankable_keys())}")
        if key not in _rankable_keys():
            raise ValueError(f"got {key!r}, which is no validation metric with a direction; use val/objective")
        return key

    @property
    def maximise(self) -> bool:
        """Whether a higher objective is better."""
        return TABLE[self.objective].direction == "up"

    @property
    def asha(self) -> Asha | None:
        """The ASHA settings, None where trials run to their end."""
        return self.scheduler.asha if self.scheduler else None


def _rankable_keys() -> list[str]:
    return [key for key, metric in TABLE.items() if key.startswith("val/") and metric.direction != "none"]


@dataclass(frozen=True)
class Sweep:
    """A validated sweep: the spec, its complete base config, and where both came from."""

    spec: SweepSpec
    base: RunConfig
    source: str
    text: str

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial that is never stopped."""
        return self.base.num_epochs

    def config(self, params: dict[str, Scalar]) -> RunConfig:
        """The complete config of a trial; MLflow is written by the driver alone."""
        return self.base.replace(tracking=self.base.tracking.for_trial(self.spec.name).model_dump(), **params)

    def asked(self) -> dict[str, Any]:
        """Everything that defines the sweep; what may change between launches is left out."""
        return {
            "name": self.spec.name,
            "base": {key: value for key, value in self.base.mapping().items() if key != "tracking"},
            "space": self.space_mapping(),
            "objective": self.spec.objective,
            "search": self.spec.search.model_dump(mode="json", exclude_none=True),
            "scheduler": self.spec.model_dump(mode="json")["scheduler"],
            "budget": self.spec.budget.model_dump(mode="json", exclude_none=True),
            "seed": self.spec.seed,
            "policy": self.spec.policy,
        }

    def space_mapping(self) -> dict[str, Any]:
        """The space as it is written in YAML."""
        return {name: knob.model_dump(mode="json", by_alias=True, exclude_none=True)
                for name, knob in self.spec.space.items()}

    def fingerprint(self) -> str:
        """Twelve hex digits that name what was asked."""
        return hashlib.sha256(json.dumps(self.asked(), sort_keys=True).encode()).hexdigest()[:12]


def load(path: str | Path) -> Sweep:
    """Read and check a sweep YAML.

    Raises:
        BadInput: naming the file, the key, the value and the remedy.
    """
    from sweeps import checks

    path = Path(path)
    values = yamlio.load_mapping(path)
    spec = build(SweepSpec, values, path)
    given, base_source = _base_values(spec, path)
    base = _complete(spec, config_module.from_mapping(given, base_source), Path(base_source).parent)
    sweep = Sweep(spec, base, str(path), path.read_text(encoding="utf-8"))
    checks.check(sweep, given)
    return sweep


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
    """The base with what the sweep settles: absolute paths, the epochs, the threads of one trial."""
    changes: dict[str, Any] = {}
    if spec.asha:
        changes["num_epochs"] = spec.asha.max_epochs
    if base.threads == 0:
        changes["threads"] = max(1, int(spec.resources.cpu))
    return config_module.relative_paths_from(base, folder).replace(**changes)
