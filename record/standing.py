"""Which training stands above which, and what of it counts: the one rule of search, sweep, confirmation and report.

A training is a row of validated epochs (`Outcome`) and how it ended. It is ranked by its best epoch: a sound one
before any other, then the one least outside the constraints, then the best by the objective. One that ended
collapsed or diverged is not sound, whatever it was before. A config that was trained with several seeds stands with
their mean, as sound as the least sound of them. Of equal ones the lower MSE stands first, then the earlier one.

Pure, without torch; NaN is a number that is not defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from record import intervals

Numbers = Sequence[float] | NDArray[np.float64]

_DEAD = ("collapsed", "nonfinite")


class Outcome(msgspec.Struct, gc=False):  # long sweeps have millions, which no search for cycles walks through
    """What counts of one validated epoch, or of the trainings of one config. Never changed.

    Attributes:
        objective: NaN where it is not finite.
        verdict: the workload's `verdict` on the epoch.
        violation: how far outside the constraints, 0 inside; infinite where one is not measured.
        mse: validation MSE, which decides between equal objectives; NaN where it is not finite.
        values: other metrics whose mean over seeds is asked for.
    """

    epoch: int
    objective: float
    verdict: str
    violation: float = 0.0
    mse: float = math.nan
    values: dict[str, float] = {}


O = TypeVar("O", bound=Outcome)  # noqa: E741


def is_sound(verdict: str, codes: bool = False) -> bool:
    """Whether a training with this verdict may win: live, or without codes to judge where none are needed (`codes`)."""
    return verdict == "live" or (verdict == "no_codes" and not codes)


def worth(outcome: Outcome, maximise: bool, codes: bool = False) -> tuple[bool, float, float]:
    """What outcomes are compared by, the larger the better."""
    value = outcome.objective if maximise else -outcome.objective
    return is_sound(outcome.verdict, codes), -outcome.violation, value if math.isfinite(value) else -math.inf


def order(outcome: Outcome, place: float, maximise: bool, codes: bool = False) -> tuple[Any, ...]:
    """Key that sorts configs best first; `place` is a config's place in the order of suggestion."""
    sound, inside, value = worth(outcome, maximise, codes)
    return not sound, -inside, -value, outcome.mse if math.isfinite(outcome.mse) else math.inf, place


def judged(epochs: Sequence[O], maximise: bool) -> O | None:
    """The epoch that a training is ranked by, the first of equal ones; None where no objective is finite."""
    place = judged_place([epoch.objective for epoch in epochs], [epoch.violation for epoch in epochs],
                         lambda place: is_sound(epochs[place].verdict), maximise)
    return None if place is None else epochs[place]


def judged_place(objectives: Numbers, violations: Numbers, sound: Callable[[int], bool], maximise: bool) -> int | None:
    """Which of a training's epochs it is ranked by, as an index; see `judged`.

    Args:
        sound: whether the epoch of an index is; asked from the best one on until one is, mostly once.
    """
    values = np.asarray(objectives, dtype=float)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.lexsort((-values[known] if maximise else values[known], np.asarray(violations)[known]))].tolist()
    return next(filter(sound, order), order[0] if order else None)


def ended(epochs: Sequence[O], maximise: bool) -> O | None:
    """A training as it ended: its judged epoch (without a finite one the last), dead where the last one is.

    None before the first validation.
    """
    if not epochs:
        return None
    best, last = judged(epochs, maximise) or epochs[-1], epochs[-1].verdict
    return replace(best, verdict=verdict_at_end(best.verdict, last))


def verdict_at_end(verdict: str, last: str) -> str:
    """The verdict of a training, from that of its judged epoch and that of its last one."""
    return last if last in _DEAD else verdict


def mean_of_seeds(trainings: Sequence[O], maximise: bool) -> O | None:
    """A config from its trainings as they ended: the least sound with the means of all; None without a finite value.

    A training without a finite value is no part of the means, but the config is no sounder than it.
    """
    known = [training for training in trainings if math.isfinite(training.objective)]
    if not known:
        return None
    if len(trainings) == 1:
        return trainings[0]
    return replace(
        min(trainings, key=lambda training: worth(training, maximise)),
        objective=_mean([one.objective for one in known]), mse=_mean([one.mse for one in known]),
        values={name: _mean([one.values.get(name, math.nan) for one in known]) for name in known[0].values})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) with 95 % Student's t bounds; the bounds are NaN below two values, all are with a NaN value."""
    if not values:
        return math.nan, math.nan, math.nan
    found = intervals.mean(np.array(values), np.arange(len(values)))
    return found.value, found.low, found.high


def kept(objectives: Numbers, keep: str, maximise: bool = True) -> int:
    """Which validation a finished run's checkpoint is of, as an index.

    The best checkpoint follows the workload's objective, whatever a sweep ranks by; `keep` all keeps it beside the
    last one.

    Args:
        objectives: the workload's objective at each validation, at least one.
        maximise: whether higher is better.
    """
    values = np.asarray(objectives, dtype=float)
    finite = np.isfinite(values)
    if keep == "last" or not finite.any():
        return len(values) - 1
    return int(np.where(finite, values if maximise else -values, -math.inf).argmax())


def is_trained(epoch: int, full: int, stops_early: bool) -> bool:
    """Whether a training that ended by itself came to its end: all its epochs, or fewer where it may stop early."""
    return epoch >= full or stops_early
