"""The rows that a health profile states, as cells: what `record.health.reporting.HOWS` names, computed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from analysis.judge.vitality import best_without_codes, has_no_codes, judged, rules_reading
from analysis.read.study import Study, Trial, last_value, points_of, series
from analysis.report.cells import Cell, Measure, course_cell, plain
from record.health.profile import load
from record.health.reporting import Row
from record.health.trends import MIN_POINTS, NOT_DETERMINED, slope, trend
from record.text import MISSING, number, share

Points = list[tuple[float, float]]
Text = Callable[[float | None], str]
How = Callable[[Points, Text, str], Cell]
LATELY = 5
AXES = ("epoch", "step")
MARKS = {"abort": "bad", "warn": "bad", "info": "watch"}
_WORDS = {"collapsing": "bad", "slow decline": "watch", "rising": "bad", "volatile": "watch", "growing": "good",
          "decreasing": "good", "recovered": "watch", "oscillating": "good", "stable": "good", "plateau": "watch"}


def measure_of(row: Row, study: Study) -> Measure:
    """One stated row as a measure of trials."""
    how, axis = _CELLS[row.how], load(study.workload.profile or "generic").axis
    reference = best_without_codes(study.trials, row.key) if row.how == "gap" else None
    noted = f"{row.note}; against {reference.label}".strip("; ") if reference else row.note
    text: Text = (lambda value: share(value, digits=1)) if row.percent else number

    def cell(trial: Trial) -> Cell:
        if reference is not None:
            return _gap(trial, row.key, reference)
        if row.how == "gap":
            return MISSING_CELL
        found = how(points_of(trial, row.key), text, row.better)
        return replace(found, detail=found.detail.replace("at ", f"at {axis} ")) if axis in AXES else found

    direction = "none" if row.how in ("start", "trajectory", "lately") else row.better
    if row.how == "gap":
        return Measure(row.title, row.key, cell, direction, noted, mark=lambda trial: _gap_mark(trial, row, reference))
    return Measure(row.title, row.key, cell, direction, noted, mark=lambda trial: mark(trial, row))


def mark(trial: Trial, row: Row) -> str:
    """good, watch or bad, where a rule of the profile reads the row's metric or a word judges its trajectory."""
    if row.how in ("trajectory", "lately"):
        word = _CELLS[row.how](points_of(trial, row.key), number, row.better).text
        return _WORDS.get(word, "") if row.better != "none" else ""
    values = series(trial.records, row.key)
    if row.how not in ("end", "least", "rise") or len(values) < 1 + (row.how == "rise"):
        return ""
    reading = {name: MARKS[severity] for name, severity in rules_reading(trial, row.key).items()}
    if not reading:
        return ""
    found = [reading[item.rule] for item in judged(trial).findings if item.rule in reading]
    return "bad" if "bad" in found else "watch" if found else "good"


# ---- one function a `how`

def _one(pick: Callable[[list[float], str], float]) -> How:
    def cell(points: Points, text: Text, better: str) -> Cell:
        return Cell(value := pick([y for _, y in points], better), text(value)) if points else MISSING_CELL

    return cell


def _extreme(pick: Callable[..., tuple[float, float]]) -> How:
    def cell(points: Points, text: Text, better: str) -> Cell:
        if not points:
            return MISSING_CELL
        place, value = pick(points, key=lambda point: point[1])
        return Cell(value, text(value), f"at {place:g}")

    return cell


def _change(points: Points, text: Text, better: str) -> Cell:
    if len(points) < 2:
        return MISSING_CELL
    first, last = points[0][1], points[-1][1]
    factor = last / first if first > 0 else None
    return Cell(factor, f"{text(first)} → {text(last)}", f"{number(factor, 2)}×" if factor is not None else "")


def _rise(points: Points, text: Text, better: str) -> Cell:
    steps = [(after - before, place, after) for (_, before), (place, after) in pairwise(points)]
    if not steps:
        return MISSING_CELL
    rise, place, reached = max(steps)
    return Cell(rise, f"+{text(rise)}", f"to {text(reached)}, at {place:g}") if rise > 0 else Cell(0.0, "none")


def _trajectory(points: Points, text: Text, better: str) -> Cell:
    return course_cell(trend([x for x, _ in points], [y for _, y in points], better))


def _lately(points: Points, text: Text, better: str) -> Cell:
    return _trajectory(points[-LATELY:], text, better) if len(points) >= LATELY else \
        Cell(None, NOT_DETERMINED, f"{len(points)} points") if points else MISSING_CELL


def _half(points: Points) -> Points:
    return points[len(points) // 2:] if len(points) >= 2 * MIN_POINTS else []


def _slope(points: Points, text: Text, better: str) -> Cell:
    half = _half(points)
    if not half or half[0][0] == half[-1][0]:
        return MISSING_CELL
    return plain(slope(np.array([x for x, _ in half]), np.array([y for _, y in half])).value)


def _steadiness(points: Points, text: Text, better: str) -> Cell:
    values = [y for _, y in _half(points)]
    mean = sum(values) / len(values) if values else 0.0
    return plain(float(np.std(values)) / abs(mean)) if mean else MISSING_CELL


def _first_at(points: Points, text: Text, better: str) -> Cell:
    return plain(next((place for place, value in points if value >= 1), None)) if not points or any(
        value >= 1 for _, value in points) else Cell(None, "never")


def _gap(trial: Trial, key: str, reference: Trial) -> Cell:
    own, other = last_value(trial, key), last_value(reference, key)
    if own is None or not other:
        return MISSING_CELL
    return Cell(own / other - 1, f"{100 * (own / other - 1):+.0f} %" if trial != reference else "the reference")


def _gap_mark(trial: Trial, row: Row, reference: Trial | None) -> str:
    """By the requirement that the checklist makes of the distance to the arm without codes."""
    asked = trial.workload.reporting.competitive
    if reference is None or trial == reference or asked is None or has_no_codes(trial):
        return ""
    gap = _gap(trial, row.key, reference).value
    return "" if gap is None else "good" if gap <= asked.met else "watch" if gap <= asked.close else "bad"


def _best(values: list[float], better: str) -> float:
    return max(values) if better == "up" else min(values)


MISSING_CELL = Cell(None, MISSING)
_CELLS: dict[str, How] = {
    "start": _one(lambda values, _: values[0]), "end": _one(lambda values, _: values[-1]), "best": _one(_best),
    "mean": _one(lambda values, _: sum(values) / len(values)), "least": _extreme(min), "most": _extreme(max),
    "change": _change, "rise": _rise, "trajectory": _trajectory, "lately": _lately, "slope": _slope,
    "steadiness": _steadiness, "first_at": _first_at, "gap": _trajectory,
}
