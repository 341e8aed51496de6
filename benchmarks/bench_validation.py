"""What a validation costs, beside the way it was measured before: the same numbers, more passes and readings.

    .venv/bin/python benchmarks/bench_validation.py [--turns 7] [--sequences 512] [--grid 16] [--embed-dim 128]

Before: the split is read five times and encoded twice; every other action at the scored transition has the whole
sequence decoded for the one frame that it changes; true actions are read with their latents. Both are timed in turns of
this process, one thread, by the clock, and must agree about the distances.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from lam.config import RunConfig
from lam.data import manifest
from lam.data.windows import Windows, open_split
from lam.evaluation import draws, passes
from lam.model.lam import LatentActionModel


def write_videos(folder: Path, grid: int) -> None:
    """Ten videos [120, 16, 1, grid, grid] with true actions."""
    random = np.random.default_rng(0)
    for number in range(10):
        with h5py.File(folder / f"v{number}.h5", "w") as file:
            file["embeddings"] = random.normal(size=(120, 16, 1, grid, grid)).astype(np.float32)
            file["actions"] = random.integers(0, 4, 120)
    manifest.write_manifest(folder)


@torch.inference_mode()
def before(model: LatentActionModel, windows: Windows, config: RunConfig) -> dict[str, Any]:
    """Mean squared errors at the scored transition by the kind of action, as they were measured once."""
    index = draws.subset(len(windows), config.eval_sequences)
    encoded = passes._encode(model, windows, index, config)  # codes, to know what others are
    others = passes._other_actions(model, windows, index, encoded, config)
    found: dict[str, list[Any]] = {}
    row = 0
    for latents in passes._latents(model, windows, index, config):  # losses, and the true action
        output = model(latents)
        rows = slice(row, row := row + len(latents))
        found.setdefault("true", []).append(draws.distances(output.prediction[:, -1], latents[:, -1]).mse)
        passes._left_alone(model, latents, output.quantized.z_q, np.isin(np.arange(rows.start, rows.stop), draws.subset(
            len(index), passes.generation.SEQUENCES)), windows)
    for kinds in (("shuffled 0", "shuffled 1", "shuffled 2", "shuffled 3"), ("rand", "flipped")):
        row = 0
        for latents in passes._latents(model, windows, index, config):
            rows = slice(row, row := row + len(latents))
            actions = encoded.actions_NLSQ[rows].clone()
            for kind in kinds:
                actions[:, -1] = others[kind][rows]
                last = model.decode(latents[:, :-1], actions)[:, -1]
                found.setdefault(kind, []).append(draws.distances(last, latents[:, -1]).mse)
    windows.batch(index)  # for its actions
    return {kind: np.concatenate(values).mean() for kind, values in found.items()}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the clock, and what came of it."""
    begin = time.perf_counter()
    done = work()
    return time.perf_counter() - begin, done


def peak(work: Callable[[], object]) -> float:
    """Largest MiB that Python and NumPy held."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("turns", 7), ("sequences", 512), ("grid", 16), ("embed-dim", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_videos(Path(name), asked.grid)
        config = RunConfig(data_dir=name, embed_dim=asked.embed_dim, eval_sequences=asked.sequences, device="cpu")
        windows = open_split(config, "train", stride=1)
        torch.manual_seed(0)
        model = LatentActionModel(config, windows.latent_shape).eval()
        ratios = []
        for _ in range(asked.turns):
            now, measured = timed(lambda: passes.measured(model, windows, config))
            then, old = timed(lambda: before(model, windows, config))
            ratios.append(then / now)
        assert np.isclose(measured.scored.true.mse.mean(), old["true"], rtol=1e-4)
        assert np.isclose(measured.scored.rand.mse.mean(), old["rand"], rtol=1e-4)
        print(f"a validation of {asked.sequences} sequences takes {now:.2f} s; the way before took "
              f"{np.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f} in {asked.turns} turns)")
        index = draws.subset(len(windows), asked.sequences)
        print(f"true actions of {len(index)}: {peak(lambda: windows.last_actions(index)):.1f} MiB without latents, "
              f"{peak(lambda: windows.batch(index)):.1f} MiB with them")


if __name__ == "__main__":
    main()
