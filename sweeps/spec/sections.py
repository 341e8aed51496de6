"""The sections of a sweep config: searcher, scheduler, budget, resources. See `sweeps.spec.spec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, StrictInt, model_validator
from pydantic import Strict as StrictType

from record.schema import Strict
from record.text import short
from sweeps.spec import rungs

if TYPE_CHECKING:
    from record.journal.results import Result

Policy = Literal["complete", "pruned", "infeasible", "full_budget_only"]
Number = Annotated[float, StrictType()]  # `true` and '2' are none
Amount = Annotated[Number, Field(gt=0)]
Count = Annotated[StrictInt, Field(ge=1)]


class Tpe(Strict):
    """Optuna's tree-structured Parzen estimator."""

    n_startup_trials: Count = Field(default=10, description="random trials before the model is asked")
    multivariate: bool = Field(default=False, description="one density for all knobs of a branch, not one a knob")


class Random(Strict):
    """Independent random draws."""


class Grid(Strict):
    """Every combination once, in an order drawn from the seed; each range needs choices, whole numbers or a step."""


class Qmc(Strict):
    """A scrambled Sobol sequence: random draws that fill the space evenly."""


class Gp(Strict):
    """Optuna's Gaussian process with expected improvement; for few, costly trials."""

    n_startup_trials: Count = Field(default=10, description="random trials before the model is asked")


class Cmaes(Strict):
    """Covariance matrix adaptation over the numeric knobs; choices and conditional knobs are drawn at random."""

    population: Annotated[StrictInt, Field(ge=4)] | None = Field(
        None, description="trials of a generation; default: 4 + 3 ln(numeric knobs)")
    sigma: Number = Field(0.3, gt=0, le=1, description="first step, as a share of each knob's range")


class Nsga2(Strict):
    """Optuna's NSGA-II, for several objectives."""

    population: Annotated[StrictInt, Field(ge=2)] = Field(20, description="trials of a generation")


class Search(Strict):
    """Exactly one searcher."""

    example: ClassVar[str] = "{tpe: {}}"

    tpe: Tpe | None = None
    random: Random | None = None
    grid: Grid | None = None
    qmc: Qmc | None = None
    gp: Gp | None = None
    cmaes: Cmaes | None = None
    nsga2: Nsga2 | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Search:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}; for example {{tpe: {{}}}}")
        return self

    def asked(self) -> dict[str, Any]:
        """What defines the search; sweeps of before, which name no `multivariate`, had it."""
        found = self.model_dump(mode="json", exclude_none=True)
        if self.tpe is not None and self.tpe.multivariate:
            del found["tpe"]["multivariate"]
        return found

    @property
    def name(self) -> str:
        """Which searcher."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)


class Rungs(Strict):
    """What every scheduler has: the full budget, and the first moment at which it may stop a trial."""

    max_epochs: Count = Field(description="epochs of a trial that is never stopped; sets num_epochs")
    grace_epochs: Count = Field(1, description="first rung, in epochs; default: an eighth of max_epochs")

    @model_validator(mode="before")
    @classmethod
    def _first_rung(cls, given: Any) -> Any:
        """An eighth of the training before anything is ranked: docs/decisions/0006-search-defaults.md."""
        if isinstance(given, dict) and "grace_epochs" not in given and isinstance(given.get("max_epochs"), int):
            return {**given, "grace_epochs": max(1, round(given["max_epochs"] / 8))}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Rungs:
        if self.grace_epochs > self.max_epochs:
            raise ValueError(f"grace_epochs {self.grace_epochs} is above max_epochs {self.max_epochs}")
        return self


class Asha(Rungs):
    """Asynchronous successive halving over our own epochs, or over operations."""

    example: ClassVar[str] = "{max_epochs: 30}"

    reduction_factor: Number = Field(4.0, gt=1, description="eta: one in eta goes on at each rung")
    brackets: Count = Field(1, description="ladders with first rungs grace * eta^0, eta^1, ...; trials take turns")
    promote: bool = Field(False, description="pause instead of stop; a paused trial goes on once it is among the best")
    max_tflops: Amount | None = Field(
        None, description="full budget in TFLOP: rungs count operations instead of epochs, max_epochs is the limit")
    grace_tflops: Amount | None = Field(None, description="first rung in TFLOP; default: max_tflops / eta^3")

    @model_validator(mode="after")
    def _axis(self) -> Asha:
        if self.grace_tflops is not None and self.max_tflops is None:
            raise ValueError("grace_tflops means nothing without max_tflops")
        if self.max_tflops is not None and (self.grace_tflops or 0) > self.max_tflops:
            raise ValueError(f"grace_tflops {self.grace_tflops} is above max_tflops {self.max_tflops}")
        return self

    @property
    def on_tflops(self) -> bool:
        """Whether rungs count operations."""
        return self.max_tflops is not None

    @property
    def grace(self) -> float:
        """First rung of the first bracket, in units of the axis."""
        if self.max_tflops is None:
            return float(self.grace_epochs)
        return self.grace_tflops or self.max_tflops / self.reduction_factor**3

    @property
    def maximum(self) -> float:
        """Full budget, in units of the axis."""
        return float(self.max_epochs) if self.max_tflops is None else self.max_tflops

    def ladder(self, bracket: int = 0) -> list[float]:
        """Rungs of a bracket, in units of the axis."""
        grace = self.grace * self.reduction_factor**bracket
        if self.on_tflops:
            return rungs.amounts(grace, self.maximum, self.reduction_factor)
        return [float(level) for level in rungs.levels(grace, self.maximum, self.reduction_factor)]

    def place(self, result: Result) -> float:
        """Where a result lies on the axis of the rungs."""
        return result.tflops if self.on_tflops else float(result.epoch)

    def bracket(self, number: int) -> int:
        """Bracket of the config with this number; all its trainings are of it."""
        return rungs.bracket_of(number, self.brackets, self.reduction_factor) if self.brackets > 1 else 0


class Median(Rungs):
    """Stops a trial whose best value so far is below the median of the others' running means."""

    example: ClassVar[str] = "{max_epochs: 30}"

    min_trials: Count = Field(5, description="trials that must have come as far before one is stopped")


class Scheduler(Strict):
    """How trials are ended early: exactly one rule."""

    example: ClassVar[str] = "{asha: {max_epochs: 30}}"
    asha: Asha | None = None
    median: Median | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Scheduler:
        if (self.asha is None) == (self.median is None):
            raise ValueError("expected exactly one of asha, median; for example {asha: {max_epochs: 30}}")
        return self

    @property
    def rule(self) -> Rungs:
        """The one that is given."""
        found = self.asha or self.median
        assert found is not None, "a Scheduler has exactly one rule"
        return found


class Budget(Strict):
    """What may be spent; the first one that is spent ends the sweep."""

    example: ClassVar[str] = "{trials: 40}"

    trials: Count | None = None
    hours: Amount | None = Field(None, description="wall clock of all sessions")
    epochs: Count | None = None
    tflops: Amount | None = None
    gpu_hours: Amount | None = Field(None, description="training time of all trials times their GPUs")

    @model_validator(mode="after")
    def _bounded(self) -> Budget:
        limits: dict[str, Any] = self.model_dump()
        if not any(limits.values()):
            raise ValueError(f"says nothing, expected at least one of {', '.join(limits)}")
        return self


class Resources(Strict):
    """What one trial occupies; where it is several workers, what each of them does."""

    example: ClassVar[str] = "{cpu: 1}"

    workers: Annotated[StrictInt, Field(ge=1, le=256)] = Field(
        1, description="processes that train a trial together, each on its share of a batch; the run is the same")
    cpu: Amount = 1
    gpu: Annotated[Number, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="auto: one where a machine has any, else none; a trial with none does not see a GPU, one "
        "with a part of a GPU has that part of its memory")

    @model_validator(mode="after")
    def _whole_gpus(self) -> Resources:
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError(f"got gpu {self.gpu:g} for each of {self.workers} workers, which need a GPU of their own; "
                             "use gpu: 1, gpu: 0 or workers: 1")
        return self

    @property
    def gpus(self) -> float:
        """GPUs as far as they are stated: 0 for auto."""
        return 0.0 if self.gpu == "auto" else self.gpu

    def where(self, gpus: bool) -> Resources:
        """The same with a number for auto.

        Args:
            gpus: whether a machine has any.
        """
        return self.model_copy(update={"gpu": float(gpus)}) if self.gpu == "auto" else self

    def words(self) -> str:
        """What it occupies, for people."""
        each = f"{short(self.cpu)} CPU" + (f" and {short(self.gpus)} GPU" if self.gpus else "")
        return each if self.workers == 1 else f"{self.workers} workers of {each}"
