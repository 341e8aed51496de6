"""Driver, worker, node or tracker is killed, again and again in random order, and the sweep goes on each time.

KILL_ROUNDS=50 for more rounds than the test has by itself; what came of them goes to KILL_FIGURES, a JSON file.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback_cluster import ROOT, Cluster, cluster, free_port, wait_until
from sweep_driver import spec

from sweeps.journal.journal import read
from sweeps.journal.state import replay

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]
ROUNDS = int(os.environ.get("KILL_ROUNDS", "8"))
MOST_SECONDS = float(os.environ.get("KILL_SECONDS", "inf"))  # begin no further round after so many
CODE = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import fake_training
from record.errors import LamError
from sweeps.commands.launching import Options, launch
try:
    launch({path!r}, options=Options(address={address!r}, quiet=True, train="fake_training:train",
                                     prepare=fake_training.prepare))
except LamError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Stage:
    """A cluster of a head and two nodes, an MLflow server and a driver; each can be killed and comes back."""

    def __init__(self, nodes: Cluster, folder: Path) -> None:
        self.nodes, self.folder, self.port = nodes, folder, free_port()
        self.journal = folder / "runs" / "demo"
        self.names = ["one", "two"]
        self.count = len(self.names)
        for name in self.names:
            nodes.add(name)
        self.start_tracker()
        self.path = spec(folder, space={"weight_decay": {"uniform": [0.0, 0.8]}}, search="random", scheduler="none",
                         budget={"trials": 100_000}, concurrency=2,
                         base={"data_dir": "nowhere", "num_epochs": 4,
                               "tracking": {"mlflow": f"http://127.0.0.1:{self.port}"}})
        self.start_driver()

    def start_driver(self) -> None:
        self.driver = self.nodes.driver(CODE.format(tests=str(ROOT / "tests"), root=str(ROOT), path=str(self.path),
                                                    address=self.nodes.address))

    def start_tracker(self) -> None:
        words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri",
                 f"sqlite:///{self.folder}/mlflow.db", "--port", str(self.port), "--workers", "1"]
        with open(self.folder / "mlflow.log", "ab") as log:
            self.tracker = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def results(self) -> list[Any]:
        return [event for event in read(self.journal) if event.event == "result"] if self.journal.exists() else []

    def kill(self, what: str, generator: random.Random) -> None:
        """Kill it, and bring back what does not come back by itself."""
        if what == "driver":
            self.driver.kill()
            self.driver.communicate()
            self.start_driver()
        elif what == "worker":
            self._kill_worker(generator)
        elif what == "node":
            name = self.names.pop(generator.randrange(len(self.names)))
            self.nodes.kill(name)
            self.count += 1
            self.names.append(f"node{self.count}")
            self.nodes.add(self.names[-1])
        else:
            self.end_tracker()
            self.start_tracker()

    def _kill_worker(self, generator: random.Random) -> None:
        running = [trial.id for trial in replay(read(self.journal)).trials.values() if trial.status == "started"]
        for trial in generator.sample(running, len(running)):
            calls = self.journal / "trials" / trial / "calls.jsonl"
            pid = json.loads(calls.read_text().splitlines()[-1])["pid"] if calls.exists() else 0
            if pid and psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
                return

    def end_tracker(self) -> None:
        os.killpg(self.tracker.pid, signal.SIGKILL)
        self.tracker.wait()


def a_round(stage: Stage, what: str, generator: random.Random, kept: list[Any]) -> float:
    """Kill one thing; seconds until the next result after it stands in the journal."""
    time.sleep(generator.uniform(0.0, 1.0))
    before = len(stage.results())
    begin = time.monotonic()
    stage.kill(what, generator)
    wait_until(lambda: stage.nodes.mend() or stage.driver.poll() is not None or len(stage.results()) > before, 400,
               f"a result after {what}")
    assert stage.driver.poll() is None, stage.driver.communicate()
    seconds = time.monotonic() - begin
    events = list(read(stage.journal))
    assert events[:len(kept)] == kept, "what was journalled stays"
    kept[:] = events
    return seconds


def rounds(stage: Stage, order: list[str], generator: random.Random,
           kept: list[Any]) -> tuple[list[str], dict[str, list[float]]]:
    """Kill in this order; (what was killed, seconds to recover of each kind)."""
    seconds: dict[str, list[float]] = {}
    wait_until(lambda: stage.nodes.mend() or len(stage.results()) > 2, 400, "the first results")
    begin = time.monotonic()
    for number, what in enumerate(order, 1):
        if time.monotonic() - begin > MOST_SECONDS:
            return order[:number - 1], seconds
        seconds.setdefault(what, []).append(a_round(stage, what, generator, kept))
        print(f"round {number} {what} {seconds[what][-1]:.1f} s, {len(stage.results())} results", flush=True)
    return order, seconds


def test_whatever_is_killed_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    generator = random.Random(7)
    order = [("driver", "worker", "node", "tracker")[number % 4] for number in range(ROUNDS)]
    generator.shuffle(order)
    kept: list[Any] = []
    with cluster(tmp_path) as nodes:
        stage = Stage(nodes, tmp_path)
        try:
            order, seconds = rounds(stage, order, generator, kept)
            pids = {process.pid for name in nodes.processes for process in nodes.of(name)}
            stage.driver.send_signal(signal.SIGINT)
            stage.driver.communicate(timeout=180)
        finally:
            stage.driver.kill()
            stage.end_tracker()
    wait_until(lambda: not [pid for pid in pids if psutil.pid_exists(pid)
                            and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE], 20, "the last process")
    figures = examined(stage, kept)
    if "KILL_FIGURES" in os.environ:
        made = {**figures, "rounds": Counter(order), "seconds": seconds}
        Path(os.environ["KILL_FIGURES"]).write_text(json.dumps(made))
    assert (figures["lost"], figures["twice"], figures["failed"]) == (0, 0, 0), figures


def examined(stage: Stage, kept: list[Any]) -> dict[str, int]:
    """Results that were there and are not, that are there twice, trials that failed, and how many there are."""
    events = list(read(stage.journal))
    state = replay(events)
    found = Counter((event.trial, event.epoch) for event in events if event.event == "result")
    before = {(event.trial, event.epoch) for event in kept if event.event == "result"}
    gaps = sum([result.epoch for result in trial.results] != list(range(1, len(trial.results) + 1))
               for trial in state.trials.values())
    return {"lost": len(before - found.keys()) + gaps, "twice": sum(times > 1 for times in found.values()),
            "failed": len(state.with_status("failed")), "results": len(found), "trials": len(state.trials)}
