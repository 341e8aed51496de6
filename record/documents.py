"""The documents of runs and sweeps: one frozen class each, by which every one is written and read.

The classes are the one place that says what each file holds; docs/records.md and docs/schemas are made from them.
What a newer version of the same schema added is kept as it is; a field that is wrong is named with its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from record import files
from record.errors import BadInput

SCHEMA: Literal[1] = 1
RunState = Literal["running", "finished", "failed", "interrupted", "stopped"]
RUN_STATES: tuple[RunState, ...] = get_args(RunState)


_REMEDY = "restore it from a copy"
_MEMBER = re.compile(r"bool|int|float|str|none|(?:dict|list|constrained-int|function-\w+)\[.*\]|constrained-\w+")
Int = Annotated[int, Field(ge=-(2**63), lt=2**63)]
# A value of a config, of a knob or of a record, as JSON has it; an integer fits into 64 bits.
Plain = None | bool | Int | float | str | list[Any] | dict[str, Any]


class Section(BaseModel):
    """A mapping inside a document."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def as_written(self) -> dict[str, Any]:
        """The fields that it was made with, NaN as null."""
        plain: dict[str, Any] = files.jsonable(self.model_dump(exclude_unset=True))
        return plain


class Document(Section):
    """A JSON file of the records.

    Attributes:
        parts: what is known of fields whose content belongs to one package.
    """

    parts: ClassVar[dict[str, type[Section]]] = {}
    schema_number: Literal[1] = Field(SCHEMA, alias="schema", description="1; another one is refused")

    def as_written(self) -> dict[str, Any]:
        """The fields that it was made with, NaN as null, the schema first."""
        plain: dict[str, Any] = files.jsonable(self.model_dump(exclude_unset=True, exclude={"schema_number"}))
        return {"schema": SCHEMA, **plain}


PRODUCTION_FILE = "production.yaml"  # in a run's folder: a copy of the production YAML that configured it
DEFAULT_WORKLOAD = "lam"  # what records mean that name none


class Run(Document):
    """Who a run is, and where in its life."""

    run_id: str | None = Field(None, description="the folder's name")
    state: RunState = Field(description="where it is in its life")
    workload: str = Field(DEFAULT_WORKLOAD, description="what was trained")
    config_fingerprint: str | None = Field(None, description="of the config it began with")
    data_fingerprint: str | None = Field(None, description="of the data it began with")
    data: dict[str, Any] = Field({}, description="files, channels, grid, chunk_frames, latent_frames")
    versions: dict[str, str] = Field({}, description="lamsweep, torch, python, ...")
    git_commit: str | None = Field(None, description="null outside a checkout")
    started_at: str | None = Field(None, description="ISO")
    num_params: Int | None = Field(None, description="weights of the model")
    num_train_trials: Int | None = Field(None, description="files of the training split")
    data_stats: dict[str, float | None] = Field({}, description="data_stats/* keys of the training split")
    epoch: Int | None = Field(None, description="the last one, once the run is over or interrupted")
    reason: str | None = Field(None, description="of a failure, or why a sweep stopped it")
    rule: str | None = Field(None, description="the health rule that ended it, where one did")
    stopped_early: str | None = Field(None, description="why a finished run ended before its last epoch; absent where "
                                      "it did not")


class SpecAsked(Section):
    """What everybody may ask of a sweep's spec; the rest of it is for `sweeps`."""

    workload: str = DEFAULT_WORKLOAD
    journal: str | None = None
    objective: str | list[str] | None = None
    constraints: dict[str, dict[str, Any]] | None = None
    scheduler: dict[str, dict[str, Any] | None] | None = None


class HealthAsked(Section):
    """What everybody may ask of a run's `health`."""

    profile: str = "lam"
    grace_epochs: Int | None = None
    patience: Int | None = None


class ConfigAsked(Section):
    """What everybody may ask of a run's config; the rest of it is for its workload."""

    num_epochs: Annotated[int, Field(ge=0, le=10**9)] | None = None
    seed: Int | None = None
    health: HealthAsked | None = None


class EpochRecord(Section):
    """One line of metrics.jsonl: numbers, words, and lists of them by their keys."""

    __pydantic_extra__: dict[str, Plain]
    epoch: Annotated[int, Field(ge=0, le=10**9, strict=True)]
    step: Int | float | None = None
    seconds: float | None = None
    total_tflops: float | None = None


class Sweep(Document):
    """What a sweep was asked and where it came from."""

    parts: ClassVar[dict[str, type[Section]]] = {"spec": SpecAsked}
    name: str = Field(description="of the sweep")
    spec: dict[str, Any] = Field(description="the resolved sweep")
    base: dict[str, Any] = Field(description="the resolved base config")
    asked: dict[str, Any] = Field(description="what decides its results, as it was asked")
    fingerprint: str = Field(description="of what was asked, the budget aside")
    data_fingerprint: str = Field(description="of the data that it began with")
    versions: dict[str, str] = Field({}, description="of the software that it began with")
    git_commit: str | None = Field(None, description="null outside a checkout")
    created_at: str | None = Field(None, description="ISO")

    @property
    def workload(self) -> str:
        """What is trained."""
        return str(self.spec.get("workload", DEFAULT_WORKLOAD))


class Confirmed(Section):
    """A trial's config, trained again with fresh seeds."""

    trial: str = Field(description="its id")
    config_fingerprint: str | None = Field(None, description="of the trial's own config")
    seeds: list[Int] = Field(description="fresh ones")
    values: list[float | None] = Field(description="objective of each; null = missing")
    mean: float | None = Field(description="of the values")
    low: float | None = Field(None, description="lower bound of its 95 % t interval")
    high: float | None = Field(None, description="upper bound")
    live: Int = Field(description="how many ended sound")
    outside: Int = Field(0, description="of these, how many are outside the sweep's constraints")


class Difference(Section):
    """A paired difference a - b over common seeds."""

    a: str = Field(description="a trial")
    b: str = Field(description="another")
    mean: float | None = Field(description="of the differences")
    low: float | None = Field(None, description="lower bound of its 95 % t interval")
    high: float | None = Field(None, description="upper bound")


class Confirmation(Document):
    """What fresh seeds say of the best trials."""

    objective: str = Field(description="the metric")
    trials: list[Confirmed] = Field(description="best first")
    differences: list[Difference] = Field([], description="between each two of them")


class GateAnswer(Section):
    """What a gate said."""

    name: str = Field(description="of the gate")
    passed: bool = Field(description="whether it lets the trial pass by itself")
    evidence: str = Field(description="the numbers")
    remedy: str = Field("", description="what to do about it")
    waived: str | None = Field("", description="the reason to let it pass all the same")


class Provenance(Section):
    """Where a production config came from."""

    workload: str = Field(DEFAULT_WORKLOAD, description="what is trained")
    sweep: str = Field(description="its name")
    sweep_folder: str = Field(description="where it was")
    trial: str = Field(description="its id")
    reason: str = Field(description="why this one")
    promoted_at: str = Field(description="ISO")
    config_fingerprint: str = Field(description="of the production config")
    comparable_fingerprint: str | None = Field(
        None, description="of its values but those that make no other run, such as more epochs or another device")
    trial_config_fingerprint: str | None = Field(None, description="of the trial's own config")
    trial_threads: Int | None = Field(None, description="what the trial ran with; the last digits depend on it")
    data_fingerprint: str | None = Field(None, description="of the data")
    git_commit: str | None = Field(None, description="of the trial")
    versions: dict[str, str] = Field({}, description="of the trial's software, and of the promotion's")
    seeds: list[Int] = Field(description="that speak for it")
    objective: str = Field(description="the metric")
    value: float | None = Field(description="its value in the sweep")
    epoch: Int | None = Field(description="at which it was judged")
    fresh_seed_mean: float | None = Field(None, description="over the fresh seeds of a confirmation")
    interval: list[float | None] | None = Field(None, description="95 % bounds of that mean")
    kept_epoch: Int | None = Field(None, description="of the weights that go along")
    weights: dict[str, Any] | None = Field(None, description="their folder, and the hash of each file; null: none")
    test: dict[str, Any] | None = Field(None, description="what the test split said of them; null: not read")
    snapshot: dict[str, Any] | None = Field(
        None, description="file and hash of what new data are compared with for drift; null: none was taken")


class Promotion(Document):
    """What was promoted last, and on what evidence."""

    trial: str = Field(description="its id")
    target: str = Field(description="path of the production YAML")
    promoted: bool = Field(description="whether it was written")
    gates: list[GateAnswer] = Field(description="what each gate said")
    reason: str = Field(description="why this trial")
    replaced: str | None = Field(None, description="where the file before it is kept")
    provenance: Provenance | None = Field(None, description="as in the production YAML")
    version: Int | None = Field(None, description="in the ledger beside the production YAML")


DOCUMENTS: dict[str, type[Document]] = {"run": Run, "sweep": Sweep, "confirm": Confirmation, "promotion": Promotion}
D = TypeVar("D", bound=Document)


def load_document(kind: type[D], file: Path) -> D:
    """The document in a file.

    Raises:
        BadInput: it is not JSON or no object, of another schema, or a field is missing or wrong.
    """
    try:
        found = files.parse_json(files.read_record(file))
    except ValueError as error:  # what is not UTF-8 as well
        raise BadInput(f"is not JSON ({error})", source=file, remedy="restore it from a copy") from None
    if not isinstance(found, dict):
        raise BadInput(f"holds a {type(found).__name__}, expected an object", source=file,
                       remedy="restore it from a copy")
    if found.get("schema", SCHEMA) != SCHEMA:
        raise BadInput(f"has schema {found['schema']!r}, this version reads {SCHEMA}", source=file,
                       remedy="update lamsweep")
    return checked(kind, found, file)


def checked(kind: type[D], found: Mapping[str, Any], file: Path) -> D:
    """A document from its fields.

    Raises:
        BadInput: a field is missing or wrong.
    """
    try:
        for field, part in kind.parts.items():
            if isinstance(found.get(field), dict):
                checked_part(part, found[field], file, field)
        return kind.model_validate(found)
    except ValidationError as error:
        raise _problem(error, file) from None


def checked_part(kind: type[Section], found: Mapping[str, Any], file: Path | str, *outer: str) -> None:
    """Check the fields of a mapping that many read and one package owns.

    Raises:
        BadInput: a field is wrong.
    """
    try:
        kind.model_validate(found)
    except ValidationError as error:
        raise _problem(error, file, *outer) from None


def _problem(error: ValidationError, file: Path | str, *outer: str) -> BadInput:
    """The first wrong field; the names that pydantic gives the members of a union are no part of its path."""
    item = error.errors()[0]
    *above, last = [*outer, *(str(part) for part in item["loc"] if not _MEMBER.fullmatch(str(part)))]
    if item["type"] == "missing":
        return BadInput(f"lacks its {last}", source=file, key=".".join(above), remedy=_REMEDY)
    return BadInput(f"got {item['input']!r:.80}, {item['msg'][0].lower()}{item['msg'][1:]}", source=file,
                    key=".".join([*above, last]), remedy=_REMEDY)


def write(file: Path, document: Document) -> Path:
    """Replace the file."""
    return files.write_json(file, document.as_written())
