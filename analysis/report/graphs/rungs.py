"""Who stopped where: one lane a trial up to where it ended, the rungs across them with how many went on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from analysis.judge.ranking import Standing, state_word
from analysis.read.study import Study, Trial, series
from analysis.report.charts import Axis, text
from record.text import finite, number, printable

MOST_LANES = 40
LANE, LEFT, WIDTH = 14.0, 130.0, 900.0


@dataclass(frozen=True)
class Rung:
    """One rung: how many trials trained up to it, how many went on beyond, and how many are at it still."""

    at: float
    reached: int
    went: int
    waiting: int = 0


@dataclass(frozen=True)
class Lane:
    """One trial: how far it trained, and by which rule it ended there, '' where by itself."""

    label: str
    status: str
    end: float
    state: str
    rule: str


@dataclass(frozen=True)
class Rungs:
    """The rungs of a sweep in epochs or TFLOP, and its trials in order of rank, those left out counted in `others`."""

    unit: str
    budget: float
    rungs: tuple[Rung, ...]
    lanes: tuple[Lane, ...]
    others: int = 0


def rungs_of(study: Study, standings: Sequence[Standing]) -> Rungs | None:
    """The diagram of a sweep; None where no trial ended at a rung."""
    judged = {rung for trial in study.trials if trial.state == "stopped"
              and (rung := finite(trial.reason.get("rung"))) is not None}
    if not judged:
        return None
    by_compute = any(trial.scheduler.get("max_tflops") for trial in study.trials)
    extents = {trial.label: _extent(trial, by_compute) for trial in study.trials}
    trials = {trial.label: trial for trial in study.trials}
    lanes = [_lane(trials[item.label], item.status, extents[item.label]) for item in standings]
    budgets = [trial.scheduler.get("max_tflops" if by_compute else "max_epochs") or trial.num_epochs or 0
               for trial in study.trials]
    return Rungs("TFLOP" if by_compute else "epoch", max(*extents.values(), 0.0 if by_compute else max(budgets)),
                 tuple(_rung(at, study.trials, extents) for at in sorted(judged)),
                 tuple(_leading(lanes)), max(0, len(lanes) - MOST_LANES))


def _rung(at: float, trials: Sequence[Trial], extents: Mapping[str, float]) -> Rung:
    """A trial that trained further went on, and so did one whose budget ends there; the others ended, by whatever."""
    reached = [trial for trial in trials if extents[trial.label] >= at]
    went = [trial for trial in reached if extents[trial.label] > at or trial.state == "completed"]
    known = {trial.label for trial in went}
    waiting = [trial for trial in reached if trial.label not in known and trial.state not in ("stopped", "failed")]
    return Rung(at, len(reached), len(went), len(waiting))


def _extent(trial: Trial, by_compute: bool) -> float:
    spent = series(trial.records, "total_tflops") if by_compute else []
    return spent[-1] if spent else float(trial.last_epoch)


def _lane(trial: Trial, status: str, end: float) -> Lane:
    rule = printable(str(trial.reason.get("rule", ""))) if trial.state in ("stopped", "failed") else ""
    return Lane(trial.label, status, end, trial.state, rule)


def _leading(lanes: Sequence[Lane]) -> list[Lane]:
    """Of many the leading half, and every so many of the others down to the last."""
    if len(lanes) <= MOST_LANES:
        return list(lanes)
    half = MOST_LANES // 2
    rest = lanes[half:]
    return [*lanes[:half], *(rest[len(rest) * place // half] for place in range(half))]


def rung_chart(found: Rungs, winner: str | None) -> Markup:
    """The diagram as a picture."""
    x_axis, foot = Axis(0.0, found.budget or 1.0, LEFT, WIDTH - 20), 34 + LANE * len(found.lanes)
    body = Markup("").join(_upright(rung, x_axis(rung.at), foot, found.unit) for rung in found.rungs)
    body += Markup("").join(_drawn(lane, "winner" if lane.label == winner else lane.status, 40 + LANE * place, x_axis,
                                   found.unit) for place, lane in enumerate(found.lanes))
    ticks = Markup("").join(text(x_axis(tick), foot + 14, number(tick), "middle") for tick in x_axis.ticks())
    return Markup('<svg class="rungs" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="Who stopped where">{}</svg>'
                  ).format(WIDTH, foot + 32, body + ticks + text((LEFT + WIDTH) / 2, foot + 28, found.unit, "middle"))


def _upright(rung: Rung, x: float, foot: float, unit: str) -> Markup:
    went = f"{rung.went} of {rung.reached}"
    line = Markup('<line class="rung" x1="{0:.1f}" x2="{0:.1f}" y1="18" y2="{1:.0f}"><title>{2}</title></line>').format(
        x, foot, f"{went} went on at {unit} {number(rung.at)}" + (f", {rung.waiting} wait" if rung.waiting else ""))
    return line + text(x, 12, went, "middle")


def _drawn(lane: Lane, status: str, y: float, x_axis: Axis, unit: str) -> Markup:
    how = f"{lane.rule} at" if lane.rule else f"{state_word(lane.state)} at"
    told = f"{lane.label}: {how} {unit} {number(lane.end)}"
    end = x_axis(lane.end)
    cut = Markup('<path class="stop" d="M{:.1f} {:.1f}l8 8m0 -8l-8 8"/>').format(end - 4, y - 4) \
        if lane.rule else Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(end, y)
    line = Markup('<polyline class="hit" points="{0}"/><polyline class="line" points="{0}"/>').format(
        f"{x_axis(0):.1f},{y:.1f} {end:.1f},{y:.1f}")
    return Markup('<g class="series {}" data-label="{}"><title>{}</title>{}</g>').format(
        status, lane.label, told, text(LEFT - 8, y + 4, lane.label[-18:], "end") + line + cut)
