"""The four arms of the VQ comparison on real play: no codes, strong commitment with and without revival, gentle.

    .venv/bin/python benchmarks/four_arms.py [FOLDER] [--jobs 2]

Makes the data by `lam data demo`, trains configs/{no_vq,vq_refresh,vq_no_refresh,vq_gentle}.yaml with one small model
on three seeds each (12 trainings; the same command again goes on where it was), and writes docs/examples/four-arms.md
and .html by `lam report`. Weights and data stay in FOLDER.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LAM = [sys.executable, "-m", "lam.cli"]
ROOT = Path(__file__).resolve().parents[1]
ARMS = ("no_vq", "vq_refresh", "vq_no_refresh", "vq_gentle")
SEEDS = (0, 1, 2)
DATA = ("--size", "64", "--episodes", "48", "--length", "96")
# One small model and schedule for every arm: 30 epochs, as the arms say, of 40 steps.
MODEL = {"sequence_length": 4, "embed_dim": 64, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "steps_per_epoch": 40, "learning_rate": "3e-3", "lr_decay_epochs": 30, "warmup_steps": 30,
         "eval_sequences": 160, "threads": 1}


def train(arm: str, seed: int) -> Path:
    """One training, in the folder that is current; where it has finished nothing happens."""
    run = Path("runs") / f"{arm}-{seed}"
    run.parent.mkdir(exist_ok=True)
    given = [word for key, value in (MODEL | {"data_dir": Path("data").resolve(), "seed": seed}).items()
             for word in ("--set", f"{key}={value}")]
    with (run.parent / f"{run.name}.log").open("a") as said:
        subprocess.run([*LAM, "train", ROOT / "configs" / f"{arm}.yaml", *given, "--run-dir", run], check=True,
                       stdout=said)
    print(f"{run} has finished", flush=True)
    return run


def report(runs: list[Path], out: Path) -> None:
    """The comparison as a page and as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([*LAM, "report", *runs, "--baseline", runs[0], "-o", out / "four-arms.html",
                    "-o", out / "four-arms.md"], check=True)


def main() -> None:
    """Data, twelve trainings, one report."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("folder", nargs="?", type=Path, default=Path("four-arms"))
    asked.add_argument("--jobs", type=int, default=2, help="trainings side by side, one thread each")
    given = asked.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(given.folder)
    subprocess.run([*LAM, "data", "demo", "data", *DATA], check=True)
    with ThreadPoolExecutor(given.jobs) as turns:
        runs = list(turns.map(lambda each: train(*each), ((arm, seed) for arm in ARMS for seed in SEEDS)))
    report(runs, ROOT / "docs" / "examples")


if __name__ == "__main__":
    main()
