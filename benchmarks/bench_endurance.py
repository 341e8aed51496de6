"""What a sweep of short trials leaves behind as it goes on: growth of memory, descriptors, temporary files, journal.

    python benchmarks/bench_endurance.py [--minutes 20] [--readers 20] [--epoch-seconds 0.05] [--keep DIR]

A real driver and Ray with a training that only sleeps. Every few seconds the driver and all its processes are
measured, each kind of process on its own; twice, `--readers` processes read the sweep at once while it runs, as
`lam sweep status` does, again and again. Growth is the least-squares slope over the time after the first fifth, in
which caches fill; a day is that times 24 hours, and is an extrapolation. At the end the driver gets Ctrl-C: what runs
10 s later is counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
KEYS = ("driver memory, MiB", "driver descriptors", "memory of all, MiB", "descriptors of all", "temporary files",
        "temporary bytes, MiB", "journal, MiB", "trials")


def kind(process: psutil.Process) -> str:
    """What a process of a driver's family is, by its name or the program that it runs."""
    words = process.cmdline()
    program = next((Path(word).stem for word in words if word.endswith((".py", "gcs_server", "raylet"))), "")
    return "trials" if words and words[0].startswith("ray::") else program or words[0][:30]


def measured(process: psutil.Process, folder: Path, kinds: Counter[str]) -> list[float]:
    """The figures of KEYS now; `folder` is the sweep's. Memory of one's own by kind of process goes to `kinds`."""
    from sweeps.workers.reaper import MARK

    family = [process, *process.children(recursive=True)]
    memory, handles, scratch = 0.0, 0, ""
    for member in family:
        try:
            held = member.memory_info()
            memory += held.rss / 2**20
            handles += member.num_fds()
            kinds["driver" if member == process else kind(member)] += (held.rss - held.shared) // 1024
            scratch = scratch or member.environ().get(MARK, "")
        except psutil.Error:
            continue
    files = [path for path in Path(scratch or "/nonexistent").rglob("*") if path.is_file() and not path.is_symlink()]
    sizes = [size for path in files if (size := _size(path)) is not None]
    journal = sum(path.stat().st_size for path in folder.glob("journal-*.jsonl")) / 2**20
    trials = sum(1 for _ in (folder / "trials").iterdir()) if (folder / "trials").is_dir() else 0
    return [process.memory_info().rss / 2**20, process.num_fds(), memory, handles, len(sizes), sum(sizes) / 2**20,
            journal, trials]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def read_again_and_again(folder: Path, seconds: float, answers: multiprocessing.Queue[tuple[int, float, str]]) -> None:
    """One reader: (readings, the slowest in seconds, what went wrong)."""
    from sweeps.journal import folders
    from sweeps.views import summary

    begin, count, slowest, before = time.monotonic(), 0, 0.0, 0
    try:
        while time.monotonic() - begin < seconds:
            start = time.monotonic()
            sweep, state = folders.open_sweep(folder)
            json.dumps(summary.status(sweep, state, True), default=str)
            assert state.seq >= before, "a reader saw the journal shrink"
            before, count, slowest = state.seq, count + 1, max(slowest, time.monotonic() - start)
            time.sleep(0.5)
    except Exception as error:
        answers.put((count, slowest, f"{type(error).__name__}: {error}"))
    else:
        answers.put((count, slowest, ""))


def crowd(folder: Path, readers: int, seconds: float = 20.0) -> str:
    """What readers at once came to."""
    answers: multiprocessing.Queue[tuple[int, float, str]] = multiprocessing.Queue()
    members = [multiprocessing.Process(target=read_again_and_again, args=(folder, seconds, answers))
               for _ in range(readers)]
    for member in members:
        member.start()
    found = [answers.get(timeout=300) for _ in members]
    for member in members:
        member.join()
    wrong = [problem for _, _, problem in found if problem]
    return (f"{readers} readers at once: {sum(count for count, _, _ in found)} readings, slowest "
            f"{max(slowest for _, slowest, _ in found):.1f} s, {len(wrong)} failed {wrong[:3]}")


def watch(folder: Path, process: psutil.Process, asked: argparse.Namespace) -> tuple[np.ndarray, list[Counter[str]]]:
    """Rows of (seconds, the figures of KEYS), and for each the KiB of each kind of process."""
    begin, rows, kinds, crowds = time.monotonic(), list[list[float]](), list[Counter[str]](), [0.3, 0.8]
    while (passed := time.monotonic() - begin) < 60 * asked.minutes:
        kinds.append(Counter())
        rows.append([passed, *measured(process, folder, kinds[-1])])
        print(json.dumps([round(value, 2) for value in rows[-1]]), json.dumps(kinds[-1]), flush=True)
        if asked.readers and crowds and passed > crowds[0] * 60 * asked.minutes:
            crowds.pop(0)
            print(crowd(folder, asked.readers), flush=True)
        time.sleep(10)
    return np.array(rows), kinds


def table(rows: np.ndarray, kinds: list[Counter[str]]) -> str:
    """Growth of every figure with the time, and of each kind of process with the trials."""
    late = rows[:, 0] > rows[-1, 0] / 5
    lines = ["| | at first | at the end | growth a minute | a day, extrapolated |", "|---|---|---|---|---|"]
    for column, key in enumerate(KEYS, 1):
        values = rows[late, column]
        slope = np.polyfit(rows[late, 0], values, 1)[0] * 60
        lines.append(f"| {key} | {values[0]:,.1f} | {values[-1]:,.1f} | {slope:+,.3f} | {slope * 1440:+,.0f} |")
    lines += ["", "| processes | MiB of their own at first | at the end | KiB a trial |", "|---|---|---|---|"]
    for name in kinds[-1]:
        held = np.array([found[name] for found in kinds])[late]
        slope = np.polyfit(rows[late, -1], held, 1)[0]
        lines.append(f"| {name} | {held[0] / 1024:,.1f} | {held[-1] / 1024:,.1f} | {slope:+.2f} |")
    return "\n".join(lines)


def main() -> None:
    import sweep_driver

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--epoch-seconds", type=float, default=0.05)
    parser.add_argument("--keep", type=Path, help="copy the sweep's folder there at the end")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        path = sweep_driver.spec(Path(home), space={"weight_decay": {"uniform": [0.0, 0.8]}}, search="random",
                                 scheduler={"asha": {"max_epochs": 9}}, budget={"trials": 1_000_000})
        folder = Path(home) / "runs" / "demo"
        call = f"launch({str(path)!r}, options=Options(**common, quiet=True))"
        driver = sweep_driver.start(call, asked.epoch_seconds)
        sweep_driver.until(lambda: len(list((folder / "trials").glob("*"))) > 3, driver)
        rows, kinds = watch(folder, psutil.Process(driver.pid), asked)
        os.kill(driver.pid, signal.SIGINT)
        driver.communicate(timeout=120)
        time.sleep(10)
        print(f"Ctrl-C: exit code {driver.returncode}, {len(sweep_driver.left_over(driver.pid))} processes left after "
              "10 s")
        if asked.keep:
            shutil.copytree(folder, asked.keep)
    print(table(rows, kinds))


if __name__ == "__main__":
    main()
