"""What the model makes up when it is left alone: statistics of free-running rollouts on normalised values.

A rollout starts at the first frame of a sequence and is given the sequence's own codes; every frame
after that is predicted from predictions. Values are normalised by the training split's mean and
standard deviation of each channel, so that thresholds mean the same on any data.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lam.data.readers.statistics import ChannelStatistics
from lam.model.lam import LatentActionModel

Array = NDArray[np.float64]

SEQUENCES = 64  # rolled out at a validation, evenly spread over the scored ones


class RolloutSums(NamedTuple):
    """Per-channel sums [C] of normalised values, and how many there were of each."""

    size: int
    total: Array
    squares: Array
    low: Array
    high: Array

    @property
    def mean(self) -> Array:
        """Mean of each channel."""
        return self.total / self.size

    @property
    def std(self) -> Array:
        """Population standard deviation of each channel."""
        return np.sqrt(np.maximum(self.squares / self.size - self.mean**2, 0.0))


def rollout(model: LatentActionModel, first_BCHW: Tensor, actions_BLSQ: Tensor) -> Tensor:
    """Frames 1..L from frame 0 and the actions alone: [B, L, C, H, W]."""
    frame_B1CHW, past, frames = first_BCHW[:, None], None, []
    for position in range(actions_BLSQ.shape[1]):
        frame_B1CHW, past = model.follow(frame_B1CHW, actions_BLSQ[:, position : position + 1], past)
        frames.append(frame_B1CHW)
    return torch.cat(frames, dim=1)


def sums(frames_BLCHW: Tensor, scale: ChannelStatistics) -> RolloutSums:
    """Sums of one batch of frames."""
    values = frames_BLCHW.double().cpu().numpy().swapaxes(0, 2).reshape(frames_BLCHW.shape[2], -1)
    normalised = scale.normalise(values)
    return RolloutSums(normalised.shape[1], normalised.sum(1), (normalised**2).sum(1), normalised.min(1),
                       normalised.max(1))


def add(a: RolloutSums, b: RolloutSums) -> RolloutSums:
    """Sums of both."""
    return RolloutSums(a.size + b.size, a.total + b.total, a.squares + b.squares, np.minimum(a.low, b.low),
                np.maximum(a.high, b.high))


def rollout_metrics(generated: RolloutSums, real: RolloutSums) -> dict[str, float]:
    """`validation/gen_*` of rollouts, with the true frames of the same places to compare with."""
    mean = float(generated.mean.mean())
    variance = float((generated.squares / generated.size).mean()) - mean**2
    moving = real.std > 0
    ratios = generated.std[moving] / real.std[moving]
    return {
        "validation/gen_std": math.sqrt(max(variance, 0.0)),
        "validation/gen_mean": mean,
        "validation/gen_range": float(generated.high.max() - generated.low.min()),
        "validation/gen_std_ratio_min": float(ratios.min()) if len(ratios) else math.nan,
    }
