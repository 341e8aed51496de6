"""Effective rank: how many directions an embedding really uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def effective_rank(x_ND: NDArray[Any]) -> float:
    """exp of the entropy of the normalised singular values of the centred matrix (Roy & Vetterli 2007).

    The singular values themselves, not their squares, and no jitter: 0 where nothing varies, at most
    min(N - 1, D). NaN where an entry is not finite.
    """
    x_ND = x_ND.astype(np.float64)
    if not np.isfinite(x_ND).all():
        return float("nan")
    centred = x_ND - x_ND.mean(axis=0)
    # Below this, what is left after centring is rounding.
    if np.abs(centred).max() <= 1e-12 * max(1.0, float(np.abs(x_ND).max())):
        return 0.0
    values = np.linalg.svd(centred, compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
