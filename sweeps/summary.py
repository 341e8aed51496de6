"""What a sweep came to: info objects first, sentences second. Read by the end of a launch, status and explain."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from lam.metrics import TABLE
from sweeps import scheduler
from sweeps.display import counts_text, number, params_text
from sweeps.spec import Sweep
from sweeps.state import SweepState, TrialState, is_sound, pareto, ranking


@dataclass(frozen=True)
class Totals:
    """Counts and costs of a sweep.

    Attributes:
        epochs_saved, tflops_saved: what stopped and diverged trials did not train, at each one's own cost an epoch.
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
    return int((trial.reason or {}).get("epochs_saved", 0)) if trial.final else 0


@dataclass(frozen=True)
class Outlook:
    """How much of the budget is left.

    Attributes:
        left: part of the budget -> what is left of it.
        seconds: until the first part is spent, at the pace so far; NaN before anything is known of the pace.
    """

    left: dict[str, float]
    seconds: float


def outlook(sweep: Sweep, state: SweepState) -> Outlook:
    """What the budget still holds, and for how long; trials under way count as half done."""
    used, limits = scheduler.used(sweep.spec, state), sweep.spec.budget.model_dump(exclude_none=True)
    left = {name: max(0.0, limit - used[name]) for name, limit in limits.items()}
    if not state.unfinished and (state.finished or 0.0 in left.values()):
        return Outlook(left, 0.0)
    done = {**used, "trials": len(state.configs) - len(state.unfinished) / 2}
    times = [(limit - done[name]) / done[name] * state.seconds if done[name] > 0 else math.nan
             for name, limit in limits.items()]
    known = [seconds for seconds in times if math.isfinite(seconds)]
    return Outlook(left, max(0.0, min(known)) if known and state.seconds > 0 else math.nan)


def outlook_sentence(sweep: Sweep, state: SweepState) -> str:
    """The outlook in words."""
    found = outlook(sweep, state)
    left = ", ".join(f"{amount:.4g} {name.replace('_', ' ')}" for name, amount in found.left.items())
    if found.seconds == 0:
        return f"budget left: {left}; the sweep is over"
    when = "not known yet" if math.isnan(found.seconds) else f"in about {duration(found.seconds)}"
    return f"budget left: {left}; estimated end {when}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
        "totals": asdict(totals(state)), "outlook": asdict(outlook(sweep, state)),
        "health": dict(Counter(trial.verdict or "no result" for trial in state.trials.values())),
        "best": rows[0][0].id if rows else None, "pareto": front(sweep, state),
        "trials": [_trial(trial, sweep.spec.maximise) for trial in state.trials.values()],
    }


def front(sweep: Sweep, state: SweepState) -> list[str]:
    """Trials that none beats on every objective; empty where there is one objective."""
    keys = sweep.spec.objectives
    if len(keys) == 1:
        return []
    signs = {key: 1 if TABLE[key].direction == "up" else -1 for key in keys}
    return [trial.id for trial, _ in pareto(state, signs, sweep.spec.primary)]


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
    if trial.status == "paused":
        return f"{told} is paused at epoch {trial.epoch}: {(trial.reason or {})['sentence']}"
    return f"{told} has trained {trial.epoch} of {sweep.max_epochs} epochs and will go on"


def totals_lines(state: SweepState) -> list[str]:
    """Counts, and what was spent, saved and wasted."""
    total = totals(state)
    full = total.epochs + total.epochs_saved
    saved = f", {total.epochs_saved} saved of {full} ({total.epochs_saved / full:.0%})" if total.epochs_saved else ""
    wasted = f", {total.epochs_wasted} on failed or collapsed trials" if total.epochs_wasted else ""
    flops = f" ({total.tflops_saved:.4g} saved)" if total.tflops_saved else ""
    return [f"{total.trials} trials: {counts_text(state)}",
            f"spent {total.epochs} epochs{wasted}{saved}, {total.tflops:.4g} TFLOP{flops}, {total.seconds:.0f} s"]
