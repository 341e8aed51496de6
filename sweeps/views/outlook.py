"""How much of a sweep's budget is left, for how long it lasts, and whether anybody is at work on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from record.errors import LamError
from record.text import duration, short, words
from sweeps.journal import folders
from sweeps.journal.state import SweepState, TrialState
from sweeps.scheduling import scheduler
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep


@dataclass(frozen=True)
class Outlook:
    """How much of the budget is left.

    Attributes:
        left: part of the budget -> what is left of it.
        seconds: until the first part is spent, at the pace so far; 0 once the sweep is over; NaN before anything is
            known of the pace, and while no driver is at work.
    """

    left: dict[str, float]
    seconds: float


def outlook(sweep: Sweep, state: SweepState, at_work: bool | None = True) -> Outlook:
    """What the budget still holds, and for how long; of a trial under way, its epochs count.

    Args:
        at_work: whether a driver is; None = not known.
    """
    used, limits = scheduler.used(sweep.spec, state), sweep.spec.budget.model_dump(exclude_none=True)
    left = {name: max(0.0, limit - used[name]) for name, limit in limits.items()}
    if is_over(sweep, state, left):
        return Outlook(left, 0.0)
    done = {**used, "trials": sum(_part(sweep, state, trial) for trial in state.configs)}
    if at_work is False or state.seconds <= 0 or done["trials"] == 0:
        return Outlook(left, math.nan)
    times = [(limit - done[name]) / done[name] * state.seconds for name, limit in limits.items() if done[name] > 0]
    return Outlook(left, max(0.0, min(times, default=math.nan)))


def is_over(sweep: Sweep, state: SweepState, left: dict[str, float]) -> bool:
    """Whether nothing more will be trained, as far as the budget tells."""
    if state.unfinished:
        return False
    if state.finished:
        return True
    return 0.0 in left.values() and scheduler.wants_another_seed(sweep.spec, state) is None


def _part(sweep: Sweep, state: SweepState, first: TrialState) -> float:
    """How much of a config's trainings is done: of the epochs that its budget buys, 1 for a training that ended."""
    if first.status in ("stopped", "failed", "paused"):  # no further seeds follow
        return 1.0
    trainings = state.repeats_of(first)
    return sum(1.0 if trial.final else trial.epoch / scheduler.full_epochs(sweep.spec, trial, sweep.max_epochs)
               for trial in trainings) / sweep.spec.seeds


def sentence(sweep: Sweep, state: SweepState, at_work: bool | None = True) -> str:
    """The outlook in words."""
    found = outlook(sweep, state, at_work)
    left = ", ".join(f"{short(amount)} {words(name)}" for name, amount in found.left.items())
    if found.seconds == 0 and is_over(sweep, state, found.left):
        return f"budget left: {left}; the sweep is over"
    if at_work is False:
        return f"budget left: {left}"
    when = "not known yet" if math.isnan(found.seconds) else f"in about {duration(found.seconds)}"
    return f"budget left: {left}; estimated end {when}"


def nobody_sentence(sweep: Sweep, folder: Path) -> str:
    """That no driver is at work, and what goes on: a command where the folder's own YAML is the whole sweep."""
    folder = folder.absolute()
    try:
        whole = folder.name == sweep.spec.name and load(folder / "sweep.yaml").fingerprint() == sweep.fingerprint()
    except (LamError, OSError):  # its base lies beside the YAML of the first launch
        whole = False
    again = f"resume with: {folders.resume_command(folder)}" if whole else "the command that launched it resumes it"
    return f"no driver is at work; {again}"
