"""What a sweep's driver and its readers cost as the sweep grows: growth from 100 to 10,000 trials within one run.

    python benchmarks/bench_scale.py [--trials 100 1000 10000] [--results 100] [--rule none asha promote median stock]

The real driver, journal, searcher (random) and scheduler; a fake engine stands in for Ray and reports at once, 200
trials at a time. Microseconds of driver a result and a suggestion, each also for the last tenth of the sweep alone,
where a cost that grows with it would show. The journal lies in memory, so that the product's own work is measured; what
forcing an event to this machine's disk adds is told beside. Then `status`, `explain` and `replay` on what the sweep
left, in a process each, from its start to its end, and the largest peak memory of the three.

`stock` is Ray Tune's OptunaSearch (random), AsyncHyperBandScheduler and Trials on the same curves, called as its
controller calls them: no journal, no log, no snapshot, nothing on a disk. All seconds are processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

AT_A_TIME = 200
MEMORY = Path("/dev/shm")
RULES: dict[str, Any] = {
    "none": "none", "asha": {"asha": {"max_epochs": 0, "reduction_factor": 4}},
    "promote": {"asha": {"max_epochs": 0, "reduction_factor": 4, "promote": True}},
    "median": {"median": {"max_epochs": 0}}}


def sweep_file(folder: Path, trials: int, results: int, rule: str) -> Path:
    """The sweep's YAML."""
    from record import yamlio

    scheduler = RULES[rule]
    if isinstance(scheduler, dict):
        scheduler = {name: {**values, "max_epochs": results} for name, values in scheduler.items()}
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "scale", "base": {"data_dir": "nowhere", "num_epochs": results}, "search": "random",
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, "scheduler": scheduler, "budget": {"trials": trials},
        "concurrency": AT_A_TIME}))
    return path


class Clocked:
    """Seconds of a call, in all and of its last tenth."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call, self.times = call, array("f")

    def __call__(self, *given: Any, **named: Any) -> Any:
        begin = time.process_time()
        try:
            return self._call(*given, **named)
        finally:
            self.times.append(time.process_time() - begin)

    def micros(self) -> tuple[float, float]:
        """(mean of all, mean of the last tenth) in microseconds."""
        last = self.times[-max(1, len(self.times) // 10):]
        return 1e6 * sum(self.times) / len(self.times), 1e6 * sum(last) / len(last)


def drive(folder: Path, trials: int, results: int, rule: str) -> dict[str, float]:
    """Run a whole sweep with a fake engine; what it cost."""
    import psutil

    from record.journal.events import SweepFinished
    from sweeps.journal import folders
    from sweeps.journal.journal import Journal
    from sweeps.spec.load import load
    from sweeps.workers.driver import SweepDriver
    from sweeps.workers.engine import Job
    from sweeps.workers.entries import session_event

    sweep = load(sweep_file(folder, trials, results, rule))
    home = folder / "scale"
    home.mkdir()
    folders.write_identity(sweep, home, "none")
    journal = Journal(home)
    before = psutil.Process().memory_info().rss
    journal.append(session_event(sweep, begun=False))
    driver = SweepDriver(sweep, journal, "x:y", AT_A_TIME, lambda event: None, lambda: False)
    ask, tell = Clocked(driver.next), Clocked(driver.record)
    running: deque[tuple[str, float, int]] = deque()
    while True:
        while isinstance(job := ask(), Job):
            driver.started(job.id)
            running.append((job.id, job.config["weight_decay"], job.after + 1))
        if not running:
            break
        name, decay, epoch = running.popleft()
        on = tell(name, record(decay, epoch))
        driver.stopping()
        if on:
            running.append((name, decay, epoch + 1))
        else:
            driver.left(name, lost=False)
    journal.append(SweepFinished(reason="over"))
    journal.close()
    return cost(tell, ask, before)


def cost(tell: Clocked, ask: Clocked, before: int) -> dict[str, float]:
    """What results and suggestions took, and what the process has grown by since it had `before` bytes."""
    import psutil

    result, suggestion = tell.micros(), ask.micros()
    return {"results": len(tell.times), "result_us": result[0], "result_last_us": result[1],
            "next_us": suggestion[0], "next_last_us": suggestion[1],
            "driver_mib": (psutil.Process().memory_info().rss - before) / 2**20}


def drive_stock(folder: Path, trials: int, results: int) -> dict[str, float]:
    """The same load on what Ray Tune's controller calls, with its own trials."""
    os.environ.update({"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"})
    import optuna
    import psutil
    from ray.train._internal.storage import StorageContext
    from ray.tune.experiment import Trial
    from ray.tune.registry import register_trainable
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    register_trainable("nothing", lambda config: None)
    before = psutil.Process().memory_info().rss
    search = OptunaSearch({"weight_decay": optuna.distributions.FloatDistribution(0.0, 1.0)}, metric="val/objective",
                          mode="max", sampler=optuna.samplers.RandomSampler(seed=0))
    rungs = AsyncHyperBandScheduler(metric="val/objective", mode="max", time_attr="epoch", max_t=results)
    storage = StorageContext(str(folder), "stock")
    known: list[Trial] = []

    def suggest() -> Trial:
        name = f"t{len(known):05d}"
        trial = Trial("nothing", config=search.suggest(name), trial_id=name, storage=storage, stub=True)
        rungs.on_trial_add(None, trial)
        known.append(trial)
        return trial

    def told(trial: Trial, epoch: int) -> bool:
        result = {**record(trial.config["weight_decay"], epoch), "training_iteration": epoch}
        trial.update_last_result(result)
        on = epoch < results and rungs.on_trial_result(None, trial, result) == "CONTINUE"
        if on:
            search.on_trial_result(trial.trial_id, result)
        else:
            rungs.on_trial_complete(None, trial, result)
            search.on_trial_complete(trial.trial_id, result=result)
        return on

    ask, tell = Clocked(suggest), Clocked(told)
    running: deque[tuple[Trial, int]] = deque()
    while True:
        while len(known) < trials and len(running) < AT_A_TIME:
            running.append((ask(), 1))
        if not running:
            return cost(tell, ask, before)
        trial, epoch = running.popleft()
        if tell(trial, epoch):
            running.append((trial, epoch + 1))


def record(decay: float, epoch: int) -> dict[str, Any]:
    """An epoch's record; curves of different speeds, so that rungs have something to decide."""
    objective = 0.9 * (1 - decay) * (1 - math.exp(-epoch / (5 + 20 * decay)))
    return {"epoch": epoch, "step": 10 * epoch, "seconds": float(epoch), "total_tflops": 0.1 * epoch,
            "train/loss": 1.0, "val/mse_loss": 1 - objective, "val/objective": objective, "val/collapsed": 0.0}


def status(home: Path) -> None:
    """`lam sweep status`."""
    from sweeps.views import display, looking

    seen = looking.look(home)
    display.sentences(seen.sweep, seen.state, seen.at_work)
    display.table(seen.sweep, seen.state)


def explain(home: Path) -> None:
    """`lam sweep explain`."""
    from sweeps.journal import folders
    from sweeps.views import summary

    summary.explain(*folders.open_sweep(home))


def replay(home: Path) -> None:
    """`lam sweep replay --policy asha`."""
    from record.journal.journals import history
    from sweeps.journal import folders
    from sweeps.scheduling.replaying import recorded, replay_policy

    replay_policy(folders.sweep_in(home), recorded(history(home)), "asha:reduction_factor=3")


READERS = {"status": status, "explain": explain, "replay": replay}


def reading(name: str, home: Path) -> dict[str, float]:
    """Seconds of this process, once a reader has done its work, and its peak memory."""
    import resource

    READERS[name](home)
    return {"seconds": time.process_time(),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def forced(times: int = 200) -> float:
    """Microseconds of appending 400 bytes to a file on this machine's disk and forcing them there."""
    with tempfile.TemporaryFile() as file:
        begin = time.perf_counter()
        for _ in range(times):
            file.write(b"x" * 400)
            file.flush()
            os.fsync(file.fileno())
        return 1e6 * (time.perf_counter() - begin) / times


def apart(*words: str) -> dict[str, float]:
    """A part of this file in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run one part, or all and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--results", type=int, default=100)
    parser.add_argument("--rule", nargs="+", default=["asha", "median"], choices=[*RULES, "stock"])
    parser.add_argument("--part", nargs="+")
    given = parser.parse_args()
    if given.part and given.part[0] == "drive":
        _, folder, trials, results, rule = given.part
        found = (drive_stock(Path(folder), int(trials), int(results)) if rule == "stock" else
                 drive(Path(folder), int(trials), int(results), rule))
        print(json.dumps(found))
        return
    if given.part:
        print(json.dumps(reading(given.part[0], Path(given.part[1]))))
        return
    print(f"an event forced to the disk: {forced():.0f} us more\n")
    print("| rule | trials | results | us a result | of the last tenth | us a next | of the last tenth | MiB "
          "| status s | explain s | replay s | peak MiB |\n|" + "---|" * 12)
    for rule in given.rule:
        for trials in given.trials:
            with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
                driven = apart("--part", "drive", folder, str(trials), str(given.results), rule)
                read = {name: apart("--part", name, f"{folder}/scale") for name in READERS if rule != "stock"}
            cells = [f"{amount:.0f}" for amount in driven.values()]
            cells += [f"{found['seconds']:.1f}" for found in read.values()]
            cells += [f"{max(found['peak_mib'] for found in read.values()):.0f}"] if read else ["-"] * 4
            print(f"| {rule} | {trials} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
