"""Where the picture changes: the weights by which a loss can lean on the cells of the grid that move.

They are of the place alone, so that the mean a prediction aims at is not shifted; that what matters stays in one
region of the picture is assumed. What moves by itself (traffic, a conveyor) may change most of the picture and needs
no action to be told: `innovation` leaves out what a linear prediction tells, as the innovation of a linear filter does.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation.draws import subset

MOST_SEQUENCES, AT_A_TIME = 2048, 64
MOST_FITTED = 1024  # sequences that innovations are fitted on: a ridge regression for each cell takes its time
REACH = 1  # cells to either side that a cell is predicted from
RIDGE = 1e-3  # of the predictors' mean square


def of_config(config: RunConfig, windows: Windows) -> Tensor | None:
    """m / mean m [H, W] where the config weights by it, else None."""
    measures = {"difference": differences, "innovation": innovations}
    return relative(measures[config.change_measure](windows)) if config.change_weight else None


def relative(moved_HW: NDArray[np.float64]) -> Tensor:
    """m / mean m; 0 where nothing moves at all."""
    mean = moved_HW.mean()
    return torch.from_numpy(moved_HW / mean if mean > 0 else moved_HW).float()


def differences(windows: Windows) -> NDArray[np.float64]:
    """[H, W] sum over windows and channels of (next frame - frame)^2."""
    index = subset(len(windows), MOST_SEQUENCES)
    total_HW = np.zeros(windows.latent_shape[1:])
    for begin in range(0, len(index), AT_A_TIME):
        frames = windows.batch(index[begin : begin + AT_A_TIME]).latents.double().numpy()
        total_HW += np.square(frames[:, 1:] - frames[:, :-1]).sum((0, 1, 2))
    return total_HW


def innovations(windows: Windows) -> NDArray[np.float64]:
    """[H, W] sum over windows and channels of the squared error of a linear prediction of the last change.

    Each cell has a ridge regression of its own on the cells within `REACH` of it in the two frames before.
    """
    index = subset(len(windows), MOST_FITTED)
    frames_N3CHW = torch.cat([windows.batch(index[begin : begin + AT_A_TIME]).latents[:, -3:]
                              for begin in range(0, len(index), AT_A_TIME)])
    change_NCHW = frames_N3CHW[:, 2] - frames_N3CHW[:, 1]
    seen_NDHW = F.pad(frames_N3CHW[:, :2].flatten(1, 2), (REACH,) * 4)
    height, width = windows.latent_shape[1:]
    side = 2 * REACH + 1
    return np.array([[_left(seen_NDHW[:, :, row : row + side, column : column + side].flatten(1),
                            change_NCHW[:, :, row, column]) for column in range(width)] for row in range(height)])


def _left(x_NF: Tensor, y_NC: Tensor) -> float:
    """Summed squared error of the ridge regression of y on x, both centred."""
    x_NF, y_NC = x_NF - x_NF.mean(0), y_NC - y_NC.mean(0)
    gram_FF = x_NF.T @ x_NF
    ridge = RIDGE * gram_FF.diagonal().mean() + torch.finfo(gram_FF.dtype).tiny
    weights_FC = torch.linalg.solve(gram_FF + ridge * torch.eye(len(gram_FF)), x_NF.T @ y_NC)
    return float((y_NC - x_NF @ weights_FC).square().sum(dtype=torch.float64))


def weight(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """`change_weight` at an optimizer step (from 1): constant, or falling linearly to 0."""
    if config.change_weight_decay_epochs is None:
        return config.change_weight
    left = 1 - (step - 1) / (config.change_weight_decay_epochs * steps_per_epoch)
    return config.change_weight * max(0.0, left)
