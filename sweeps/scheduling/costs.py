"""What a sweep may cost, before it runs: bounds on its epochs, and from them operations and disk space."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from record.workload.knobs import Size
from record.workload.settings import Settings
from sweeps.spec import grid
from sweeps.spec.sections import Asha
from sweeps.spec.space import corners
from sweeps.spec.spec import Sweep

SIZED_CONFIGS = 16


@dataclass(frozen=True)
class Epochs:
    """Bounds on the epochs of all trials; None where nothing bounds them.

    Attributes:
        least: where no trial fails or collapses.
    """

    least: int | None
    most: int | None

    def sentence(self) -> str | None:
        """The bounds in words; None where there are none."""
        if self.most is None:
            return None
        if self.least is None:
            return f"epochs: at most {self.most}"
        if self.least == self.most:
            return f"epochs: {self.most} where no trial fails or collapses"
        return (f"epochs: at least {self.least} (every trial is stopped as early as the rule may, none fails or "
                f"collapses) and at most {self.most}")


def epochs(sweep: Sweep) -> Epochs:
    """What the number of configs bounds; the lower bound holds where nothing else may end trials or the sweep."""
    configs = most_configs(sweep)
    if configs is None:
        return Epochs(None, None)
    most = configs * sweep.spec.seeds * sweep.max_epochs
    others = sweep.spec.budget.model_dump(exclude_none=True).keys() - {"trials"}
    on_tflops = sweep.spec.asha is not None and sweep.spec.asha.on_tflops
    if others or on_tflops or any(config.stops_early for config in _some_configs(sweep)):
        return Epochs(None, most)
    return Epochs(least_epochs(sweep, configs), most)


def most_configs(sweep: Sweep) -> int | None:
    """How many configs the sweep can train at most; None where their number has no limit."""
    limits = [] if sweep.spec.budget.trials is None else [sweep.spec.budget.trials]
    if sweep.spec.search.grid is not None:
        limits.append(len(grid.grid(sweep.spec.space, sweep.base.mapping(), sweep.spec.seed)))
    return min(limits, default=None)


def least_epochs(sweep: Sweep, configs: int) -> int:
    """Epochs where the rule stops as many as it ever may; a config that is trained in full gets all its seeds."""
    full, spent = configs, configs * sweep.max_epochs
    if sweep.spec.scheduler is not None and sweep.spec.scheduler.median is not None:
        # The first min_trials to reach an epoch have too few others there, so as many reach the last one.
        median = sweep.spec.scheduler.median
        full = min(configs, median.min_trials)
        spent = full * sweep.max_epochs + (configs - full) * median.grace_epochs
    elif sweep.spec.asha is not None:
        full, spent = _least_by_rungs(sweep.spec.asha, configs)
    return spent + full * (sweep.spec.seeds - 1) * sweep.max_epochs


def _least_by_rungs(asha: Asha, configs: int) -> tuple[int, int]:
    """(trials that must come through all rungs of their ladder, epochs of all)."""
    dealt = Counter(map(asha.bracket, range(configs)))
    through = spent = 0
    for bracket, alive in dealt.items():
        before = 0
        for rung in map(int, asha.ladder(bracket)):
            spent += alive * (rung - before)
            alive, before = least_through(alive, asha), rung
        spent += alive * (asha.max_epochs - before)
        through += alive
    return through, spent


def least_through(arrivals: int, asha: Asha) -> int:
    """How many of the arrivals at a rung go on at least: each one may be the worst so far.

    Paused ones are judged again once all have arrived, so of them the best one in eta go on.
    """
    if asha.promote:
        return math.ceil(arrivals / asha.reduction_factor)
    return sum(number <= math.ceil(number / asha.reduction_factor) for number in range(1, arrivals + 1))


def sizes(sweep: Sweep) -> list[Size]:
    """Sizes at the base and at corners of the space, counted without training; the data must be there."""
    found = (sweep.workload.size(config) for config in _some_configs(sweep)[:SIZED_CONFIGS])
    return [size for size in found if size is not None]


def _some_configs(sweep: Sweep) -> list[Settings]:
    """The configs at the corners of the space."""
    return [sweep.config(params) for params in corners(sweep.spec.space, sweep.base.mapping())]


def size_lines(found: list[Size], bounds: Epochs, trials: int | None) -> list[str]:
    """The sizes in words, and what they come to at most.

    Args:
        trials: how many there are at most, None where that has no limit.
    """
    later = "time: 'lam sweep status' estimates it from the first epochs on"
    if not found:
        return [later]
    tflops, kept = [item.tflops_per_epoch for item in found], max(item.kept_bytes for item in found)
    total = f"; about {max(tflops) * bounds.most:.3g} TFLOP in all at most" if bounds.most is not None else ""
    disk = f", {megabytes(kept * trials)} in all" if trials is not None else ""
    return [f"operations: about {spread(min(tflops), max(tflops))} TFLOP an epoch{total}",
            f"disk: about {megabytes(kept)} of weights a trial at most{disk}; a trial under way has about five times "
            "its weights, and records and samples come on top",
            later]


def spread(low: float, high: float) -> str:
    """One number, or two where they differ."""
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def megabytes(count: float) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
