"""The sweep config: what to vary, how to search, when to stop. One YAML, validated as a whole.

`sweeps.spec.load` reads it, joins it with its base run config and checks what can be checked without data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictInt, ValidationInfo, field_validator, model_validator

from record.bounds import Bound
from record.errors import BadInput
from record.files import NAME
from record.schema import Strict, suggest
from record.storage import addresses, copies
from record.workload import workload as workloads
from record.workload.settings import Settings
from record.workload.workload import DEFAULT, Workload
from sweeps.spec.sections import Amount, Asha, Budget, Count, Policy, Resources, Scheduler, Search, Tpe
from sweeps.spec.space import Knob, Scalar


class SweepSpec(Strict):
    """One sweep, as asked."""

    name: str = Field(description="folder of the sweep under its storage")
    workload: str = Field(DEFAULT, description="what is trained: lam, or the name that an installed package gave it")
    base: str | dict[str, Any] = Field(description="run YAML, relative to the sweep file, or the mapping itself")
    space: dict[str, Knob] = Field(min_length=1)
    objective: str | list[str] = Field(
        description="validation metric that ranks, or several: the first one ranks and is judged at rungs, the "
        "searcher trades them off; directions are the metric table's; default: the workload's own, val/objective")
    constraints: dict[str, Bound] = Field(
        default_factory=dict, description="limits of validation metrics or of total_tflops; a trial outside ranks last")
    search: Search = Field(default_factory=lambda: Search(tpe=Tpe()))
    scheduler: Scheduler | None = Field(None, description="how trials end early; none: they do not")
    budget: Budget
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = 0
    seeds: Count = Field(1, description="trainings of a config, each with its own seed; the searcher sees the mean")
    resources: Resources = Field(default_factory=Resources)
    production: dict[str, Any] = Field(
        default_factory=dict, description="values that a promoted config has instead of its trial's own: KEY: VALUE, "
        "or KEY: {value: VALUE, because: REASON}; no trial sees them")
    storage: str = Field("runs", description="what holds the sweeps: a folder, or a prefix on a store such as "
                         "s3://bucket/prefix, which then holds their journals too")
    journal: str | None = Field(
        None, description="URI under which the journal is kept, for example s3://bucket/prefix, in a folder named as "
        "the sweep; default: where the sweep is. All else stays under storage")
    concurrency: Count | None = Field(None, description="trials at a time; default: as many as the resources hold")
    policy: Policy = Field("complete", description="what the searcher is told of a trial that was stopped")
    hang_minutes: Amount = Field(
        120, le=525_600, description="a trial that reports no epoch for so long is killed and fails")

    @field_validator("name")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"got {name[:40]!r}, expected 1 to 100 letters, digits, '.', '_' or '-', "
                             "the first one a letter or digit")
        return name

    @field_validator("journal")
    @classmethod
    def _is_a_place(cls, journal: str | None) -> str | None:
        wrong = None if journal is None else addresses.problem(journal)
        if wrong:
            raise ValueError(wrong)
        return journal

    @model_validator(mode="before")
    @classmethod
    def _ranks_by_its_own(cls, values: Any) -> Any:
        name = values.get("workload", DEFAULT)
        known = workloads.find(name if name in workloads.installed() else DEFAULT)
        return {"objective": known.objective, **values}

    @field_validator("workload")
    @classmethod
    def _is_installed(cls, name: str) -> str:
        try:
            return workloads.find(name).name
        except BadInput as error:
            raise ValueError(str(error).removeprefix("workload: ")) from None

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
    def _rankable(cls, objective: str | list[str], known: ValidationInfo) -> str | list[str]:
        if "workload" not in known.data:
            return objective
        trained = workloads.find(known.data["workload"])
        keys = [objective] if isinstance(objective, str) else objective
        if not keys or len(set(keys)) < len(keys):
            raise ValueError(f"got {objective!r}, expected one metric, or several different ones")
        for key in keys:
            if key not in trained.metrics:
                raise ValueError(f"got {key!r}, which is no metric; {suggest(key, trained.rankable())}")
            _refuse_evaluate_only(trained, key)
            if key not in trained.rankable():
                raise ValueError(f"got {key!r}, which is no validation metric with a direction; use "
                                 f"{trained.objective}")
        return objective

    @field_validator("constraints")
    @classmethod
    def _measurable(cls, constraints: dict[str, Bound], given: ValidationInfo) -> dict[str, Bound]:
        if "workload" not in given.data:
            return constraints
        trained = workloads.find(given.data["workload"])
        known = [key for key in trained.metrics if key.startswith("val/") or key == "total_tflops"]
        for key in constraints:
            if key not in known:
                raise ValueError(f"got {key!r}, which is no validation metric; {suggest(key, known)}")
            _refuse_evaluate_only(trained, key)
        return constraints

    @model_validator(mode="after")
    def _fits_together(self) -> SweepSpec:
        if len(self.objectives) > 1 and self.search.name == "cmaes":
            raise ValueError("search cmaes has one objective; use nsga2, tpe, gp, qmc or random for several")
        if len(self.objectives) > 1 and self.policy == "pruned":
            raise ValueError("policy pruned means nothing with several objectives; use complete, infeasible or "
                             "full_budget_only")
        if self.seeds > 1 and "seed" in self.space:
            raise ValueError("seeds above 1 gives each training a seed of its own; take seed out of the space")
        return self

    @property
    def objectives(self) -> list[str]:
        """All objectives; the first one ranks."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    @property
    def primary(self) -> str:
        """The objective that ranks and is judged at rungs."""
        return self.objectives[0]

    @property
    def maximise(self) -> bool:
        """Whether a higher primary objective is better."""
        return workloads.find(self.workload).maximises(self.primary)

    @property
    def asha(self) -> Asha | None:
        """The ASHA settings, None where another rule or none ends trials."""
        return self.scheduler.asha if self.scheduler else None

    @property
    def told(self) -> list[str]:
        """Metrics that the searcher needs beside the primary objective."""
        return [key for key in dict.fromkeys([*self.objectives[1:], *self.constraints]) if key != "total_tflops"]


def _refuse_evaluate_only(trained: Workload, key: str) -> None:
    if trained.metrics[key].measured == "evaluate":
        raise ValueError(f"got {key!r}, which 'lam evaluate' measures and no training does; use {trained.objective}")


@dataclass(frozen=True)
class Sweep:
    """A validated sweep: the spec, its complete base config, and where both came from."""

    spec: SweepSpec
    base: Settings
    source: str
    text: str

    @property
    def workload(self) -> Workload:
        """What is trained."""
        return workloads.find(self.spec.workload)

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial that is never stopped."""
        return self.base.num_epochs

    @property
    def needs_codes(self) -> bool:
        """Whether a model without codes is out of the contest."""
        return self.workload.needs_codes(self.spec.primary, self.base.mapping())

    def config(self, params: dict[str, Scalar]) -> Settings:
        """The complete config of a trial; MLflow is written by the driver alone."""
        return self.base.replace(tracking=self.base.tracking.for_trial(self.spec.name).model_dump(), **params)

    def home(self, folder: Path) -> Path | str:
        """Where the journal is kept: a folder, or the URI of a prefix of objects; by itself where the sweep is."""
        if self.spec.journal:
            return addresses.place(self.spec.journal, self.spec.name)
        return copies.address(folder) or folder

    def asked(self) -> dict[str, Any]:
        """Everything that defines the sweep; what may change between launches is left out."""
        elsewhere = {"journal": self.spec.journal} if self.spec.journal else {}
        other = {"workload": self.spec.workload} if self.spec.workload != DEFAULT else {}
        return {
            **elsewhere, **other,
            "name": self.spec.name,
            "base": self.base.identity(),
            "space": self.space_mapping(),
            "objective": self.spec.objective,
            "search": self.spec.search.asked(),
            "scheduler": self.spec.model_dump(mode="json", exclude_none=True).get("scheduler"),
            "budget": self.spec.budget.model_dump(mode="json", exclude_none=True),
            "seed": self.spec.seed,
            "policy": self.spec.policy,
            "seeds": self.spec.seeds,
            "constraints": self.spec.model_dump(mode="json", exclude_none=True)["constraints"],
        }

    def space_mapping(self) -> dict[str, Any]:
        """The space as it is written in YAML."""
        return {name: knob.model_dump(mode="json", by_alias=True, exclude_none=True)
                for name, knob in self.spec.space.items()}

    def fingerprint(self) -> str:
        """Twelve hex digits that name what was asked; the budget is left out, so that it can be raised."""
        asked = {key: value for key, value in self.asked().items() if key != "budget"}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
