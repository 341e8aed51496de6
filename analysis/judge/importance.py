"""How strongly each knob goes with the value over a study: fANOVA through Optuna. Association, never cause.

The only module of `analysis` that imports optuna.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from analysis.judge.ranking import Standing
from analysis.read.reading import Study
from record.journal.events import FINISHED

MIN_TRIALS = 8


@dataclass(frozen=True)
class Importance:
    """Shares of the value's variance over the space that each knob explains, largest first; empty with a reason."""

    shares: tuple[tuple[str, float], ...]
    trials: int
    note: str


def importance(study: Study, standings: tuple[Standing, ...]) -> Importance:
    """fANOVA over the finished trials that have a value; at least `MIN_TRIALS` of them.

    Knobs that some trials lack (conditional ones) and knobs with one value are left out.
    """
    rows = [({knob: _comparable(value) for knob, value in item.params.items()}, item.value) for item in standings
            if item.state in FINISHED and item.value is not None]
    if len(rows) < MIN_TRIALS:
        return Importance((), len(rows), f"Needs {MIN_TRIALS} finished trials, there are {len(rows)}.")
    knobs = {knob: distribution for knob in study.knobs
             if (distribution := _distribution([params.get(knob) for params, _ in rows])) is not None}
    if not knobs or len({value for _, value in rows}) == 1:
        return Importance((), len(rows), "No knob varies over all finished trials, or the value does not.")
    shares = _fanova(knobs, rows, study.workload.metrics[study.objective].direction)
    left_out = [knob for knob in study.knobs if knob not in knobs]
    note = f" Left out, because not every trial has them or they have one value: {', '.join(left_out)}." \
        if left_out else ""
    return Importance(shares, len(rows), f"fANOVA over {len(rows)} finished trials, those stopped early included. It "
                                         f"says what goes together in this sweep, not what causes what.{note}")


def _fanova(knobs: dict[str, BaseDistribution], rows: list[tuple[dict[str, Any], float]],
            direction: str) -> tuple[tuple[str, float], ...]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="maximize" if direction == "up" else "minimize")
        for params, value in rows:
            study.add_trial(optuna.trial.create_trial(
                params={knob: params[knob] for knob in knobs}, distributions=knobs, value=value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return tuple((knob, float(value)) for knob, value in sorted(shares.items(), key=lambda item: -item[1]))


def _comparable(value: Any) -> float | str | None:
    """Numbers as they are, anything else by its JSON: a list can be no category."""
    return value if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) else \
        json.dumps(value)


def _distribution(values: list[Any]) -> BaseDistribution | None:
    """The smallest distribution that holds the values; None where a trial lacks one or all are equal."""
    if any(value is None for value in values) or len(set(values)) < 2:
        return None
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values))
    if all(isinstance(value, (int, float)) for value in values):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low > 30)
    return CategoricalDistribution(tuple(dict.fromkeys(values)))
