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
        actions: [N] true actions, -1 where unknown.
        files: [N] video numbers.
        targets: [N] latent-frame number of the predicted frame within its video.
        dims: numbers in one latent frame.
        true, shuffled: distances with the true codes, and with another sample's codes.
        rand, flipped: with random codes, with one slot flipped; None where codes are None or K = 1.
    """

    codes: Array | None
    actions: Array
    files: Array
    targets: Array
    dims: int
    true: Distances
    shuffled: Distances
    rand: Distances | None
    flipped: Distances | None


def metrics(scored: Scored, num_embeddings: int, chunk_frames: int) -> dict[str, Any]:
    """The action metrics of a split, keys as in `lam.metrics`."""
    cluster = intervals.clusters(scored.files)
    labelled = scored.actions >= 0
    record: dict[str, Any] = {
        "val/scored_transitions": len(scored.files),
        "val/labelled_transitions": int(labelled.sum()),
        "val/scored_files": len(np.unique(scored.files)),
        **_control(scored, cluster, chunk_frames),
        **_distances(scored),
    }
    if scored.codes is not None:
        record |= _dsnr(scored, cluster, num_embeddings)
        if labelled.any():
            record["val/action_nmi"] = action_information(scored.codes[labelled], scored.actions[labelled])
    return record


def _control(scored: Scored, cluster: Array, chunk_frames: int) -> dict[str, float]:
    whole = _one_minus_ratio(scored.true.mse, scored.shuffled.mse, cluster)
    within = scored.targets % chunk_frames != 0
    parts = {
        name: _one_minus_ratio(scored.true.mse[rows], scored.shuffled.mse[rows], cluster[rows]).value
        for name, rows in (("within", within), ("across", ~within))
    }
    return {
        "val/control": whole.value,
        "val/control_low": whole.low,
        "val/control_high": whole.high,
        "val/control_within": parts["within"],
        "val/control_across": parts["across"],
    }


def _one_minus_ratio(top: Array, bottom: Array, cluster: Array) -> intervals.Estimate:
    estimate = intervals.ratio(top, bottom, cluster)
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
    """10 log10(top/bottom); 0 where both are 0, NaN-free only for positive bottoms."""
    tiny = np.finfo(np.float64).tiny
    return 10 * np.log10(np.maximum(top, tiny) / np.maximum(bottom, tiny))


def _dsnr(scored: Scored, cluster: Array, num_embeddings: int) -> dict[str, Any]:
    signal = noise = np.zeros(0)
    if scored.rand is not None and scored.flipped is not None:
        signal, noise = scored.rand.l2 - scored.true.l2, scored.flipped.l2 - scored.true.l2
    status = dsnr_status(signal, noise, cluster, num_embeddings)
    valid = status == "ok"
    estimate = intervals.ratio(signal, noise, cluster) if valid else None
    return {
        "val/dsnr": estimate.value if estimate else math.nan,
        "val/dsnr_se": estimate.se if estimate else math.nan,
        "val/dsnr_status": status,
        "val/dsnr_valid": int(valid),
    }


def dsnr_status(signal: Array, noise: Array, cluster: Array, num_embeddings: int) -> str:
    """Why DSNR is or is not defined.

    Args:
        signal: [N] d_rand - d_action.
        noise: [N] d_action_eps - d_action.
        cluster: [N] cluster of each sample.

    Returns:
        single_code (K = 1), no_transitions (N = 0), nonfinite, actions_ignored (neither mean differs
        from 0 by more than its standard error), denominator_not_positive, or ok.
    """
    if num_embeddings == 1:
        return "single_code"
    if len(signal) == 0:
        return "no_transitions"
    if not (np.isfinite(signal).all() and np.isfinite(noise).all()):
        return "nonfinite"
    means = [intervals.mean(values, cluster) for values in (signal, noise)]
    # Without an interval (one cluster) only an exact 0 can be told from an effect.
    if all(abs(each.value) <= (0.0 if math.isnan(each.se) else each.se) for each in means):
        return "actions_ignored"
    return "ok" if noise.sum() > 0 else "denominator_not_positive"


def action_information(codes: Array, actions: Array, permutations: int = 20) -> float:
    """Information of the code tuple about the true action, as a share of the action's entropy.

    With few samples and many tuples the plain estimate is far above 0 for unrelated codes, so the
    mean over random relabellings is taken off: (I - I0)/(H - I0), at least 0. NaN for one action.
    """
    _, tuples = np.unique(codes, axis=0, return_inverse=True)
    _, labels = np.unique(actions, return_inverse=True)
    entropy = _entropy(np.bincount(labels))
    rng = np.random.default_rng(0)
    chance = float(np.mean([_mutual_information(tuples, rng.permutation(labels)) for _ in range(permutations)]))
    if entropy - chance <= 1e-9:
        return math.nan
    return min(1.0, max(0.0, (_mutual_information(tuples, labels) - chance) / (entropy - chance)))


def _mutual_information(a: Array, b: Array) -> float:
    joint = np.bincount(a.ravel() * (int(b.max()) + 1) + b)
    return _entropy(np.bincount(a.ravel())) + _entropy(np.bincount(b)) - _entropy(joint)


def _entropy(counts: Array) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
