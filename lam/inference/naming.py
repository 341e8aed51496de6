"""What codes mean: how often each code tuple led along which true action, and probabilities from that.

Counts of rare tuples say little, so the shares of a tuple are drawn towards those of its codes without the last one,
and so on down to the shares of all transitions (a Dirichlet prior of weight 1 at every level, after MacKay and Peto
1995).
Residual slots are made for that: each code refines the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lam.config import RunConfig
from lam.data import windows as data
from lam.data.windows import Windows
from lam.evaluation import draws
from lam.model.lam import LatentActionModel

Array = NDArray[Any]
MOST_WINDOWS = 4096  # of the training split's labelled ones that are asked


@dataclass(frozen=True)
class Naming:
    """Code tuples with the true actions that were seen with them.

    Attributes:
        names: of the actions, by number.
        tuples: int64 [N, S], distinct.
        counts: int64 [N, A], how many transitions had that tuple and that action.
    """

    names: tuple[str, ...]
    tuples: Array
    counts: Array

    def shares(self, codes_NS: Array) -> NDArray[np.float64]:
        """[N, A] the probability of each action given the codes."""
        codes, total = np.asarray(codes_NS), self.counts.sum(0)
        shares = np.tile((total + 1 / len(total)) / (total.sum() + 1), (len(codes), 1))
        for depth in range(1, codes.shape[1] + 1):
            known, row = np.unique(self.tuples[:, :depth], axis=0, return_inverse=True)
            counts = np.zeros((len(known) + 1, len(total)))  # the last row is of what was never seen
            np.add.at(counts, row.ravel(), self.counts)
            seen = counts[_rows_of(codes[:, :depth], known)]
            shares = (seen + shares) / (seen.sum(1, keepdims=True) + 1)
        return shares

    def as_written(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"names": list(self.names), "tuples": self.tuples.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_written(cls, values: dict[str, Any]) -> Naming:
        """Undoes `as_written`.

        Raises:
            ValueError: the values are no naming.
        """
        names = tuple(str(name) for name in values["names"])
        tuples, counts = np.array(values["tuples"], np.int64), np.array(values["counts"], np.int64)
        if tuples.ndim != 2 or counts.shape != (len(tuples), len(names)) or not len(names) or (counts < 0).any():
            raise ValueError(f"holds {tuples.shape} tuples and {counts.shape} counts of {len(names)} actions")
        return cls(names, tuples, counts)


def _rows_of(asked: Array, known: Array) -> NDArray[np.int64]:
    """[N] the row of `known` that equals each row of `asked`; len(known) where none does."""
    place = {tuple(row): number for number, row in enumerate(known.tolist())}
    return np.array([place.get(tuple(row), len(known)) for row in asked.tolist()], np.int64)


def counted(names: Sequence[str], codes_NS: Array, actions_N: Array) -> Naming | None:
    """The naming of transitions with known actions (>= 0); None where none is known."""
    known = actions_N >= 0
    if not known.any():
        return None
    tuples, row = np.unique(codes_NS[known], axis=0, return_inverse=True)
    kinds = max(len(names), int(actions_N.max()) + 1)
    counts = np.zeros((len(tuples), kinds), np.int64)
    np.add.at(counts, (row.ravel(), actions_N[known]), 1)
    called = [*names, *(str(number) for number in range(len(names), kinds))]
    return Naming(tuple(called), tuples, counts)


@torch.inference_mode()
def learned(model: LatentActionModel, config: RunConfig) -> Naming | None:
    """The naming by the true actions of training videos; None where none is known or actions are continuous.

    Raises:
        BadData: the data are not there, or cannot be used.
    """
    if config.quantizer == "none":
        return None
    checked = data.check(config)
    windows = data.open_split(config, "train", stride=1, checked=checked)
    if not len(windows.labelled):
        return None
    index = windows.labelled[draws.subset(len(windows.labelled), MOST_WINDOWS)]
    names, codes = data.action_names(config, checked), _codes(model.eval(), windows, index, config)
    return counted(names, codes, windows.last_actions(index))


def _codes(model: LatentActionModel, windows: Windows, index: NDArray[np.int64], config: RunConfig) -> Array:
    """[N, S] codes of the last transition of each window."""
    device, parts = next(model.parameters()).device, []
    for begin in range(0, len(index), config.eval_batch_size):
        latents = windows.batch(index[begin : begin + config.eval_batch_size]).latents.to(device)
        codes = model.quantize(model.encode(latents)).codes
        assert codes is not None
        parts.append(codes[:, -1].cpu().numpy())
    return np.concatenate(parts)
