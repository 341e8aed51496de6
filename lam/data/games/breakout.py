"""Breakout with any player, who sees the screen alone: to film a player, and to score one that was cloned from film."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray
from PIL import Image

from lam.data import manifest
from lam.data.codec import BLOCK_FRAMES, Codec, sample
from lam.data.h5 import ACTIONS, EMBEDDINGS, UNKNOWN_ACTION

MOVES, NAMES = (Action.FIRE, Action.RIGHT, Action.LEFT), ("stay", "right", "left")
COLUMNS = 72  # of the screen, as a player sees it
BALL_X, PADDLE_X = 99, 72  # places in the console's memory, which only the scripted player looks at
STEADY, MISTAKES = 6, 0.1
CHUNK_FRAMES, CLIP_BLOCKS = 2, 800

View = NDArray[np.float64]
Player = Callable[[ALEInterface, View], int]


class Played(NamedTuple):
    """What was played, n moves of four frames.

    Attributes:
        pictures: uint8 [4n, size, size, 3]; empty where nothing was filmed.
        seen: float32 [n, F] what the player saw before each move.
        done: int64 [n] what it did.
        score: of the game.
    """

    pictures: NDArray[np.uint8]
    seen: NDArray[np.float32]
    done: NDArray[np.int64]
    score: float


def play_with(player: Player, moves: int, seed: int, size: int = 0) -> Played:
    """A game of at most so many moves, filmed where a `size` of pictures is given."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    game = ALEInterface()
    for key, value in (("random_seed", seed), ("frame_skip", 1)):
        game.setInt(key, value)
    game.setFloat("repeat_action_probability", 0.0)
    game.loadROM(roms.get_rom_path("breakout"))
    pictures: list[NDArray[np.uint8]] = []
    seen: list[View] = []
    done: list[int] = []
    score, before = 0.0, eye(game)
    while len(done) < moves and not game.game_over():
        now = eye(game)
        seen.append(np.concatenate([now, before]))
        done.append(player(game, seen[-1]))
        before = now
        for _ in range(BLOCK_FRAMES):
            score += game.act(MOVES[done[-1]])
            if size:
                screen = Image.fromarray(game.getScreenRGB())
                pictures.append(np.asarray(screen.resize((size, size), Image.Resampling.BOX)))
    return Played(np.array(pictures), np.array(seen, np.float32), np.array(done), score)


def eye(game: ALEInterface) -> View:
    """[2 COLUMNS] where on the screen something is: the brightest of each column below the bricks, and on the paddle's
    row."""
    screen = game.getScreenGrayscale() / 255.0
    return np.concatenate([screen[93:189].max(0)[8:152:2], screen[189:194].max(0)[8:152:2]])


def scripted(random: np.random.Generator) -> Player:
    """Follows the ball and serves; one move in ten is drawn, so that videos show what follows from mistakes."""
    def player(game: ALEInterface, view: View) -> int:
        memory, ball_in_sight = game.getRAM(), view[:COLUMNS].any()
        gap = int(memory[BALL_X]) - int(memory[PADDLE_X]) - 8
        steady = not ball_in_sight or abs(gap) < STEADY
        if random.random() < MISTAKES:
            return int(random.integers(len(MOVES)))
        return 0 if steady else 1 if gap > 0 else 2

    return player


def filmed(random: np.random.Generator, clips: int, moves: int, size: int) -> list[Played]:
    """Clips of the scripted player that last so many moves."""
    found: list[Played] = []
    while len(found) < clips:
        clip = play_with(scripted(random), moves, int(random.integers(2**31)), size)
        if len(clip.done) == moves:
            found.append(clip)
    return found


def write_videos(folder: Path, clips: Sequence[Played], known: NDArray[np.bool_]) -> Path:
    """The clips as latents of a codec that is fitted on them, with what was done where it is `known`, and a split.

    The action of a latent frame led into it, so the first is that of no transition.

    Args:
        known: [clips, moves]; other actions are written as unknown.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    codec = Codec.fit([sample(clip.pictures, CLIP_BLOCKS, random) for clip in clips])
    for number, clip in enumerate(clips):
        with h5py.File(folder / f"clip-{number:03d}.h5", "w") as file:
            latents = codec.encode(clip.pictures)
            file[EMBEDDINGS] = latents.reshape(-1, CHUNK_FRAMES, *latents.shape[1:]).transpose(0, 2, 1, 3, 4)
            file[ACTIONS] = np.where(known[number], clip.done, UNKNOWN_ACTION)
            file.attrs["action_names"] = json.dumps(NAMES)
    manifest.write_manifest(folder)
    return folder
