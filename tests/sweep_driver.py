"""Drivers of sweeps as processes of their own, with the fake training: helpers of the slow tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from record import yamlio
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


def state_of(folder: Path) -> SweepState:
    return replay(read(folder))


def calls(folder: Path, trial: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials" / trial / "calls.jsonl").read_text().splitlines()]


def wait_for(folder: Path, events: int, process: subprocess.Popen[str]) -> None:
    until(lambda: sum(event.event == "result" for event in read(folder)) >= events, process)


def until(so: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until it is so, while the process runs; as long as a busy machine may need."""
    deadline = time.monotonic() + 180
    while not so():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


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
