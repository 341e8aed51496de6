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


PARTNERS = 4  # other samples whose codes stand in for a sample's own


def subset(count: int, limit: int) -> NDArray[np.int64]:
    """All of `count` indices, or one drawn from each of `limit` equal stretches of them.

    Equal steps would meet every video at the same places of its chunks.
    """
    if count == 0:
        raise ValueError("the split holds no sequence")
    if count <= limit:
        return np.arange(count)
    edges = np.arange(limit + 1) * count // limit
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


def labelled(windows: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` evenly spread ones of the windows whose true action is known; of none, none.

    They are drawn among these: of evenly spread windows of a split that is labelled here and there few would be left.
    """
    return windows[subset(len(windows), limit)] if len(windows) else windows


def draw(config: RunConfig, file: str, start: int) -> tuple[Array, int, int]:
    """The random choices for one sample: uniform codes [S], the slot to flip, the shift (1..K-1) that flips it.

    They depend on (eval_seed, file, start, S, K) alone, so that epochs, trials and batch sizes compare.
    """
    key = hashlib.sha256(f"{config.eval_seed}/{file}/{start}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    K = config.num_embeddings
    return rng.integers(K, size=config.num_codes), int(rng.integers(config.num_codes)), int(rng.integers(1, K))


def partners(places: Array, seed: int) -> NDArray[np.int64]:
    """[PARTNERS, N] seeded permutations among samples of the same place; nobody is their own partner.

    But for a lone sample of its place; where there are few others, some come twice.

    Args:
        places: [N] place of the scored transition in its chunk, since a code that tells only that is worth nothing.
    """
    found = np.empty((PARTNERS, len(places)), np.int64)
    for place in np.unique(places):
        rows = np.flatnonzero(places == place)
        order = rows[np.random.default_rng((seed, int(place))).permutation(len(rows))]
        for number in range(PARTNERS):
            found[number, order] = np.roll(order, 1 + number % max(1, len(rows) - 1))
    return found


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
