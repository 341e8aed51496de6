"""How strongly each knob goes with good values: PED-ANOVA through Optuna, resampled. Association, never cause.

The only module of `analysis` that imports optuna.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.judge.ranking import Standing
from analysis.read.reading import Study
from record.journal.events import FINISHED
from record.text import finite

if TYPE_CHECKING:  # loaded once there is something to compute: a quarter of a second
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

MIN_TRIALS = 8
RESAMPLES = 20
MOST_RESAMPLED = 1000  # trials in one resample: what more would narrow is no longer what decides


@dataclass(frozen=True)
class Share:
    """One knob's share, with its 90 % range over resamples of the trials; None where that is not defined."""

    knob: str
    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Importance:
    """How far the best trials' settings of each knob differ from all of them, as shares of 1, largest first."""

    shares: tuple[Share, ...]
    trials: int
    note: str


def importance(study: Study, standings: tuple[Standing, ...]) -> Importance:
    """PED-ANOVA over the finished trials that have a value; at least `MIN_TRIALS` of them.

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
    shares = _bootstrapped(knobs, rows, study.workload.metrics[study.objective].direction)
    left_out = [knob for knob in study.knobs if knob not in knobs]
    note = f" Left out, because not every trial has them or they have one value: {', '.join(left_out)}." \
        if left_out else ""
    return Importance(shares, len(rows), f"PED-ANOVA over {len(rows)} finished trials, those stopped early included, "
                                         "with 90 % ranges over resamples of them. It says what goes together in this "
                                         f"sweep, not what causes what.{note}")


@contextlib.contextmanager
def _forests_later() -> Iterator[None]:
    """Let Optuna's importance load without scikit-learn, of which its other evaluators want the forests.

    They get them when they ask for one: by then scikit-learn is loaded, which takes a second and no report needs.
    """
    if "sklearn" in sys.modules:
        yield
        return

    def forest(*values: Any, **named: Any) -> Any:
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(*values, **named)

    ensemble = ModuleType("sklearn.ensemble")
    vars(ensemble)["RandomForestRegressor"] = forest
    sys.modules |= {"sklearn": ModuleType("sklearn"), "sklearn.ensemble": ensemble}
    try:
        yield
    finally:
        for name in ("sklearn.ensemble", "sklearn"):
            del sys.modules[name]


@cache
def _evaluate() -> Callable[[OptunaStudy], dict[str, float]]:
    with _forests_later():
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    return lambda study: get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), normalize=False)


def _study_of(direction: str) -> Any:
    """A study whose trials are `given`: one of Optuna's own stores each by several deep copies."""
    import optuna

    class Given(optuna.Study):
        given: Sequence[FrozenTrial] = ()

        def get_trials(self, deepcopy: bool = True, states: Container[Any] | None = None) -> list[FrozenTrial]:
            return list(self.given)

    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="given", direction="maximize" if direction == "up" else "minimize")
    return Given("given", storage)


def _ped_anova(study: OptunaStudy, knobs: Iterable[str]) -> list[float]:
    """The share of each knob, in the order of `knobs`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = _evaluate()(study)
    total = sum(shares.values())
    return [shares[knob] / total if total > 0 else math.nan for knob in knobs]


def _bootstrapped(knobs: dict[str, BaseDistribution], rows: list[tuple[dict[str, Any], float]],
                  direction: str) -> tuple[Share, ...]:
    """Shares over all trials with the 90 % range over resamples of them."""
    import optuna

    chance, size = np.random.default_rng(0), min(len(rows), MOST_RESAMPLED)
    trials = [_complete(number, {knob: params[knob] for knob in knobs}, knobs, value)
              for number, (params, value) in enumerate(rows)]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study, again = _study_of(direction), []
        study.given = trials
        whole = _ped_anova(study, knobs)
        for _ in range(RESAMPLES):
            study.given = [trials[at] for at in chance.integers(len(rows), size=size)]
            again.append(_ped_anova(study, knobs))
    finally:
        optuna.logging.set_verbosity(verbosity)
    return _shares(knobs, whole, np.array(again))


def _shares(knobs: Iterable[str], whole: list[float], again: NDArray[np.float64]) -> tuple[Share, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = np.nanpercentile(again, [5, 95], axis=0)
    found = [Share(knob, finite(part) or 0.0, finite(min(float(least), part)), finite(max(float(most), part)))
             for knob, part, least, most in zip(knobs, whole, low, high, strict=True)]
    return tuple(sorted(found, key=lambda item: -item.share))


def _complete(number: int, params: dict[str, Any], knobs: dict[str, BaseDistribution], value: float) -> FrozenTrial:
    from optuna.trial import FrozenTrial, TrialState

    return FrozenTrial(number, TrialState.COMPLETE, value, None, None, params, knobs, {}, {}, {}, number)


def _comparable(value: Any) -> float | str | None:
    """Numbers as they are, anything else by its JSON: a list can be no category."""
    return value if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) else \
        json.dumps(value)


def _distribution(values: list[Any]) -> BaseDistribution | None:
    """The smallest distribution that holds the values; None where a trial lacks one or all are equal."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if any(value is None for value in values) or len(set(values)) < 2:
        return None
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values))
    if all(isinstance(value, (int, float)) for value in values):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low > 30)
    return CategoricalDistribution(tuple(dict.fromkeys(values)))
