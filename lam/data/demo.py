"""Demonstration data: real Atari gameplay as H5 files of latents, with true actions and a codec inside.

The files are split before the codec is fitted, and it is fitted on blocks of training files only. Every
clip is played from a seed, so it is played twice (to fit, then to encode) and never kept: memory use
does not grow with the number of episodes, and an interrupted demonstration continues where it stopped.
"""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from threadpoolctl import threadpool_limits

from lam.data import manifest
from lam.data.codec import BLOCK_PIXELS, Codec, Sample, sample
from lam.data.games import atari, panning
from lam.data.h5 import ACTIONS, CODEC, EMBEDDINGS, read_info
from lam.data.manifest import Ratios, Splits
from record import files
from record.errors import BadInput, worker_deaths
from record.progress import track

CHUNK_FRAMES = 2  # latent frames a chunk
VIDEO_FPS = 60
FIT_CLIPS = 16  # training clips that the codec is fitted on
FIT_BLOCKS = 32_000  # random blocks of theirs
RECIPE = "demo.json"
RECIPE_VERSION = 1
MOST_SIZE, MOST_EPISODES, MOST_LENGTH = 512, 100_000, 100_000


class Demo(NamedTuple):
    """What a demonstration is made of; two equal ones give the same files.

    Attributes:
        game: an Atari game, such as "breakout", or "panning" (see `lam.data.games.panning`).
        episodes: files, one clip each.
        length: latent frames of a clip, even.
        size: pixels of a side, a multiple of 8; the latent grid has an eighth.
        seed: seed of the play, the split and the codec.
    """

    game: str = "breakout"
    episodes: int = 60
    length: int = 120
    size: int = 128
    seed: int = 0


class Made(NamedTuple):
    """What `make` did: the manifest, how many files it wrote and the codec's explained variance, if it was fitted."""

    manifest: Path
    written: int
    explained_variance: float | None


def make(folder: str | Path, demo: Demo) -> Made:
    """Write the demonstration into `folder`, or only what is missing of it.

    Raises:
        BadInput: a bad argument, or the folder holds something else.
    """
    folder = Path(folder)
    _check(demo)
    action_names = _action_names(demo.game)
    _claim(folder, demo)
    names = [f"{demo.game}-{number:04d}.h5" for number in range(demo.episodes)]
    splits = manifest.split_names(names, Ratios(), demo.seed)
    missing = [number for number, name in enumerate(names) if not (folder / name).exists()]
    path = folder / manifest.FILE_NAME
    explained = _play_missing(folder, demo, action_names, [names.index(name) for name in splits.train], missing)
    if missing or not path.exists():
        _write_manifest(path, splits, demo)
    return Made(path, len(missing), explained)


def _play_missing(folder: Path, demo: Demo, action_names: list[str], training: list[int],
                  missing: list[int]) -> float | None:
    """Write the clips with these numbers; returns the codec's explained variance, None where nothing is missing."""
    if not missing:
        return None
    with (worker_deaths(folder), threadpool_limits(1, user_api="blas"),  # two clips are made at a time already
          _two_processes() as pool):
        codec = _fit(pool, demo, training)
        write = partial(_write_clip, folder, demo, codec, action_names)
        for _ in track(pool.map(write, missing), len(missing), f"playing {demo.game}"):
            pass
    return codec.explained_variance


def _check(demo: Demo) -> None:
    limits = (("--episodes", demo.episodes, 3, MOST_EPISODES, "one file each for training, validation and test"),
              ("--length", demo.length, 2 * CHUNK_FRAMES, MOST_LENGTH, "a sequence needs several latent frames"),
              ("--size", demo.size, 4 * BLOCK_PIXELS, MOST_SIZE, "the latent grid has an eighth of it"),
              ("--seed", demo.seed, 0, 2**31, "a seed is a whole number"))
    for key, value, least, most, why in limits:
        if not least <= value <= most:
            raise BadInput(f"got {value}, expected {least} to {most:,}", key=key, remedy=why)
    for key, value, divisor in (("--size", demo.size, BLOCK_PIXELS), ("--length", demo.length, CHUNK_FRAMES)):
        if value % divisor:
            raise BadInput(f"got {value}, which is no multiple of {divisor}", key=key,
                           remedy=f"take {value - value % divisor} or {value - value % divisor + divisor}")


def _claim(folder: Path, demo: Demo) -> None:
    """Make sure that the folder is ours: new, empty, begun with the same arguments, or with others and no clip yet."""
    recipe = {"version": RECIPE_VERSION, **demo._asdict()}
    if folder.exists() and not folder.is_dir():
        raise BadInput("is a file, expected a folder", source=folder, remedy="name another folder")
    if folder.is_dir() and any(folder.iterdir()):
        found = _recipe(folder / RECIPE)
        if found is None:
            raise BadInput("is not empty and holds no demonstration", source=folder, remedy="name a new folder")
        if found != recipe and any(path.name != RECIPE for path in folder.iterdir()):
            differs = ", ".join(f"{key} {found.get(key)!r}" for key in recipe if found.get(key) != recipe[key])
            raise BadInput(f"holds another demonstration ({differs})", source=folder,
                           remedy="name a new folder, or give the same arguments")
        if found == recipe:
            return
    files.write_json(folder / RECIPE, recipe)


def _recipe(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _action_names(game: str) -> list[str]:
    return list(panning.DIRECTIONS) if game == panning.NAME else atari.game_actions(game)


def _clip(demo: Demo, number: int) -> atari.Clip:
    seed = (demo.seed, number)
    if demo.game == panning.NAME:
        return panning.pan(demo.length, demo.size, seed)
    return atari.play(demo.game, demo.length, demo.size, seed)


def _fit(pool: Executor, demo: Demo, training: list[int]) -> Codec:
    """Fit the codec on random blocks of (at most FIT_CLIPS) training clips."""
    chosen = training[:FIT_CLIPS]
    draw = partial(_sample, demo, -(-FIT_BLOCKS // len(chosen)))
    return Codec.fit(list(track(pool.map(draw, chosen), len(chosen), "fitting the codec")))


def _sample(demo: Demo, count: int, number: int) -> Sample:
    return sample(_clip(demo, number).frames, count, np.random.default_rng((demo.seed, number, 1)))


def _write_clip(folder: Path, demo: Demo, codec: Codec, action_names: list[str], number: int) -> None:
    clip = _clip(demo, number)
    latents = codec.encode(clip.frames)
    n, channels, h, w = latents.shape
    chunks = latents.reshape(n // CHUNK_FRAMES, CHUNK_FRAMES, channels, h, w).transpose(0, 2, 1, 3, 4)
    name = f"{demo.game}-{number:04d}"
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(EMBEDDINGS, data=chunks, chunks=(1, *chunks.shape[1:]), fletcher32=True)
        file.create_dataset(ACTIONS, data=clip.actions)
        codec.save(file.create_group(CODEC))
        file.attrs.update({
            "video_name": name, "fps": VIDEO_FPS, "resolution": demo.size, "num_chunks": len(chunks),
            "embedding_shape": chunks.shape, "action_names": json.dumps(action_names), "game": demo.game,
            "seed": demo.seed,
        })
    files.write_atomic(folder / f"{name}.h5", lambda out: out.write(buffer.getbuffer()))


def _write_manifest(path: Path, splits: Splits, demo: Demo) -> None:
    infos = {name: read_info(path.parent / name) for name in splits.all()}
    files.write_json(path, manifest.document(path.parent, splits, Ratios(), demo.seed, infos))


def _two_processes() -> ProcessPoolExecutor:
    """In threads the emulator's short calls wait for each other."""
    return ProcessPoolExecutor(min(2, os.cpu_count() or 1), get_context("spawn"), threadpool_limits, (1, "blas"))
