"""Do the codes tell the true action? A linear probe, fitted on training videos, scored on another split.

The probe is a logistic regression on the one-hot codes of each slot (on the embedding where actions
are continuous). Its accuracy stands beside two baselines: always the commonest action of the training
videos, and the same probe fitted on shuffled labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation import measure
from lam.model.lam import LatentActionModel
from record import intervals


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies on the scored split; `gain` = accuracy - majority, with bounds clustered by video."""

    accuracy: float
    majority: float
    shuffled: float
    gain: float
    gain_low: float
    gain_high: float
    transitions: int
    videos: int


def probe(model: LatentActionModel, train_set: Windows, scored_set: Windows, config: RunConfig) -> ProbeResult | None:
    """Fit on `train_set`, score on `scored_set`; None where the files hold no true actions."""
    config = config.replace(eval_sequences=max(config.eval_sequences, 4096))
    x_train, y_train, _ = features(model, train_set, config)
    x, y, files = features(model, scored_set, config)
    if (y_train < 0).any() or (y < 0).any() or len(np.unique(y_train)) < 2:
        return None
    right = _fit(x_train, y_train).predict(x) == y
    shuffled = _fit(x_train, np.random.default_rng(0).permutation(y_train)).predict(x) == y
    majority = y == np.bincount(y_train).argmax()
    gain = intervals.mean(right.astype(float) - majority.astype(float), intervals.clusters(files))
    return ProbeResult(
        accuracy=float(right.mean()), majority=float(majority.mean()), shuffled=float(shuffled.mean()),
        gain=gain.value, gain_low=gain.low, gain_high=gain.high,
        transitions=len(y), videos=len(np.unique(files)),
    )


@torch.inference_mode()
def features(
    model: LatentActionModel, windows: Windows, config: RunConfig
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """One-hot codes [N, S*K] (or embeddings [N, S*Q]), true actions [N] and video numbers [N] of last transitions."""
    model.eval()
    index = measure.subset(len(windows), config.eval_sequences)
    true = measure.true_pass(model, windows, index, config)
    batch = windows.batch(index)
    if true.codes_NS is None:
        x = true.actions_NLSQ[:, -1].flatten(1).cpu().double().numpy()
    else:
        x = np.eye(config.num_embeddings)[true.codes_NS.cpu().numpy()].reshape(len(index), -1)
    return x, batch.actions[:, -1].numpy(), batch.file.numpy()


def _fit(x: NDArray[np.float64], y: NDArray[np.int64]) -> LogisticRegression:
    return LogisticRegression(max_iter=1000).fit(x, y)
