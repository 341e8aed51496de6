"""What a sweep would do, without doing it: the space, the ladder of rungs, and bounds on what it may spend."""

from __future__ import annotations

import math
from pathlib import Path

from sweeps import audit, checks, folders, launching, ray_session, rungs, scheduler, spec, stores
from sweeps.probing import digests as probing_digests
from sweeps.spec import Sweep


def plan(path: str | Path, prepare: launching.Prepare | None = None) -> list[str]:
    """Validate a sweep and its data, and describe it in lines.

    Raises:
        BadInput: what `launch` would refuse before it starts Ray.
    """
    sweep = spec.load(path)
    stores.check(sweep.home(folders.sweep_folder(sweep)))
    (prepare or launching.prepare_data)(launching.data_configs(sweep))
    return [*checks.warnings(sweep), *_space(sweep), *_audit(sweep, probing=prepare is None), *_ladder(sweep),
            *_cost(sweep)]


def _space(sweep: Sweep) -> list[str]:
    return [f"{len(sweep.spec.space)} knobs, every corner is a valid run:",
            *(f"  {name}: {knob}" for name, knob in sweep.space_mapping().items())]


def _audit(sweep: Sweep, probing: bool) -> list[str]:
    steps = launching.steps_per_epoch(sweep) if probing else None
    found = audit.audit(sweep, probing_digests if probing else None, steps)
    return ["does each knob act?", *(f"  {item.sentence}" for item in found)]


def _ladder(sweep: Sweep) -> list[str]:
    if sweep.spec.scheduler is None:
        return [f"no early stopping; each trial trains {sweep.max_epochs} epochs"]
    if sweep.spec.scheduler.median is not None:
        rule = sweep.spec.scheduler.median
        return [f"from epoch {rule.grace_epochs} of {rule.max_epochs} on, a trial below the median of at least "
                f"{rule.min_trials} others ends"]
    asha = sweep.spec.scheduler.asha
    assert asha is not None, "a Scheduler has exactly one rule"
    unit, total = ("TFLOP", f"{asha.maximum:g}") if asha.on_tflops else ("epochs", str(asha.max_epochs))
    lines = []
    for bracket in range(asha.brackets):
        levels = ", ".join(f"{level:.4g}" for level in scheduler.ladder(asha, bracket))
        name = f"bracket {bracket + 1}: " if asha.brackets > 1 else ""
        lines.append(f"{name}rungs at {unit} {levels or 'none'} of {total}; the best 1 in "
                     f"{asha.reduction_factor:g} goes on at each{', the others are paused' if asha.promote else ''}")
    return lines


def _cost(sweep: Sweep) -> list[str]:
    budget, cpus = sweep.spec.budget, ray_session.cpus()
    limits = ", ".join(f"{value:g} {name}" for name, value in budget.model_dump(exclude_none=True).items())
    lines = [f"budget: {limits}; the first one spent ends the sweep"]
    if budget.trials is not None:
        least, most = epochs_bounds(sweep, budget.trials)
        lines.append(f"epochs: at least {least} (every rung stops all it may) and at most {most}")
    at_a_time = math.floor(cpus / sweep.spec.resources.cpu)
    if not sweep.spec.resources.gpu:
        lines.append(f"{sweep.spec.concurrency or at_a_time} trials at a time on this machine ({cpus} CPUs)")
    return lines


def epochs_bounds(sweep: Sweep, trials: int) -> tuple[int, int]:
    """(fewest, most) epochs that `trials` trials train when none fails, as far as plain rungs bound them."""
    asha = sweep.spec.asha
    if asha is None or asha.on_tflops or asha.promote or asha.brackets > 1:
        return trials * sweep.max_epochs, trials * sweep.max_epochs
    ladder = [*rungs.levels(asha.grace_epochs, asha.max_epochs, asha.reduction_factor), asha.max_epochs]
    spent, alive, before = 0, trials, 0
    for rung in ladder:
        spent += alive * (rung - before)
        alive, before = math.ceil(alive / asha.reduction_factor), rung
    return spent, trials * sweep.max_epochs
