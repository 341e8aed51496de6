"""What a sweep came to: info objects first, sentences second. Read by the end of a launch, status and explain."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from record.journal.events import BASELINE
from record.journal.results import Result
from record.standing import is_sound
from record.text import count, share, short, words
from sweeps.journal.state import SweepState, TrialState, mean_result, pareto, ranking
from sweeps.spec.spec import Sweep
from sweeps.views import outlook
from sweeps.views.words import counts_text, params_text


@dataclass(frozen=True)
class Totals:
    """Counts and costs of a sweep.

    Attributes:
        epochs_saved, tflops_saved: what trials that a rule stopped did not train, at each one's own cost an epoch.
        epochs_wasted: epochs of trials that failed or ended collapsed.
    """

    trials: int
    completed: int
    stopped: int
    failed: int
    unfinished: int
    collapsed: int
    epochs: int
    epochs_saved: int
    epochs_wasted: int
    tflops: float
    tflops_saved: float
    seconds: float


def totals(state: SweepState) -> Totals:
    """Counts and costs so far."""
    trials = list(state.trials.values())
    return Totals(
        trials=len(trials),
        completed=len(state.with_status("completed")),
        stopped=len(state.with_status("stopped")),
        failed=len(state.with_status("failed")),
        unfinished=len(state.unfinished),
        collapsed=sum(trial.final and trial.verdict == "collapsed" for trial in trials),
        epochs=state.epochs,
        epochs_saved=sum(map(_saved, trials)),
        epochs_wasted=sum(trial.epoch for trial in trials if trial.status == "failed" or (
            trial.final and trial.verdict == "collapsed")),
        tflops=state.tflops,
        tflops_saved=sum(trial.tflops / trial.epoch * _saved(trial) for trial in trials if trial.epoch),
        seconds=state.seconds,
    )


def _saved(trial: TrialState) -> int:
    """Epochs saved by stopping early; a failure saves nothing, and neither does a budget that ran out."""
    by_rule = trial.status == "stopped" and trial.rule != "budget"
    return trial.reason.epochs_saved if by_rule and trial.reason else 0


def best_sentence(sweep: Sweep, state: SweepState) -> str:
    """Which trial is best so far, what speaks against it, and which is next; trials under way count."""
    rows = ranking(state, sweep.spec.maximise, True, sweep.needs_codes)
    if not rows:
        return "no trial has a result to rank yet"
    trial, result = rows[0]
    trainings = _averaged(state, trial)
    where, mean = (f" at epoch {result.epoch}", "") if len(trainings) == 1 else (
        "", f", the mean of {_seeds(trainings)}")
    text = (f"best: {trial.id} with {sweep.spec.primary} {short(result.objective)}{where} "
            f"({params_text(trial.params)}){mean}{_under_way(trial)}{_reservations(trial, result, not mean)}")
    if not is_sound(result.verdict, sweep.needs_codes):
        return f"no trial is live; {text}"
    if result.violation > 0:
        return f"no live trial is inside the constraints; {text}"
    if len(rows) > 1:
        text += f"; next is {rows[1][0].id} with {short(rows[1][1].objective)}{_under_way(rows[1][0])}"
    return text


def _averaged(state: SweepState, first: TrialState) -> list[TrialState]:
    """The trainings that a config's result is the mean of; the config's first one where none has ended."""
    return [trial for trial in state.repeats_of(first) if trial.final and _has_result(trial)] or [first]


def _has_result(trial: TrialState) -> bool:
    return any(math.isfinite(result.objective) for result in trial.results)


def _seeds(trainings: list[TrialState]) -> str:
    return f"{len(trainings)} seeds ({', '.join(trial.id for trial in trainings)})"


def _under_way(trial: TrialState) -> str:
    """What a trial that has not ended is doing, '' for one that has."""
    if trial.final:
        return ""
    doing = {"started": "still running", "paused": "paused"}.get(trial.status, "to go on")
    return f", {doing} at epoch {trial.epoch}"


def _reservations(trial: TrialState, result: Result, single: bool) -> str:
    """What a reader must know beside the number: another verdict, and limits that are not kept."""
    text = "" if is_sound(result.verdict) else f", {words(result.verdict)}"
    if single and trial.verdict != result.verdict:
        text += f", {'ended' if trial.final else 'now'} {words(trial.verdict)}"
    return text + outside(result.violation)


def outside(violation: float) -> str:
    """How far a result is outside the constraints, '' where it is inside."""
    if violation <= 0:
        return ""
    return f", outside its constraints by {short(violation)}" if math.isfinite(violation) else (
        ", a constraint could not be measured")


def status(sweep: Sweep, state: SweepState, at_work: bool | None = None) -> dict[str, Any]:
    """Everything `lam sweep status --json` prints.

    Args:
        at_work: whether a driver is; None = not known.
    """
    rows = ranking(state, sweep.spec.maximise, True, sweep.needs_codes)
    return {
        "name": sweep.spec.name, "objective": sweep.spec.primary, "finished": state.finished, "driver": at_work,
        "machines": state.machines, "waiting": state.waiting or None, "halted": state.halted or None,
        "totals": asdict(totals(state)), "outlook": asdict(outlook.outlook(sweep, state, at_work)),
        "health": dict(Counter(trial.verdict or "no result" for trial in state.trials.values())),
        "best": rows[0][0].id if rows else None, "pareto": front(sweep, state),
        "trials": [_trial(state, trial, sweep.spec.maximise) for trial in state.trials.values()],
    }


def front(sweep: Sweep, state: SweepState) -> list[str]:
    """Trials that none beats on every objective; empty where there is one objective."""
    keys = sweep.spec.objectives
    if len(keys) == 1:
        return []
    signs = {key: 1 if sweep.workload.maximises(key) else -1 for key in keys}
    return [trial.id for trial, _ in pareto(state, signs, sweep.spec.primary, sweep.needs_codes)]


def _trial(state: SweepState, trial: TrialState, maximise: bool) -> dict[str, Any]:
    best = trial.best(maximise)
    mean = mean_result(state.repeats_of(trial), maximise) if trial.repeats is None else None
    return {"id": trial.id, "state": trial.status, "epoch": trial.epoch, "verdict": trial.verdict,
            "objective": best.objective if best else math.nan, "best_epoch": best.epoch if best else None,
            "best_verdict": best.verdict if best else None, "violation": best.violation if best else None,
            "seed": trial.seed, "repeats": trial.repeats, "mean_objective": mean.objective if mean else None,
            "params": trial.params, "reason": trial.reason and trial.reason.as_written()}


def explain(sweep: Sweep, state: SweepState, trial_id: str | None = None) -> list[str]:
    """A sentence for each trial (or the one named), and for all of them the totals."""
    lines = [told["sentence"] for told in stories(sweep, state, trial_id)]
    return lines if trial_id else [*lines, *totals_lines(state)]


def stories(sweep: Sweep, state: SweepState, trial_id: str | None = None) -> list[dict[str, Any]]:
    """What `lam sweep explain --json` prints: of each trial (or the one named) what ended it, and the sentence."""
    chosen = [state.trials[trial_id]] if trial_id else list(state.trials.values())
    return [{"id": trial.id, "state": trial.status, "epoch": trial.epoch, "rule": trial.rule or None,
             "sentence": _sentence(sweep, trial) + _mean(sweep, state, trial)} for trial in chosen]


def _sentence(sweep: Sweep, trial: TrialState) -> str:
    again = f"; repeats {trial.repeats} with seed {trial.seed}" if trial.repeats else ""
    served = "in production; " if trial.asked == BASELINE else ""
    told = f"{trial.id} ({served}{params_text(trial.params)}{again})"
    if trial.status == "completed":
        return f"{told} completed: {sweep.spec.primary} {_best_in_words(trial, sweep.spec.maximise)}"
    if trial.reason:
        how = "is paused" if trial.status == "paused" else trial.status
        never = "; it was paused and never promoted" if trial.reason.paused else ""
        return f"{told} {how} at epoch {trial.epoch}: {trial.reason.sentence}{never}"
    return f"{told} has trained {trial.epoch} of {sweep.max_epochs} epochs and will go on"


def _best_in_words(trial: TrialState, maximise: bool) -> str:
    """The best value with its own epoch and verdict, then the last verdict where it is another."""
    best = trial.best(maximise)
    if best is None:
        return f"not finite, {words(trial.verdict)}"
    end = f", ended {words(trial.verdict)}" if trial.verdict != best.verdict else ""
    return f"{short(best.objective)} at epoch {best.epoch} ({words(best.verdict)}){end}{outside(best.violation)}"


def _mean(sweep: Sweep, state: SweepState, trial: TrialState) -> str:
    """The mean that ranks a config which was trained with several seeds; '' for other trials."""
    trainings = _averaged(state, trial)
    result = mean_result(trainings, sweep.spec.maximise)
    if trial.repeats or len(trainings) == 1 or result is None:
        return ""
    return f"; the mean of {_seeds(trainings)} is {short(result.objective)}"


def cluster_lines(state: SweepState) -> list[str]:
    """Machines that take no trial, what trials wait for, and why the last session ended early."""
    waiting = [state.waiting] if state.waiting else []
    halted = [f"the last session ended although there was work left: {state.halted}"] if state.halted else []
    return [*state.machines.values(), *waiting, *halted]


def totals_lines(state: SweepState) -> list[str]:
    """Counts, and what was spent, saved and wasted."""
    total = totals(state)
    full = total.epochs + total.epochs_saved
    saved = f", {total.epochs_saved} saved of {full} ({share(total.epochs_saved, full)})" if total.epochs_saved else ""
    wasted = f", {total.epochs_wasted} on failed or collapsed trials" if total.epochs_wasted else ""
    flops = f" ({short(total.tflops_saved)} saved)" if total.tflops_saved else ""
    return [f"{count(total.trials, 'trial')}: {counts_text(state)}",
            f"spent {total.epochs} epochs{wasted}{saved}, {short(total.tflops)} TFLOP{flops}, {total.seconds:.0f} s"]
