"""Sweeps with the fake training: drivers as processes of their own, or in this one on a Ray that tests share."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_training
import psutil

from record import yamlio
from sweeps.commands.launching import Options
from sweeps.journal.journal import read
from sweeps.journal.state import SweepState, replay

ROOT = Path(__file__).resolve().parent.parent
# A driver as a process of its own: what it does on a signal, and what it leaves behind, is the point.
DRIVER = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import fake_training
from record.errors import LamError
from sweeps.commands.confirming import confirm
from sweeps.commands.extending import extend
from sweeps.commands.launching import Options, launch
common = dict(train="fake_training:train", prepare=fake_training.prepare, again="lam again")
options = Options(**common)
try:
    {call}
except LamError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def spec(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere"},
        "space": {"weight_decay": {"uniform": [0.0, 0.8]}, "seed": {"choice": [1, 2, 6, 7, 8, 9]}},
        "scheduler": {"asha": {"max_epochs": 9}}, "budget": {"trials": 14}, "storage": str(folder / "runs"),
        "concurrency": 2, **changes}))
    return path


def start(call: str, epoch_seconds: float = 0.01) -> subprocess.Popen[str]:
    code = DRIVER.format(tests=str(ROOT / "tests"), root=str(ROOT), call=call)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "FAKE_EPOCH_SECONDS": str(epoch_seconds)}, start_new_session=True)


def run(call: str, code: int = 0, epoch_seconds: float = 0.01) -> tuple[str, str]:
    process = start(call, epoch_seconds)
    out, err = process.communicate(timeout=1200)
    assert process.returncode == code, (out, err)
    return out, err


# A Ray for tests that ask what a sweep comes to, and not what its process does: most of a short sweep's time is the
# start of a Ray and the import of it. It has none of the product's clearing up, which would end all that has joined.
SHARED = """
import os, sys
from sweeps.workers import ray_session
os.environ.update(ray_session._ENVIRONMENT)
import ray
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=ray_session.STORE_BYTES,
         _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def shared_ray(log: Path) -> Iterator[str]:
    """A Ray in a process of its own, which ends when its standard input does; yields its address."""
    with tempfile.TemporaryDirectory(prefix="lam-", dir="/tmp", ignore_cleanup_errors=True) as scratch, open(
            log, "wb") as told, subprocess.Popen([sys.executable, "-c", SHARED, scratch], text=True, stderr=told,
                                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                 env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, log.read_text()
        yield address
        process.communicate()


def options(address: str, **changes: Any) -> Options:
    """Of a command that runs in this process, on the shared Ray."""
    return Options(**{"train": "fake_training:train", "prepare": fake_training.prepare, "again": "lam again",
                      "address": address, **changes})


def state_of(folder: Path) -> SweepState:
    return replay(read(folder))


def calls(folder: Path, trial: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials" / trial / "calls.jsonl").read_text().splitlines()]


def wait_for(folder: Path, events: int, process: subprocess.Popen[str]) -> None:
    until(lambda: sum(event.event == "result" for event in read(folder)) >= events, process)


def until(so: Callable[[], bool], process: subprocess.Popen[str] | None = None, pause: float = 0.02) -> None:
    """Wait until it is so, while the process runs; as long as a busy machine may need."""
    deadline = time.monotonic() + 180
    while not so():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(pause)


def left_over(group: int) -> list[psutil.Process]:
    """Processes of a driver's session that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
