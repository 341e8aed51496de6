"""The same faults put to a sweep of the product and to stock Ray Tune with its defaults: 8 trials of 4 epochs each.

One after the other, one trial at a time; the third meets the fault at its second epoch, or the driver or its disk meets
it after 14 epochs. Where the command has ended with trials undone, it is given again, once (`Tuner.restore`). For
`bench_faults.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TRIALS, EPOCHS, LATE = 8, 4, 14
EPOCH_SECONDS = 0.3
MOST_SECONDS = 180.0  # after which a command that has not ended is ended
FAULTS = {"driver": "SIGKILL of the driver, the command again", "kill": "SIGKILL of a trial's process",
          "raise": "a trial raises", "hang": "a trial hangs", "disk": "the disk is full for 8 s, the command again",
          "checkpoint": "SIGKILL of the driver, the trial's newest checkpoint cut to half, the command again"}
OURS = """
import sys
sys.path[:0] = {paths!r}
import fake_training
from record.errors import LamError
from sweeps.commands.launching import Options, launch
try:
    launch({spec!r}, options=Options(quiet=True, allow_inert=True, {stand_in}))
except LamError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
STAND_IN = "train='fake_training:train', prepare=fake_training.prepare"
SMALL = {"sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16,
         "codebook_dim": 8, "steps_per_epoch": 4, "batch_size": 8, "eval_sequences": 16, "sample_count": 0,
         "threads": 1, "device": "cpu", "warmup_steps": 2}
KINDS = {"kill": 6, "raise": 8, "hang": 5}  # of `fake_training`, by the last digit of a trial's seed


class Side(NamedTuple):
    """How one of the two is run: its command, the epochs it has trained, its finished trials, its checkpoints."""

    start: Callable[[bool], subprocess.Popen[str]]
    epochs: Callable[[], list[tuple[str, int]]]
    finished: Callable[[], int]
    newest: Callable[[], list[Path]]


def ours(folder: Path, disk: Path, fault: str) -> Side:
    """The product; records of `fake_training`, or, where a checkpoint is damaged, real training."""
    from record import yamlio

    real = fault == "checkpoint"
    base: dict[str, Any] = {"data_dir": "nowhere", "num_epochs": EPOCHS}
    if real:
        subprocess.run([sys.executable, "-m", "lam", "data", "demo", str(folder / "data"), "--size", "64", "--episodes",
                        "8", "--length", "24"], cwd=ROOT, check=True, capture_output=True)
        base |= {"data_dir": str(folder / "data"), **SMALL}
    seeds = [1, 11, 21 if real else 20 + KINDS.get(fault, 1), 31, 41, 51, 61, 71]
    spec = folder / "sweep.yaml"
    spec.write_text(yamlio.dump_mapping({
        "name": "demo", "base": base, "space": {"seed": {"choice": seeds}}, "search": "grid", "scheduler": "none",
        "budget": {"trials": 99}, "storage": str(disk), "concurrency": 1, "hang_minutes": 5.0 if real else 0.1}))
    trials = disk / "demo" / "trials"

    def start(again: bool) -> subprocess.Popen[str]:
        code = OURS.format(paths=[str(ROOT / "tests"), str(ROOT)], spec=str(spec), stand_in="" if real else STAND_IN)
        return child([sys.executable, "-c", code])

    def epochs() -> list[tuple[str, int]]:
        return [(file.parent.name, json.loads(line)["epoch"]) for file in sorted(trials.glob("*/metrics.jsonl"))
                for line in file.read_text().splitlines() if line.endswith("}")]

    def finished() -> int:
        states = (json.loads(file.read_text())["state"] for file in trials.glob("*/run.json"))
        return sum(state == "finished" for state in states)

    return Side(start, epochs, finished, lambda: sorted(trials.glob("*/checkpoints/last.pt"), key=changed)[-1:])


def stock(folder: Path, disk: Path, fault: str) -> Side:
    """Ray Tune."""
    told = folder / "epochs.jsonl"

    def start(again: bool) -> subprocess.Popen[str]:
        what = fault if fault in KINDS else "none"
        return child([sys.executable, str(ROOT / "benchmarks" / "stock_tune.py"), str(folder), str(disk),
                      "restore" if again else "fit", what])

    def epochs() -> list[tuple[str, int]]:
        lines = told.read_text().splitlines() if told.exists() else []
        return [(str(trial), epoch) for trial, epoch in map(json.loads, lines)]

    def finished() -> int:
        said = folder / "finished"
        return int(said.read_text()) if said.exists() else 0

    return Side(start, epochs, finished,
                lambda: sorted((disk / "stock").glob("*/checkpoint_*/epoch"), key=changed)[-1:])


def changed(path: Path) -> float:
    """When a file was changed."""
    return path.stat().st_mtime


def child(words: list[str]) -> subprocess.Popen[str]:
    """A driver in a session of its own."""
    return subprocess.Popen(words, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                            env={**os.environ, "FAKE_EPOCH_SECONDS": str(EPOCH_SECONDS), "PYTHONPATH": str(ROOT)})


@contextlib.contextmanager
def small_disk(folder: Path, really: bool) -> Iterator[Path]:
    """A place to store; `really` a disk of its own, of 4 MiB."""
    place = folder / "disk"
    place.mkdir()
    if really:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], check=True)
    try:
        yield place
    finally:
        if really:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def put(fault: str, make: Callable[[Path, Path, str], Side]) -> dict[str, Any]:
    """What came of a fault: exit codes, trials finished, epochs trained twice, seconds until the next new epoch."""
    with (tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name,
          small_disk(Path(name), fault == "disk") as disk):
        side = make(Path(name), disk, fault)
        process, went_on = side.start(False), None
        if fault in ("driver", "checkpoint", "disk"):
            wait(lambda: len(side.epochs()) >= LATE, process)
        if fault in ("driver", "checkpoint"):
            process.kill()
        elif fault == "disk":
            fill(disk)
        codes = [end(process)]
        if fault == "checkpoint":
            for file in side.newest():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        if (codes[0] != 0 and codes[0] is not None) or (side.finished() < TRIALS and fault != "hang"):
            known, begin = set(side.epochs()), time.monotonic()
            process = side.start(True)
            wait(lambda: bool(set(side.epochs()) - known), process, strict=False)
            went_on = time.monotonic() - begin if set(side.epochs()) - known else None
            codes.append(end(process))
        trained = side.epochs()
        return {"exits": codes, "finished": side.finished(), "trials": len({trial for trial, _ in trained}),
                "twice": len(trained) - len(set(trained)), "went_on": went_on}


def wait(so: Callable[[], bool], process: subprocess.Popen[str], strict: bool = True) -> None:
    """Until it is so, or the process has ended."""
    begin = time.monotonic()
    while not so() and process.poll() is None and time.monotonic() - begin < 2 * MOST_SECONDS:
        time.sleep(0.05)
    assert so() or not strict, process.communicate()


def fill(disk: Path, seconds: float = 8.0) -> None:
    """Take all the room of a disk for some seconds."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    time.sleep(seconds)
    filler.unlink()


def end(process: subprocess.Popen[str]) -> int | None:
    """Its exit code; None where it had to be ended."""
    try:
        process.communicate(timeout=MOST_SECONDS)
        return process.returncode
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None


def both(faults: list[str]) -> dict[str, dict[str, Any]]:
    """Fault -> side -> what came of it."""
    found: dict[str, dict[str, Any]] = {}
    for fault in faults:
        for name, make in (("ours", ours), ("stock", stock)):
            found.setdefault(fault, {})[name] = put(fault, make)
            print(fault, name, found[fault][name], flush=True)
    return found


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    both(sys.argv[1:] or [*FAULTS])
