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
from torch.nn import functional as F

from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation import draws, logistic
from lam.model.lam import LatentActionModel
from record import intervals


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies on the scored split; `gain` = accuracy - majority, with bounds clustered by video.

    Attributes:
        transitions: those that were scored, of those whose true action is known.
        unlabelled: those of the split whose true action is not.
    """

    accuracy: float
    majority: float
    shuffled: float
    gain: float
    gain_low: float
    gain_high: float
    transitions: int
    unlabelled: int
    videos: int


def probe(model: LatentActionModel, train_set: Windows, scored_set: Windows, config: RunConfig) -> ProbeResult | None:
    """Fit on `train_set`, score on `scored_set`; None where no two true actions of them are known.

    Transitions without a true action are left out and counted; of the others at most `eval_sequences`, or 4,096 where
    that is more, are taken.
    """
    limit = max(config.eval_sequences, 4096)
    chosen, y_train = _labelled(train_set, limit)
    scored, y = _labelled(scored_set, limit)
    if len(np.unique(y_train)) < 2 or not len(y):
        return None
    x_train, x = features(model, train_set, chosen, config), features(model, scored_set, scored, config)
    files = scored_set.starts[scored, 0]
    right = _named(x_train, y_train, x) == y
    shuffled = _named(x_train, np.random.default_rng(0).permutation(y_train), x) == y
    majority = y == np.bincount(y_train).argmax()
    gain = intervals.mean(right.astype(float) - majority.astype(float), files)
    return ProbeResult(
        accuracy=float(right.mean()), majority=float(majority.mean()), shuffled=float(shuffled.mean()),
        gain=gain.value, gain_low=gain.low, gain_high=gain.high,
        transitions=len(y), unlabelled=len(scored_set) - len(scored_set.labelled),
        videos=len(np.unique(files)),
    )


def _labelled(windows: Windows, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(windows, true actions) [N] of at most `limit` evenly spread windows whose last transition's action is known."""
    index = draws.labelled(windows.labelled, limit)
    return index, windows.last_actions(index)


@torch.inference_mode()
def features(
    model: LatentActionModel, windows: Windows, index: NDArray[np.int64], config: RunConfig
) -> NDArray[np.float64]:
    """One-hot codes [N, S*K] (or embeddings [N, S*Q]) of the last transitions of the windows `index`.

    Only the encoder is asked, `eval_batch_size` windows at a time.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for begin in range(0, len(index), config.eval_batch_size):
        latents = windows.batch(index[begin:begin + config.eval_batch_size]).latents.to(device)
        found = model.quantizer(model.encode(latents).float())
        x = found.z_q if found.codes is None else F.one_hot(found.codes, config.num_embeddings)
        parts.append(x[:, -1].flatten(1).cpu().double().numpy())
    return np.concatenate(parts)


def _named(x_train: NDArray[np.float64], y_train: NDArray[np.int64], x: NDArray[np.float64]) -> NDArray[np.int64]:
    """The action that a probe of some transitions names of others."""
    probe = logistic.fit(x_train, y_train)
    named: NDArray[np.int64] = probe.classes[probe.shares(x).argmax(axis=1)]
    return named
