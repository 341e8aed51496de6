"""Deception: on curves where collapsed configs show the highest raw DSNR, who is picked?

    python benchmarks/bench_deception.py [--table deception] [--seeds 20] [--real DATA_DIR]

Beside the product's own searcher, scheduler and ranking stands stock Ray Tune with OptunaSearch and ASHA on raw
DSNR, over the same recorded curves with the same budget.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from simulate import Ours, Stock, play
from tables import Table

FULL_RUNS = 40  # the budget, in full trainings of a mean config: a third of what the whole table cost


def facts(table: Table) -> dict[str, Any]:
    """How deceptive the table is."""
    last = [table.record(row, table.epochs_of(row)) for row in range(len(table.rows))]
    dsnr = [table.raw_dsnr(record) for record in last]
    living = [row for row, record in enumerate(last) if is_living(table, row, record)]
    highest = max(dsnr[row] for row in living)
    above = [row for row, record in enumerate(last) if record["val/collapsed"] and dsnr[row] > highest]
    return {"configs": len(last), "living": len(living), "collapsed": sum(bool(r["val/collapsed"]) for r in last),
            "highest_living_raw_dsnr": highest, "collapsed_above_it": len(above),
            "share_collapsed_above": len(above) / len(last),
            "best_probe": max(table.rows[row]["probe"]["accuracy"] for row in living)}


def is_living(table: Table, row: int, record: dict[str, Any]) -> bool:
    """Per-slot perplexity of 2 or more, and codes that tell the action better than always guessing the commonest."""
    probe = table.rows[row]["probe"]
    return bool((record["val/perplexity_slot"] or 0) >= 2 and probe and probe["accuracy"] > probe["majority"]
                and not record["val/collapsed"])


def budget_of(table: Table, runs: float) -> float:
    """TFLOPs of so many full trainings."""
    costs = [table.record(row, table.epochs)["total_tflops"] for row in range(len(table.rows))]
    return runs * sum(costs) / len(costs)


def pick(table: Table, method: Ours | Stock) -> dict[str, Any]:
    """What a method names after the budget."""
    trace = play(table, method, budget_of(table, FULL_RUNS))
    row = trace.incumbents[-1][1]
    record = table.record(row, table.epochs_of(row))
    return {"row": row, "living": is_living(table, row, record),
            "probe": (table.rows[row]["probe"] or {}).get("accuracy"),
            "objective": record["val/objective"], "raw_dsnr": table.raw_dsnr(record), "trials": trace.trials}


def default(table: Table) -> dict[str, Any]:
    """The product's default search."""
    return {"scheduler": {"asha": {"max_epochs": table.epochs}}}


def real(table: Table, data_dir: str, seed: int) -> dict[str, Any]:
    """The same search trained for real: what `lam sweep launch` names, measured with its kept weights."""
    from lam.training import console
    from record.run import RunFolder
    from sweeps import launch
    from sweeps.commands.launching import Options
    from sweeps.journal.state import ranking

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        base = {key: value for key, value in table.base.items() if key not in table.space}
        path.write_text(json.dumps({
            "name": f"real-{seed}", "base": {**base, "data_dir": str(Path(data_dir).absolute())}, "seed": seed,
            "space": table.space_mapping, "budget": {"tflops": budget_of(table, FULL_RUNS)}, "storage": folder,
            **default(table)}))
        state = launch(path, options=Options(quiet=True), console=Console(quiet=True))
        trial, result = ranking(state, True)[0]
        measured = console.measured(RunFolder(Path(folder) / f"real-{seed}" / "trials" / trial.id), "test")
    probe, metrics = measured["probe"], measured["metrics"]
    return {"seed": seed, "trials": len(state.trials), "params": trial.params, "objective": result.objective,
            "perplexity_slot": metrics["val/perplexity_slot"], "probe": probe["accuracy"],
            "majority": probe["majority"],
            "living": metrics["val/perplexity_slot"] >= 2 and probe["accuracy"] > probe["majority"]}


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", default="deception", help="a table of benchmarks/data")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--real", metavar="DATA_DIR", help="also train 3 seeds for real, on the table's latents")
    arguments = parser.parse_args()
    seeds = arguments.seeds
    table = Table(arguments.table)
    known = facts(table)
    found: dict[str, Any] = {"table": known}
    for name, make in {"ours": lambda seed: Ours(table, seed, **default(table)),
                       "stock": lambda seed: Stock(table, seed, table.raw_dsnr)}.items():
        picks = [pick(table, make(seed)) for seed in range(seeds)]
        found[name] = {
            "living": sum(row["living"] for row in picks), "of": seeds,
            "probe_within_5_percent": sum(row["living"] and row["probe"] >= 0.95 * known["best_probe"]
                                          for row in picks),
            "picks": [{key: round(value, 4) if isinstance(value, float) and math.isfinite(value) else value
                       for key, value in row.items()} for row in picks],
        }
    if arguments.real:
        found["real"] = [real(table, arguments.real, seed) for seed in range(3)]
    print(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
