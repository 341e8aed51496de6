"""Where the picture changes: the weights by which a loss can lean on the cells of the grid that move.

They are of the place alone, so that the mean a prediction aims at is not shifted; that what matters stays in one
region of the picture is assumed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation.draws import subset

MOST_SEQUENCES, AT_A_TIME = 2048, 64


def of_config(config: RunConfig, windows: Windows) -> Tensor | None:
    """m / mean m [H, W] where the config weights by it, else None."""
    return relative_change(windows) if config.change_weight else None


def relative_change(windows: Windows) -> Tensor:
    """m / mean m [H, W], m = mean over windows and channels of (next frame - frame)^2; 0 where nothing moves."""
    index = subset(len(windows), MOST_SEQUENCES)
    total_HW = np.zeros(windows.latent_shape[1:])
    for begin in range(0, len(index), AT_A_TIME):
        frames = windows.batch(index[begin : begin + AT_A_TIME]).latents.double().numpy()
        total_HW += np.square(frames[:, 1:] - frames[:, :-1]).sum((0, 1, 2))
    mean = total_HW.mean()
    return torch.from_numpy(total_HW / mean if mean > 0 else total_HW).float()


def weight(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """`change_weight` at an optimizer step (from 1): constant, or falling linearly to 0."""
    if config.change_weight_decay_epochs is None:
        return config.change_weight
    left = 1 - (step - 1) / (config.change_weight_decay_epochs * steps_per_epoch)
    return config.change_weight * max(0.0, left)
