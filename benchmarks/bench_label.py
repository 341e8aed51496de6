"""Codes for 100,000 transitions of 5,000 generated videos: speed against the forward pass, memory, sameness.

    .venv/bin/python benchmarks/bench_label.py [--videos 5000] [--frames 21] [--turns 5] [--embed-dim 64]

The forward pass is the encoder and the quantizer on windows that lie in memory already, in batches of the same size,
on one thread. It and the labelling of 500 of the videos take turns, by the clock and in processor time (that of the
thread that reads ahead too); each labelling is held against the forward passes before and after it. Then a process of
its own labels all videos and one of a single frame, for the memory that takes; then four workers do, and one that is
killed with SIGKILL after five portions and begun again: their arrays must be the same, bit for bit. Last, one window at
a time, of as many videos as a turn has. No process may open more than 256 files.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch

import lam
from lam.config import RunConfig
from lam.data import manifest
from lam.inference.model import ActionModel
from lam.training.loop import train

MODEL = {"sequence_length": 4, "embed_dim": 64, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "steps_per_epoch": 20, "num_epochs": 1, "threads": 1, "device": "cpu", "sample_count": 0}
EACH = 500  # videos of a turn
OPEN_FILES = 256  # that the system is told to allow
KILLED_AFTER = 5  # portions
ALONE = """
import json, pathlib, resource, sys, time, torch
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
torch.set_num_threads(1)
import lam
peak = lambda: int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
run, data, out, how = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
model = lam.load(run, device="cpu")
model.read(torch.randn(how.get("batch_size", 64), model.config.sequence_length, *model.latent_shape))
before, began, spent = peak(), time.perf_counter(), time.process_time()
done = lam.label(run, data, out, device="cpu", **how)
print(json.dumps(dict(before=before, peak=peak(), seconds=time.perf_counter() - began,
                      processor=time.process_time() - spent, rows=done.transitions, short=done.short)))
"""


class Took(NamedTuple):
    """Seconds of the clock and of the processor."""

    clock: float
    processor: float


def write_videos(folder: Path, count: int, frames: int) -> None:
    """Files of random latents [frames, 16, 1, 16, 16]."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        with h5py.File(folder / f"v{number:05d}.h5", "w") as file:
            file["embeddings"] = random.normal(size=(frames, 16, 1, 16, 16)).astype(np.float32)


def timed(work: Callable[[], object]) -> Took:
    """What some work took, in this process."""
    begin, spent = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - begin, time.process_time() - spent)


def forward(model: ActionModel, windows: int, batch_size: int) -> None:
    """The model on so many windows in memory."""
    batch = torch.randn(batch_size, model.config.sequence_length, *model.latent_shape)
    for _ in range(windows // batch_size):
        model.read(batch)


def dealt(root: Path, turns: int) -> list[Path]:
    """Folders of some videos of `many` each, as links."""
    paths, folders = sorted((root / "many").glob("v*.h5")), []
    for turn in range(min(turns, len(paths) // EACH)):
        folders.append(root / f"turn{turn}")
        folders[-1].mkdir()
        for path in paths[turn * EACH : (turn + 1) * EACH]:
            (folders[-1] / path.name).hardlink_to(path)
    return folders


def main() -> None:
    """Make the videos and a model, label, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("videos", 5000), ("frames", 21), ("turns", 5), ("embed-dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_videos(root / "few", 10, 40)
        manifest.write_manifest(root / "few")
        write_videos(root / "many", asked.videos, asked.frames)
        with h5py.File(root / "many" / "one.h5", "w") as file:
            file["embeddings"] = np.zeros((1, 16, 1, 16, 16), np.float32)
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        config = {"data_dir": str(root / "few"), **MODEL, "embed_dim": asked.embed_dim}
        list(train(RunConfig.model_validate(config), root / "run"))
        take_turns(root, asked)
        compare(root)


def take_turns(root: Path, asked: argparse.Namespace) -> None:
    """Forward pass and labelling in turns, both ways of telling the time."""
    model, folders = lam.load(root / "run", device="cpu"), dealt(root, asked.turns)
    windows, rows = EACH * (asked.frames - model.config.sequence_length + 1), EACH * (asked.frames - 1)
    forward(model, windows // 10, 64)
    found, before = [], timed(lambda: forward(model, windows, 64))
    for folder in folders:
        took = timed(lambda folder=folder: lam.label(  # type: ignore[misc]
            root / "run", folder, root / f"{folder.name}.h5", device="cpu"))
        after = timed(lambda: forward(model, windows, 64))
        found.append([(a + b) / 2 / c for a, b, c in zip(before, after, took, strict=True)] + list(took) + list(after))
        before = after
    clock, processor, clocked, spent, _, bare = np.array(found).T
    print(f"{len(folders)} turns of {rows:,} transitions, one thread: {rows / np.median(clocked):,.0f} transitions/s "
          f"by the clock, {rows / np.median(spent):,.0f} by the processor; the forward pass alone "
          f"{rows / np.median(bare):,.0f} by the processor")
    for name, ratios in (("processor time", processor), ("the clock", clock)):
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        print(f"by {name}: labelling at {middle:.0%} of the forward pass's speed (quartiles {low:.0%} to {high:.0%}, "
              f"all {min(ratios):.0%} to {max(ratios):.0%})")


def alone(root: Path, data: str, out: str, **how: Any) -> dict[str, Any]:
    """A labelling in a process of its own."""
    done = subprocess.run(_command(root, data, out, how), check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{data} -> {out} {how or ''}: {found['rows']:,} transitions, {found['short']} videos of one frame, "
          f"{found['seconds']:.1f} s, {found['processor']:.1f} s of this process; peak memory {found['peak']:.0f} MiB, "
          f"{found['before']:.0f} with the model loaded and one batch read")
    return found


def _command(root: Path, data: str, out: str, how: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", ALONE.format(files=OPEN_FILES), str(root / "run"), str(root / data), str(root / out),
            json.dumps(how)]


def compare(root: Path) -> None:
    """One process, four workers, killed and begun again; few videos, whose memory must be the same; one window at a
    time."""
    alone(root, "many", "one.npz")
    alone(root, "turn0", "few.npz")
    alone(root, "many", "four.npz", workers=4)
    process = subprocess.Popen(_command(root, "many", "killed.npz", {}), stdout=subprocess.DEVNULL)
    parts = root / ".killed.npz.parts"
    while len(list(parts.glob("0*.npz"))) < KILLED_AFTER and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    print(f"killed with SIGKILL with {len(list(parts.glob('0*.npz')))} portions on the disk")
    alone(root, "many", "killed.npz")
    one = _arrays(root / "one.npz")
    for name in ("four.npz", "killed.npz"):
        other = _arrays(root / name)
        same = one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
        print(f"{name}: {'the same arrays, bit for bit' if same else 'DIFFERS'}")
    alone(root, "turn0", "single.npz", batch_size=1)
    single = _arrays(root / "single.npz")
    rows = np.isin(one["video"], np.flatnonzero(np.isin(one["files"], single["files"])))
    same = (one["codes"][rows] == single["codes"]).all(1).mean()
    print(f"one window at a time, {rows.sum():,} transitions: {same:.4%} have the same codes, distances within "
          f"{np.abs(one['distance'][rows] - single['distance']).max():.1e}")


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as found:
        return dict(found)


if __name__ == "__main__":
    main()
