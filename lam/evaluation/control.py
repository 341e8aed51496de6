"""How much the actions control the decoder: DSNR, control and their companions, from per-sample distances.

Pure NumPy on what `lam.evaluation.measure` measured. Every ratio is a ratio of sums over the whole split,
taken once; a mean of per-sample ratios explodes where a single denominator is near 0. Intervals are
clustered by video (`record.intervals`). NaN means "not defined", and `dsnr_status` says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from record import intervals

Array = NDArray[Any]


class Distances(NamedTuple):
    """Distances [N] of a prediction to its target, over all dims of the scored frame."""

    l2: Array
    l1: Array
    cos: Array
    mse: Array


@dataclass(frozen=True)
class Scored:
    """What was measured for each of N scored transitions, in the order of the split.

    Attributes:
        codes: [N, S]; None where actions are continuous.
        files: [N] video numbers.
        targets: [N] latent-frame number of the predicted frame within its video.
        dims: numbers in one latent frame.
        true, shuffled: distances with the true codes, and with another sample's codes.
        rand, flipped: with random codes, with one slot flipped; None where codes are None or K = 1.
    """

    codes: Array | None
    files: Array
    targets: Array
    dims: int
    true: Distances
    shuffled: Distances
    rand: Distances | None
    flipped: Distances | None


def metrics(scored: Scored, num_embeddings: int, chunk_frames: int) -> dict[str, Any]:
    """The action metrics of a split, keys as in `lam.metrics`."""
    record: dict[str, Any] = {
        "val/scored_transitions": len(scored.files),
        "val/scored_files": len(np.unique(scored.files)),
        **_control(scored, chunk_frames),
        **_distances(scored),
    }
    if scored.codes is not None:
        record |= _dsnr(scored, num_embeddings)
    return record


def _control(scored: Scored, chunk_frames: int) -> dict[str, float]:
    whole = _one_minus_ratio(scored.true.mse, scored.shuffled.mse, scored.files)
    within = scored.targets % chunk_frames != 0
    parts = {
        name: _one_minus_ratio(scored.true.mse[rows], scored.shuffled.mse[rows], scored.files[rows]).value
        for name, rows in (("within", within), ("across", ~within))
    }
    return {
        "val/mse_scored": _mean(scored.true.mse),
        "val/control": whole.value,
        "val/control_low": whole.low,
        "val/control_high": whole.high,
        "val/control_within": parts["within"],
        "val/control_across": parts["across"],
    }


def _one_minus_ratio(top: Array, bottom: Array, files: Array) -> intervals.Estimate:
    estimate = intervals.ratio(top, bottom, files)
    return intervals.Estimate(1 - estimate.value, estimate.se, 1 - estimate.high, 1 - estimate.low)


def _distances(scored: Scored) -> dict[str, float]:
    true, rand, flipped = scored.true, scored.rand, scored.flipped
    record = {
        "val/d_action_l2": _mean(true.l2),
        "val/d_action_l1": _mean(true.l1),
        "val/d_action_mae": _mean(true.l1) / scored.dims,
    }
    if rand is not None:
        record |= {
            "val/d_rand_l2": _mean(rand.l2),
            "val/d_rand_l1": _mean(rand.l1),
            "val/d_rand_mae": _mean(rand.l1) / scored.dims,
            "val/action_sensitivity_l2": _mean(rand.l2 - true.l2),
            "val/action_sensitivity_l1": _mean(rand.l1 - true.l1),
            "val/action_sensitivity_mae": _mean(rand.l1 - true.l1) / scored.dims,
            "val/action_sensitivity_cos": _mean(rand.cos - true.cos),
            "val/delta_psnr": _mean(_decibels(rand.mse, true.mse)),
        }
    if flipped is not None:
        record["val/d_action_eps_l2"] = _mean(flipped.l2)
    return record


def _decibels(top: Array, bottom: Array) -> Array:
    """10 log10(top/bottom), each at least 1e-10 of the mean of `top`, so that one sample cannot be the whole mean."""
    floor = max(1e-10 * _mean(top), np.finfo(np.float64).tiny)
    return 10 * np.log10(np.maximum(top, floor) / np.maximum(bottom, floor))


def _dsnr(scored: Scored, num_embeddings: int) -> dict[str, Any]:
    signal = noise = np.zeros(0)
    if scored.rand is not None and scored.flipped is not None:
        signal, noise = scored.rand.l2 - scored.true.l2, scored.flipped.l2 - scored.true.l2
    status = dsnr_status(signal, noise, scored.files, num_embeddings)
    valid = status == "ok"
    estimate = intervals.ratio(signal, noise, scored.files) if valid else None
    return {
        "val/dsnr": estimate.value if estimate else math.nan,
        "val/dsnr_se": estimate.se if estimate else math.nan,
        "val/dsnr_status": status,
        "val/dsnr_valid": int(valid),
    }


def dsnr_status(signal: Array, noise: Array, files: Array, num_embeddings: int) -> str:
    """Why DSNR is or is not defined: a ratio says something only where its denominator differs from 0 (Fieller 1954).

    Args:
        signal: [N] d_rand - d_action.
        noise: [N] d_action_eps - d_action.
        files: [N] video of each sample.

    Returns:
        single_code (K = 1), no_transitions (N = 0), nonfinite, actions_ignored (the 95 % intervals of both means hold
        0), denominator_not_positive (that of the noise is not above 0), or ok.
    """
    if num_embeddings == 1:
        return "single_code"
    if len(signal) == 0:
        return "no_transitions"
    if not (np.isfinite(signal).all() and np.isfinite(noise).all()):
        return "nonfinite"
    above, below = _sides(noise, files)
    if above:
        return "ok"
    return "denominator_not_positive" if below or any(_sides(signal, files)) else "actions_ignored"


def _sides(values: Array, files: Array) -> tuple[bool, bool]:
    """Whether the 95 % interval of the mean lies above 0, and below; without an interval, whether the mean does."""
    found = intervals.mean(values, files)
    low, high = (found.value, found.value) if math.isnan(found.se) else (found.low, found.high)
    return low > 0, high < 0


def action_information(codes: Array, actions: Array, permutations: int = 20) -> float:
    """Information of the code tuple about the true action, as a share of the action's entropy.

    With few samples and many tuples the plain estimate is far above 0 for unrelated codes, so the mean over random
    relabellings is taken off. Where nearly every tuple is met once, that leaves next to no room and the share would be
    what a few pairs happen to say: two sd of the relabellings are added to the room.
    (I - I0)/(H - I0 + 2 sd0), at least 0; NaN for one action and where every tuple is met once.
    """
    _, tuples = np.unique(codes, axis=0, return_inverse=True)
    _, labels = np.unique(actions, return_inverse=True)
    entropy = _entropy(np.bincount(labels))
    rng = np.random.default_rng(0)
    drawn = [_mutual_information(tuples, rng.permutation(labels)) for _ in range(permutations)]
    chance, spread = float(np.mean(drawn)), float(np.std(drawn, ddof=1))
    if entropy - chance <= 1e-9:
        return math.nan
    return max(0.0, (_mutual_information(tuples, labels) - chance) / (entropy - chance + 2 * spread))


def _mutual_information(a: Array, b: Array) -> float:
    joint = np.bincount(a.ravel() * (int(b.max()) + 1) + b)
    return _entropy(np.bincount(a.ravel())) + _entropy(np.bincount(b)) - _entropy(joint)


def _entropy(counts: Array) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
