"""Whether a trial ends after a validation, and the sentence that says why; which paused trial goes on. Pure.

Order of the rules, on each validated epoch:
    nonfinite    a loss is not finite: failed, at once
    completed    the trial has had its full budget
    codebook_collapsed   the health rule of this name, of the profile that the trial names, has fired
    asha         the trial's value at a rung is not among the best one in eta (paused where `promote` is set)
    median       the trial's best value is below the median of the others' running means
    budget       the sweep's budget is spent

An objective that is not defined (DSNR while actions are ignored) is no failure: it counts as minus infinity in the
rungs. Rungs count our own epochs, or cumulative TFLOPs; a trial is judged at the first validation at or past a
rung. Further trainings of a config (`seeds`) are neither judged at rungs nor counted there: the first
one of the config was.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from record import health
from record.journal.events import Change, Completed, Failed, Paused, Reason, Stopped
from record.journal.results import Result
from record.standing import is_sound
from record.text import short, words
from record.workload import workload
from record.workload.settings import HealthConfig
from sweeps.journal.state import SweepState, TrialState
from sweeps.scheduling.arrivals import Ladder, Means, Unrepeated, before, rated
from sweeps.spec import rungs
from sweeps.spec.sections import Asha, Budget, Median
from sweeps.spec.spec import SweepSpec


@dataclass(frozen=True)
class Ending:
    """The end of a trial: one entry of the ledger."""

    event: Literal["stopped", "completed", "failed", "paused"]
    rule: str
    sentence: str
    epochs_saved: int
    rung: float | None = None
    value: float | None = None
    cutoff: float | None = None
    peers: int | None = None

    def reason(self) -> Reason:
        """The journal's `reason`."""
        return Reason(rule=self.rule, sentence=self.sentence, epochs_saved=self.epochs_saved, rung=self.rung,
                      value=self.value, cutoff=self.cutoff, peers=self.peers)

    def of(self, trial: TrialState, maximise: bool) -> Change:
        """The event that ends a trial so."""
        if self.event == "completed":
            return completed(trial, maximise)
        kind = {"stopped": Stopped, "paused": Paused, "failed": Failed}[self.event]
        return kind(trial=trial.id, epoch=trial.epoch, reason=self.reason())


def completed(trial: TrialState, maximise: bool) -> Completed:
    """The event of a trial that trained to its end."""
    best = trial.best(maximise)
    return Completed(trial=trial.id, epoch=trial.epoch, objective=best.objective if best else None)


class Judged(Protocol):
    """What a judgement reads of a trial's config."""

    @property
    def num_epochs(self) -> int:
        """Epochs of its full training."""

    @property
    def health(self) -> HealthConfig:
        """By which rules it is judged."""

    def mapping(self) -> dict[str, Any]:
        """All of it."""


def judge(spec: SweepSpec, state: SweepState, trial: TrialState, config: Judged) -> Ending | None:
    """Whether the trial ends with its latest result; None where it goes on.

    Args:
        config: the trial's own config.
    """
    latest = trial.results[-1]
    saved = epochs_left(spec, trial, config)
    if latest.verdict == "nonfinite":
        return Ending("failed", "nonfinite", f"the loss was not finite at epoch {latest.epoch}", saved)
    if saved <= 0:
        return Ending("completed", "full_budget", f"trained all {latest.epoch} epochs", 0)
    return (_collapse(trial, config, saved, spec)
            or _by_rule(spec, state, trial, saved)
            or _by_budget(spec, state, saved))


class Quiet:
    """Says of almost all results that nothing can come of them, without asking what `judge` asks."""

    def __init__(self, spec: SweepSpec) -> None:
        self._asha, self._by_epochs = spec.asha, spec.scheduler is None or (spec.asha and not spec.asha.on_tflops)
        self._limited = any(getattr(spec.budget, name) is not None for name in _USED if name != "trials")
        self._rungs: dict[int, list[float]] = {}

    def at(self, trial: TrialState, config: Judged) -> bool:
        """Whether `judge` has nothing to say of the trial's latest result, as far as that can be told at once."""
        latest = trial.results[-1]
        if (not self._by_epochs or self._limited or trial.collapsed_once or latest.verdict == "nonfinite"
                or latest.epoch >= config.num_epochs):
            return False
        if self._asha is None:
            return True
        bracket = self._asha.bracket(trial.number)
        if bracket not in self._rungs:
            self._rungs[bracket] = self._asha.ladder(bracket)
        reached = bisect.bisect_right(self._rungs[bracket], latest.epoch)
        return reached == 0 or self._rungs[bracket][reached - 1] <= before(self._asha, trial)


def epochs_left(spec: SweepSpec, trial: TrialState, config: Judged) -> int:
    """Epochs until the trial has had its full budget, 0 or less where it has."""
    return full_epochs(spec, trial, config.num_epochs) - trial.epoch


def full_epochs(spec: SweepSpec, trial: TrialState, most: int) -> int:
    """Epochs of the full budget: `most`, or as many as its TFLOPs buy this trial at its own cost an epoch."""
    if spec.asha is None or spec.asha.max_tflops is None:
        return most
    return min(most, _epochs_until(spec.asha.max_tflops, trial, most))


def _epochs_until(tflops: float, trial: TrialState, unknown: int) -> int:
    """The epoch at which a trial has spent this much, at its own cost an epoch; `unknown` before it has a cost."""
    if not trial.tflops > 0:
        return unknown
    return trial.epoch + math.ceil((tflops - trial.tflops) / (trial.tflops / trial.epoch))


def collapse_grace(trial: TrialState, config: Judged, spec: SweepSpec) -> int:
    """Epochs before collapse is judged: of those that the trial can have, which its TFLOPs may make few."""
    if config.health.grace_epochs is not None:
        return config.health.grace_epochs
    latest, first_rung = trial.results[-1], spec.scheduler.rule.grace_epochs if spec.scheduler else 0
    if spec.asha is not None and spec.asha.on_tflops:
        first_rung = _epochs_until(spec.asha.grace, trial, first_rung)
    settling = workload.find(spec.workload).settling_steps(config.mapping())
    return health.collapse_grace(full_epochs(spec, trial, config.num_epochs), latest.step // latest.epoch, settling,
                                 first_rung)


def _collapse(trial: TrialState, config: Judged, saved: int, spec: SweepSpec) -> Ending | None:
    latest = trial.results[-1]
    if not trial.collapsed_once:
        return None  # as almost all are; the grace needs the whole config, which takes longer than all the rest
    grace = collapse_grace(trial, config, spec)
    epochs, flags = zip(*((result.epoch, result.verdict == "collapsed") for result in trial.results), strict=True)
    finding = health.collapse(epochs, flags, grace, config.health.patience, config.health.profile)
    if finding is None:
        return None
    sentence = f"{finding.sentence}. {finding.meaning} {finding.remedy}"
    return Ending("stopped", finding.rule, sentence, saved, value=latest.objective)


def _by_rule(spec: SweepSpec, state: SweepState, trial: TrialState, saved: int) -> Ending | None:
    if spec.scheduler is None or trial.repeats is not None:
        return None
    if spec.scheduler.median is not None:
        return _median(spec, spec.scheduler.median, state, trial, saved)
    assert spec.scheduler.asha is not None, "a Scheduler has exactly one rule"
    return _asha(spec, spec.scheduler.asha, state, trial, saved)


def _asha(spec: SweepSpec, asha: Asha, state: SweepState, trial: TrialState, saved: int) -> Ending | None:
    latest = trial.results[-1]
    bracket = asha.bracket(trial.number)
    ladder = Ladder.of(state, asha, spec.maximise)
    levels = ladder.levels(bracket)
    reached = rungs.rung_reached(levels, before(asha, trial), asha.place(latest))
    if reached is None:
        return None
    arrivals = ladder.arrivals(bracket, reached)
    decision = rungs.decide_among(rated(latest, spec.maximise), arrivals, asha.reduction_factor)
    if decision.goes_on:
        return None
    cutoff = decision.value if spec.maximise else -decision.value
    unit = " TFLOP" if asha.on_tflops else ""
    value, limit = _apart(latest.objective, cutoff)
    sentence = (f"{spec.primary} {value}{_state(latest)} at epoch {latest.epoch} is not among the "
                f"best {decision.places} of {decision.arrivals} trials at rung {short(levels[reached])}{unit} "
                f"(cutoff {limit})")
    rung = levels[reached] if asha.on_tflops else int(levels[reached])
    return Ending("paused" if asha.promote else "stopped", "asha", sentence, saved, rung, latest.objective, cutoff,
                  decision.arrivals)


def promotable(spec: SweepSpec, state: SweepState) -> TrialState | None:
    """The paused trial to go on with: among the best at its rung by now; the highest rung first, then the best."""
    asha = spec.asha
    if asha is None or not asha.promote:
        return None
    ladder = Ladder.of(state, asha, spec.maximise)
    found = [(level, value, -number, trial) for level, value, number, trial, arrivals in ladder.best_paused()
             if value > rungs.NEVER and rungs.decide_among(value, arrivals, asha.reduction_factor).goes_on]
    return state.trials[max(found)[3]] if found else None


def wants_another_seed(spec: SweepSpec, state: SweepState) -> TrialState | None:
    """The first config to train again: its first training was not stopped, and further seeds are asked for."""
    return None if spec.seeds == 1 else Unrepeated.of(state, spec.seeds).first(state)


def cut_short(spec: SweepSpec, state: SweepState) -> list[TrialState]:
    """Trials that only the budget stopped, where it has been raised since."""
    if spent_budget(spec, state, trials=False):
        return []
    return [trial for trial in state.with_status("stopped") if trial.rule == "budget"]


def _median(spec: SweepSpec, median: Median, state: SweepState, trial: TrialState, saved: int) -> Ending | None:
    latest = trial.results[-1]
    if latest.epoch < median.grace_epochs:
        return None
    means = Means.of(state, spec.maximise)
    others, best = means.others(trial), means.best(trial)
    goes_on, middle = rungs.among_means(rated(best, spec.maximise), others, median.min_trials)
    if goes_on:
        return None
    cutoff = middle if spec.maximise else -middle
    value, limit = _apart(best.objective, cutoff)
    sentence = (f"the best {spec.primary} up to epoch {latest.epoch}, {value}{_state(best)} at epoch {best.epoch}, is "
                f"worse than {limit}, the median of the running means of {len(others)} trials")
    return Ending("stopped", "median", sentence, saved, latest.epoch, best.objective, cutoff, len(others))


def _apart(value: float, cutoff: float) -> tuple[str, str]:
    """Both numbers with four digits, or with as many as it takes to tell them apart."""
    digits = next((digits for digits in range(4, 17) if f"{value:.{digits}g}" != f"{cutoff:.{digits}g}"), 4)
    return f"{value:.{digits}g}", f"{cutoff:.{digits}g}"


def _state(result: Result) -> str:
    return "" if is_sound(result.verdict) else f" ({words(result.verdict)})"


def _by_budget(spec: SweepSpec, state: SweepState, saved: int) -> Ending | None:
    spent = spent_budget(spec, state, trials=False)
    return out_of_budget(spent, saved) if spent else None


def out_of_budget(spent: str, saved: int) -> Ending:
    """The end of a trial because of what is `spent`."""
    return Ending("stopped", "budget", f"the sweep's budget is spent: {spent}", saved)


_USED: dict[str, Callable[[SweepSpec, SweepState], float]] = {
    "trials": lambda spec, state: float(state.config_count), "epochs": lambda spec, state: float(state.epochs),
    "hours": lambda spec, state: state.seconds / 3600, "tflops": lambda spec, state: state.tflops,
    "gpu_hours": lambda spec, state: (
        state.trial_seconds * spec.resources.gpus * spec.resources.workers / 3600)}


def used(spec: SweepSpec, state: SweepState) -> dict[str, float]:
    """What each part of a budget counts, as far as it is spent; configs count as trials."""
    return {name: amount(spec, state) for name, amount in _USED.items()}


def spent_budget(spec: SweepSpec, state: SweepState, trials: bool = True) -> str | None:
    """A sentence that says which part of the budget is spent, None while none is.

    Args:
        trials: whether the number of trials counts; it ends suggestions, not running trials.
    """
    budget: Budget = spec.budget
    for name, amount in _USED.items():
        limit = getattr(budget, name)
        if limit is not None and (trials or name != "trials") and (spent := amount(spec, state)) >= limit:
            return f"{short(spent)} of {short(limit)} {name}"
    return None
