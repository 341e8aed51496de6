"""When a trial ends, and why. Pure functions of the sweep's state; every stop carries its reason.

Order of the rules, on each validated epoch:
    nonfinite    a loss or the objective is not finite: failed, at once
    completed    the trial has had its full budget
    collapse     the codebook has been collapsed for `health.patience` validations, after the grace
    asha         the trial's value at a rung is not among the best one in eta
    budget       the sweep's budget is spent
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lam import health
from lam.config import RunConfig
from sweeps import rungs
from sweeps.spec import Asha, Budget, SweepSpec
from sweeps.state import Result, SweepState, TrialState, is_sound


@dataclass(frozen=True)
class Ending:
    """The end of a trial: one entry of the ledger."""

    event: Literal["stopped", "completed", "failed"]
    rule: str
    sentence: str
    epochs_saved: int
    rung: int | None = None
    value: float | None = None
    cutoff: float | None = None
    peers: int | None = None

    def reason(self) -> dict[str, Any]:
        """The journal's `reason`."""
        return {key: value for key, value in asdict(self).items() if key != "event"}


def judge(spec: SweepSpec, state: SweepState, trial: TrialState, config: RunConfig, step: int) -> Ending | None:
    """Whether the trial ends with its latest result; None where it goes on.

    Args:
        config: the trial's own config.
        step: optimizer steps behind the latest result.
    """
    latest = trial.results[-1]
    saved = config.num_epochs - latest.epoch
    if latest.verdict == "nonfinite" or not math.isfinite(latest.objective):
        return Ending("failed", "nonfinite", f"{_what_is_not_finite(spec, latest)} at epoch {latest.epoch}", saved)
    if saved <= 0:
        return Ending("completed", "full_budget", f"trained all {config.num_epochs} epochs", 0)
    return (_collapse(trial, config, step, saved, spec.asha)
            or (_asha(spec, spec.asha, state, trial, saved) if spec.asha else None)
            or _out_of_budget(spec.budget, state, saved))


def _what_is_not_finite(spec: SweepSpec, latest: Result) -> str:
    return "the loss was not finite" if latest.verdict == "nonfinite" else f"{spec.objective} was not finite"


def collapse_grace(config: RunConfig, steps_per_epoch: int, asha: Asha | None) -> int:
    """Epochs before collapse is judged."""
    if config.health.grace_epochs is not None:
        return config.health.grace_epochs
    return health.collapse_grace(config.num_epochs, steps_per_epoch, config.vq_refresh_interval,
                                 asha.grace_epochs if asha else 0)


def _collapse(trial: TrialState, config: RunConfig, step: int, saved: int, asha: Asha | None) -> Ending | None:
    latest, patience = trial.results[-1], config.health.patience
    grace = collapse_grace(config, step // latest.epoch, asha)
    lately = trial.results[-patience:]
    epochs, flags = [result.epoch for result in lately], [result.verdict == "collapsed" for result in lately]
    if health.collapse(epochs, flags, grace, patience) is None:
        return None
    sentence = (f"the codebook was collapsed at the last {patience} validations (epoch {latest.epoch}, "
                f"judged from epoch {grace})")
    return Ending("stopped", "collapse", sentence, saved, value=latest.objective)


def _asha(spec: SweepSpec, asha: Asha, state: SweepState, trial: TrialState, saved: int) -> Ending | None:
    latest = trial.results[-1]
    before = trial.results[-2].epoch if len(trial.results) > 1 else 0
    ladder = rungs.levels(asha.grace_epochs, asha.max_epochs, asha.reduction_factor)
    rung = rungs.rung_reached(ladder, before, latest.epoch)
    if rung is None:
        return None
    previous = max((level for level in ladder if level < rung), default=0)
    others = (other for other in state.trials.values() if other is not trial)
    earlier = [rung_value(other, rung, previous, spec.maximise) for other in others]
    arrived = [value for value in earlier if value is not None]
    decision = rungs.decide(_worth(latest, spec.maximise), arrived, asha.reduction_factor)
    if decision.goes_on:
        return None
    cutoff = decision.value if spec.maximise else -decision.value
    sentence = (f"{spec.objective} {latest.objective:.4g}{_state(latest)} at epoch {latest.epoch} is not among the "
                f"best {decision.places} of {decision.arrivals} trials at rung {rung} (cutoff {cutoff:.4g})")
    return Ending("stopped", "asha", sentence, saved, rung, latest.objective, cutoff, decision.arrivals)


def rung_value(trial: TrialState, rung: int, previous: int, maximise: bool) -> float | None:
    """What a trial is worth at a rung: its first result there; None where it has not arrived.

    A trial that diverged or collapsed for good on the way from the `previous` rung counts as an
    arrival worth minus infinity: it took the place of one that would have arrived.
    """
    for result in trial.results:
        if result.epoch >= rung:
            return _worth(result, maximise)
    lost = trial.final and (trial.reason or {}).get("rule") in ("nonfinite", "collapse")
    return rungs.NEVER if lost and trial.epoch >= previous else None


def _worth(result: Result, maximise: bool) -> float:
    if result.verdict in ("nonfinite", "collapsed"):
        return rungs.NEVER
    return rungs.worth(result.objective if maximise else -result.objective)


def _state(result: Result) -> str:
    return "" if is_sound(result.verdict) else f" ({result.verdict.replace('_', ' ')})"


def _out_of_budget(budget: Budget, state: SweepState, saved: int) -> Ending | None:
    spent = spent_budget(budget, state, trials=False)
    return Ending("stopped", "budget", f"the sweep's budget is spent: {spent}", saved) if spent else None


def spent_budget(budget: Budget, state: SweepState, trials: bool = True) -> str | None:
    """A sentence that says which part of the budget is spent, None while none is.

    Args:
        trials: whether the number of trials counts; it ends suggestions, not running trials.
    """
    used = {"trials": (float(len(state.trials)) if trials else 0.0), "epochs": float(state.epochs),
            "hours": state.seconds / 3600, "tflops": state.tflops}
    for name, amount in used.items():
        limit = getattr(budget, name)
        if limit is not None and amount >= limit:
            return f"{amount:.4g} of {limit:.4g} {name}"
    return None
