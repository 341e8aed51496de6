"""Real Atari gameplay as uninterrupted clips with the true action of every latent frame.

A random player holds each action for exactly one latent frame (four emulated frames), so that the
action of a latent frame is one well-defined thing. Nothing is sticky and no frame is skipped.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray
from PIL import Image

from lam.data.codec import BLOCK_FRAMES
from record.errors import BadInput
from record.schema import suggest

# Actions that differ on the screen. What a game treats alike is merged: Pong's FIRE is its NOOP.
ACTIONS: dict[str, tuple[str, ...]] = {
    "breakout": ("FIRE", "RIGHT", "LEFT"),
    "pong": ("NOOP", "RIGHT", "LEFT"),
    "boxing": ("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN"),
    "skiing": ("NOOP", "RIGHT", "LEFT"),
    "battle_zone": ("NOOP", "RIGHT", "LEFT"),
    "riverraid": ("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN"),
    "tennis": ("NOOP", "UP", "RIGHT", "LEFT", "DOWN"),
    "enduro": ("FIRE", "RIGHTFIRE", "LEFTFIRE", "DOWN"),
    "ice_hockey": ("NOOP", "UP", "RIGHT", "LEFT", "DOWN"),
    "freeway": ("NOOP", "UP", "DOWN"),
    "haunted_house": ("UP", "RIGHT", "LEFT", "DOWN"),
    "space_invaders": ("NOOP", "FIRE", "RIGHT", "LEFT"),
}
STARTUP_FRAMES = (60, 120)  # emulated frames of NOOP before a clip begins, drawn uniformly
REWIND_FRAMES = (8, 24)  # latent frames that play goes back after a loss, drawn uniformly
MOST_LOSSES = 200
LONG = 200  # latent frames; in a longer clip only losses since play last got further count, and it goes back less far
ATTEMPTS = 3  # at a longer clip, from its start


@dataclass(frozen=True)
class Clip:
    """An uninterrupted stretch of play.

    Attributes:
        frames: uint8 [4n, size, size, 3].
        actions: int64 [n], the number in the action table held during the four frames of a latent frame,
            so the action that led into it.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.int64]


def game_actions(game: str) -> list[str]:
    """Names of the actions that the player draws from.

    Raises:
        BadInput: no such game.
    """
    known = sorted(game for game in roms.get_all_rom_ids() if ALEInterface.isSupportedROM(roms.get_rom_path(game)))
    if game not in known:
        raise BadInput(f"got {game!r}, no such game", key="--game",
                       remedy=suggest(game, known) if len(game) > 2 else f"for example {', '.join(sorted(ACTIONS))}")
    if game in ACTIONS:
        return list(ACTIONS[game])
    return list(dict.fromkeys(action.name for action in _emulator(game, 0).getMinimalActionSet()))


def play(game: str, latent_frames: int, size: int, seed: tuple[int, ...]) -> Clip:
    """One clip of `latent_frames` latent frames; the same arguments give the same clip.

    What is played is decided first, without a picture, since most of what is tried may be taken back.

    Raises:
        BadInput: random play never lasts that long in this game.
    """
    random = np.random.default_rng(seed)
    codes = [getattr(Action, name) for name in _names(game)]
    emulator = _emulator(game, int(random.integers(2**31)))
    for _ in range(int(random.integers(*STARTUP_FRAMES))):
        emulator.act(Action.NOOP)
    start = emulator.cloneState()
    for _ in range(ATTEMPTS if latent_frames > LONG else 1):
        emulator.restoreState(start)
        if (actions := _survived(emulator, codes, latent_frames, random)) is not None:
            break
    else:
        raise BadInput(f"got {latent_frames}, and random play of {game} does not last that long", key="--length",
                       remedy="take a smaller --length or another --game")
    emulator.restoreState(start)
    frames = np.empty((latent_frames, BLOCK_FRAMES, size, size, 3), np.uint8)
    for action, pictures in zip(actions, frames, strict=True):
        _hold(emulator, codes[action], pictures)
    return Clip(frames.reshape(-1, size, size, 3), actions)


def _survived(emulator: ALEInterface, codes: list[Action], latent_frames: int,
              random: np.random.Generator) -> NDArray[np.int64] | None:
    """[latent_frames] random actions that lose no life and end no game; None where too many do.

    A clip must not jump: where a life is lost, play goes back some latent frames, further each time, and draws other
    actions from there.
    """
    states = [emulator.cloneState()]  # states[t]: before latent frame t
    actions = np.zeros(latent_frames, np.int64)
    losses, furthest, patience = 0, 0, 40 if latent_frames > LONG else 10
    while (now := len(states) - 1) < latent_frames:
        if latent_frames > LONG and now > furthest:
            losses, furthest = 0, now
        actions[now] = random.integers(len(codes))
        if _hold(emulator, codes[actions[now]]):
            states.append(emulator.cloneState())
            continue
        losses += 1
        if losses > MOST_LOSSES:
            return None
        del states[max(1, len(states) - int(random.integers(*REWIND_FRAMES)) * (1 + losses // patience)):]
        emulator.restoreState(states[-1])
    return actions


@functools.cache
def _names(game: str) -> tuple[str, ...]:
    """`game_actions`, asked once: it looks at every game there is."""
    return tuple(game_actions(game))


def _emulator(game: str, seed: int) -> ALEInterface:
    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator = ALEInterface()
    emulator.setInt("random_seed", seed)
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.setInt("frame_skip", 1)
    emulator.loadROM(roms.get_rom_path(game))
    return emulator


def _hold(emulator: ALEInterface, action: Action, frames: NDArray[np.uint8] | None = None) -> bool:
    """Hold `action` for a latent frame, filling `frames` [4, size, size, 3] if given; False when a life is lost."""
    lives = emulator.lives()
    for number in range(BLOCK_FRAMES):
        emulator.act(action)
        if frames is not None:
            screen = Image.fromarray(emulator.getScreenRGB())
            frames[number] = np.asarray(screen.resize(frames.shape[1:3], Image.Resampling.BOX))
    return not emulator.game_over() and emulator.lives() >= lives
