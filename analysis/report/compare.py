"""A few trials side by side: completion, losses, action quality, codebook health; one verdict a row. Pure.

"Kept" is the epoch whose checkpoint is kept, "end" the last validation. A row's winner is the best of all its
columns by the row's own direction; which of them may win the comparison is said apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.judge.ranking import Standing, bounds, rank
from analysis.read.reading import Study, Trial
from analysis.report.cells import Cell, Measure
from analysis.report.measures import measures
from record.text import MISSING, interval, number, words

TOP = 4
ALL_UP_TO = 6


@dataclass(frozen=True)
class Row:
    """One measure of every column.

    Attributes:
        key: the metric it comes from; empty for a fact about the run.
        winners: labels of the best columns; none where nothing is better or all of them tie.
        verdict: the same in words, and which others are within its noise.
        marks: good, watch, bad or nothing for each cell, by the rules that read the metric; empty where none does.
    """

    title: str
    key: str
    cells: tuple[Cell, ...]
    winners: tuple[str, ...] = ()
    verdict: str = MISSING
    note: str = ""
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Comparison:
    """The table: one column a config, `columns` in order of rank; several trainings of one stand as their mean.

    Attributes:
        may_win: the columns that may win the comparison.
    """

    columns: tuple[str, ...]
    sections: tuple[Section, ...]
    baseline: str | None = None
    against_baseline: str = ""
    may_win: tuple[str, ...] = ()


def compare(study: Study, standings: tuple[Standing, ...], baseline: Trial | None = None) -> Comparison:
    """Put the leading trials, and the baseline last, side by side."""
    chosen = choose_columns(standings)
    trials = [trial for label in chosen if (trial := study.trial(label)) and trial != baseline]
    columns = [*trials, *([baseline] if baseline else [])]
    groups = [study.trainings(trial) for trial in columns]
    sections = tuple(
        Section(title, rows) for title, group in measures(study)
        if (rows := tuple(row for measure in group if (row := _row(measure, groups))))
    )
    text = _against(study, standings, baseline) if baseline else ""
    labels, eligible = tuple(trial.label for trial in columns), {item.label for item in standings if item.eligible}
    return Comparison(labels, sections, baseline.label if baseline else None, text,
                      tuple(label for label in labels if label in eligible))


def choose_columns(standings: tuple[Standing, ...]) -> list[str]:
    """All where they are few; else the first ones and, for contrast, the collapsed one with the largest DSNR."""
    if len(standings) <= ALL_UP_TO:
        return [item.label for item in standings]
    chosen = [item.label for item in standings[:TOP]]
    collapsed = [item for item in standings[TOP:] if item.status == "collapsed"]
    if collapsed:
        chosen.append(max(collapsed, key=lambda item: item.raw_dsnr_max or 0.0).label)
    return chosen


def _row(measure: Measure, groups: list[tuple[Trial, ...]]) -> Row | None:
    """The measure of every config, given its trainings; None where none has it."""
    trials = [group[0] for group in groups]
    cells = tuple(joined([measure.cell(trial) for trial in group]) for group in groups)
    if all(cell.text == MISSING and not cell.detail for cell in cells):
        return None
    contest = [(cell.value, trial.label) for cell, trial in zip(cells, trials, strict=True)
               if cell.value is not None]
    winners: tuple[str, ...] = ()
    if contest and measure.direction != "none" and len(trials) > 1:
        values = [value for value, _ in contest]
        best = max(values) if measure.direction == "up" else min(values)
        winners = tuple(label for value, label in contest if value == best)
    tie = len(winners) > 1 and len(winners) == len(contest)
    verdict_text = f"all {len(winners)} tie" if tie else (", ".join(winners) or MISSING) + _within(
        winners, {trial.label: cell for cell, trial in zip(cells, trials, strict=True)})
    marks = tuple(measure.mark(trial) for trial in trials) if measure.mark else ()
    return Row(measure.title, measure.key, cells, () if tie else winners, verdict_text, measure.note,
               marks if any(marks) else ())


def _within(winners: tuple[str, ...], cells: dict[str, Cell]) -> str:
    """Which other columns the seeds do not tell from the best one: their intervals overlap."""
    if len(winners) != 1 or (best := cells[winners[0]]).low is None or best.high is None:
        return ""
    close = [label for label, cell in cells.items() if label != winners[0] and cell.low is not None
             and cell.high is not None and cell.low <= best.high and best.low <= cell.high]
    return f" ({', '.join(close)} within the noise over seeds)" if close else ""


def joined(cells: list[Cell]) -> Cell:
    """The cells of several trainings of one config as one: a mean with its interval, or what each of them says."""
    first, values = cells[0], [cell.value for cell in cells]
    if len(cells) == 1 or all(cell == first for cell in cells) or all(cell.text == MISSING for cell in cells[1:]):
        return first
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if len(known) == len(values) else None
    if mean is not None and all(cell.text == number(cell.value) for cell in cells):
        low, high = bounds(values)
        return Cell(mean, number(mean), f"{interval(low, high)}\n{len(cells)} seeds".strip(), low, high)
    return Cell(mean, ", ".join(dict.fromkeys(cell.text for cell in cells)), f"{len(cells)} seeds")


def _against(study: Study, standings: tuple[Standing, ...], baseline: Trial) -> str:
    """The winner against the baseline, as a sentence."""
    winner = next((item for item in standings if item.eligible and item.label != baseline.label), None)
    if winner is None:
        return f"No live trial to set against the baseline {baseline.label}."
    alone = Study(name="", objective=study.objective, trials=(baseline,), knobs=(), sources=())
    base = next((item for item in standings if item.label == baseline.label), None) or rank(alone)[0]
    parts = []
    if winner.value is not None and base.value is not None:
        parts.append(f"{study.objective} {number(winner.value)} against {number(base.value)}")
    if winner.mse is not None and base.mse:
        parts.append(f"validation MSE of the ranked epoch {number(winner.mse)} against {number(base.mse)} "
                     f"({100 * (winner.mse / base.mse - 1):+.0f} %)")
    return f"{winner.label} against the baseline {baseline.label} ({words(base.status)}): {'; '.join(parts)}." \
        if parts else f"The baseline {baseline.label} has no number to compare with."
