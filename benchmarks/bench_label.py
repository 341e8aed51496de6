"""Codes for 100,000 transitions of 5,000 generated videos: speed against the model's own forward pass, and memory.

    .venv/bin/python benchmarks/bench_label.py [--videos 5000] [--frames 21] [--workers 1] [--turns 10] [--embed-dim 64]

The forward pass is the encoder and the quantizer on windows that lie in memory already, in batches of the same size,
on one thread. It and the labelling of 250 of the videos take turns, by the clock: what else the machine does
meets both; each labelling is held against the forward passes before and after it. Then all videos are labelled at once,
for the memory that takes. At most 256 files may be open.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from lam.config import RunConfig
from lam.data import manifest
from lam.inference.model import ActionModel
from lam.labelling import labelling
from lam.labelling.labelling import Asked
from lam.training.loop import train

MODEL = {"sequence_length": 4, "embed_dim": 64, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
         "codebook_dim": 32, "steps_per_epoch": 20, "num_epochs": 1, "threads": 1, "device": "cpu", "sample_count": 0}


EACH = 250  # videos of a turn
OPEN_FILES = 256  # that the system is told to allow


def write_videos(folder: Path, count: int, frames: int) -> None:
    """Files of random latents [frames, 16, 1, 16, 16]."""
    random = np.random.default_rng(0)
    for number in range(count):
        with h5py.File(folder / f"v{number:05d}.h5", "w") as file:
            file["embeddings"] = random.normal(size=(frames, 16, 1, 16, 16)).astype(np.float32)


def timed(work: Callable[[], object]) -> float:
    """Seconds of the clock."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def forward(model: ActionModel, windows: int, batch_size: int) -> None:
    """The model on so many windows in memory."""
    batch = torch.randn(batch_size, model.config.sequence_length, *model.latent_shape)
    for _ in range(windows // batch_size):
        model.read(batch)


def dealt(root: Path, turns: int) -> list[Path]:
    """Folders of 250 videos of `many`, as links."""
    paths, folders = sorted((root / "many").glob("*.h5")), []
    for turn in range(min(turns, len(paths) // EACH)):
        folders.append(root / f"turn{turn}")
        folders[-1].mkdir()
        for path in paths[turn * EACH : (turn + 1) * EACH]:
            (folders[-1] / path.name).hardlink_to(path)
    return folders


def main() -> None:
    """Make the videos and a model, label, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("videos", 5000), ("frames", 21), ("workers", 1), ("turns", 10), ("embed-dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "few").mkdir()
        (root / "many").mkdir()
        write_videos(root / "few", 10, 40)
        manifest.write_manifest(root / "few")
        write_videos(root / "many", asked.videos, asked.frames)
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        config = {"data_dir": str(root / "few"), **MODEL, "embed_dim": asked.embed_dim}
        list(train(RunConfig.model_validate(config), root / "run"))
        measure(root, asked)


def measure(root: Path, asked: argparse.Namespace) -> None:
    """Turns of forward pass and labelling, then all at once."""
    import lam

    def label(folder: Path) -> None:
        labelling.label(Asked(str(root / "run"), folder, root / f"{folder.name}.h5", workers=asked.workers,
                              device="cpu"))

    model, folders = lam.load(root / "run", device="cpu"), dealt(root, asked.turns)
    windows, rows = EACH * (asked.frames - model.config.sequence_length + 1), EACH * (asked.frames - 1)
    forward(model, windows // 10, 64)
    ratios, speeds, before = [], [], timed(lambda: forward(model, windows, 64))
    for folder in folders:
        took = timed(lambda folder=folder: label(folder))  # type: ignore[misc]
        after = timed(lambda: forward(model, windows, 64))
        ratios.append((before + after) / 2 / took)
        speeds.append(rows / took)
        before = after
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(f"{len(folders)} turns of {rows:,} transitions: labelling at {middle:.0%} of the forward pass's speed "
          f"(quartiles {low:.0%} to {high:.0%}, all {min(ratios):.0%} to {max(ratios):.0%}), {np.median(speeds):,.0f} "
          "transitions/s")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = timed(lambda: label(root / "many"))
    after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"all {asked.videos * (asked.frames - 1):,} transitions of {asked.videos:,} videos: {took:.1f} s, peak "
          f"memory {after_kib / 1024:.0f} MiB, before it {before_kib / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
