"""What a sweep runs next, when no trial waits to come back: a promotion, a further seed, or a new config. Pure."""

from __future__ import annotations

from typing import Any

from record.journal import events
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.search import searcher
from sweeps.spec.spec import Sweep


def following(sweep: Sweep, base: dict[str, Any],
              state: SweepState) -> events.TrialInterrupted | events.Suggested | None:
    """The event that puts a trial to work: a paused one that goes on, or a new one; None where the sweep is done.

    Args:
        sweep: what was asked for.
        base: the mapping of `sweep.base`, which need not be made for each trial.
        state: all that has happened.
    """
    spec = sweep.spec
    if scheduler.spent_budget(spec, state, trials=False):
        return None
    promoted = scheduler.promotable(spec, state)
    if promoted is not None:
        return events.TrialInterrupted(trial=promoted.id, epoch=promoted.epoch)
    first = scheduler.wants_another_seed(spec, state)
    if first is not None:
        return _new(state, params=first.params, seed=sweep.base.seed + len(state.repeats_of(first)), repeats=first.id)
    if scheduler.spent_budget(spec, state):
        return None
    asked = searcher.ask(spec, base, state)
    if asked is None:
        return None
    return _new(state, params=asked[0], attrs=asked[1] or None, seed=sweep.base.seed if spec.seeds > 1 else None)


def _new(state: SweepState, **what: Any) -> events.Suggested:
    given = {name: value for name, value in what.items() if value is not None}
    return events.Suggested(trial=f"t{len(state.trials) + 1:04d}", **given)
