"""What an evaluation chooses: which sequences are scored, whose codes stand in for others', by which distance."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lam.config import RunConfig
from lam.evaluation.control import Distances

Array = NDArray[Any]


def subset(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `count` indices, evenly spread."""
    if count == 0:
        raise ValueError("the split holds no sequence")
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))


def draw(config: RunConfig, file: str, start: int) -> tuple[Array, int, int]:
    """The random choices for one sample: uniform codes [S], the slot to flip, the shift (1..K-1) that flips it.

    They depend on (eval_seed, file, start, S, K) alone, so that epochs, trials and batch sizes compare.
    """
    key = hashlib.sha256(f"{config.eval_seed}/{file}/{start}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    K = config.num_embeddings
    return rng.integers(K, size=config.num_codes), int(rng.integers(config.num_codes)), int(rng.integers(1, K))


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A seeded cyclic permutation: nobody is their own partner (but for a lone sample)."""
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def distances(prediction: Tensor, target: Tensor) -> Distances:
    """Distances between [B, C, H, W] pairs of float32, over all dims of a sample, summed up in float64.

    DSNR and the sensitivities are small differences of these; float32 sums would cost them digits.
    """
    a, b = prediction.float().flatten(1).double(), target.float().flatten(1).double()
    error = a - b
    values = (
        error.norm(dim=1),
        error.abs().sum(dim=1),
        1 - F.cosine_similarity(a, b),
        error.pow(2).mean(dim=1),
    )
    return Distances(*(value.cpu().numpy() for value in values))
