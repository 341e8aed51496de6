"""Many trials at a time, each with a result a second, in real Ray actors that ask for next to no CPU: ours and Tune's.

    python benchmarks/bench_concurrent.py [--trials 200] [--seconds 60] [--arms ours stock]

All trials of an arm wait until the last of them runs; from then on each sleeps a second and reports, so many times.
Told are the seconds from there until the last trial has ended, over the seconds that the sleeps alone take, what the
driver's process needed of a processor meanwhile for a result, and the most memory that it had. The arms run one after
the other. Each trial is a process of some 150 MB: 200 of them want a machine with 32 GiB and some cores to start on.
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
sys.path[:0] = [str(ROOT)]
ROOM, TRIALS, SECONDS = "BENCH_ROOM", "BENCH_TRIALS", "BENCH_SECONDS"


def beats(name: str) -> Iterator[int]:
    """Wait for the other trials, then say 1, 2, 3, ... a second apart; notes when this one began and ended."""
    room = Path(os.environ[ROOM])
    (room / f"ready-{name}").touch()
    while len(list(room.glob("ready-*"))) < int(os.environ[TRIALS]):
        time.sleep(0.5)
    (room / f"begin-{name}").write_text(str(time.time()))
    for number in range(1, int(os.environ[SECONDS]) + 1):
        time.sleep(1.0)
        yield number
    (room / f"end-{name}").write_text(str(time.time()))


def train(config: Any, run_dir: Any) -> Iterator[dict[str, Any]]:
    """A trial of ours."""
    for epoch in beats(Path(run_dir).name):
        yield {"epoch": epoch, "step": epoch, "seconds": float(epoch), "total_tflops": 0.1 * epoch,
               "train/loss": 1.0, "val/mse_loss": 0.1, "val/objective": 1 - config.weight_decay, "val/collapsed": 0.0}


def ours(folder: Path, trials: int, seconds: int) -> None:
    """A sweep of ours, in this process."""
    from rich.console import Console

    from sweeps.commands.launching import Options, launch

    path = folder / "sweep.yaml"
    path.write_text(json.dumps({
        "name": "bench", "base": {"data_dir": "nowhere", "num_epochs": seconds}, "search": "random",
        "scheduler": "none", "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, "budget": {"trials": trials},
        "storage": str(folder), "resources": {"cpu": 0.001}, "concurrency": trials}))
    launch(path, options=Options(quiet=True, train="bench_concurrent:train", prepare=lambda configs: "none"),
           console=Console(quiet=True))


def stock(folder: Path, trials: int, seconds: int) -> None:
    """Ray Tune with its defaults, in this process."""
    import ray
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        for number in beats(config["name"]):
            tune.report({"value": config["weight_decay"], "number": number})

    ray.init("local", include_dashboard=False, object_store_memory=100 * 1024**2, log_to_driver=False)
    space = {"name": tune.grid_search([f"t{number}" for number in range(trials)]),
             "weight_decay": tune.uniform(0.0, 1.0)}
    tune.Tuner(tune.with_resources(trial, {"cpu": 0.001}), param_space=space,
               tune_config=tune.TuneConfig(max_concurrent_trials=trials),
               run_config=tune.RunConfig(name="bench", storage_path=str(folder), verbose=0)).fit()


ARMS = {"ours": ours, "stock": stock}


def driver(arm: str, folder: Path, trials: int, seconds: int) -> None:
    """Run an arm; print what its driver needed from the moment at which all trials ran."""
    import resource
    import threading

    begun: list[float] = []

    def watch() -> None:
        while len(list(folder.glob("begin-*"))) < trials:
            time.sleep(0.2)
        begun.append(time.process_time())

    threading.Thread(target=watch, daemon=True).start()
    ARMS[arm](folder, trials, seconds)
    used = time.process_time() - begun[0]
    print(json.dumps({"processor": used, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def measured(arm: str, trials: int, seconds: int) -> dict[str, float]:
    """An arm as a process of its own."""
    with tempfile.TemporaryDirectory(prefix="lam-", ignore_cleanup_errors=True) as name:
        room = Path(name)
        env = {**os.environ, ROOM: name, TRIALS: str(trials), SECONDS: str(seconds), "RAY_AIR_NEW_OUTPUT": "0",
               "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])}
        done = subprocess.run([sys.executable, __file__, "--driver", arm, name, str(trials), str(seconds)], check=True,
                              capture_output=True, text=True, env=env)
        begins = [float(file.read_text()) for file in room.glob("begin-*")]
        ends = [float(file.read_text()) for file in room.glob("end-*")]
        assert len(begins) == len(ends) == trials, (len(begins), len(ends), done.stderr[-2000:])
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return {"seconds": max(ends) - max(begins), "ratio": (max(ends) - max(begins)) / seconds,
                "result_us": 1e6 * found["processor"] / (trials * seconds), "mib": found["mib"]}


def main() -> None:
    """Run one arm, or all and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--driver", nargs=4)
    given = parser.parse_args()
    if given.driver:
        arm, folder, trials, seconds = given.driver
        driver(arm, Path(folder), int(trials), int(seconds))
        return
    print("| arm | trials | seconds | over the sleeps | us of the driver a result | peak MiB |\n|" + "---|" * 6)
    for arm in given.arms:
        row = measured(arm, given.trials, given.seconds)
        print(f"| {arm} | {given.trials} | {row['seconds']:.1f} | {row['ratio']:.2f} | {row['result_us']:.0f} "
              f"| {row['mib']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
