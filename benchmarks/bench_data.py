"""Training batches per second of the H5 path and of the cached path, against a plain NumPy memmap, in one run.

    python benchmarks/bench_data.py [--gzip] [--files 8] [--frames 64] [--batch 8]

All three read the same random windows of latents in the guide's shape (16 x 64 x 64, 8 frames) into
fresh float32 arrays; they take turns round by round, and the ratios are medians over the rounds.
Everything is in the page cache: what is compared is the reading, not the disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lam.config import RunConfig
from lam.data import manifest
from lam.data.windows import open_split

SHAPE, LENGTH = (16, 64, 64), 8


def write(folder: Path, files: int, frames: int, gzip: bool) -> None:
    """Random latents, two frames a chunk."""
    rng = np.random.default_rng(0)
    for number in range(files):
        with h5py.File(folder / f"video-{number:03d}.h5", "w") as file:
            values = rng.standard_normal((frames // 2, SHAPE[0], 2, *SHAPE[1:]), dtype=np.float32)
            file.create_dataset("embeddings", data=values, chunks=(1, *values.shape[1:]),
                                compression="gzip" if gzip else None)


def memmap_reader(folder: Path, config: RunConfig) -> Callable[[NDArray[np.int64]], object]:
    """The plain read: one memmap of every training frame, windows copied out of it."""
    windows = open_split(config, "train", stride=1)
    frames = np.concatenate([windows.batch(np.flatnonzero(windows.starts[:, 0] == file)[::LENGTH]).latents.numpy()
                             .reshape(-1, *SHAPE) for file in range(len(windows.files))])
    np.save(folder / "plain.npy", frames)
    plain, per_file = np.load(folder / "plain.npy", mmap_mode="r"), len(frames) // len(windows.files)

    def read(index: NDArray[np.int64]) -> object:
        batch = np.empty((len(index), LENGTH, *SHAPE), np.float32)
        for row, (file, start) in enumerate(windows.starts[index].tolist()):
            first = file * per_file + start
            batch[row] = plain[first : first + LENGTH]
        return batch

    return read


def seconds(read: Callable[[NDArray[np.int64]], object], batches: list[NDArray[np.int64]]) -> float:
    """Time of reading the batches once."""
    begin = time.perf_counter()
    for index in batches:
        read(index)
    return time.perf_counter() - begin


def main() -> None:
    """Write data, read it three ways, print GB/s and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gzip", action="store_true", help="compress the H5 files")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, asked.files, asked.frames, asked.gzip)
        manifest.write_manifest(folder, seed=0)
        cached = RunConfig(data_dir=name, sequence_length=LENGTH, window_stride=1)
        direct = cached.replace(cache=False)
        readers = {"plain memmap": memmap_reader(folder, cached), "cached": open_split(cached, "train").batch,
                   "H5": open_split(direct, "train").batch}
        count = len(open_split(cached, "train"))
        rng = np.random.default_rng(1)
        gigabytes = asked.batches * asked.batch * LENGTH * np.prod(SHAPE) * 4 / 1e9
        times: dict[str, list[float]] = {reader: [] for reader in readers}
        for _ in range(asked.rounds):
            batches = [rng.integers(count, size=asked.batch) for _ in range(asked.batches)]
            for reader, read in readers.items():
                times[reader].append(seconds(read, batches))
        for reader, taken in times.items():
            ratio = statistics.median(plain / own for plain, own in zip(times["plain memmap"], taken, strict=True))
            print(f"{reader:<13} {gigabytes / statistics.median(taken):6.2f} GB/s   {ratio:6.1%} of the plain memmap")


if __name__ == "__main__":
    main()
