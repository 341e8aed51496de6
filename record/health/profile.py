"""A health profile: what a family of runs logs, what must not happen to it, and what to do when it does.

Profiles are YAML files (`record/health/profiles/`, or one's own). A rule reads

    - name: dead_codes
      metric: {divide: [val/dead_codes, num_embeddings]}    a key, or arithmetic on keys
      statistic: value            of the last `window` records; see `record.health.statistics`
      comparison: above           above, below, at_least, at_most, outside, is, is_not
      threshold: 0.5              a number, a word, or arithmetic on facts of the run
      clear: 0.4                  once it has fired, the level it must get back to
      patience: 2                 records in a row that fire it; `recovery` records in a row clear it
      after_epoch: grace_epochs   the phase: silent until this epoch is over; and `until_epoch`
      severity: warn              info, warn, abort
      meaning: ...                one sentence
      remedy: ...                 one sentence

or counts other rules: `count: 3`, `of: [rule, rule, ...]`.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from record import yamlio
from record.errors import BadInput
from record.health import expressions
from record.health.limits import Gates
from record.health.reporting import Reporting
from record.health.statistics import STATISTICS
from record.schema import Strict, build, suggest

Severity = Literal["info", "warn", "abort"]
Comparison = Literal["above", "below", "at_least", "at_most", "outside", "is", "is_not"]
Better = Literal["up", "down", "none"]
Formula = Annotated[Any, BeforeValidator(expressions.parse)]  # an `expressions.Expression`
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Keys = list[str]


def _formula_or_none(value: Any) -> Any:
    return None if value is None else expressions.parse(value)


def _threshold(value: Any) -> Any:
    return tuple(float(part) for part in value) if isinstance(value, list) else expressions.parse(value)


class Part(Strict):
    """Base of a profile's parts; expressions are plain dataclasses."""

    model_config = ConfigDict(arbitrary_types_allowed=True)


class Rule(Part):
    """One rule; see the module's docstring."""

    name: Name
    metric: Annotated[Any, BeforeValidator(_formula_or_none)] = None
    statistic: str = "value"
    window: int = Field(1, ge=1)
    comparison: Comparison = "above"
    threshold: Annotated[Any, BeforeValidator(_threshold)] = 0.0
    clear: float | None = None
    patience: int | str = 1
    recovery: int | None = Field(None, ge=1)
    after_epoch: Formula = 0.0
    until_epoch: float | None = None
    severity: Severity
    meaning: str
    remedy: str
    better: Literal["up", "down"] = "down"
    min_delta: float = Field(0.0, ge=0)
    also_eval: bool = False
    quiet: bool = Field(False, description="only evidence for other rules and for diagnoses; not listed by itself")
    count: int | None = Field(None, ge=1)
    of: list[Name] = Field(default_factory=list)

    @field_validator("statistic")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in STATISTICS:
            raise ValueError(f"got {value!r}; {suggest(value, list(STATISTICS))}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Rule:
        if (self.metric is None) == (self.count is None):
            raise ValueError(f"rule {self.name}: expected a metric, or a count of other rules")
        if self.count is not None and self.count > len(self.of):
            raise ValueError(f"rule {self.name}: counts {self.count} of {len(self.of)} rules")
        if (self.comparison == "outside") != isinstance(self.threshold, tuple):
            raise ValueError(f"rule {self.name}: a threshold [low, high] belongs to the comparison outside")
        return self

    @property
    def condition(self) -> str:
        """What it compares, as a person reads it."""
        if self.count is not None:
            return f"at least {self.count} of {', '.join(self.of)}"
        metric = expressions.text(self.metric)
        return metric if self.statistic == "value" else f"{STATISTICS[self.statistic].title} of {metric}" + (
            f" over {self.window} records" if self.window > 1 else "")


class Diagnosis(Part):
    """A cause: all of `needs` hold, each of `supports` adds to the evidence."""

    name: Name
    needs: list[Name] = Field(min_length=1)
    supports: list[Name] = Field(default_factory=list)
    cause: str
    remedy: str


class Identity(Part):
    """Two sides of a formula that a log must satisfy."""

    name: str
    left: Formula
    right: Formula
    tolerance: float = Field(1e-3, gt=0, description="largest difference, relative to the larger side")


class Family(Part):
    """Keys that share a meaning; ``a_x|y`` stands for ``a_x`` and ``a_y``."""

    keys: Keys
    meaning: str
    scope: Literal["rank_local", "all_reduced"] | None = None
    only_where: dict[str, float] = Field(default_factory=dict, description="records elsewhere do not count")
    not_in_stage: list[int] = Field(default_factory=list)
    in_loss: bool = False

    @field_validator("keys")
    @classmethod
    def _written_out(cls, keys: Keys) -> Keys:
        return [key for short in keys for key in expand(short)]


class NamedQuantity(Part):
    """Something a generated sample must vary in, with the standard deviations that are healthy and dead."""

    name: Name
    title: str
    std: str
    healthy: str | None = Field(None, description="key that is 1 where the trainer itself found it healthy")
    enough: float = Field(description="standard deviation that is healthy from here on")
    constant: float = Field(description="standard deviation below which it is all but constant")
    unit: str = ""
    normal: tuple[float, float] | None = Field(None, description="standard deviation of real data")
    remedy: str = "Lower the learning rate, use a larger batch, and train longer."

    def rules(self) -> list[dict[str, Any]]:
        """Its rules: low, constant, and flagged by the trainer."""
        usual = f"; real data has {self.normal[0]:g} to {self.normal[1]:g}" if self.normal else ""
        low = {"name": f"{self.name}_low", "metric": self.std, "comparison": "below", "threshold": self.enough,
               "severity": "warn", "remedy": self.remedy,
               "meaning": f"{self.title} varies by less than {self.enough:g} {self.unit}".rstrip() + f"{usual}."}
        dead = {"name": f"{self.name}_constant", "metric": self.std, "comparison": "below",
                "threshold": self.constant, "severity": "warn", "remedy": self.remedy,
                "meaning": f"{self.title} is all but constant: mode collapse."}
        flagged = {"name": f"{self.name}_unhealthy", "metric": self.healthy, "comparison": "is", "threshold": 0,
                   "severity": "info", "remedy": self.remedy, "meaning": f"The trainer found {self.title} unhealthy."}
        return [low, dead, *([flagged] if self.healthy else [])]


class Watched(Part):
    """A metric whose present value and trajectory `lam monitor` shows."""

    metric: Formula
    title: str
    better: Better = "none"
    percent: bool = False


class Profile(Part):
    """Everything about one family of runs."""

    name: str
    about: str
    axis: str = "epoch"
    rules: list[Rule]
    diagnoses: list[Diagnosis] = Field(default_factory=list)
    named_quantities: list[NamedQuantity] = Field(default_factory=list)
    aliases: dict[str, Keys] = Field(default_factory=dict, description="key -> other names of the same number")
    families: list[Family] = Field(default_factory=list)
    stages: dict[int, str] = Field(default_factory=dict, description="stage -> a key that only this stage logs")
    identities: list[Identity] = Field(default_factory=list)
    watch: list[Watched] = Field(default_factory=list)
    report: Reporting = Field(default_factory=Reporting)
    gates: Gates = Field(default_factory=Gates)

    @model_validator(mode="before")
    @classmethod
    def _rules_of_quantities(cls, values: dict[str, Any]) -> dict[str, Any]:
        made = [rule for item in values.get("named_quantities") or []
                for rule in NamedQuantity.model_validate(item).rules()]
        rules = [twin for rule in values.get("rules") or [] for twin in _with_eval_twin(rule)]
        return {**values, "rules": [*made, *rules]}

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        names = [rule.name for rule in self.rules]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"the rule {twice[0]} stands here twice; keep one")
        used = [name for rule in self.rules for name in rule.of]
        used += [name for item in self.diagnoses for name in (*item.needs, *item.supports)] + self.report.unsound
        for name in used:
            if name not in names:
                raise ValueError(f"no rule is called {name!r}; {suggest(name, names)}")
        simple = {rule.name for rule in self.rules if rule.count is None}
        for rule in self.rules:
            if not set(rule.of) <= simple:
                raise ValueError(f"rule {rule.name}: counts rules that count others")
        return self

    def rule(self, name: str) -> Rule:
        """The rule of this name."""
        return next(rule for rule in self.rules if rule.name == name)

    def family(self, key: str) -> Family | None:
        """The family a key belongs to; that of the training key for an evaluation key."""
        named = next((family for family in self.families if key in family.keys), None)
        return named or next((family for family in self.families if training_key(key) in family.keys), None)


def _with_eval_twin(rule: Any) -> list[Any]:
    if not isinstance(rule, dict) or not rule.get("also_eval"):
        return [rule]
    twin = {**rule, "name": f"eval_{rule.get('name')}", "metric": _prefixed(rule.get("metric"))}
    return [rule, twin]


def _prefixed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: [_prefixed(part) for part in parts] for name, parts in value.items()}
    return evaluation_key(value) if isinstance(value, str) else value


def evaluation_key(key: str) -> str:
    """The name of a key in evaluation records: ``rollout/f1`` is ``eval_rollout_f1``, ``loss`` is ``eval_loss``."""
    return "eval_" + (key.replace("/", "_", 1) if key.startswith("rollout/") else key)


def training_key(key: str) -> str:
    """The name of an evaluation key in training records; a training key is itself."""
    plain = key.removeprefix("eval_")
    return plain.replace("rollout_", "rollout/", 1) if plain != key and plain.startswith("rollout_") else plain


def expand(short: str) -> list[str]:
    """``a_x|y|z`` as a_x, a_y, a_z."""
    first, *others = short.split("|")
    stem = first.rpartition("_")[0]
    return [first, *(f"{stem}_{other}" for other in others)]


@cache
def shipped() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("record.health").joinpath("profiles")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir()
                  if entry.name.endswith(".yaml"))


def load(name: str | Path) -> Profile:
    """A shipped profile by name, or one's own by path.

    Raises:
        BadInput: there is none, or it is wrong: file, key, value, remedy.
    """
    text = str(name)
    if text in shipped():
        return _load_shipped(text)
    if not text.endswith((".yaml", ".yml")):
        raise BadInput(f"got {text!r}, no such profile", source="profile",
                       remedy=f"{suggest(text, shipped())} Or name a YAML file of your own.".replace("? Or", "? or"))
    return build(Profile, yamlio.load_mapping(text), text)


@cache
def _load_shipped(name: str) -> Profile:
    """Read once a process: a report asks some twenty times. One's own file may change meanwhile."""
    source = resources.files("record.health").joinpath("profiles", f"{name}.yaml")
    return build(Profile, yamlio.parse_own(source.read_text(encoding="utf-8"), f"profile {name}"), name)
