"""Many trials at a time that each have a result a second: what the driver passes on, beside stock Ray Tune's.

    python benchmarks/bench_concurrent.py [--trials 200] [--seconds 60] [--arm ours stock]

Real Ray actors that take no CPU to speak of (0.01). Each waits until all are there, then sleeps a second an epoch, as
many epochs as there are seconds; the whole would take so many seconds if nothing cost anything. No early stopping,
random search. Ours is the product's launch, its journal forced to the disk; stock is `Tuner` with its defaults and a
class trainable. Of each: results a second of the clock, from when all run until the last result, beside the ideal; by
how much the time between two results of a trial is over a second; processor seconds of the driver and of Ray's own
processes; and the memory of a worker, pages that several share counted in parts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MOST_SECONDS = 900.0
EPOCH_SECONDS = 1.0
CPU = 0.01


def train(config: Any, run_dir: Any) -> Iterator[dict[str, Any]]:
    """`lam.train`'s interface: sleeps and reports."""
    await_all(Path(run_dir).name, config.weight_decay)
    for epoch in range(1, config.num_epochs + 1):
        sleep(Path(run_dir).name, last=epoch == config.num_epochs)
        yield {"epoch": epoch, "step": epoch, "seconds": EPOCH_SECONDS * epoch, "total_tflops": 0.1 * epoch,
               "train/loss": 1.0, "val/mse_loss": 0.1, "val/objective": 1 - config.weight_decay}


def await_all(name: str, share: float) -> None:
    """Say that this trial is there, and wait until all are; they then begin within a second, not all at once."""
    place = Path(os.environ["BENCH_PLACE"])
    (place / f"ready-{name}").touch()
    while not (place / "go").exists():
        time.sleep(0.2)
    time.sleep(share * EPOCH_SECONDS)


def sleep(name: str, last: bool) -> None:
    """An epoch; the last one is announced, so that the end need not be looked for in what the driver writes."""
    time.sleep(EPOCH_SECONDS)
    if last:
        (Path(os.environ["BENCH_PLACE"]) / f"done-{name}").touch()


def ours(trials: int, seconds: int, folder: Path) -> None:
    """A sweep, as `lam sweep launch` runs it."""
    from rich.console import Console

    from record import yamlio
    from sweeps.commands.launching import Options, launch

    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "bench", "base": {"data_dir": "nowhere", "num_epochs": seconds}, "search": "random",
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, "scheduler": "none", "budget": {"trials": trials},
        "storage": str(folder), "resources": {"cpu": CPU}, "concurrency": trials}))
    launch(path, options=Options(quiet=True, train="bench_concurrent:train", prepare=lambda configs: "none"),
           console=Console(quiet=True))


def told_by_ours(folder: Path) -> list[tuple[str, float]]:
    """(trial, when) of each result, as the journal has it."""
    from record.journal.journals import history
    from record.journal.results import Told

    return [(event.trial, event.time.timestamp()) for event in history(folder / "bench")
            if isinstance(event, Told) or event.event == "result"]


def stock(trials: int, seconds: int, folder: Path) -> None:
    """Ray Tune with its defaults, and a callback that notes when each result comes."""
    import ray
    from ray import tune

    ray.init("local", include_dashboard=False, object_store_memory=100 * 1024**2, log_to_driver=False,
             _temp_dir=tempfile.mkdtemp(dir="/tmp", prefix="lam-"))

    class Sleeping(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._value = 1 - config["weight_decay"]
            self._begun = False

        def step(self) -> dict[str, Any]:
            if not self._begun:
                await_all(self.trial_id, 1 - self._value)
                self._begun = True
            last = self.iteration + 1 >= seconds
            sleep(self.trial_id, last)
            return {"val/objective": self._value, "val/mse_loss": 0.1, "done": last}

        def save_checkpoint(self, folder: str) -> None:
            return None

        def load_checkpoint(self, state: Any) -> None: ...

    class Noting(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            with open(folder / "told.jsonl", "a", encoding="utf-8") as file:  # Tune pickles what a callback keeps
                file.write(json.dumps([trial.trial_id, time.time()]) + "\n")

    tune.Tuner(tune.with_resources(Sleeping, {"cpu": CPU}), param_space={"weight_decay": tune.uniform(0.0, 1.0)},
               tune_config=tune.TuneConfig(metric="val/objective", mode="max", num_samples=trials),
               run_config=tune.RunConfig(storage_path=str(folder), name="stock", verbose=0,
                                         callbacks=[Noting()])).fit()


def told_by_stock(folder: Path) -> list[tuple[str, float]]:
    """(trial, when) of each result."""
    return [tuple(json.loads(line)) for line in (folder / "told.jsonl").read_text(encoding="utf-8").splitlines()]


ARMS = {"ours": (ours, told_by_ours), "stock": (stock, told_by_stock)}


def processes(driver: int) -> Iterator[tuple[str, Any]]:
    """(what it is: driver, ray or workers; the process) of all of a session."""
    import psutil

    for one in [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            yield "driver" if one.pid == driver else "workers" if one.name().startswith("ray::") else "ray", one


def spent(driver: int) -> dict[str, float]:
    """Processor seconds so far, of each kind of process."""
    found: dict[str, float] = defaultdict(float)
    for kind, one in processes(driver):
        used = one.cpu_times()
        found[kind] += used.user + used.system
    return dict(found)


def worker_mib(driver: int) -> float:
    """Memory of a worker: its share of what is in memory."""
    found = [one.memory_full_info().pss for kind, one in processes(driver) if kind == "workers"]
    return sum(found) / len(found) / 2**20


def measured(arm: str, trials: int, seconds: int) -> dict[str, Any]:
    """Run an arm in a process group of its own; what came of it."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name, open(f"{name}/log", "wb") as log:
        folder = Path(name)
        paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--part", arm, str(trials), str(seconds), name], stdout=log,
            stderr=log, start_new_session=True, env={**os.environ, "BENCH_PLACE": name, "PYTHONPATH": paths})
        try:
            return followed(arm, process, folder, trials)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def followed(arm: str, process: subprocess.Popen[bytes], folder: Path, trials: int) -> dict[str, Any]:
    """Let the trials begin once all are there, and measure until the last has ended."""
    start = time.monotonic()
    await_files(process, folder, "ready", trials)
    ready, memory = time.monotonic() - start, worker_mib(process.pid)
    before, begin = spent(process.pid), time.time()
    (folder / "go").touch()
    await_files(process, folder, "done", trials)
    after = spent(process.pid)
    assert process.wait() == 0, (folder / "log").read_text()[-3000:]
    used = {kind: round(after[kind] - before[kind], 1) for kind in ("driver", "ray")}  # workers end meanwhile
    return {"ready_s": round(ready, 1), **figures(ARMS[arm][1](folder), begin), "processor_s": used,
            "worker_mib": round(memory)}


def await_files(process: subprocess.Popen[bytes], folder: Path, kind: str, trials: int) -> None:
    """Until each trial has left its file."""
    begin = time.monotonic()
    while (there := len(list(folder.glob(f"{kind}-*")))) < trials:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() - begin < MOST_SECONDS, f"only {there} trials are {kind}"
        time.sleep(0.5)


def figures(found: list[tuple[str, float]], begin: float) -> dict[str, float]:
    """Results a second, the ideal, and what lies between two results of a trial beyond a second."""
    import numpy as np

    times: dict[str, list[float]] = defaultdict(list)
    for trial, when in found:
        times[trial].append(when)
    lags = np.concatenate([np.diff(each) for each in times.values()]) - EPOCH_SECONDS
    whole = max(when for _, when in found) - begin
    epochs = max(map(len, times.values()))
    ideal = EPOCH_SECONDS * (epochs + 1)  # trials begin within a second
    return {"trials": len(times), "results": len(found), "seconds": round(whole, 2),
            "over_ideal": round(whole / ideal, 3),
            "results_a_second": round(len(found) / whole, 1), "ideal_a_second": round(len(found) / ideal, 1),
            **{f"lag_ms_{name}": round(1000 * float(np.quantile(lags, share)), 1)
               for name, share in {"median": 0.5, "95": 0.95, "most": 1.0}.items()}}


def main() -> None:
    """Run one part, or both arms one after the other, and print a JSON document a line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--arm", nargs="+", default=[*ARMS], choices=[*ARMS])
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        arm, trials, seconds, folder = given.part
        ARMS[arm][0](int(trials), int(seconds), Path(folder))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    for arm in given.arm:
        load = os.getloadavg()[0]
        found = measured(arm, given.trials, given.seconds)
        print(json.dumps({"arm": arm, "load": round(load, 1), **found}), flush=True)


sys.path[:0] = [str(ROOT)]

if __name__ == "__main__":
    main()
