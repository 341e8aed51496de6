"""True actions in training: a linear head learns to name them from the code, and the code learns to be named.

A few labels are enough to matter, so a batch's loss is the mean over its labelled transitions, however many it has.
Labels come from the training split alone: what a validation scores has taken no part in training.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lam.config import RunConfig
from lam.data.h5 import UNKNOWN_ACTION
from lam.data.windows import Batch, Windows
from record.errors import BadData


class Labels:
    """The true actions of the training split that `config.labels` lets training use.

    Attributes:
        actions: of each file, int64 [latent frames]: the action that led into a frame, -1 = not used.
        kinds: actions are numbers below this.
        count: how many there are.

    Raises:
        BadData: none is left, or a named file is not of the training split.
    """

    def __init__(self, config: RunConfig, windows: Windows) -> None:
        rule = config.labels
        other = sorted(set(rule.files or ()) - set(windows.files))
        if other:
            raise BadData(f"got {other[0]!r}, which is no usable file of the training split", source="config",
                          key="labels.files", remedy="name training files; labels of the others are what scores")
        self.actions = [windows.actions_of(number) if rule.files is None or name in rule.files
                        else np.full(windows.frames[number], UNKNOWN_ACTION)
                        for number, name in enumerate(windows.files)]
        for name, actions in zip(windows.files, self.actions, strict=True):
            actions[~drawn(name, len(actions), rule.share)] = UNKNOWN_ACTION
            actions[0] = UNKNOWN_ACTION  # it led into the first frame, from one that is not there
        self.count = sum(int((actions >= 0).sum()) for actions in self.actions)
        self.kinds = 1 + max(int(actions.max()) for actions in self.actions)
        if self.count == 0:
            raise BadData(f"got {config.action_weight:g}, and the training split holds no true action that labels "
                          "lets it use", source="config", key="action_weight",
                          remedy="set action_weight: 0, label some training videos, or raise labels.share")

    def of(self, batch: Batch) -> Tensor:
        """[B, T-1] the action of each transition of a batch, -1 = not used."""
        length = batch.latents.shape[1]
        rows = zip(batch.file.tolist(), batch.start.tolist(), strict=True)
        return torch.from_numpy(np.stack([self.actions[file][start + 1 : start + length] for file, start in rows]))


def drawn(name: str, frames: int, share: float) -> NDArray[np.bool_]:
    """[frames] which labels of a video are in this share: the same in every run, and a smaller share is part of it."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return np.random.default_rng(seed).random(frames) < share


class ActionHead(nn.Module):
    """The logits of a transition's action, linear in its quantised code; all 0 at the start."""

    def __init__(self, config: RunConfig, kinds: int) -> None:
        super().__init__()
        self.weight_AC = nn.Parameter(torch.zeros(kinds, config.num_codes * config.codebook_dim))
        self.bias_A = nn.Parameter(torch.zeros(kinds))

    def loss(self, z_q: Tensor, actions_BL: Tensor, teach: bool) -> Tensor:
        """The summed cross-entropy of the known actions.

        Args:
            z_q: [B, L, S, Q] codes that carry a gradient.
            actions_BL: -1 = unknown.
            teach: whether the codes learn from it too, or the head alone.
        """
        logits = F.linear((z_q if teach else z_q.detach()).flatten(2).float(), self.weight_AC, self.bias_A)
        return F.cross_entropy(logits.flatten(0, 1), actions_BL.flatten(), reduction="sum", ignore_index=UNKNOWN_ACTION)
