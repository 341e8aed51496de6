"""What a sweep's driver and its readers cost as the sweep grows: growth from 100 to 10,000 trials within one run.

    python benchmarks/bench_scale.py [--trials 100 1000 10000] [--results 100]
                                     [--rule none asha promote median stock written]

The real driver, journal, searcher (random) and scheduler; a fake engine stands in for Ray and reports at once, 200
trials at a time. Microseconds of driver a result and a suggestion, each also for the last tenth of the sweep alone,
where a cost that grows with it would show. The journal lies in memory, so that the product's own work is measured; what
forcing an event to this machine's disk adds is told beside. Then the commands `status`, `explain` and `replay` on what
the sweep left, from a process's start to its end, and the largest peak memory of the three.

`stock` is Ray Tune's OptunaSearch (random), AsyncHyperBandScheduler and Trials on the same curves, called as its
controller calls them: no journal, no log, no snapshot, nothing on a disk. `written` is for the readers alone: a journal
of trials that all trained to their end, which no driver wrote. All seconds are processor time, in brackets a clock's.
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
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

AT_A_TIME = 200
MEMORY = Path("/dev/shm")
COST = ("results", "result_us", "result_last_us", "next_us", "next_last_us", "grown_mib", "peak_mib")
RULES: dict[str, Any] = {
    "none": "none", "asha": {"asha": {"max_epochs": 0, "reduction_factor": 4}},
    "promote": {"asha": {"max_epochs": 0, "reduction_factor": 4, "promote": True}},
    "median": {"median": {"max_epochs": 0}}}


def sweep_file(folder: Path, trials: int, results: int, rule: str) -> Path:
    """The sweep's YAML."""
    from record import yamlio

    scheduler = RULES.get(rule, "none")
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


def write(folder: Path, trials: int, results: int) -> dict[str, float]:
    """A whole sweep without a driver; what there is of it to read."""
    import written_journal

    from sweeps.journal import folders
    from sweeps.spec.load import load

    sweep, home = load(sweep_file(folder, trials, results, "written")), folder / "scale"
    home.mkdir()
    folders.write_identity(sweep, home, "none")
    written_journal.write(sweep, home, trials, results, AT_A_TIME, record)
    return {"results": trials * results}


def cost(tell: Clocked, ask: Clocked, before: int) -> dict[str, float]:
    """What results and suggestions took, and what the process has grown by since it had `before` bytes."""
    import resource

    import psutil

    grown, peak = psutil.Process().memory_info().rss - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = len(tell.times), *tell.micros(), *ask.micros(), grown / 2**20, peak / 2**10
    return dict(zip(COST, values, strict=True))


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


OTHERS = {"stock": drive_stock, "written": write}
COMMANDS = {"status": ["status"], "explain": ["explain"], "replay": ["replay", "--policy", "asha:reduction_factor=3"]}


def read(command: str, home: Path) -> dict[str, float]:
    """Seconds of a processor that a command takes from its start to its end, of a clock, and its peak memory."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "lam", "sweep", *COMMANDS[command], str(home)], cwd=ROOT,
                               stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, f"{command} ended with {status}"
    return {"seconds": used.ru_utime + used.ru_stime, "clock": time.perf_counter() - begin,
            "peak_mib": used.ru_maxrss / 1024}


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
    done = subprocess.run([sys.executable, __file__, "--part", *words], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(rule: str, trials: int, results: int) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        driven = apart(folder, str(trials), str(results), rule)
        found = [read(command, Path(folder) / "scale") for command in COMMANDS if rule != "stock"]
    cells = [f"{driven[name]:.0f}" if name in driven else "-" for name in COST]
    cells += [f"{one['seconds']:.1f} ({one['clock']:.1f})" for one in found] or ["-"] * len(COMMANDS)
    return f"| {rule} | {trials} | {' | '.join(cells)} | {max((one['peak_mib'] for one in found), default=0):.0f} |"


def main() -> None:
    """Run one part, or all and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--results", type=int, default=100)
    parser.add_argument("--rule", nargs="+", default=["asha", "median"], choices=[*RULES, *OTHERS])
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        folder, trials, results, rule = given.part
        act = OTHERS.get(rule) or partial(drive, rule=rule)
        print(json.dumps(act(Path(folder), int(trials), int(results))))
        return
    print(f"an event forced to the disk: {forced():.0f} us more; load {os.getloadavg()[0]:.1f}\n")
    print("| rule | trials | results | us a result | of the last tenth | us a next | of the last tenth | grown by MiB "
          "| peak MiB | status s (clock) | explain s | replay s | peak MiB |\n|" + "---|" * 13)
    for rule in given.rule:
        for trials in given.trials:
            print(row(rule, trials, given.results), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
