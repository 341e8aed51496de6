"""What a sweep would do, without doing it: the space, the ladder of rungs, and bounds on what it may spend."""

from __future__ import annotations

import math
from pathlib import Path

from sweeps.commands import launching
from sweeps.journal import folders, stores
from sweeps.scheduling import costs
from sweeps.spec import audit, checks
from sweeps.spec.load import load
from sweeps.spec.probing import digests as probing_digests
from sweeps.spec.spec import Sweep
from sweeps.workers import ray_session


def plan(path: str | Path, prepare: launching.Prepare | None = None) -> list[str]:
    """Validate a sweep and its data, and describe it in lines.

    Raises:
        BadInput: what `launch` would refuse before it starts Ray.
    """
    sweep = load(path)
    stores.check_store(sweep.home(folders.sweep_folder(sweep)))
    launching.prepared(sweep, launching.Options(prepare=prepare))
    return [*checks.warnings(sweep), *_space(sweep), *_audit(sweep, probing=prepare is None), *_ladder(sweep),
            *_cost(sweep, probing=prepare is None)]


def _space(sweep: Sweep) -> list[str]:
    return [f"{len(sweep.spec.space)} knobs, every corner is a valid run:",
            *(f"  {name}: {knob}" for name, knob in sweep.space_mapping().items())]


def _audit(sweep: Sweep, probing: bool) -> list[str]:
    steps = sweep.workload.steps_per_epoch(sweep.base) if probing else None
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
        levels = ", ".join(f"{level:.4g}" for level in asha.ladder(bracket))
        name = f"bracket {bracket + 1}: " if asha.brackets > 1 else ""
        lines.append(f"{name}rungs at {unit} {levels or 'none'} of {total}; at least the best 1 in "
                     f"{asha.reduction_factor:g} goes on at each{', the others are paused' if asha.promote else ''}")
    return lines


def _cost(sweep: Sweep, probing: bool) -> list[str]:
    limits = ", ".join(f"{value:g} {name}" for name, value in sweep.spec.budget.model_dump(exclude_none=True).items())
    bounds, configs = costs.epochs(sweep), costs.most_configs(sweep)
    sizes = costs.sizes(sweep) if probing else []
    trials = None if configs is None else configs * sweep.spec.seeds
    return [f"budget: {limits}; the first one spent ends the sweep",
            *filter(None, [bounds.sentence()]),
            *(costs.size_lines(sizes, bounds, trials) if sizes else []),
            *_at_a_time(sweep, ray_session.cpus())]


def _at_a_time(sweep: Sweep, cpus: int) -> list[str]:
    """How many trials run at once here; where the GPU decides, a launch counts what Ray finds."""
    asked = sweep.spec.resources
    fitting = math.floor(cpus / asked.cpu + 1e-9) // asked.workers
    if fitting == 0:
        return [f"no trial fits on this machine: each takes {asked.cpu * asked.workers:g} CPUs, here are {cpus}; lower "
                f"resources.cpu{' or workers' * (asked.workers > 1)}, or launch on a cluster with --address"]
    if asked.gpus:
        return [f"each trial takes {asked.gpus * asked.workers:g} GPU and {asked.cpu * asked.workers:g} CPUs; how many "
                "at a time, a launch finds out from Ray"]
    return [f"{min(sweep.spec.concurrency or fitting, fitting)} trials at a time on this machine ({cpus} CPUs)"]
