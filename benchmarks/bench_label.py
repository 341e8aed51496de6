"""Codes for 100,000 transitions of 5,000 generated videos: speed against the model's own forward pass, and memory.

    .venv/bin/python benchmarks/bench_label.py [--videos 5000] [--frames 21] [--workers 1]

The forward pass is the encoder and the quantizer on windows that lie in memory already, in batches of the same size.
Both are timed in this process, one thread, one after the other and again, in processor seconds: what else the machine
does at the time counts for neither. With several workers, whose seconds this process does not see, only the wall clock.
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


def write_videos(folder: Path, count: int, frames: int) -> None:
    """Files of random latents [frames, 16, 1, 16, 16]."""
    random = np.random.default_rng(0)
    for number in range(count):
        with h5py.File(folder / f"v{number:05d}.h5", "w") as file:
            file["embeddings"] = random.normal(size=(frames, 16, 1, 16, 16)).astype(np.float32)


def timed(work: Callable[[], object], workers: int = 1) -> float:
    """Processor seconds, or those of the clock where others do the work."""
    clock = time.process_time if workers == 1 else time.perf_counter
    begin = clock()
    work()
    return clock() - begin


def forward(model: ActionModel, windows: int, batch_size: int) -> None:
    """The model on so many windows in memory."""
    batch = torch.randn(batch_size, model.config.sequence_length, *model.latent_shape)
    for _ in range(windows // batch_size):
        model.read(batch)


def main() -> None:
    """Make the videos and a model, label, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=5000)
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "few").mkdir()
        (root / "many").mkdir()
        write_videos(root / "few", 10, 40)
        manifest.write_manifest(root / "few")
        write_videos(root / "many", asked.videos, asked.frames)
        list(train(RunConfig.model_validate({"data_dir": str(root / "few"), **MODEL}), root / "run"))
        import lam

        model = lam.load(root / "run", device="cpu")
        windows = asked.videos * (asked.frames - model.config.sequence_length + 1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for turn in range(2):
            alone = timed(lambda: forward(model, windows, 64))
            out = root / f"codes{turn}.h5"
            took = timed(lambda out=out: labelling.label(  # type: ignore[misc]
                Asked(str(root / "run"), root / "many", out, workers=asked.workers, device="cpu")), asked.workers)
            rows = asked.videos * (asked.frames - 1)
            print(f"{rows:,} transitions, {windows:,} windows: forward alone {alone:.1f} s, lam label {took:.1f} s "
                  f"({rows / took:,.0f} transitions/s), {alone / took:.0%} of the forward pass")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak memory: {after / 1024:.0f} MiB, before labelling {before / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
