"""Statistics of latents by channel, of a video and pooled over files: what generated frames are normalised by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lam.data.index import FileRecord

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean, population std, lowest and highest value of each channel, [C] each; every latent value counts once."""

    mean: Array
    std: Array
    low: Array
    high: Array

    def normalise(self, values_CN: Array) -> Array:
        """(value - mean) / std of its channel; a constant channel is only centred."""
        return (values_CN - self.mean[:, None]) / np.where(self.std > 0, self.std, 1.0)[:, None]

    def metrics(self) -> dict[str, float]:
        """`data_stats/*`: of all values together, then of each channel."""
        mean = float(self.mean.mean())
        record = {
            "data_stats/normalized_mean": mean,
            "data_stats/normalized_std": float(np.sqrt((self.std**2 + (self.mean - mean) ** 2).mean())),
            "data_stats/normalized_min": float(self.low.min()),
            "data_stats/normalized_max": float(self.high.max()),
        }
        for number, (channel_mean, channel_std) in enumerate(zip(self.mean, self.std, strict=True)):
            record[f"data_stats/channel_{number:02d}_mean"] = float(channel_mean)
            record[f"data_stats/channel_{number:02d}_std"] = float(channel_std)
        return record


class Running:
    """Mean, std, lowest and highest of each channel, block by block; sums are around the first block's mean."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.centre = self.total = self.squares = np.zeros(channels)
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)

    def add(self, block: NDArray[np.float32]) -> None:
        """A block [k, C, T, H, W] of finite values."""
        values = block.transpose(1, 0, 2, 3, 4).reshape(len(self.low), -1)
        if self.count == 0:
            self.centre = values.mean(axis=1, dtype=np.float64)
        shifted = values - self.centre[:, None].astype(np.float32)
        self.count += values.shape[1]
        self.total = self.total + shifted.sum(axis=1, dtype=np.float64)
        self.squares = self.squares + np.einsum("cn,cn->c", shifted, shifted, dtype=np.float64)
        self.low, self.high = np.minimum(self.low, values.min(axis=1)), np.maximum(self.high, values.max(axis=1))

    def found(self) -> dict[str, tuple[float, ...]]:
        """mean, std over the population, low and high of each channel."""
        centre, mean = self.centre.astype(np.float32).astype(np.float64), self.total / self.count
        std = np.sqrt(np.clip(self.squares / self.count - mean**2, 0, None))
        return {name: tuple(map(float, values)) for name, values in
                (("mean", centre + mean), ("std", std), ("low", self.low), ("high", self.high))}


def pooled(records: Iterable[FileRecord]) -> ChannelStatistics:
    """Statistics over several files of one shape."""
    records = list(records)
    weight = np.array([record.info.latent_frames * record.info.height * record.info.width for record in records], float)
    weight /= weight.sum()
    means, stds = np.array([r.mean for r in records]), np.array([r.std for r in records])
    mean = weight @ means
    return ChannelStatistics(
        mean=mean,
        std=np.sqrt(weight @ (stds**2 + (means - mean) ** 2)),
        low=np.min([r.low for r in records], axis=0),
        high=np.max([r.high for r in records], axis=0),
    )
