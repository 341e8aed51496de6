"""Can this search be trusted? Checks of a comparison as a whole: ok, warning, or not checked. Pure.

`not checked` means that the records cannot tell, never that nothing is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.decision.replay import replay
from analysis.judge.judging import judge
from analysis.judge.ranking import Standing
from analysis.read.study import Study, Trial, points_of
from record.text import count, finite, number, share, value_text

Answer = Literal["ok", "warning", "not checked"]
ENOUGH = 8  # configs before the space, the knobs or the stopping are judged
EDGE = 0.05  # of a knob's range, in its own scale
LOST = 0.2  # share of trials that failed or never finished
PREDICTED = 0.1  # leave-one-out R² below which knobs tell next to nothing
NEIGHBOURS = 5
REPLAYED = 2000  # trials that stopping rules are replayed over
CHOICES = 2  # between the ends of a range of whole numbers that is rather a choice
RANGES = ("uniform", "loguniform", "int", "integer", "logint")


@dataclass(frozen=True)
class Doubt:
    """One question about the search and its answer."""

    title: str
    answer: Answer
    evidence: str


def examine_search(study: Study, standings: tuple[Standing, ...], baseline: Trial | None = None) -> tuple[Doubt, ...]:
    """Every check, in a fixed order; empty where nothing may win."""
    winner = next((item for item in standings if item.eligible), None)
    if winner is None:
        return ()
    return tuple(Doubt(title, *check(study, standings, winner, baseline)) for title, check in _CHECKS.items())


Found = tuple[Answer, str]


def _edge(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    found, judged = [], 0
    for knob, value in winner.params.items():
        ends, own = _ends(study, knob, standings), _number(value)
        if ends is None or own is None:
            continue
        judged += 1
        low, high, what, by_ratio = ends
        places = [math.log(x) if by_ratio and own > 0 else x for x in (low, high, own)]
        at = (places[2] - places[0]) / (places[1] - places[0])
        if not EDGE < at < 1 - EDGE:
            found.append(f"{knob} {value_text(value)} is at the {'lower' if at < 0.5 else 'upper'} end of {what} "
                         f"({number(low)} to {number(high)})")
    if not judged:
        return "not checked", f"no knob has a range, or {ENOUGH} different values"
    return ("warning", "; ".join(found) + ": widen the space there") if found else \
        ("ok", f"{count(judged, 'knob')} of the winner, none within 5 % of an end of the space")


def _ends(study: Study, knob: str, standings: Sequence[Standing]) -> tuple[float, float, str, bool] | None:
    """The ends of a knob's range as the sweep states it, else of what was tried, and whether by its logarithm.

    None where neither says much.
    """
    stated = (study.sweep.get("asked") or {}).get("space") or {}
    domain = stated.get(knob) if isinstance(stated, dict) else None
    for kind in RANGES:
        ends = domain.get(kind) if isinstance(domain, dict) else None
        if isinstance(ends, (list, tuple)) and len(ends) == 2:
            low, high = map(_number, ends)
            if low is not None and high is not None and "int" in kind and high - low <= CHOICES:
                return None  # two or three whole numbers: each is an end, or between two
            return (low, high, "its range", kind.startswith("log") and low > 0) \
                if low is not None and high is not None and low < high else None
    tried = {known for item in standings if (known := _number(item.params.get(knob))) is not None}
    if len(tried) < ENOUGH:
        return None
    low, high = min(tried), max(tried)
    return low, high, "what was tried", low > 0 and high / low > 30


def _gain(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    if baseline is None:
        return "not checked", "no --baseline was named"
    base, own = judge(baseline, study.objective).value, winner.score
    if base is None or own is None:
        return "not checked", f"{baseline.label} has no {study.objective}"
    better = own > base if study.maximise else own < base
    return "ok" if better else "warning", f"{number(own)} against {number(base)} of {baseline.label}"


def _random(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    """Against the first tenth of the search, drawn at random or nearly so: no random search was run beside it."""
    values = {item.label: item.value for item in standings if item.value is not None and item.eligible}
    order = [trial.label for trial in study.configs if trial.place is not None]
    first = [values[label] for label in order[:max(5, len(order) // 10)] if label in values]
    if len(order) < 2 * ENOUGH or not first or winner.value is None:
        return "not checked", f"needs {2 * ENOUGH} trials of a sweep"
    best = max(first) if study.maximise else min(first)
    gained = winner.label not in order[:max(5, len(order) // 10)]
    told = "" if gained else ": the search found nothing better than its first draws"
    return "ok" if gained else "warning", \
        f"the best of the first {len(first)}, before a search has learned anything, reached {number(best)}, the " \
        f"winner {number(winner.value)}{told}. Random search was not run beside it with as many trials, so what of " \
        "this is gain over random is not known"


def _tie(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    others = [item for item in standings if item.eligible and item.label != winner.label]
    if not others:
        return "not checked", "no other config may win"
    own = _span(winner)
    if own is None:
        return "not checked", "no interval of the winner: one training of it"
    low, high = own
    spans = [(item, _span(item) or (item.score, item.score)) for item in others]  # a single training is a point
    close = [item.label for item, (least, most) in spans if least is not None and most is not None
             and (most >= low if study.maximise else least <= high)]
    if close:
        more = f" and {len(close) - 4} more" if len(close) > 4 else ""
        return "warning", \
            f"its interval over seeds is reached by {count(len(close), 'config')}: {', '.join(close[:4])}{more}"
    return "ok", f"{number(low)} to {number(high)} over seeds, and none of {count(len(others), 'other')} reaches it"


def _span(item: Standing) -> tuple[float, float] | None:
    seeds = item.confirmed or item.seeds
    return None if seeds is None or seeds.low is None or seeds.high is None else (seeds.low, seeds.high)


def _same_step(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    eligible = [item for item in standings if item.eligible and item.epoch is not None]
    trained = sorted({item.last_epoch for item in eligible})
    if len(eligible) < 2:
        return "not checked", "one config may win"
    if len(trained) == 1:
        return "ok", f"all {len(eligible)} that may win were trained {trained[0]} epochs"
    longest = sum(item.last_epoch == trained[-1] for item in eligible)
    return "warning" if winner.last_epoch < trained[-1] else "ok", \
        f"those that may win were trained {trained[0]} to {trained[-1]} epochs, {longest} of {len(eligible)} of them " \
        f"to the end; the winner {winner.last_epoch}"


def _lost(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    failed = sum(item.state == "failed" for item in standings)
    unfinished = sum(item.status == "unfinished" for item in standings)
    dead = sum(item.status in ("collapsed", "nonfinite", "aborted") for item in standings)
    text = f"{failed} of {len(standings)} failed, {unfinished} did not finish, {dead} collapsed or diverged"
    return "warning" if failed + unfinished > LOST * len(standings) else "ok", text


def _predictable(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    """Leave-one-out: each value from its five nearest neighbours among the knobs."""
    rows = [item for item in standings if item.value is not None][:2000]
    columns = [column for knob in study.knobs
               if (column := _column([item.params.get(knob) for item in rows])) is not None]
    if len(rows) < 2 * ENOUGH or not columns:
        return "not checked", f"needs {2 * ENOUGH} trials and a knob that varies"
    values = np.array([item.value for item in rows], dtype=float)
    guesses = values[_nearest(columns)].mean(axis=1)
    spread = float(((values - values.mean()) ** 2).sum())
    told = 1 - float(((values - guesses) ** 2).sum()) / spread if spread > 0 else 0.0
    return "ok" if told > PREDICTED else "warning", f"left out, a trial's value is told by its neighbours with R² " \
        f"{number(told)}" + ("" if told > PREDICTED else ": noise, or the knobs do next to nothing here")


def _nearest(columns: Sequence[np.ndarray]) -> np.ndarray:
    """The places of each row's nearest others, [N, NEIGHBOURS]."""
    away = np.zeros((len(columns[0]),) * 2)
    for column in columns:
        away += (column[:, None] - column) ** 2
    np.fill_diagonal(away, np.inf)
    found: np.ndarray = np.argpartition(away, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return found


def _stopping(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    """Replay of other rules over the recorded curves: would they have kept the winner, and for how many epochs?"""
    sign = 1.0 if study.maximise else -1.0
    curves = {trial.label: {int(epoch): sign * value for epoch, value in points_of(trial, study.objective)}
              for place, trial in enumerate(study.configs) if place < REPLAYED or trial.label == winner.label}
    curves = {label: curve for label, curve in curves.items() if curve}
    if len(curves) < ENOUGH or not curves.get(winner.label):
        return "not checked", f"needs {ENOUGH} trials with recorded curves"
    found = replay(curves, winner.label, max(item.last_epoch for item in standings))
    if not found:
        return "not checked", "no rule would have ended a trial at an epoch that was recorded"
    told = "; ".join(f"{item.rule} {'keeps' if item.keeps else 'loses'} it for {share(item.spent)} of the epochs"
                     for item in found)
    return "ok" if all(item.keeps for item in found) else "warning", told


def _seeds(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    known = len(winner.seeds.seeds) if winner.seeds else 1
    fresh = len(winner.confirmed.seeds) if winner.confirmed else 0
    if fresh >= 2:
        return "ok", f"{count(fresh, 'fresh seed')} beside {count(known, 'training')} that it was chosen by"
    return "warning", f"{count(known, 'training')} of the winner and no fresh seeds: the best of many looks better " \
        "than it is"


def _skill(study: Study, standings: Sequence[Standing], winner: Standing, baseline: Trial | None) -> Found:
    pairs = [(item.value, item.skill) for item in standings if item.value is not None and item.skill is not None]
    if len(pairs) < ENOUGH:
        return "not checked", f"needs {ENOUGH} trials with an action skill"
    told = _rank_correlation(np.array(pairs, dtype=float))
    sign = 1 if study.maximise else -1
    good = told is not None and sign * told > 0.3
    return "ok" if good else "warning", f"rank correlation of {study.objective} with the action skill over " \
        f"{count(len(pairs), 'trial')}: {number(told)}"


def _rank_correlation(pairs: np.ndarray) -> float | None:
    """Spearman's, of [N, 2]; None where one of the two does not vary. scipy.stats would take a second to load."""
    ranks = []
    for column in pairs.T:
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            return None
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[place])
    return finite(float(np.atleast_2d(np.corrcoef(ranks))[0, 1]))


def _number(value: Any) -> float | None:
    return finite(value) if not isinstance(value, bool) else None


def _column(values: Sequence[Any]) -> np.ndarray | None:
    """A knob as a column between 0 and 1: numbers in their scale, names as their order; None where it does not vary."""
    names = sorted({str(value) for value in values})
    numbers = [_number(value) for value in values]
    if len(names) < 2:
        return None
    column = np.array([float(names.index(str(value))) for value in values] if None in numbers else numbers, dtype=float)
    if column.min() > 0 and column.max() / column.min() > 30:
        column = np.log(column)
    span = float(np.ptp(column))
    return (column - column.min()) / span if span > 0 else None


_CHECKS: dict[str, Callable[[Study, Sequence[Standing], Standing, Trial | None], Found]] = {
    "Is the winner at an edge of the space?": _edge,
    "Does it beat the baseline?": _gain,
    "Does it beat the search's first draws?": _random,
    "Is it told apart from the next?": _tie,
    "Were all ranked after as much training?": _same_step,
    "How many were lost?": _lost,
    "Do the knobs tell the value?": _predictable,
    "Would stopping early have kept the winner?": _stopping,
    "More than one seed?": _seeds,
    "Does the objective agree with the action skill?": _skill,
}

