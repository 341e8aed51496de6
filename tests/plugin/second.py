"""A second workload, as a person would write one: a polynomial fitted to points by gradient descent.

It knows of this project `record` alone. Its folder has the metadata of an installed package, so that
whoever has the folder on the path has the workload.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from record.errors import BadData
from record.run import RunFolder
from record.workload.metric import Metric
from record.workload.settings import Count, HealthConfig, Settings, TrackingConfig, Whole
from record.workload.workload import Workload


class Fit(Settings):
    """One fit."""

    points: str = Field(description="a .npy of [N, 2] points")
    degree: Count = Field(3, description="degree of the polynomial")
    rate: float = Field(0.1, gt=0, description="step size")
    num_epochs: Count = 10
    seed: Whole = 0
    threads: Whole = 0
    health: HealthConfig = Field(default_factory=HealthConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    pause: float = Field(0.0, ge=0, description="seconds that an epoch takes at least")


METRICS = (
    Metric("train/loss", "mean squared error of the training half", "down", "mean", in_loss=True),
    Metric("val/error", "mean squared error of the other half", "down", "mean"),
    Metric("val/explained", "1 - val/error / variance of the other half", "up", "sums", bounds=(-np.inf, 1)),
)


class Second(Workload):
    """`train` over `Fit`."""

    name = "second"
    config = Fit
    metrics: Mapping[str, Metric] = {metric.key: metric for metric in METRICS}
    objective = "val/error"
    error = "val/error"
    train = "second:train"
    path_knobs = ("points",)

    def absolute(self, config: Settings, folder: Path) -> Settings:
        return super().absolute(config, folder).replace(points=str((folder / config.points).absolute()))

    def prepare(self, configs: Sequence[Settings]) -> str:
        for config in configs:
            if not Path(config.points).exists():
                raise BadData("no such file", source=config.points, remedy="write points.npy")
        return hashlib.sha256(Path(configs[0].points).read_bytes()).hexdigest()[:12]

    def data_of(self, config: Settings) -> Hashable:
        return config.points


def train(config: Fit, run_dir: Path) -> Iterator[dict[str, Any]]:
    """Fit; goes on after the last recorded epoch."""
    folder = RunFolder(run_dir)
    weights_file = folder.checkpoints / "weights.npy"
    if not folder.exists():
        folder.start(config.mapping(), {"workload": "second", "run_id": Path(run_dir).name, "state": "running",
                                        "config_fingerprint": config.fingerprint()})
    known = folder.metrics()
    weights = np.load(weights_file) if known else np.random.default_rng(config.seed).normal(size=config.degree + 1)
    points = np.load(config.points)
    powers = points[:, :1] ** np.arange(config.degree + 1)
    for epoch in range(len(known) + 1, config.num_epochs + 1):
        began = time.monotonic()
        residual = powers[::2] @ weights - points[::2, 1]
        weights = weights - config.rate * powers[::2].T @ residual / len(residual)
        error = float(np.mean((powers[1::2] @ weights - points[1::2, 1]) ** 2))
        time.sleep(config.pause)
        np.save(weights_file, weights)
        record = {"epoch": epoch, "step": epoch, "seconds": time.monotonic() - began,
                  "train/loss": float(np.mean(residual**2)), "val/error": error,
                  "val/explained": 1 - error / float(points[1::2, 1].var())}
        folder.append(record)
        yield record
    folder.update_identity(state="finished")


SECOND = Second()
