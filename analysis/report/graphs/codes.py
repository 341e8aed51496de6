"""How the use of a codebook went: one column a validation, one row a code, brighter where it was used more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.judge.judging import judge
from analysis.read.study import Trial
from analysis.report.pictures import data_uri, heat
from record.text import finite

HISTOGRAM = "val/codebook_histogram"
MOST_COLUMNS, MOST_CODES = 40, 128


@dataclass(frozen=True)
class Histogram:
    """Uses of each code at a trial's last validation."""

    label: str
    status: str
    epoch: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CodeUse:
    """Uses of each code at validations of one training; `counts[i]` are those at `epochs[i]`."""

    label: str
    status: str
    epochs: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]


def histograms_of(trials: Sequence[Trial], objective: str) -> tuple[Histogram, ...]:
    """The last validation's histogram of each run that has one."""
    return tuple(Histogram(trial.label, judge(trial, objective).status, last["epoch"], counts)
                 for trial in trials for last in trial.validated[-1:] if (counts := _counts(last.get(HISTOGRAM))))


def uses_of(trials: Sequence[Trial], objective: str) -> tuple[CodeUse, ...]:
    """The histograms over time of each run that has at least two."""
    found = (_use(trial, judge(trial, objective).status) for trial in trials)
    return tuple(use for use in found if use)


def _use(trial: Trial, status: str) -> CodeUse | None:
    """Validations thinned to what a picture shows; None below two, or where the codebook changed its size."""
    taken = [(record["epoch"], counts) for record in trial.validated if (counts := _counts(record.get(HISTOGRAM)))]
    stride = -(-len(taken) // MOST_COLUMNS)
    kept = [*taken[:-1:stride], *taken[-1:]] if stride else []
    if len(kept) < 2 or len({len(counts) for _, counts in kept}) > 1:
        return None
    return CodeUse(trial.label, status, tuple(epoch for epoch, _ in kept), tuple(counts for _, counts in kept))


def _counts(values: Any) -> tuple[int, ...]:
    """How often each code was used; empty where that is not what was recorded."""
    numbers = [finite(value) for value in values] if isinstance(values, list) else []
    return tuple(int(number or 0) for number in numbers) if all(map(_is_count, numbers)) else ()


def _is_count(number: float | None) -> bool:
    return number is not None and 0 <= number < 2**53


def shares(use: CodeUse) -> np.ndarray:
    """[codes, validations] use of each code, 1 is even use; of many codes neighbours are pooled."""
    counts = np.array(use.counts, dtype=float).T
    shared = counts / np.maximum(counts.sum(axis=0), 1) * len(counts)
    starts = np.arange(0, len(shared), -(-len(shared) // MOST_CODES))
    result: np.ndarray = np.add.reduceat(shared, starts) / np.diff([*starts, len(shared)])[:, None]
    return result


def code_picture(use: CodeUse) -> str:
    """The picture as PNG data; black is unused, the brightest is three times even use or more."""
    return data_uri(heat((np.minimum(shares(use), 3.0) / 3.0 * 255).round().astype(int), 255))
