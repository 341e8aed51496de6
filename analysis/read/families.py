"""Other trainers' runs as workloads: a family's metrics and what ranks it, from its health profile and its keys."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from record.errors import BadInput
from record.health import columns, engine
from record.health import profile as profiles
from record.health.profile import Profile
from record.health.reporting import Reporting, Row, RowGroup
from record.workload.metric import RECORD_KEYS, Direction, Metric
from record.workload.settings import Settings
from record.workload.workload import Curve, Workload

GUESSED = "not stated by its trainer; {} is better, guessed from the name"
_DOWN = re.compile(r"(loss|error|err|mse|mae|rmse|nll|perplexity|ppl|fid|wer|cer|regret|distance)$")
_UP = re.compile(r"(acc|accuracy|f1|auc|precision|recall|reward|return|score|psnr|ssim|iou|map|r2|objective)"
                 r"(_?top\d+)?$")
_VALIDATION = re.compile(r"^(val|valid|validation|eval|test)[/_.]")
_SCOPES = {"rank_local": " Of one process alone.", "all_reduced": " Over all processes."}
SHOWN = 24  # rows of a family without a profile of its own


def guessed_direction(key: str) -> Direction:
    """Which way a metric is better, by its name alone."""
    name = re.split(r"[/.]", key.lower())[-1]
    return "down" if _DOWN.search(name) else "up" if _UP.search(name) else "none"


class Family(Workload):
    """The runs of another trainer: nothing can be trained here, everything can be compared.

    Attributes:
        names: key of the profile -> how it is called here, where another family defines the same key differently.
    """

    config = Settings
    judged_by_rules = True
    train = ""

    def __init__(self, name: str, profile: str, metrics: Mapping[str, Metric], objective: str) -> None:
        self.name, self.profile, self.metrics, self.objective = name, profile, dict(metrics), objective
        self.names: Mapping[str, str] = {}
        losses = [key for key in metrics if metrics[key].direction == "down"]
        self.error = objective if objective in losses else next(iter(losses), objective)

    @property
    def reporting(self) -> Reporting:
        """The profile's own sections, or a row of every metric with a direction where it states none."""
        stated = profiles.load(self.profile).report
        if stated.sections:
            return _under(stated, self.names)
        rows = [Row(title=f"{key}, {how}", key=key, how=how, better=metric.direction)
                for key, metric in list(self.metrics.items())[:SHOWN] if metric.direction != "none"
                for how in ("start", "best", "end")]
        return stated.model_copy(update={"sections": [RowGroup(title="Metrics", rows=rows)] if rows else []})

    @property
    def curves(self) -> Sequence[Curve]:
        """The objective, then what the panels and rows speak of."""
        keys = dict.fromkeys([self.objective, *(row.key for row in self.reporting.rows() if row.better != "none")])
        return [Curve(key, self.metrics[key].formula if len(self.metrics[key].formula) < 40 else key)
                for key in list(keys)[:8] if key in self.metrics]

    @property
    def rows(self) -> Sequence[str]:
        """None: the sections of the profile say what is shown."""
        return ()

    def renamed(self, names: Mapping[str, str]) -> Family:
        """The same, some of its metrics under other names."""
        metrics = {names.get(key, key): replace(metric, key=names.get(key, key)) for key, metric in
                   self.metrics.items()}
        made = Family(self.name, self.profile, metrics, names.get(self.objective, self.objective))
        made.names = {**self.names, **names}
        return made

    def ranked(self, key: str, direction: Direction) -> Family:
        """The same, ranked by another metric."""
        known = self.metrics.get(key) or Metric(key, "not stated by its trainer", direction, "mean")
        made = Family(self.name, self.profile, {**self.metrics, key: directed(known, direction)}, key)
        made.names = self.names
        return made

    def is_validated(self, keys: Collection[str]) -> bool:
        """Whether a record with these keys holds what ranks it."""
        return self.objective in keys

    def needs_codes(self, objective: str, config: Mapping[str, Any]) -> bool:
        """A family that has codes is compared for them."""
        return self.reporting.codes is not None

    def prepare(self, configs: Sequence[Settings]) -> str:
        """Nothing can be trained.

        Raises:
            BadInput: always.
        """
        raise BadInput(f"runs of {self.name} are read, not trained", source="workload")


def family_of(profile: str, name: str, runs: Iterable[Sequence[Mapping[str, Any]]],
              stated: Mapping[str, Metric] | None = None, objective: str | None = None) -> Family:
    """The family of some runs, from their records.

    Args:
        stated: metrics that their source itself defines.
        objective: what ranks them; default: the first of the profile's that a run recorded, else the best guess.

    Raises:
        BadInput: nothing that was logged says which way is better.
    """
    known = profiles.load(profile)
    keys = dict.fromkeys(key for records in runs for record in records for key in record
                         if key not in (*RECORD_KEYS, "epoch") and _is_number(record[key]))
    metrics = {**{key: _metric(key, known) for key in keys}, **(stated or {})}
    chosen = objective or _objective(known, metrics)
    if chosen is None or chosen not in metrics or metrics[chosen].direction == "none":
        raise BadInput(f"nothing says what ranks these runs (logged: {', '.join(list(metrics)[:8]) or 'nothing'})",
                       source=name, remedy="name a metric: --objective KEY, or --objective=-KEY where lower is better")
    return Family(name, profile, metrics, chosen)


def what_counts(records: Sequence[Mapping[str, Any]], profile: str,
                facts: Mapping[str, float | str] | None = None) -> tuple[dict[str, Any], ...]:
    """The records without the values that do not count for the rules of their profile either.

    A trainer that works on a cached rollout repeats or zeroes its figures; what a stage does not train means nothing.
    """
    keeps = engine.counting(columns.of_records(records, facts), profiles.load(profile))
    return tuple({key: value for key, value in record.items() if key not in keeps or keeps[key][row]}
                 for row, record in enumerate(records))


def directed(metric: Metric, direction: Direction) -> Metric:
    """The metric with the direction that a person named."""
    return Metric(metric.key, metric.formula if metric.direction == direction else "as named on the command line",
                  direction, metric.reduction, bounds=(-math.inf, math.inf))


def _objective(known: Profile, metrics: Mapping[str, Metric]) -> str | None:
    aliases = {name: [name, *known.aliases.get(name, [])] for name in known.report.objectives}
    for name in known.report.objectives:
        for key in aliases[name]:
            if key in metrics:
                return key
    directed = [key for key, metric in metrics.items() if metric.direction != "none"]
    return next((key for key in directed if _VALIDATION.search(key)), next(iter(directed), None))


def _metric(key: str, known: Profile) -> Metric:
    watched = {item.metric: item for item in known.watch if isinstance(item.metric, str)}
    rows = {row.key: row for row in known.report.rows() if row.better != "none"}
    unbounded = (-math.inf, math.inf)
    family = known.family(key)
    meaning = f"{family.meaning}{_SCOPES.get(family.scope or '', '')}" if family else ""
    inside = bool(family and family.in_loss)
    if key in watched:
        better = "up" if key in known.report.maximise else watched[key].better
        return Metric(key, meaning or watched[key].title, better, "mean", inside, bounds=unbounded)
    if key in rows:
        return Metric(key, meaning or rows[key].title.partition(",")[0], rows[key].better, "mean", inside,
                      bounds=unbounded)
    if known.name != "generic":
        return Metric(key, meaning, "none", "mean", inside, bounds=unbounded)
    direction = guessed_direction(key)
    word = {"down": "lower", "up": "higher"}.get(direction)
    return Metric(key, GUESSED.format(word) if word else "not stated by its trainer", direction, "mean",
                  bounds=unbounded)


def _under(stated: Reporting, names: Mapping[str, str]) -> Reporting:
    """The sections with keys as they are called here."""
    groups = [group.model_copy(update={"rows": [row.model_copy(update={"key": names.get(row.key, row.key)})
                                                for row in group.rows]}) for group in stated.sections]
    return stated.model_copy(update={"sections": groups}) if names else stated


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
