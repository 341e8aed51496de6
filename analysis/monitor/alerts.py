"""The alerts of a production YAML as health rules, so that `lam monitor --alerts` judges a run by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from record import yamlio
from record.errors import BadInput
from record.health.profile import Profile, Rule
from record.schema import Strict, build

REMEDY = "The promoted trial did better: look at what differs from it (data, config, seed) before this run is used."


class Alert(Strict):
    """One line of the section `alerts`; docs/records.md says what the fields mean."""

    metric: str = Field(min_length=1)
    comparison: Literal["above", "below", "is", "is_not", "rises_in_a_row"]
    threshold: float | str
    meaning: str
    after_epoch: float = 0


class _Alerts(Strict):
    alerts: list[Alert]


def alert_rules(path: str | Path) -> list[Rule]:
    """The alerts of a production YAML, each as a rule of severity warn.

    Raises:
        BadInput: it is not readable, or its alerts are missing or wrong.
    """
    values = yamlio.load_mapping(path)
    if not values.get("alerts"):
        raise BadInput("has no alerts", source=path, key="alerts",
                       remedy="name a production YAML that 'lam promote' wrote")
    found = build(_Alerts, {"alerts": values["alerts"]}, path).alerts
    return [build(Rule, _rule(number, alert), f"{path}:alerts") for number, alert in enumerate(found, 1)]


def added(profile: Profile, rules: list[Rule]) -> Profile:
    """The profile with further rules."""
    return profile.model_copy(update={"rules": [*profile.rules, *rules]})


def _rule(number: int, alert: Alert) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "name": f"alert_{number}", "metric": alert.metric, "comparison": alert.comparison, "severity": "warn",
        "threshold": alert.threshold, "after_epoch": alert.after_epoch, "remedy": REMEDY,
        "meaning": f"Alert of the production YAML: {alert.meaning}."}
    if alert.comparison == "rises_in_a_row":
        rule |= {"comparison": "at_least", "statistic": "rises"}
    elif alert.threshold == "nonfinite":
        rule |= {"comparison": "at_least", "statistic": "nonfinite", "threshold": 1}
    return rule
