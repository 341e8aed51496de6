"""The state of one run: what fired, since when, why, and what to do; for `lam monitor`. Runs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.monitor import causes, formulas
from analysis.monitor.causes import Cause
from analysis.monitor.formulas import Check
from analysis.read.foreign import Recorded, read
from analysis.read.sources import ENDED
from record.files import jsonable
from record.health import columns, engine, expressions, production, profile, trends
from record.health.columns import Table
from record.health.engine import Finding, Judgement
from record.health.profile import Profile, Watched
from record.health.trends import Trend
from record.text import MISSING, number, printable, share

OVER = tuple(ENDED.values())


@dataclass(frozen=True)
class Figure:
    """A watched metric now.

    Attributes:
        value, mean: the last value that counts and the mean of all that do; None where there is none.
        mark: rank-local or all-reduced, n/a in this stage, or not recorded.
    """

    title: str
    key: str
    value: float | None
    mean: float | None
    trend: Trend
    mark: str = ""
    percent: bool = False


@dataclass(frozen=True)
class Status:
    """Everything `lam monitor` says of a run."""

    run: Recorded
    profile: Profile
    last: float | None
    judgement: Judgement
    causes: tuple[Cause, ...]
    figures: tuple[Figure, ...]
    checks: tuple[Check, ...]
    in_ranges: tuple[str, ...] = ()

    @property
    def aborts(self) -> bool:
        """Whether the run should be stopped."""
        return bool(self.judgement.aborts)


def examine(run: Recorded, chosen: str | Path | None = None, facts: dict[str, float] | None = None,
            alerts: str | Path | None = None) -> Status:
    """Judge a run.

    Args:
        chosen: a profile by name or path; default: the one that fits the run.
        facts: more facts about the run, over those it recorded.
        alerts: a production YAML, whose alerts, aborts and expected ranges are judged like rules of the profile;
            default: the one that the run was trained by.
    """
    known = profile.load(chosen or run.profile)
    watched = production.of_yaml(alerts) if alerts else run.production
    known = watched.added(known) if watched else known
    records = [watched.placed(record) for record in run.records] if watched else run.records
    table = columns.of_records(records, {**run.facts, **(facts or {})})
    judgement = engine.judge(table, known) if len(table) else Judgement(known.name, "ok", (), (), {})
    prepared = engine.prepare(table, known)
    epochs = table.epoch[np.isfinite(table.epoch)]
    return Status(
        run, known, float(epochs[-1]) if len(epochs) else None, judgement, causes.diagnose(judgement, known),
        tuple(_figure(prepared, known, watched) for watched in known.watch), formulas.check(table, known),
        tuple(watched.standing(run.records)) if watched else (),
    )


def _figure(table: Table, known: Profile, watched: Watched) -> Figure:
    key = expressions.text(watched.metric)
    family = known.family(key)
    if family is not None and table.facts.get("stage") in family.not_in_stage:
        mark = f"n/a in stage {table.facts['stage']}"
    elif table.missing(watched.metric):
        mark = "not recorded"
    else:
        mark = (family.scope or "").replace("_", "-") if family is not None else ""
    empty = mark.startswith(("n/a", "not recorded"))
    values = np.full(len(table), np.nan) if empty else table.numbers(watched.metric)
    places = table.epoch if np.isfinite(table.epoch).all() else np.arange(len(table), dtype=np.float64)
    counted = values[np.isfinite(values)]
    return Figure(watched.title, key, float(counted[-1]) if len(counted) else None,
                  float(counted.mean()) if len(counted) else None,
                  trends.trend(places.tolist(), values.tolist(), watched.better), mark, watched.percent)


def lines(status: Status) -> list[str]:
    """The status as text."""
    run, judged, axis = status.run, status.judgement, status.profile.axis
    stands = f"{judged.severity} at {axis} {status.last:g}" if status.last is not None else "no record yet"
    text = [f"{run.name}: {stands} ({run.state}; {run.kind}, profile {status.profile.name})"]
    text += [f"  note: {note}" for note in run.notes]
    for finding in judged.findings:
        text += _finding_lines(finding)
    if status.causes:
        text += _cause_lines(status.causes)
    text += [f"  cleared: {item.rule} at {axis} {item.until:g}" for item in judged.cleared if item.until is not None]
    shown = [figure for figure in status.figures if figure.mark != "not recorded"]
    text += ["", *map(_figure_line, shown)]
    if any(figure.trend.word == trends.NOT_DETERMINED for figure in shown if figure.value is not None):
        text.append(f"  endpoints alone are no trajectory: that takes {trends.MIN_POINTS} points")
    text += [f"  expected: {sentence}" for sentence in status.in_ranges]
    broken = [check for check in status.checks if check.broken]
    held = sum(check.checked > 0 for check in status.checks) - len(broken)
    if status.checks:
        text += [f"  formulas between keys: {held} hold, {len(broken)} broken, "
                 f"{len(status.checks) - held - len(broken)} not checked"]
        text += [f"  broken: {item.sentence}" for item in broken]
    if judged.not_judged:
        text.append(f"  not judged: {len(judged.not_judged)} rules ({', '.join(sorted(judged.not_judged))})")
    return [printable(line) for line in text]


def _finding_lines(finding: Finding) -> list[str]:
    return [f"  {finding.severity.upper()} {finding.rule}: {finding.sentence}.",
            f"      {finding.meaning} {finding.remedy}"]


def _cause_lines(causes: tuple[Cause, ...]) -> list[str]:
    first, *others = causes
    text = [f"  most likely cause: {first.cause} {first.remedy}", *(f"      {item}" for item in first.evidence)]
    return text + [f"  also possible: {cause.cause}" for cause in others[:2]]


def _figure_line(figure: Figure) -> str:
    trend = figure.trend
    if figure.value is None:
        return f"  {figure.title:36} {figure.mark or MISSING}"
    shown = share(figure.value, digits=1) if figure.percent else number(figure.value)
    how = trend.word if trend.word != trends.NOT_DETERMINED else \
        f"{trend.change} ({trend.points} points)" if trend.points > 1 else ""
    return f"  {figure.title:36} {shown:>10}  {how}" + (f"  [{figure.mark}]" if figure.mark else "")


def status_dict(status: Status) -> dict[str, Any]:
    """The status as plain values."""
    judged = status.judgement
    value: dict[str, Any] = jsonable({
        "schema": 1, "run": status.run.name, "kind": status.run.kind, "state": status.run.state,
        "profile": status.profile.name, status.profile.axis: status.last, "severity": judged.severity,
        "abort": status.aborts, "findings": [_finding_dict(item) for item in judged.findings],
        "cleared": [_finding_dict(item) for item in judged.cleared], "causes": [asdict(item) for item in status.causes],
        "figures": [asdict(item) for item in status.figures], "checks": [asdict(item) for item in status.checks],
        "expected": list(status.in_ranges),
        "not_judged": dict(judged.not_judged), "notes": list(status.run.notes),
    })
    return value


def _finding_dict(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "sentence": finding.sentence}


def follow(path: str | Path, chosen: str | Path | None, facts: dict[str, float], every: float,
           sleep: Callable[[float], object] = time.sleep, alerts: str | Path | None = None) -> Iterator[Status]:
    """The status now and whenever it changes, until the run is over or must abort."""
    before: Any = None
    while True:
        status = examine(read(path), chosen, facts, alerts)
        now = status_dict(status)
        if now != before:
            yield status
        if status.aborts or status.run.state in OVER:
            return
        before = now
        sleep(every)
