"""What a better value costs: the trials that no other one beats in both, and how fast a search came to its best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from markupsafe import Markup

from analysis.judge.judging import judge
from analysis.judge.ranking import Standing
from analysis.read.study import Study, Trial, series
from analysis.report.charts import LEFT, RIGHT, WIDTH, Axis, grid, svg, trial_mark, value_axis
from record.text import number

COSTS = {"total_tflops": "TFLOP", "seconds": "seconds"}
MOST_DOTS, ORDERS = 300, 200


@dataclass(frozen=True)
class Spot:
    """One trial at its two figures; `first`: no other one is at least as good in both and better in one."""

    label: str
    status: str
    x: float
    y: float
    first: bool


@dataclass(frozen=True)
class Front:
    """Two figures of the trials that may win, and which of them are best together."""

    x: str
    y: str
    x_up: bool
    y_up: bool
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Regret:
    """How far the best value so far was from the best of all, after what the trials until then had cost.

    Attributes:
        steps: (cost so far, distance to the best of all) at each trial in order of suggestion.
        chance: (cost so far, 5th, 50th, 95th percentile) of the same trials in random orders.
    """

    unit: str
    steps: tuple[tuple[float, float], ...]
    chance: tuple[tuple[float, float, float, float], ...]


def non_dominated(points: Sequence[tuple[float, float]], x_up: bool, y_up: bool) -> list[bool]:
    """For each point, whether no other is at least as good in both and better in one; equal points stand together."""
    signed = [(x if x_up else -x, y if y_up else -y) for x, y in points]
    best_at: dict[float, float] = {}
    for x, y in signed:
        best_at[x] = max(y, best_at.get(x, y))
    first, seen = set(), -np.inf
    for x in sorted(best_at, reverse=True):
        if best_at[x] > seen:
            seen = best_at[x]
            first.add((x, seen))
    return [point in first for point in signed]


def fronts_of(study: Study, standings: Sequence[Standing]) -> tuple[Front, ...]:
    """The value against what the training cost, and against each further objective of the sweep."""
    trials = {trial.label: trial for trial in study.trials}
    rows = [(item, trials[item.label]) for item in standings if item.eligible and item.value is not None]
    cost = next((key for key in COSTS if any(series(trial.records[-1:], key) for _, trial in rows)), None)
    made = [_front(study, [(item, _mean(study, trial, partial(_last, key=cost))) for item, trial in rows],
                   COSTS[cost], False)] if cost else []
    made += [_front(study, [(item, _mean(study, trial, partial(_at_its_epoch, study.objective, key)))
                            for item, trial in rows], key, study.workload.maximises(key))
             for key in study.objectives[1:]]
    return tuple(front for front in made if len(front.spots) > 2)


def _at_its_epoch(objective: str, key: str, trial: Trial) -> float | None:
    return judge(trial, objective).number(key)


def _mean(study: Study, first: Trial, figure: Callable[[Trial], float | None]) -> float | None:
    """A figure of a config as its value is one: the mean over its trainings; None where one of them lacks it."""
    found = [figure(trial) for trial in study.trainings(first)]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if len(known) == len(found) else None


def _front(study: Study, rows: Sequence[tuple[Standing, float | None]], x: str, x_up: bool) -> Front:
    known = [(item, value) for item, value in rows if value is not None]
    first = non_dominated([(value, item.value or 0.0) for item, value in known], x_up, study.maximise)
    spots = [Spot(item.label, item.status, value, item.value or 0.0, is_first)
             for (item, value), is_first in zip(known, first, strict=True)]
    others = [spot for spot in spots if not spot.first]
    stride = max(1, len(others) // MOST_DOTS)
    return Front(x, study.objective, x_up, study.maximise,
                 (*(spot for spot in spots if spot.first), *others[::stride]))


def _last(trial: Trial, key: str) -> float | None:
    return next(iter(series(trial.records[-1:], key)), None)


def regret_of(study: Study, standings: Sequence[Standing]) -> Regret | None:
    """Best so far over what was spent; None below eight configs of a sweep. Trials that may not win only cost."""
    ordered = sorted((trial for trial in study.configs if trial.place is not None), key=lambda trial: trial.place or 0)
    cost = next((key for key in COSTS if sum(_last(trial, key) is not None for trial in ordered) > len(ordered) / 2),
                None)
    values = {item.label: item.value for item in standings if item.eligible}
    if len(ordered) < 8 or cost is None or not values:
        return None
    sign = 1.0 if study.maximise else -1.0
    scores = np.array([sign * value if (value := values.get(trial.label)) is not None else -np.inf
                       for trial in ordered])
    spent = np.cumsum([sum(_last(each, cost) or 0.0 for each in study.trainings(trial)) for trial in ordered])
    away = scores.max() - np.maximum.accumulate(scores)
    known = np.isfinite(away)
    stride = max(1, len(ordered) // MOST_DOTS)
    kept = [*np.flatnonzero(known)[:-1:stride], len(ordered) - 1]
    chance = _by_chance(scores)
    return Regret(COSTS[cost], tuple((float(spent[at]), float(away[at])) for at in kept),
                  tuple((float(spent[at]), float(low), float(middle), float(high))
                        for at in kept for low, middle, high in [chance[:, at]]))


def _by_chance(scores: np.ndarray) -> np.ndarray:
    """[3, trials] percentiles of the distance to the best over random orders; what no trial had yet is the worst."""
    worst = scores[np.isfinite(scores)].min()
    filled = np.where(np.isfinite(scores), scores, worst)
    orders = np.random.default_rng(0).permuted(np.tile(filled, (ORDERS, 1)), axis=1)
    found: np.ndarray = np.percentile(filled.max() - np.maximum.accumulate(orders, axis=1), (5, 50, 95), axis=0)
    return found


def front_chart(front: Front, winner: str | None) -> Markup:
    """The trials as marks, the front as a line through the best of them."""
    xs = [spot.x for spot in front.spots]
    x_axis = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, log=min(xs) > 0 and max(xs) / min(xs) > 30)
    y_axis = value_axis([spot.y for spot in front.spots], log=False)
    line = " ".join(f"{x_axis(spot.x):.1f},{y_axis(spot.y):.1f}"
                    for spot in sorted(front.spots, key=lambda spot: (spot.x, spot.y)) if spot.first)
    body = Markup('<polyline class="front" points="{}"/>').format(line)
    body += Markup("").join(trial_mark(
        x_axis(spot.x), y_axis(spot.y), "winner" if spot.label == winner else spot.status, spot.label,
        f"{spot.label}: {number(spot.x)} {front.x} → {number(spot.y)}{', on the front' if spot.first else ''}")
        for spot in front.spots)
    return svg(f"{front.y} against {front.x}", grid(x_axis, y_axis, front.x) + body)


def regret_chart(found: Regret) -> Markup:
    """The distance as steps, over what random orders of the same trials would have shown."""
    x_axis = Axis(0.0, found.steps[-1][0], LEFT, WIDTH - RIGHT)
    y_axis = value_axis([0.0, *(y for _, y in found.steps), *(y for _, *three in found.chance for y in three)], False)
    outline = [(x, high) for x, _, _, high in found.chance] + [(x, low) for x, low, _, _ in reversed(found.chance)]
    steps = [(x, y) for (_, y), (x, _) in zip(found.steps, found.steps[1:], strict=False)]
    corners = [found.steps[0], *(corner for held, now in zip(steps, found.steps[1:], strict=True)
                                 for corner in (held, now))]
    area, middle, line = (" ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in places) for places in (
        outline, [(x, mid) for x, _, mid, _ in found.chance], corners))
    body = Markup('<polygon class="band" points="{}"><title>the same trials in random order, middle 90 %</title>'
                  '</polygon><polyline class="median" points="{}"><title>median of random orders</title></polyline>'
                  '<g class="series winner"><title>{}</title><polyline class="line" points="{}"/></g>').format(
        area, middle, "distance of the best so far to the best of all", line)
    return svg(f"Regret over {found.unit}", grid(x_axis, y_axis, found.unit) + body)
