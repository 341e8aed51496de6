"""Every `val/*` number once more, in NumPy, from tensors that a model left behind.

Written from the formulas of docs/metrics.md alone: it shares no arithmetic with `lam`, so that a
mistake has to be made twice to go unseen. Slow and plain on purpose.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, stats
from sklearn.metrics import mutual_info_score

Array = np.ndarray


@dataclass(frozen=True)
class Dump:
    """What a model left behind on a split.

    Attributes:
        latents: [N, T, C, H, W]; prediction of frames 1..T-1: [N, T-1, C, H, W].
        rollout, anchor: predictions of frames anchor+2 .. anchor+horizon, [N, horizon-1, C, H, W].
        rand, flipped: predictions of frame T-1 with other codes at the last transition, [N, C, H, W].
        shuffled: the same with the codes of several others, [R, N, C, H, W].
        z_e, z_q: [N, T-1, S, Q], z_e with one embedding where slots are residual; codes: [N, S] of the last transition;
            context: [N, E].
        free: rollouts of some sequences from their first frame, [M, T-1, C, H, W], of sequences `free_rows`.
        mean, std: [C] of the training split.
    """

    latents: Array
    prediction: Array
    rollout: Array
    anchor: int
    shuffled: Array
    rand: Array
    flipped: Array
    z_e: Array
    z_q: Array
    codes: Array
    context: Array
    free: Array
    free_rows: Array
    mean: Array
    std: Array
    actions: Array
    files: Array
    starts: Array


def metrics(dump: Dump, config: Any, chunk_frames: int) -> dict[str, Any]:
    """All numbers, keys as in records."""
    record = losses(dump, config) | distances(dump) | control(dump, chunk_frames) | dsnr(dump)
    record |= codebook(dump, config) | companions(dump, config) | generated(dump)
    record["val/collapsed"] = int(record.pop("val/narrow") and not record["val/control_low"] > 0)
    record["val/objective"] = objective(record)
    return record


def losses(dump: Dump, config: Any) -> dict[str, float]:
    target = dump.latents[:, 1:].astype(float)
    error = dump.prediction.astype(float) - target
    gap = float(np.mean([((entry - given) ** 2).mean() for given, entry in chain(dump.z_e, dump.z_q, config)]))
    steps = dump.rollout.shape[1]
    roll = dump.rollout.astype(float) - dump.latents[:, dump.anchor + 2 : dump.anchor + 2 + steps].astype(float)
    mse, mae = float((error**2).mean()), float(np.abs(error).mean())
    vq = gap + config.commitment_weight * gap
    return {
        "val/mse_loss": mse, "val/recon_loss": mse, "val/mae_loss": mae, "val/codebook_loss": gap,
        "val/commitment_loss": config.commitment_weight * gap, "val/vq_loss": vq,
        "val/rollout_loss": float((roll**2).mean()), "val/rollout_loss_mae": float(np.abs(roll).mean()),
        "val/loss": mse * config.reconstruction_weight + vq + float((roll**2).mean()) * config.rollout_weight,
        "val/loss_mae": mae * config.reconstruction_weight + vq + float(np.abs(roll).mean()) * config.rollout_weight,
        "val/mse_copy": float(((target - dump.latents[:, :-1]) ** 2).mean()),
    }


def chain(z_e: Array, z_q: Array, config: Any) -> list[tuple[Array, Array]]:
    """(what was coded, its code's vector): of all slots at once, or of each residual slot what was left for it."""
    z_e, z_q = z_e.astype(float), z_q.astype(float)
    if config.slots == "parallel":
        return [(z_e, z_q)]
    return [(z_e[..., 0, :] - z_q[..., :slot, :].sum(-2), z_q[..., slot, :]) for slot in range(z_q.shape[-2])]


def per_sample(dump: Dump) -> dict[str, dict[str, Array]]:
    """l2, l1, cos and mse [N] of the last frame, for each kind of action."""
    x = dump.latents[:, -1].reshape(len(dump.latents), -1).astype(float)
    found = {}
    for name, frames in (("true", dump.prediction[:, -1]), ("rand", dump.rand), ("flipped", dump.flipped)):
        y = frames.reshape(len(x), -1).astype(float)
        found[name] = {
            "l2": np.sqrt(((y - x) ** 2).sum(1)), "l1": np.abs(y - x).sum(1), "mse": ((y - x) ** 2).mean(1),
            "cos": 1 - (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1)), "mae": np.abs(y - x).mean(1),
        }
    ways = [((frames.reshape(len(x), -1).astype(float) - x) ** 2).mean(1) for frames in dump.shuffled]
    return found | {"shuffled": {"mse": sum(ways) / len(ways)}}


def distances(dump: Dump) -> dict[str, float]:
    d = per_sample(dump)
    return {
        "val/d_action_l2": d["true"]["l2"].mean(), "val/d_rand_l2": d["rand"]["l2"].mean(),
        "val/d_action_eps_l2": d["flipped"]["l2"].mean(), "val/d_action_l1": d["true"]["l1"].mean(),
        "val/d_rand_l1": d["rand"]["l1"].mean(), "val/d_action_mae": d["true"]["mae"].mean(),
        "val/d_rand_mae": d["rand"]["mae"].mean(),
        **{f"val/action_sensitivity_{kind}": (d["rand"][kind] - d["true"][kind]).mean()
           for kind in ("l2", "l1", "mae", "cos")},
        "val/delta_psnr": (10 * np.log10(d["rand"]["mse"] / d["true"]["mse"])).mean(),
    }


def video_sums(dump: Dump, values: Array) -> list[Array]:
    """Sums over videos and, with fewer than five, over ten blocks of consecutive samples shared among them."""
    names = np.unique(dump.files)
    whole = np.array([values[dump.files == name].sum() for name in names])
    if len(names) >= 5:
        return [whole]
    blocks = math.ceil(10 / len(names))
    found = []
    for name in names:
        mine = values[dump.files == name]
        edges = [math.ceil(block * len(mine) / blocks) for block in range(blocks + 1)]
        found += [mine[a:b].sum() for a, b in itertools.pairwise(edges) if b > a]
    return [whole, np.array(found)]


def ratio(dump: Dump, top: Array, bottom: Array) -> tuple[float, float, float]:
    """(ratio of sums, standard error, half of its 95 % interval): the widest of the ways to sum."""
    found = []
    for a, b in zip(video_sums(dump, top), video_sums(dump, bottom), strict=True):
        value, count = a.sum() / b.sum(), len(a)
        if count > 1:
            se = math.sqrt(count / (count - 1) * ((a - value * b) ** 2).sum()) / abs(b.sum())
            found.append((se * float(stats.t(count - 1).ppf(0.975)), se))
    reach, se = max(found)
    return value, se, reach


def control(dump: Dump, chunk_frames: int) -> dict[str, float]:
    d = per_sample(dump)
    top, bottom = d["true"]["mse"], d["shuffled"]["mse"]
    value, _, reach = ratio(dump, top, bottom)
    predicted = dump.starts + dump.latents.shape[1] - 1
    first_of_chunk = predicted % chunk_frames == 0
    return {
        "val/mse_scored": top.mean(),
        "val/control": 1 - value, "val/control_low": 1 - value - reach, "val/control_high": 1 - value + reach,
        "val/control_within": 1 - top[~first_of_chunk].sum() / bottom[~first_of_chunk].sum(),
        "val/control_across": 1 - top[first_of_chunk].sum() / bottom[first_of_chunk].sum(),
        "val/scored_transitions": len(top), "val/scored_files": len(set(dump.files.tolist())),
        "val/labelled_transitions": sum(action >= 0 for action in dump.actions.tolist()),
    }


def dsnr(dump: Dump) -> dict[str, Any]:
    d = per_sample(dump)
    signal, noise = d["rand"]["l2"] - d["true"]["l2"], d["flipped"]["l2"] - d["true"]["l2"]
    one = np.ones(len(signal))
    (heard, _, reach), (mean, _, about) = ratio(dump, signal, one), ratio(dump, noise, one)
    status = "ok" if mean > about else "denominator_not_positive"
    if abs(mean) <= about and abs(heard) <= reach:
        status = "actions_ignored"
    value, se, _ = ratio(dump, signal, noise) if status == "ok" else (math.nan, math.nan, 0)
    return {"val/dsnr": value, "val/dsnr_se": se, "val/dsnr_status": status, "val/dsnr_valid": int(status == "ok")}


def entropy(values: list[Any]) -> float:
    shares = np.array([values.count(value) for value in set(values)]) / len(values)
    return float(-(shares * np.log(shares)).sum())


def codebook(dump: Dump, config: Any) -> dict[str, Any]:
    K = config.num_embeddings
    slots = [[int((slot == code).sum()) for code in range(K)] for slot in dump.codes.T]
    books = [[sum(counts) for counts in zip(*slots, strict=True)]] if config.slots == "parallel" else slots
    used = np.mean([sum(count > 0 for count in book) for book in books])
    histogram = [count for book in books for count in book]
    entropies = [entropy(slot.tolist()) for slot in dump.codes.T]
    slot, joint = math.exp(np.mean(entropies)), math.exp(entropy([tuple(row) for row in dump.codes.tolist()]))
    full = config.perplexity_target or max(2.0, K / 4)
    alike = (sum(entropies) - math.log(joint)) / (sum(entropies) - max(entropies))
    return {
        "val/usage_by_slot": [sum(count > 0 for count in slot) for slot in slots],
        "val/perplexity_by_slot": [math.exp(each) for each in entropies], "val/slot_redundancy": alike,
        "val/joint_bits": math.log2(joint),
        "val/codebook_usage": used, "val/codebook_unique_total": used, "val/codebook_usage_ratio": used / K,
        "val/codebook_histogram": histogram, "val/dead_codes": K - used, "val/perplexity_slot": slot,
        "val/perplexity_joint": joint, "val/code_entropy_ratio": np.mean(entropies) / math.log(K),
        "val/codebook_health": float(np.clip((slot - 1) / (full - 1), 0, 1)),
        "val/narrow": (slot < 1.5 and config.slots == "parallel") or joint < 2,
    }


def companions(dump: Dump, config: Any) -> dict[str, float]:
    z_e, z_q = dump.z_e[:, -1].astype(float), dump.z_q[:, -1].astype(float)
    z_q = z_q if config.slots == "parallel" else z_q.sum(-2, keepdims=True)
    return {
        "val/quantization_error": ((z_q - z_e) ** 2).mean() / z_e.var(axis=0).mean(),
        "val/effective_rank_context": rank(dump.context.astype(float)),
        "val/effective_rank_target": rank(z_e.reshape(len(z_e), -1)),
        "val/action_nmi": information([str(row) for row in dump.codes.tolist()], dump.actions),
    }


def rank(x: Array) -> float:
    values = linalg.svdvals(x - x.mean(0))
    return math.exp(stats.entropy(values / values.sum()))


def information(tuples: list[str], actions: Array) -> float:
    rng = np.random.default_rng(0)
    _, labels = np.unique(actions, return_inverse=True)
    drawn = [mutual_info_score(tuples, rng.permutation(labels)) for _ in range(20)]
    chance = np.mean(drawn)
    whole = entropy(labels.tolist())
    if whole - chance < 1e-9:  # as many tuples as samples: chance tells every action
        return math.nan
    return max(0.0, (mutual_info_score(tuples, labels) - chance) / (whole - chance + 2 * stats.tstd(drawn)))


def generated(dump: Dump) -> dict[str, float]:
    shape = (1, 1, -1, 1, 1)
    made = (dump.free.astype(float) - dump.mean.reshape(shape)) / dump.std.reshape(shape)
    true = (dump.latents[dump.free_rows, 1:].astype(float) - dump.mean.reshape(shape)) / dump.std.reshape(shape)
    return {
        "validation/gen_std": made.std(), "validation/gen_mean": made.mean(),
        "validation/gen_range": made.max() - made.min(),
        "validation/gen_std_ratio_min": (made.std(axis=(0, 1, 3, 4)) / true.std(axis=(0, 1, 3, 4))).min(),
    }


def objective(record: dict[str, Any]) -> float:
    live = not record["val/collapsed"] and record["val/control_low"] > 0
    if live:
        return record["val/control"] * record["val/codebook_health"]
    return -record["val/mse_loss"] / (record["val/mse_loss"] + record["val/mse_copy"])
