"""What a sweep costs beyond its training, as ratios within one run.

    python benchmarks/bench_overhead.py [--trials 100] [--bookkeeping 1000]

1. Seconds a trial beyond training, for many one-epoch trials of a training that takes 10 ms and imports torch, with
   Ray started and the first worker still to come:
   this product, stock Ray Tune with its defaults, stock with a reused class trainable and no loggers, and a
   plain in-process Optuna loop.
2. Bookkeeping: trials x 10 results of one-second sleeps on 16 logical CPUs, against the time that the sleeps
   alone take; and what the driver's memory grows by in 1,000 trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EPOCH_SECONDS = 0.01


def train(config: Any, run_dir: Any) -> Iterator[dict[str, Any]]:
    """`lam.train`'s interface: imports torch as a training does, sleeps and reports."""
    import torch

    assert torch.zeros(1) == 0
    return sleep(config, run_dir)


def sleep(config: Any, run_dir: Any) -> Iterator[dict[str, Any]]:
    """The same without torch: nothing but the bookkeeping is left."""
    seconds = float(os.environ["BENCH_EPOCH_SECONDS"])
    for epoch in range(1, config.num_epochs + 1):
        time.sleep(seconds)
        yield {"epoch": epoch, "step": epoch, "seconds": seconds * epoch, "total_tflops": 0.1 * epoch,
               "train/loss": 1.0, "val/mse_loss": 0.1, "val/objective": 1 - config.weight_decay}


def ours(trials: int, epochs: int = 1, concurrency: int = 1, epoch_seconds: float = EPOCH_SECONDS,
         train: str = "train") -> dict[str, float]:
    """Run a sweep as a process of its own: seconds from its first event, with Ray started, to its last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(json.dumps({
            "name": "bench", "base": {"data_dir": "nowhere", "num_epochs": epochs}, "search": "random",
            "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, "budget": {"trials": trials}, "storage": folder,
            "resources": {"cpu": 1}, "concurrency": concurrency}))
        code = ("import sys, json, resource\n"
                f"sys.path[:0] = [{str(ROOT / 'benchmarks')!r}]\n"
                "from rich.console import Console\n"
                "from sweeps.workers import ray_session\n"
                f"ray_session.cpus = lambda: {concurrency}\n"
                "from sweeps.commands.launching import Options, launch\n"
                "import psutil\n"
                "grown = []\n"
                "import sweeps.workers.driver as driver\n"
                "add = driver.SweepDriver._add\n"
                "def measured(self, *a, **k):\n"
                "    grown.append(psutil.Process().memory_info().rss)\n"
                "    return add(self, *a, **k)\n"
                "driver.SweepDriver._add = measured\n"
                f"launch({str(path)!r}, options=Options(quiet=True, train='bench_overhead:{train}', "
                "prepare=lambda configs: 'none'), console=Console(quiet=True))\n"
                "tenth = len(grown) // 10\n"
                "print(json.dumps({'bytes_a_trial': (grown[-1] - grown[tenth]) / max(1, len(grown) - tenth)}))")
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={
            **os.environ, "BENCH_EPOCH_SECONDS": str(epoch_seconds), "PYTHONPATH": os.pathsep.join(sys.path)})
        whole = time.perf_counter() - begin
        return {"seconds": _span(Path(folder) / "bench"), "command_seconds": whole, **json.loads(done.stdout)}


def _span(folder: Path) -> float:
    """Seconds from the first to the last event."""

    from sweeps.journal.journal import read

    times = [event.time for event in read(folder)]
    return (times[-1] - times[0]).total_seconds()


STOCK = """
import os, sys, json, time, tempfile
os.environ.update(RAY_AIR_NEW_OUTPUT="0", RAY_TQDM_PATCH_PRINT="0")
if {lean}:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
import ray
from ray import tune
ray.init(num_cpus={cpus}, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         _temp_dir=tempfile.mkdtemp(dir="/tmp"))

class Trial(tune.Trainable):
    def setup(self, config):
        import torch
        self.value = 1 - config["weight_decay"] + 0.0 * float(torch.zeros(1))
    def step(self):
        time.sleep({seconds})
        return {{"value": self.value, "done": True}}
    def reset_config(self, config):
        self.setup(config)
        return True
    def save_checkpoint(self, folder):
        return None
    def load_checkpoint(self, state):
        pass

def trial(config):
    import torch
    time.sleep({seconds})
    tune.report({{"value": 1 - config["weight_decay"] + 0.0 * float(torch.zeros(1))}})

tuner = tune.Tuner(Trial if {lean} else trial, param_space={{"weight_decay": tune.uniform(0.0, 1.0)}},
    tune_config=tune.TuneConfig(metric="value", mode="max", num_samples={trials},
                                reuse_actors=True if {lean} else None),
    run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0))
begin = time.perf_counter()
tuner.fit()
print("RESULT", json.dumps({{"seconds": time.perf_counter() - begin}}))
"""


def stock(trials: int, concurrency: int, lean: bool) -> float:
    """Seconds of `fit`, with Ray started.

    As many CPUs as trials at a time, not a limit on concurrency, keeps them apart: a limit leaves no trial waiting when
    one ends, and Tune then reuses no actor.
    """
    code = STOCK.format(lean=lean, cpus=concurrency, trials=trials, seconds=EPOCH_SECONDS)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return float(json.loads(line.removeprefix("RESULT"))["seconds"])


def plain(trials: int) -> float:
    """Seconds of a loop that asks Optuna and trains in this process."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        value = 1 - trial.suggest_float("weight_decay", 0.0, 1.0)
        time.sleep(EPOCH_SECONDS)
        return value

    begin = time.perf_counter()
    study.optimize(objective, n_trials=trials)
    return time.perf_counter() - begin


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100, help="trials of the first part; 0 leaves it out")
    parser.add_argument("--bookkeeping", type=int, default=1000, help="trials of the second part; 0 leaves it out")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"load_before": os.getloadavg()}
    if arguments.trials:
        found["overhead"] = overhead(arguments.trials)
    if arguments.bookkeeping:
        found["bookkeeping"] = bookkeeping(arguments.bookkeeping)
    found["load_after"] = os.getloadavg()
    print(json.dumps(found, indent=1))


def overhead(trials: int) -> dict[str, Any]:
    """Seconds a trial beyond training, and the ratios to ours; one trial at a time in all four."""
    training = trials * EPOCH_SECONDS
    whole = ours(trials)
    seconds = {"ours": whole["seconds"], "lean": stock(trials, 1, lean=True), "stock": stock(trials, 1, lean=False),
               "plain": plain(trials)}
    beyond = {name: (value - training) / trials for name, value in seconds.items()}
    return {"seconds_a_trial": beyond, "stock_over_ours": beyond["stock"] / beyond["ours"],
            "ours_over_lean": beyond["ours"] / beyond["lean"],
            "command_seconds_beyond_trials": whole["command_seconds"] - whole["seconds"]}


def bookkeeping(trials: int) -> dict[str, Any]:
    """Trials x 10 results of one-second sleeps, 16 at a time, against all sleeps divided by 16."""
    whole = ours(trials, epochs=10, concurrency=16, epoch_seconds=1.0, train="sleep")
    sleeping = trials * 10 / 16
    return {"trials": trials, "seconds": whole["seconds"], "command_seconds": whole["command_seconds"],
            "sleeping_seconds": sleeping, "ratio": whole["seconds"] / sleeping,
            "driver_megabytes_per_1000_trials": whole["bytes_a_trial"] * 1000 / 1e6}


if __name__ == "__main__":
    main()
