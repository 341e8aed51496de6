"""What the indexes of stopping rules must equal: the same answers by a walk over all trials and results."""

from __future__ import annotations

from sweeps.journal.state import SweepState, TrialState
from sweeps.scheduling.arrivals import before, is_lost, rated
from sweeps.spec import rungs
from sweeps.spec.sections import Asha


def rung_value(trial: TrialState, asha: Asha, rung: float, previous: float, maximise: bool) -> float | None:
    """What a trial is worth at a rung: its first result there; None where it has not arrived.

    A trial that diverged or collapsed for good on the way from the `previous` rung counts as an
    arrival worth minus infinity: it took the place of one that would have arrived. One that was lost where the
    previous rung judged it counts there.
    """
    for result in trial.results:
        if asha.place(result) >= rung:
            return rated(result, maximise)
    return rungs.NEVER if is_lost(trial) and before(asha, trial) >= previous else None


def arrivals(state: SweepState, asha: Asha, bracket: int, reached: int, maximise: bool) -> list[float]:
    """What each trial of the bracket that has come to a rung was worth there, the worst first."""
    levels = asha.ladder(bracket)
    previous = levels[reached - 1] if reached else 0.0
    found = [rung_value(trial, asha, levels[reached], previous, maximise) for trial in state.configs
             if asha.bracket(trial.number) == bracket]
    return sorted(value for value in found if value is not None)


def promotable(state: SweepState, asha: Asha, maximise: bool) -> TrialState | None:
    """The paused trial to go on with."""
    found: list[tuple[float, float, TrialState]] = []
    for trial in state.with_status("paused"):
        bracket = asha.bracket(trial.number)
        levels = asha.ladder(bracket)
        reached = rungs.rung_reached(levels, 0.0, asha.place(trial.results[-1]))
        assert reached is not None
        value = rated(trial.results[-1], maximise)
        among = arrivals(state, asha, bracket, reached, maximise)
        among.remove(value)
        if value > rungs.NEVER and rungs.decide(value, among, asha.reduction_factor).goes_on:
            found.append((levels[reached], value, trial))
    return max(found, key=lambda row: row[:2], default=(0.0, 0.0, None))[2]


def other_means(state: SweepState, trial: TrialState, maximise: bool) -> list[float]:
    """The running means of the others at the trial's last epoch, the worst first."""
    epoch = trial.results[-1].epoch
    others = [[rated(result, maximise) for result in other.results if result.epoch <= epoch]
              for other in state.configs if other is not trial and other.epoch >= epoch]
    return sorted(sum(values) / len(values) for values in others if values)


def wants_another_seed(state: SweepState, seeds: int) -> TrialState | None:
    """The first config to train again."""
    return next((trial for trial in state.with_status("completed")
                 if trial.repeats is None and len(state.repeats_of(trial)) < seeds), None)


def spent(state: SweepState) -> tuple[int, int, float, float]:
    """Configs, epochs, operations and training time of all trials."""
    trials = state.trials.values()
    return (len(state.configs), sum(trial.epoch for trial in trials), sum(trial.tflops for trial in trials),
            sum(trial.seconds for trial in trials))
