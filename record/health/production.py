"""What a production YAML watches: its alerts, aborts and expected ranges, as rules of the health engine.

`lam train FILE` and `lam monitor RUN --alerts FILE` judge by the same rules. An expected range becomes a metric of its
own, `band/<metric>`: 0 inside, else how many half-widths the value lies outside, positive on the worse side.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from pydantic import Field, model_validator

from record import yamlio
from record.documents import PRODUCTION_FILE
from record.errors import BadInput
from record.files import as_number
from record.health.findings import Judgement
from record.health.profile import Profile, Rule
from record.schema import Strict, build

BAND, OUTSIDE_RULE = "band/", "outside_"
OUTSIDE = 2  # validations in a row outside a range before it is told: of 20 one is by chance
REMEDY = "The promoted trial did better: look at what differs from it (data, config, seed) before this run is used."
STOP = "Stop, keep the checkpoint, and look at what differs from the promoted trial (data, config, seed)."
Comparison = Literal["above", "below", "is", "is_not", "rises_in_a_row", "changes_by", "z_score_above", "no_gain_for"]
_STATISTICS = {"rises_in_a_row": ("at_least", "rises"), "changes_by": ("above", "change"),
               "z_score_above": ("above", "z_score"), "no_gain_for": ("above", "stale")}


class Alert(Strict):
    """One line of the sections `alerts` and `aborts`; docs/records.md says what the fields mean."""

    metric: str = Field(min_length=1)
    comparison: Comparison
    threshold: float | str
    meaning: str
    after_epoch: float = 0
    window: int = Field(1, ge=1)
    better: Literal["up", "down"] = "down"

    @model_validator(mode="after")
    def _compares_numbers(self) -> Alert:
        if isinstance(self.threshold, str) and self.comparison not in ("is", "is_not"):
            raise ValueError(f"threshold: {self.threshold!r} is no number, which {self.comparison} asks for")
        return self


class Course(Strict):
    """Where one metric is expected, by epoch."""

    better: Literal["up", "down", "none"] = "none"
    epochs: list[int] = Field(min_length=1)
    low: list[float]
    expected: list[float]
    high: list[float]
    basis: list[str]

    @model_validator(mode="after")
    def _as_long_as_each_other(self) -> Course:
        if len({len(self.epochs), len(self.low), len(self.expected), len(self.high), len(self.basis)}) > 1:
            raise ValueError("epochs, low, expected, high and basis are not of one length")
        return self

    def at(self, epoch: float) -> tuple[float, float] | None:
        """Between which values an epoch is expected; None outside the epochs that are told."""
        if not self.epochs[0] <= epoch <= self.epochs[-1]:
            return None
        place = bisect_left(self.epochs, epoch)
        if self.epochs[place] == epoch:
            return self.low[place], self.high[place]
        before, after = self.epochs[place - 1], self.epochs[place]
        share = math.log(epoch / before) / math.log(after / before)
        return tuple(side[place - 1] + share * (side[place] - side[place - 1])  # type: ignore[return-value]
                     for side in (self.low, self.high))

    def outside(self, epoch: float, value: float) -> float:
        """0 inside, else how many half-widths outside, positive on the worse side; NaN where nothing is told."""
        bounds = self.at(epoch)
        if bounds is None or not math.isfinite(value):
            return math.nan
        half = max((bounds[1] - bounds[0]) / 2, 1e-12)
        above, below = max(0.0, value - bounds[1]) / half, max(0.0, bounds[0] - value) / half
        if self.better == "none":
            return above + below
        return above - below if self.better == "down" else below - above


class Expected(Strict):
    """The section `expected`."""

    coverage: float = Field(gt=0, lt=1)
    trainings: int = Field(ge=0, description="recorded trainings that the ranges were fitted to")
    ranges: dict[str, Course] = Field(default_factory=dict)


class Production(Strict):
    """What a production YAML watches."""

    alerts: list[Alert] = Field(default_factory=list)
    aborts: list[Alert] = Field(default_factory=list)
    expected: Expected | None = None

    def rules(self) -> list[Rule]:
        """Every alert, abort and range as a rule."""
        made = [_rule(f"alert_{number}", alert, "warn") for number, alert in enumerate(self.alerts, 1)]
        made += [_rule(f"abort_{number}", alert, "abort") for number, alert in enumerate(self.aborts, 1)]
        if self.expected:
            slack = _slack(self.expected.coverage, len(self.expected.ranges))
            made += [_range_rule(key, self.expected.coverage, slack) for key in self.expected.ranges]
        return [build(Rule, rule, "production YAML") for rule in made]

    def added(self, profile: Profile) -> Profile:
        """The profile with these rules."""
        return profile.model_copy(update={"rules": [*profile.rules, *self.rules()]})

    def placed(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record with where each of its values lies in its range."""
        courses = self.expected.ranges if self.expected else {}
        epoch = as_number(record.get("epoch"))
        return {**record, **{BAND + key: course.outside(epoch, as_number(record[key]))
                             for key, course in courses.items() if key in record and math.isfinite(epoch)}}

    def standing(self, records: Iterable[Mapping[str, Any]]) -> list[str]:
        """A sentence for each metric that has a range: its last value, the range there, and how often it was inside."""
        rows = list(records)
        found = []
        for key, course in (self.expected.ranges if self.expected else {}).items():
            seen = [(row["epoch"], as_number(row[key])) for row in rows if key in row]
            told = [(epoch, value, bounds) for epoch, value in seen if (bounds := course.at(epoch))]
            if told:
                inside = sum(low <= value <= high for _, value, (low, high) in told)
                epoch, value, (low, high) = told[-1]
                word = "inside" if low <= value <= high else \
                    "worse than" if course.outside(epoch, value) > 0 else "better than"
                found.append(f"{key} {value:.4g} at epoch {epoch} is {word} [{low:.4g}, {high:.4g}]; inside in "
                             f"{inside} of {len(told)} validations")
        return found + self._untold(rows)

    def _untold(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Up to where a run was held against the ranges, where it went further."""
        told = max((course.epochs[-1] for course in self.expected.ranges.values()), default=0) if self.expected else 0
        last = max((as_number(row["epoch"]) for row in rows if "epoch" in row), default=0)
        return [f"nothing was expected beyond epoch {told}, and the run went on to {last:g}"] if 0 < told < last else []


def of_yaml(path: str | Path) -> Production:
    """What the YAML watches.

    Raises:
        BadInput: it is not readable, or a section is missing or wrong.
    """
    values = yamlio.load_mapping(path)
    if not values.get("alerts"):
        raise BadInput("has no alerts", source=path, key="alerts",
                       remedy="name a production YAML that 'lam promote' wrote")
    return of_mapping(values, path)


def of_mapping(values: Mapping[str, Any], source: str | Path) -> Production:
    """The same of a YAML's values; empty where it has none of the sections."""
    sections = {key: values[key] for key in ("alerts", "aborts", "expected") if values.get(key)}
    return build(Production, sections, source)


def beside(folder: Path) -> Production | None:
    """What a run folder's own copy of its production YAML watches; None where it has none."""
    file = folder / PRODUCTION_FILE
    return of_yaml(file) if file.exists() else None


def verdict(judged: Judgement) -> str:
    """One word for a production run that was judged by its rules: healthy, warning, abort or outside its ranges."""
    if judged.severity == "abort":
        return "abort"
    if any(item.rule.startswith(OUTSIDE_RULE) for item in judged.findings):
        return "outside the expected ranges"
    return "warning" if judged.severity == "warn" else "healthy"


def _slack(coverage: float, ranges: int) -> float:
    """How many half-widths beyond its range a metric may lie, so that so many of them together raise no more false
    alarms than one alone: by Bonferroni's bound, the errors taken as normal."""
    normal, tail = NormalDist(), (1 - coverage) / 2
    return normal.inv_cdf(1 - tail / max(1, ranges)) / normal.inv_cdf(1 - tail) - 1


def _rule(name: str, alert: Alert, severity: str) -> dict[str, Any]:
    word = "Alert" if severity == "warn" else "Abort"
    rule: dict[str, Any] = {
        "name": name, "metric": alert.metric, "comparison": alert.comparison, "severity": severity,
        "threshold": alert.threshold, "after_epoch": alert.after_epoch, "window": alert.window, "better": alert.better,
        "remedy": REMEDY if severity == "warn" else STOP,
        "meaning": f"{word} of the production YAML: {alert.meaning}."}
    if alert.comparison in _STATISTICS:
        comparison, statistic = _STATISTICS[alert.comparison]
        rule |= {"comparison": comparison, "statistic": statistic}
    elif alert.threshold == "nonfinite":
        rule |= {"comparison": "at_least", "statistic": "nonfinite", "threshold": 1}
    return rule


def _range_rule(key: str, coverage: float, slack: float) -> dict[str, Any]:
    name = "".join(letter if letter.isalnum() else "_" for letter in key)
    return {"name": OUTSIDE_RULE + name, "metric": BAND + key, "comparison": "above", "threshold": round(slack, 3),
            "patience": OUTSIDE, "severity": "warn", "remedy": REMEDY,
            "meaning": f"{key} is on the worse side of the range in which {coverage:.0%} of such runs were expected."}
