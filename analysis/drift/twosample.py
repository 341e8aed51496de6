"""Whether two sets of vectors are from one distribution: energy distance, judged by exchanging them. Pure.

The energy distance between X and Y is 2 E|X - Y| - E|X - X'| - E|Y - Y'|, zero only where the two distributions are
the same (Szekely and Rizzo 2013, Energy statistics, Journal of Statistical Planning and Inference 143). Its p-value is
the share of exchanges of members that give as much (Phipson and Smyth 2010: never 0); random exchanges end at the
tenth one that does (Besag and Clifford 1991, Sequential Monte Carlo p-values, Biometrika 78), so that data without
a difference are answered at once.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

Array = NDArray[Any]
ALPHA = 0.05  # of ever raising a false alarm, however often one looks
EXACT = 20_000  # exchanges that are all tried
ENOUGH = 10  # exchanges that give as much, after which random ones end
FOR_LEVEL = 5  # random exchanges, in multiples of 1 / level
MOST = 5_000_000
BATCH = 5_000


def level_of(look: int, tests: int) -> float:
    """The level of each of so many tests at the look-th look, counted from 1.

    1/(k(k+1)) sums to 1 over all k, so that all tests of all looks together raise a false alarm with a probability of
    at most ALPHA, whatever they have to do with each other: spending of alpha (Lan and DeMets 1983, Discrete
    sequential boundaries for clinical trials, Biometrika 70) by Bonferroni's bound.
    """
    return ALPHA / (look * (look + 1)) / tests


def smallest_p(kept: int, new: int) -> float:
    """What the p-value of so many against so many is at least; of as many it is the same with the two exchanged."""
    return max((2 if kept == new else 1) / math.comb(kept + new, new), 1 / MOST)


def p_value(kept_NV: Array, new_MV: Array, level: float, seed: int = 0) -> float:
    """How probable so large a distance is where kept and new are exchangeable.

    Args:
        level: what it is compared with; decides for how long random exchanges are drawn.
    """
    both = np.concatenate([kept_NV, new_MV]).astype(np.float64)
    distances, new = cdist(both, both), len(new_MV)
    if not distances.any():
        return 1.0
    seen = float(_energy(distances, _members([tuple(range(len(kept_NV), len(both)))], len(both)))[0])
    if math.comb(len(both), new) <= EXACT:
        every = _members(list(combinations(range(len(both)), new)), len(both))
        return float((_energy(distances, every) >= seen * (1 - 1e-9)).mean())
    return _sampled(distances, new, seen, min(MOST, math.ceil(FOR_LEVEL / level)), np.random.default_rng(seed))


def _sampled(distances: Array, new: int, seen: float, most: int, rng: np.random.Generator) -> float:
    as_much = drawn = 0
    while drawn < most:
        order = rng.random((min(BATCH, most - drawn), len(distances))).argsort(axis=1)[:, :new]
        hits = _energy(distances, _members(order, len(distances))) >= seen * (1 - 1e-9)
        if as_much + hits.sum() >= ENOUGH:
            return ENOUGH / (drawn + int(np.flatnonzero(hits)[ENOUGH - as_much - 1]) + 1)
        as_much, drawn = as_much + int(hits.sum()), drawn + len(hits)
    return (as_much + 1) / (drawn + 1)


def _members(chosen: Any, size: int) -> Array:
    """[P, N] which of N are new, one row an exchange."""
    found = np.zeros((len(chosen), size))
    np.put_along_axis(found, np.asarray(chosen), 1.0, axis=1)
    return found


def _energy(distances_NN: Array, new_PN: Array) -> Array:
    """[P] energy distances."""
    kept_PN = 1 - new_PN
    kept, new = kept_PN[0].sum(), new_PN[0].sum()
    toward_PN = new_PN @ distances_NN
    between = (toward_PN * kept_PN).sum(1) / (kept * new)
    within_new = (toward_PN * new_PN).sum(1) / new**2
    within_kept = ((kept_PN @ distances_NN) * kept_PN).sum(1) / kept**2
    return np.asarray(2 * between - within_kept - within_new)
