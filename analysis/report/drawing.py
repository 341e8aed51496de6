"""What the charts of a report draw: its facts with titles, scales, places on axes and the winner's own mark. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.report.charts import Dot, Series
from analysis.report.graphs.codes import Histogram
from analysis.report.graphs.curves import Curve
from analysis.report.report import Report, Slice
from record.text import value_text


@dataclass(frozen=True)
class LineChart(Curve):
    """A curve of the report with its lines."""

    series: tuple[Series, ...] = ()


@dataclass(frozen=True)
class Scatter:
    """The value of each trial over one knob."""

    knob: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Drawing:
    """The charts of a page; a status among them is the class of a mark."""

    curves: tuple[LineChart, ...]
    slices: tuple[Scatter, ...]
    histograms: tuple[Histogram, ...]


def draw(report: Report) -> Drawing:
    """The charts of a report."""
    winner = report.verdict.winner
    return Drawing(
        tuple(_lines(curve, winner) for curve in report.curves),
        tuple(_scatter(part, winner) for part in report.slices),
        tuple(replace(item, status=_mark(item.label, item.status, winner)) for item in report.histograms))


def _mark(label: str, status: str, winner: str | None) -> str:
    return "winner" if label == winner else status


def _lines(curve: Curve, winner: str | None) -> LineChart:
    return LineChart(**vars(curve), series=tuple(
        Series(one.label, _mark(one.label, one.status, winner), one.points, one.ended) for one in curve.courses))


def _scatter(part: Slice, winner: str | None) -> Scatter:
    places = positions([setting for _, _, setting, _ in part.trials])
    return Scatter(part.knob, tuple(Dot(label, _mark(label, status, winner), place, value)
                                    for (label, status, _, value), place in zip(part.trials, places, strict=True)))


def positions(settings: Sequence[Any]) -> list[float | str]:
    """Where settings of one knob stand on an axis: at their numbers, or by name where one of them is no number."""
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in settings)
    return [float(value) if numeric else value_text(value) for value in settings]
