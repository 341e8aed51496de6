"""Search efficiency on recorded curves: TFLOPs until the incumbent is in the top 2 % of its table.

    python benchmarks/bench_efficiency.py TABLE [--seeds 30] [--runs 60] [--by last|best|probe|near] [--candidates]

The incumbent is the config that a method would name at that moment; its rank is that of its mean objective over the
recorded seeds: with `--by last` at full budget, as stock names its best; with `--by best` at a seed's best epoch, by
which this product ranks and keeps weights. Where validations are noisy the two are not the same configs; `--by probe`
favours neither: what the kept weights tell of the actions of test videos, which no search has seen; `--by near` asks
for any config whose probe is within 5 % of the best one's, as bench_deception does. `probe_of_pick` is the mean probe
of the incumbents after a tenth, a quarter, a half and all of the budget. All methods have the same objective
(val/objective), curves and budget. `stock, with our rungs` tells what the ladder alone does. With ``--candidates``
other settings of this product stand beside its default: the default was chosen on `breakout` and is reported on `pong`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_deception import budget_of
from simulate import Method, Ours, Stock, Trace, objective, play
from tables import Table

from sweeps.spec.sections import Asha

TOP_SHARE = 0.02
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the budget, at which the incumbents are asked for their probe
STOCK = "stock Ray + Optuna + ASHA"
FULL_RUNS = 60  # the budget of a search unless told, in full trainings of a mean config; the table cost 200

Make = Callable[[Table, int], Method]

METHODS: dict[str, Make] = {
    "random": lambda table, seed: Ours(table, seed, search="random"),
    "random + ASHA": lambda table, seed: Stock(table, seed, objective, random=True),
    STOCK: lambda table, seed: Stock(table, seed, objective),
    "stock, with our rungs": lambda table, seed: Stock(table, seed, objective, **rungs_of(table)),
    "default": lambda table, seed: Ours(table, seed, scheduler={"asha": {"max_epochs": table.epochs}}),
}


def rungs_of(table: Table) -> dict[str, float]:
    """Our default ladder in Ray's words."""
    ours = Asha.model_validate({"max_epochs": table.epochs})
    return {"grace_period": ours.grace_epochs, "reduction_factor": ours.reduction_factor}


SEARCHES: dict[str, Any] = {"sobol": "qmc", **{
    f"{'joint ' * joint}tpe from {start}": {"tpe": {"n_startup_trials": start, "multivariate": joint}}
    for start in (10, 30) for joint in (False, True)}}
CANDIDATES: dict[str, Make] = {
    f"{name}, first rung {grace}, eta {eta}": (
        lambda table, seed, search=search, eta=eta, grace=grace: Ours(  # type: ignore[misc]
            table, seed, search=search,
            scheduler={"asha": {"max_epochs": table.epochs, "grace_epochs": grace, "reduction_factor": eta}}))
    for name, search in SEARCHES.items()
    for grace in (1, 2, 3, 4) for eta in (3, 4)
}


def top(table: Table, by: str = "last") -> set[int]:
    """Rows in the top 2 % by mean objective over seeds, at full budget or at the best epoch, or by the test probe.

    `near` takes all within 5 % of the best probe instead.
    """
    if by == "near":
        probes = np.array([probe(table, row) for row in range(len(table.rows))])
        return {int(row) for row in np.flatnonzero(probes >= 0.95 * np.nanmax(probes))}
    ways = {"last": table.final, "best": functools.partial(best_epoch, table), "probe": functools.partial(probe, table)}
    finals = [ways[by](row) for row in range(len(table.rows))]
    worth = [-math.inf if math.isnan(value) else value for value in finals]
    order = sorted(range(len(finals)), key=lambda row: worth[row], reverse=True)
    return set(order[: max(1, round(TOP_SHARE * len(order)))])


def best_epoch(table: Table, row: int) -> float:
    """Mean over the seeds of the highest objective of an epoch."""
    place = table.columns.index("val/objective")
    values = [[epoch[place] for epoch in curve if epoch[place] is not None] for curve in table.repeats[row]]
    return float(np.mean([max(curve, default=math.nan) for curve in values]))


def probe(table: Table, row: int) -> float:
    """Accuracy of the probe on the test videos; NaN where no weights were kept."""
    found = table.rows[row]["probe"]
    return found["accuracy"] if found else math.nan


def incumbent_probe(table: Table, trace: Trace, spent: float) -> float:
    """Test probe of the config a method would have named by then; the commonest action's share before that."""
    rows = [row for when, row in trace.incumbents if when <= spent]
    first = next(row["probe"]["majority"] for row in table.rows if row["probe"])
    found = probe(table, rows[-1]) if rows else math.nan
    return first if math.isnan(found) else found


def mean_probe(table: Table, traces: list[Trace], spent: float) -> float:
    """Of the incumbents of several searches."""
    return round(float(np.mean([incumbent_probe(table, trace, spent) for trace in traces])), 3)


def summary(values: list[float], budget: float) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval, a search that did not get there counted with the whole budget."""
    capped = np.minimum(np.array(values), budget)
    means = _resampled(capped).mean(axis=1)
    return {"mean": float(capped.mean()), "low": float(np.quantile(means, 0.025)),
            "high": float(np.quantile(means, 0.975)), "median": float(np.median(capped)),
            "reached": int(np.isfinite(values).sum()), "of": len(values)}


def ratio(values: list[float], others: list[float], budget: float) -> dict[str, float]:
    """Ratio of the capped means, seeds resampled in each."""
    a, b = (np.minimum(np.array(row), budget) for row in (values, others))
    ratios = _resampled(a).mean(axis=1) / _resampled(b, 1).mean(axis=1)
    return {"ratio": float(a.mean() / b.mean()), "low": float(np.quantile(ratios, 0.025)),
            "high": float(np.quantile(ratios, 0.975))}


def _resampled(values: Any, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return values[generator.integers(len(values), size=(2000, len(values)))]


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0, help="a seed begins alike on every table")
    parser.add_argument("--runs", type=float, default=FULL_RUNS, help="budget of a search, in full trainings")
    parser.add_argument("--by", choices=["last", "best", "probe", "near"], nargs="+", default=["last"],
                        help="what the top is ranked by; several are of the same searches")
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--methods", nargs="+", help="only these, and stock")
    arguments = parser.parse_args()
    table = Table(arguments.table)
    budget = budget_of(table, arguments.runs)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    methods = {**METHODS, **(CANDIDATES if arguments.candidates else {})}
    asked = {STOCK, *(arguments.methods or methods)}
    traces = {name: [play(table, make(table, seed), budget) for seed in seeds]
              for name, make in methods.items() if name in asked}
    print(json.dumps({
        "table": arguments.table, "configs": len(table.rows), "budget_tflops": budget, "seeds": arguments.seeds,
        "probe_of_pick": {name: [mean_probe(table, played, share * budget) for share in SHARES]
                          for name, played in traces.items()},
        **{by: compared(traces, top(table, by), budget) for by in arguments.by},
    }, indent=1))


def compared(traces: dict[str, list[Trace]], good: set[int], budget: float) -> dict[str, Any]:
    """TFLOPs until the incumbent is one of `good` and stays so, of each method and against stock."""
    values = {name: [trace.until(good) for trace in played] for name, played in traces.items()}
    return {"configs": len(good), "methods": {
        name: {**summary(row, budget), "against_stock": ratio(row, values[STOCK], budget)}
        for name, row in values.items()}}


if __name__ == "__main__":
    main()
