"""Do the promoted config's codes recover the true actions? The promoted demonstration, trained on seeds it never saw.

    make demo && .venv/bin/python benchmarks/bench_demo.py [demo/production.yaml] [--trials demo/runs/demo]

Each seed is trained by `lam train demo/production.yaml` and measured on the test split by `lam evaluate`: the probe
is a logistic regression on the one-hot code slots, fitted on training videos; its gain is its accuracy minus that of
always naming the commonest action, with bounds clustered by video. With --trials the kept weights of every trial of the
sweep are asked the same instead, best ranked first: is the winner's probe near the best of them?
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LAM = Path(sys.executable).parent / "lam"
SEEDS = (2001, 2002, 2003)
PROMISED_GAIN = 0.10


def measure(production: Path, seed: int, folder: Path) -> dict[str, Any]:
    """Train the config on a seed and evaluate it on the test split."""
    run = folder / f"seed-{seed}"
    subprocess.run([LAM, "train", production, "--set", f"seed={seed}", "--run-dir", run], check=True,
                   stdout=subprocess.DEVNULL)
    done = subprocess.run([LAM, "evaluate", run, "--split", "test", "--json"], check=True, capture_output=True,
                          text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def trials(sweep: Path) -> None:
    """A line for each trial of a sweep, in the order of its ranking, and how far the winner is from the best probe."""
    from sweeps.journal.folders import open_sweep
    from sweeps.journal.state import ranking

    asked, state = open_sweep(sweep)
    probes = []
    print("| trial | ended | objective | probe on the test split |\n|---|---|---|---|")
    for trial, result in ranking(state, asked.spec.maximise):
        done = subprocess.run([LAM, "evaluate", sweep / "trials" / trial.id, "--split", "test", "--json"], check=True,
                              capture_output=True, text=True)
        probes.append(json.loads(done.stdout)["probe"]["accuracy"])
        print(f"| {trial.id} | {trial.status} at {trial.epoch} | {result.objective:.3f} | {probes[-1]:.3f} |")
    apart = max(probes) - probes[0]
    print(f"the winner's probe {probes[0]:.3f}, the best of {len(probes)} {max(probes):.3f}: {apart:.3f} apart")


def row(seed: int, result: dict[str, Any]) -> str:
    """One line of the table."""
    probe, metrics = result["probe"], result["metrics"]
    return (
        f"| {seed} | {probe['accuracy']:.3f} | {probe['majority']:.3f} | {probe['shuffled']:.3f} "
        f"| {probe['gain']:+.3f} [{probe['gain_low']:+.3f}, {probe['gain_high']:+.3f}] "
        f"| {metrics['val/mse_loss']:.3f} | {metrics['val/mse_copy']:.3f} | {metrics['val/control']:.3f} |"
    )


def main(production: Path) -> int:
    """Print the table; 1 where a seed misses what the demonstration promises."""
    print("| seed | accuracy | commonest | shuffled labels | gain, 95 % | MSE | copy MSE | control |")
    print("|---|---|---|---|---|---|---|---|")
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            result = measure(production, seed, Path(folder))
            print(row(seed, result), flush=True)
            probe, metrics = result["probe"], result["metrics"]
            missed += not (probe["gain"] >= PROMISED_GAIN and probe["gain_low"] > 0
                           and metrics["val/mse_loss"] < metrics["val/mse_copy"])
    print(f"{len(SEEDS) - missed} of {len(SEEDS)} seeds: gain at least {PROMISED_GAIN}, its lower bound above 0, and "
          "a smaller error than copying the last frame")
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("production", nargs="?", type=Path, default=Path("demo/production.yaml"))
    parser.add_argument("--trials", metavar="SWEEP", type=Path, help="ask the trials of this sweep instead")
    given = parser.parse_args()
    if given.trials:
        trials(given.trials)
    else:
        sys.exit(main(given.production))
