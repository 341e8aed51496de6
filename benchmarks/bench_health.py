"""Judging a run by its health profile, against parsing the run's own records: what a reader pays anyway.

    python benchmarks/bench_health.py [--runs 50]

Prints the CPU time of both and their ratio, for runs of 1,000 records each on which most rules fire.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from record.health import engine, expressions, profile
from record.health.columns import Table

EPOCHS = 1000
FACTS = {"steps_per_epoch": 10.0, "grace_epochs": 40.0, "collapse_patience": 2.0, "num_embeddings": 12.0}


def made_run(rng: np.random.Generator, names: list[str]) -> dict[str, Any]:
    """Columns of noise under the keys that the profile's rules read."""
    noise: dict[str, Any] = {name: rng.random(EPOCHS) for name in names}
    return noise | {"val/dsnr_status": np.array(["ok"] * EPOCHS, dtype=object)}


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main(runs: int) -> None:
    """Measure and print."""
    known = profile.load("lam")
    names = sorted({name for rule in known.rules if rule.metric is not None
                    for name in expressions.names(rule.metric) if "*" not in name and name not in FACTS})
    rng = np.random.default_rng(0)
    made = [made_run(rng, names) for _ in range(runs)]
    lines = [[json.dumps({key: column[at] for key, column in run.items()}) for at in range(EPOCHS)] for run in made]
    parsing = cpu_seconds(lambda: [[json.loads(line) for line in run] for run in lines])
    tables = [Table(np.arange(1, EPOCHS + 1.0), run, {}, FACTS) for run in made]
    judging = cpu_seconds(lambda: [engine.judge(table, known) for table in tables])
    print(f"{runs} runs of {EPOCHS} records, {len(names)} keys: parsing {parsing / runs * 1e3:.2f} ms a run, "
          f"judging {judging / runs * 1e3:.2f} ms a run, judging / parsing {judging / parsing:.2f}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--runs", type=int, default=50)
    main(arguments.parse_args().runs)
