"""What a comparison is made of: cells and measures. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.read.study import Trial
from record.health.trends import NOT_DETERMINED, Trend
from record.text import MISSING, number


@dataclass(frozen=True)
class Cell:
    """A number (None where there is none, or it says nothing), how it reads, and what belongs beside it.

    Attributes:
        low, high: the bounds of its mean over seeds, where several trainings stand as one.
    """

    value: float | None
    text: str
    detail: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Measure:
    """One row: its title, the metric behind it (or none), the cell of a trial, and which way is better.

    Attributes:
        direction: "table" until `measures` asks the workload's table.
        mark: good, watch, bad or nothing, by the rules that read its metric; None where no profile states the row.
    """

    title: str
    key: str
    cell: Callable[[Trial], Cell]
    direction: str
    note: str = ""
    mark: Callable[[Trial], str] | None = None


def course_cell(found: Trend) -> Cell:
    """A trajectory in a word, and beside it what the ends say where there is no word, or another one."""
    if not found.points:
        return Cell(None, MISSING)
    undetermined = found.word == NOT_DETERMINED
    return Cell(None, found.word, found.change if undetermined else f"lately; {found.change} in all"
                if found.told != found.word else "")


def plain(value: float | None) -> Cell:
    """A number as a cell."""
    return Cell(value, number(value))
