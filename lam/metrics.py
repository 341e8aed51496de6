"""The one table of metrics: what each key means, which way is better, how it is reduced.

The objective's direction, the report's winners, the docs page and the frozen-keys test all read it.
NaN means "not defined for this run or this epoch" (for example DSNR with a status other than ok);
it is written as null and never counts as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down", "none"]
Reduction = Literal["mean", "sums", "counts", "last", "max", "min", "std", "status"]

INF = float("inf")


@dataclass(frozen=True)
class Metric:
    """One key of an epoch record.

    Attributes:
        key: the name in records and trackers.
        formula: what is computed, in the symbols of docs/metrics.md.
        direction: which way is better; "none" where neither is.
        in_loss: whether it is a term of the loss that is back-propagated.
        reduction: how an epoch's or split's number comes about: the "mean" over samples, a ratio of
            "sums" taken once over the split, a function of "counts" over the split, the "last" value.
        unit: what it is measured in; "" for a pure number.
        bounds: smallest and largest value it can take.
    """

    key: str
    formula: str
    direction: Direction
    reduction: Reduction
    in_loss: bool = False
    unit: str = ""
    bounds: tuple[float, float] = (0.0, INF)


def _losses(split: str) -> list[Metric]:
    def loss(name: str, formula: str, in_loss: bool = False) -> Metric:
        return Metric(f"{split}/{name}", formula, "down", "mean", in_loss, unit="latent²" if in_loss else "")

    return [
        loss("loss", "mse_loss*reconstruction_weight + vq_loss + rollout_loss*rollout_weight"),
        loss("loss_mae", "mae_loss*reconstruction_weight + vq_loss + rollout_loss_mae*rollout_weight"),
        loss("mse_loss", "mean (prediction - target)²", in_loss=True),
        loss("recon_loss", "the same number as mse_loss"),
        loss("mae_loss", "mean |prediction - target|"),
        loss("vq_loss", "codebook_loss + commitment_loss", in_loss=True),
        loss("codebook_loss", "mean (z_q - z_e)², gradient to the codebook only"),
        loss("commitment_loss", "commitment_weight * mean (z_q - z_e)², gradient to the encoder only"),
        loss("rollout_loss", "mean squared error of the predictions 2..rollout_horizon of a rollout", in_loss=True),
        loss("rollout_loss_mae", "mean absolute error of the same rollout"),
    ]


_TRAIN = [
    Metric("train/codebook_usage", "distinct codes in a batch, mean over the epoch's batches", "up", "mean",
           unit="codes"),
    Metric("train/lr", "learning rate of the epoch's last step", "none", "last"),
    Metric("train/kl_weight", "the constant 1 (kept for compatibility)", "none", "last", bounds=(1, 1)),
    Metric("train/grad_norm", "global L2 norm of the gradient before clipping, mean over steps", "none", "mean"),
    Metric("train/grad_norm_max", "its maximum over the epoch's steps", "none", "max"),
    Metric("train/samples_per_second", "training sequences per second of training time", "up", "last", unit="1/s"),
    Metric("total_tflops", "forward and backward operations of training so far", "none", "last", unit="TFLOP"),
]

_SENSITIVITY = [
    Metric(f"val/action_sensitivity_{name}", f"mean(d_rand - d_action), {text}", "up", "mean", bounds=(-INF, INF))
    for name, text in (("l2", "L2 norm"), ("l1", "L1 norm"), ("mae", "L1 norm / dims"), ("cos", "1 - cosine"))
]

_DISTANCES = [
    Metric("val/d_action_l2", "mean L2 distance of the prediction with the true codes to the target", "down", "mean"),
    Metric("val/d_rand_l2", "the same with codes drawn uniformly", "none", "mean"),
    Metric("val/d_action_eps_l2", "the same with exactly one slot flipped to another code", "none", "mean"),
    Metric("val/d_action_l1", "mean L1 distance with the true codes", "down", "mean"),
    Metric("val/d_rand_l1", "mean L1 distance with codes drawn uniformly", "none", "mean"),
    Metric("val/d_action_mae", "d_action_l1 / dims", "down", "mean"),
    Metric("val/d_rand_mae", "d_rand_l1 / dims", "none", "mean"),
]

_CONTROL = [
    Metric("val/dsnr", "sum(d_rand - d_action) / sum(d_action_eps - d_action) over the split, L2", "up", "sums",
           bounds=(-INF, INF)),
    Metric("val/dsnr_se", "its standard error, clustered by video", "down", "sums"),
    Metric("val/dsnr_valid", "1 where dsnr_status is ok, else 0", "up", "status", bounds=(0, 1)),
    Metric("val/dsnr_status", "ok | no_transitions | single_code | actions_ignored | denominator_not_positive | "
           "nonfinite; null for the quantizer none", "none", "status"),
    Metric("val/control", "1 - mse_true/mse_shuffled, shuffled = another sample's codes at the scored transition",
           "up", "sums", bounds=(-INF, 1)),
    Metric("val/control_low", "lower 95 % bound of control, clustered by video", "up", "sums", bounds=(-INF, 1)),
    Metric("val/control_high", "upper 95 % bound of control", "up", "sums", bounds=(-INF, INF)),
    Metric("val/control_within", "control of the transitions inside a chunk", "up", "sums", bounds=(-INF, 1)),
    Metric("val/control_across", "control of the transitions from one chunk to the next", "up", "sums",
           bounds=(-INF, 1)),
    Metric("val/delta_psnr", "mean 10*log10(mse_rand/mse_true)", "up", "mean", unit="dB", bounds=(-INF, INF)),
    Metric("val/mse_copy", "mean squared error of repeating the last frame", "none", "mean"),
    Metric("val/scored_transitions", "transitions behind the control and DSNR numbers", "none", "counts",
           unit="transitions"),
    Metric("val/scored_files", "videos they come from", "none", "counts", unit="videos"),
]

_CODEBOOK = [
    Metric("val/codebook_usage", "distinct codes over the split", "up", "counts", unit="codes"),
    Metric("val/codebook_unique_total", "the same number", "up", "counts", unit="codes"),
    Metric("val/codebook_usage_ratio", "codebook_unique_total / num_embeddings", "up", "counts", bounds=(0, 1)),
    Metric("val/codebook_histogram", "how often each code was used, all slots pooled", "none", "counts", unit="uses"),
    Metric("val/perplexity_slot", "geometric mean over slots of exp(entropy of the slot's codes)", "up", "counts",
           unit="codes", bounds=(1, INF)),
    Metric("val/perplexity_joint", "exp(entropy of the code tuples)", "up", "counts", unit="tuples", bounds=(1, INF)),
    Metric("val/code_entropy_ratio", "mean over slots of entropy / log(num_embeddings)", "up", "counts", bounds=(0, 1)),
    Metric("val/dead_codes", "codes never used over the split", "down", "counts", unit="codes"),
    Metric("val/quantization_error", "mean (z_q - z_e)² / variance of z_e", "down", "sums"),
    Metric("val/codebook_health", "clip((perplexity_slot - 1)/(P* - 1), 0, 1), P* = max(2, num_embeddings/4)",
           "up", "counts", bounds=(0, 1)),
    Metric("val/collapsed", "1 where perplexity_slot < 1.5 or perplexity_joint < 2", "down", "status", bounds=(0, 1)),
]

_PROBE = [
    Metric("val/action_nmi", "information of the code tuple about the true action / entropy of the action, chance "
           "(mean over relabellings) taken off", "up", "counts", bounds=(0, 1)),
]

_OBJECTIVE = [
    Metric("val/objective", "what ranks runs; see docs/decisions/0002-objective.md", "up", "sums", bounds=(-INF, 1)),
]

TABLE: dict[str, Metric] = {
    metric.key: metric
    for metric in (*_losses("train"), *_TRAIN, *_losses("val"), *_OBJECTIVE, *_CONTROL, *_SENSITIVITY,
                   *_DISTANCES, *_CODEBOOK, *_PROBE)
}

# Keys of an epoch record that say when it was made rather than what was measured.
RECORD_KEYS = ("epoch", "step", "seconds", "train_seconds")


def better(key: str, a: float, b: float) -> bool:
    """Whether `a` is better than `b` on metric `key`; NaN is never better, and worse than any number.

    Raises:
        KeyError: no such metric.
        ValueError: the metric has no direction.
    """
    direction = TABLE[key].direction
    if direction == "none":
        raise ValueError(f"metric {key} has no direction")
    if a != a:
        return False
    if b != b:
        return True
    return a > b if direction == "up" else a < b
