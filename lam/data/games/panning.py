"""A picture that pans: data whose whole change is the action, to see whether codes find it at all.

In a game much moves that no action causes, and a model may spend its codes on that. Here each clip is one
picture of Ms. Pac-Man's maze, laid over its mirror image along the diagonal so that no direction has more
texture than another. It wraps around at its edges, and each action pans it in one direction: what the
next frame shows follows from the last one and the action.
"""

from __future__ import annotations

import numpy as np

from lam.data.codec import BLOCK_FRAMES
from lam.data.games import atari

NAME = "panning"
PIXELS = 2  # of a side of 64, a video frame
DIRECTIONS = {"UP": (-1, 0), "RIGHT": (0, 1), "LEFT": (0, -1), "DOWN": (1, 0)}


def pan(latent_frames: int, size: int, seed: tuple[int, ...]) -> atari.Clip:
    """One clip of `latent_frames` latent frames of `size` x `size` pixels; the same arguments give the same clip."""
    random = np.random.default_rng(seed)
    still = atari.play("ms_pacman", 4, size, seed).frames[-1]
    picture = np.maximum(still, np.roll(still.transpose(1, 0, 2), int(random.integers(size)), axis=0))
    actions = random.integers(len(DIRECTIONS), size=latent_frames)
    steps = np.array(list(DIRECTIONS.values()))[actions].repeat(BLOCK_FRAMES, axis=0)
    shifts = np.cumsum(steps * max(1, PIXELS * size // 64), axis=0)
    frames = np.stack([np.roll(picture, tuple(shift), axis=(0, 1)) for shift in shifts])
    return atari.Clip(frames, actions.astype(np.int64))
