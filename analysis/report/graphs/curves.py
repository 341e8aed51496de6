"""Learning curves: every curve of the workload over epochs and over what it cost, and the middle of all trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from analysis.judge.judging import judge
from analysis.read.study import Study, Trial, series
from record.text import finite
from record.workload import workload

OVER = {"total_tflops": "TFLOP", "seconds": "seconds"}
MOST_DRAWN, LEADING, CONTRAST = 60, 30, 10  # lines of a chart: all up to the first, else so many of each
BANDED = 8  # trainings from which charts show the middle of all of them


@dataclass(frozen=True)
class Course:
    """One metric over a training's epochs, None where it is undefined; `ended`: by a stop or a failure."""

    label: str
    status: str
    points: tuple[tuple[float, float | None], ...]
    ended: bool = False


@dataclass(frozen=True)
class Curve:
    """One metric over the epochs of every training that has it; its title and scale are the workload's.

    Attributes:
        over: what its points lie over: epoch, TFLOP or seconds.
        left_out: trainings that have it and are not drawn.
        band: where there are eight trainings or more: epoch, 5th, 50th and 95th percentile over all of them.
    """

    key: str
    title: str
    log: bool
    courses: tuple[Course, ...]
    band: tuple[tuple[float, float, float, float], ...] = ()
    over: str = "epoch"
    left_out: int = 0


def curves_of(trials: Sequence[Trial], study: Study) -> tuple[Curve, ...]:
    """Every curve of the workload over epochs, and the first one over what it cost."""
    followed = study.workload.curves
    costs = [cost for cost in OVER if any(cost in trial.epochs.names() for trial in trials[:LEADING])]
    return (*(_curve(trials, study.objective, one) for one in followed),
            *(_curve(trials, study.objective, one, cost) for one in followed[:1] for cost in costs))


def _curve(trials: Sequence[Trial], objective: str, followed: workload.Curve, over: str = "epoch") -> Curve:
    key = followed.key
    drawn = trials if len(trials) <= MOST_DRAWN else _drawn(trials, objective)
    left_out = sum(bool(series(trial.validated, key)) for trial in trials) - sum(
        bool(series(trial.validated, key)) for trial in drawn)
    band = _band(trials, key) if len(trials) >= BANDED and over == "epoch" else ()
    return Curve(*followed, band=band, over=OVER.get(over, over), left_out=left_out, courses=tuple(
        Course(trial.label, judge(trial, objective).status, _course(trial, key, over),
               ended=trial.state in ("stopped", "failed"))
        for trial in drawn if series(trial.validated, key)))


def _course(trial: Trial, key: str, over: str) -> tuple[tuple[float, float | None], ...]:
    places, values = (trial.validated.column(name).tolist() for name in (over, key))
    return tuple((place, finite(value)) for place, value in zip(places, values, strict=True) if isfinite(place))


def _drawn(trials: Sequence[Trial], objective: str) -> list[Trial]:
    """Of many trainings in order of rank the leading ones, and some that are not live for contrast."""
    leading, rest = list(trials[:LEADING]), trials[LEADING:]
    return leading + [trial for trial in rest if judge(trial, objective).status != "live"][:CONTRAST]


def _band(trials: Sequence[Trial], key: str) -> tuple[tuple[float, float, float, float], ...]:
    """Percentiles over all trainings at each epoch that at least five of them reached."""
    every = [trial.epochs.finite(key) for trial in trials]
    places, values = (np.concatenate(part) for part in zip(*every, strict=True))
    order = np.argsort(places, kind="stable")
    values = values[order]
    epochs, starts, counts = np.unique(places[order], return_index=True, return_counts=True)
    thick = np.flatnonzero(counts >= 5)
    found = ((epochs[at], np.percentile(values[starts[at]:starts[at] + counts[at]], (5, 50, 95)).tolist())
             for at in thick[:: max(1, len(thick) // 100)])
    return tuple((float(epoch), low, middle, high) for epoch, (low, middle, high) in found)
