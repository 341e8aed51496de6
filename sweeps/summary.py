"""What a sweep came to: info objects first, sentences second. Read by the end of a launch, status and explain."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from sweeps.display import counts_text, number, params_text
from sweeps.spec import Sweep
from sweeps.state import SweepState, TrialState, is_sound, ranking


@dataclass(frozen=True)
class Totals:
    """Counts and costs of a sweep.

    Attributes:
        epochs_saved: epochs that stopped and diverged trials did not train.
    """

    trials: int
    completed: int
    stopped: int
    failed: int
    unfinished: int
    collapsed: int
    epochs: int
    epochs_saved: int
    tflops: float
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
        epochs_saved=sum((trial.reason or {}).get("epochs_saved", 0) for trial in trials),
        tflops=state.tflops,
        seconds=state.seconds,
    )


def best_sentence(sweep: Sweep, state: SweepState) -> str:
    """Which trial is best so far, and why."""
    rows = ranking(state, sweep.spec.maximise)
    if not rows:
        return "no trial has a result to rank yet"
    trial, result = rows[0]
    text = (f"best: {trial.id} with {sweep.spec.primary} {number(result.objective)} at epoch {result.epoch} "
            f"({params_text(trial.params)})")
    if not is_sound(result.verdict):
        return f"no trial is live; {text}, {result.verdict.replace('_', ' ')}"
    if len(rows) > 1:
        text += f"; next is {rows[1][0].id} with {number(rows[1][1].objective)}"
    return text


def status(sweep: Sweep, state: SweepState) -> dict[str, Any]:
    """Everything `lam sweep status --json` prints."""
    rows = ranking(state, sweep.spec.maximise)
    return {
        "name": sweep.spec.name, "objective": sweep.spec.primary, "finished": state.finished,
        "totals": asdict(totals(state)), "best": rows[0][0].id if rows else None,
        "trials": [_trial(trial, sweep.spec.maximise) for trial in state.trials.values()],
    }


def _trial(trial: TrialState, maximise: bool) -> dict[str, Any]:
    best = trial.best(maximise)
    return {"id": trial.id, "state": trial.status, "epoch": trial.epoch, "verdict": trial.verdict,
            "objective": best.objective if best else math.nan, "params": trial.params, "reason": trial.reason}


def explain(sweep: Sweep, state: SweepState, trial_id: str | None = None) -> list[str]:
    """A sentence for each trial (or the one named), and for all of them the totals."""
    chosen = [state.trials[trial_id]] if trial_id else list(state.trials.values())
    lines = [_sentence(sweep, trial) for trial in chosen]
    return lines if trial_id else [*lines, *totals_lines(state)]


def _sentence(sweep: Sweep, trial: TrialState) -> str:
    told = f"{trial.id} ({params_text(trial.params)})"
    if trial.status == "completed":
        return f"{told} completed: {sweep.spec.primary} {number(trial.objective)}, {trial.verdict.replace('_', ' ')}"
    if trial.final:
        return f"{told} {trial.status} at epoch {trial.epoch}: {(trial.reason or {})['sentence']}"
    return f"{told} has trained {trial.epoch} of {sweep.max_epochs} epochs and will go on"


def totals_lines(state: SweepState) -> list[str]:
    """Counts, and what was spent and saved."""
    total = totals(state)
    full = total.epochs + total.epochs_saved
    saved = f", {total.epochs_saved} saved of {full} ({total.epochs_saved / full:.0%})" if total.epochs_saved else ""
    return [f"{total.trials} trials: {counts_text(state)}",
            f"spent {total.epochs} epochs{saved}, {total.tflops:.4g} TFLOP, {total.seconds:.0f} s"]
