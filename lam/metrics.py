"""The one table of metrics: what each key means, which way is better, how it is reduced.

The objective's direction, the report's winners, the docs page and the frozen-keys test all read it.
NaN means "not defined for this run or this epoch" (for example DSNR with a status other than ok);
it is written as null and never counts as good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from record.workload.metric import INF, Metric

# What a metric may need of a run, in the words that a refusal says.
NEEDS = {
    "codes": "codes (quantizer none has none)",
    "codebook": "codes that lie among the embeddings (quantizers none and fsq have none)",
    "averaging": "averaged weights (set average_weights)",
    "rollout": "a rollout (set rollout_horizon to 2 or more)",
    "change": "a weight on where the picture changes (set change_weight)",
    "taught": "labels in training (set action_weight)",
    "labels": "true actions in the files of the validation split",
    "sources": "several folders (set data)",
}

def _losses(split: str) -> list[Metric]:
    def loss(name: str, formula: str, in_loss: bool = False, needs: tuple[str, ...] = ()) -> Metric:
        return Metric(f"{split}/{name}", formula, "down", "mean", in_loss, "latent²" if in_loss else "", needs=needs)

    share = "the share of steps with a rollout" if split == "train" else "rollout_prob"
    return [
        loss("loss", f"mse_loss*reconstruction_weight + vq_loss + rollout_loss*rollout_weight*r, r = {share}"),
        loss("loss_mae", "mae_loss*reconstruction_weight + vq_loss + rollout_loss_mae*rollout_weight*r, the same r"),
        loss("mse_loss", "mean (prediction - target)²", in_loss=True),
        loss("recon_loss", "the same number as mse_loss"),
        loss("mae_loss", "mean |prediction - target|"),
        loss("vq_loss", "codebook_loss + commitment_loss", in_loss=True),
        loss("codebook_loss", "mean (z_q - z_e)²; trains the codebook of vq and the map of simvq, nothing under ema "
             "and rotation, whose codes follow averages; 0 for fsq and none"),
        loss("commitment_loss", "commitment_weight * mean (z_q - z_e)², gradient to the encoder only; 0 for fsq and "
             "none"),
        loss("rollout_loss", "mean squared error of the predictions 2..rollout_horizon of a rollout; null where there "
             "was none", in_loss=True, needs=("rollout",)),
        loss("rollout_loss_mae", "mean absolute error of the same rollout", needs=("rollout",)),
    ]


_TRAIN = [
    Metric("train/change_loss", "reconstruction_weight * change_weight * mean (prediction - target)² m/mean m, "
           "m = change_measure of each cell of the grid over the training split; not in val/loss", "down",
           "mean", True, "latent²", needs=("change",)),
    Metric("train/action_loss", "mean cross-entropy of the true actions that training may use, by the linear head on "
           "the code; null where no batch held one; not in val/loss", "down", "mean", True, "nats", needs=("taught",)),
    Metric("train/labels", "true actions of the training split that training may use", "none", "counts",
           unit="transitions", needs=("taught",)),
    Metric("train/codebook_usage", "distinct codes in a batch, mean over codebooks and over the epoch's batches", "up",
           "mean", unit="codes", needs=("codes",)),
    Metric("train/skipped_steps", "steps of the epoch whose gradient was not finite and that changed nothing", "down",
           "sums", unit="steps"),
    Metric("train/lr", "learning rate of the epoch's last step", "none", "last"),
    Metric("train/kl_weight", "the constant 1 (kept for compatibility)", "none", "last", bounds=(1, 1)),
    Metric("train/grad_norm", "global L2 norm of the gradient before clipping, mean over steps "
           "that were not skipped", "none", "mean"),
    Metric("train/grad_norm_mean", "the same number", "none", "mean"),
    Metric("train/grad_norm_std", "its population standard deviation over the epoch's steps", "none", "std"),
    Metric("train/grad_norm_max", "its maximum over the epoch's steps", "none", "max"),
    Metric("train/grad_norm_min", "its minimum over the epoch's steps", "none", "min"),
    Metric("train/batch_loss_mean", "mean over the epoch's steps of the loss of one step", "down", "mean"),
    Metric("train/batch_loss_std", "its population standard deviation", "none", "std"),
    Metric("train/batch_loss_max", "its maximum", "down", "max"),
    Metric("train/batch_loss_min", "its minimum", "down", "min"),
    Metric("train/batch_loss_cv", "batch_loss_std / batch_loss_mean; null for a mean of 0 or less", "none", "std"),
    Metric("train/loss_decrease", "train/loss of the epoch before - train/loss; absent in the first epoch", "up",
           "last", bounds=(-INF, INF)),
    Metric("train/loss_decrease_pct", "100 * loss_decrease / train/loss of the epoch before", "up", "last", unit="%",
           bounds=(-INF, INF)),
    Metric("train/is_improving", "1 where loss_decrease > 0, else 0", "up", "status", bounds=(0, 1)),
    *(Metric(f"train/update_ratio_{part}", f"‖Δw‖ / ‖w‖ of {what} in the epoch's last optimizer step, revival "
             "included; 0 = it does not move", "none", "last", needs=("codes",) if part == "codebook" else ())
      for part, what in (("encoder", "encoder and input adapter"), ("decoder", "decoder and output adapter"),
                         ("codebook", "the codes"))),
    Metric("train/samples_per_second", "training sequences per second of training time", "up", "last", unit="1/s"),
    Metric("total_tflops", "forward and backward operations of training so far", "none", "last", unit="TFLOP"),
]

_MODEL = [
    Metric("model/weight_mean", 'mean over the tensors named "weight" of mean |w|', "none", "last"),
    Metric("model/weight_std", "population standard deviation of those means", "none", "last"),
    Metric("model/weight_max", "largest of those means", "none", "last"),
    Metric("model/weight_abs_max", "largest |w| in those tensors", "none", "last"),
    Metric("model/ema_diff", "mean over tensors of mean |p - p_ema|; absent without averaged weights", "none", "last",
           needs=("averaging",)),
]

_RATIOS = [
    Metric(f"loss_ratio/{name}", f"weighted {name} / sum of the weighted terms, over the epoch, of each term the part "
           "that has a gradient (of vq_loss under ema and rotation the commitment)", "none", "sums",
           bounds=(0, 1), needs=needs)
    for name, needs in (("mse_loss", ()), ("vq_loss", ()), ("rollout_loss", ()), ("change_loss", ("change",)),
                        ("action_loss", ("taught",)))
]

_GENERATED = [
    Metric("validation/gen_std", "population std over free-running rollouts from the first frame with the true codes, "
           "values normalised by the training split's mean and std of each channel", "none", "sums"),
    Metric("validation/gen_mean", "their mean", "none", "sums", bounds=(-INF, INF)),
    Metric("validation/gen_range", "their maximum - their minimum", "none", "sums"),
    Metric("validation/gen_std_ratio_min", "smallest over channels of std(rollouts) / std(true frames); null where no "
           "true channel varies", "up", "sums"),
]

_SENSITIVITY = [
    Metric(f"val/action_sensitivity_{name}", f"mean(d_rand - d_action), {text}", "up", "mean", bounds=(-INF, INF),
           needs=("codes",))
    for name, text in (("l2", "L2 norm"), ("l1", "L1 norm"), ("mae", "L1 norm / dims"), ("cos", "1 - cosine"))
]

_DISTANCES = [
    Metric("val/d_action_l2", "mean L2 distance of the prediction with the true codes to the target", "down", "mean"),
    Metric("val/d_rand_l2", "the same with codes drawn uniformly", "none", "mean", needs=("codes",)),
    Metric("val/d_action_eps_l2", "the same with exactly one slot flipped to another code", "none", "mean",
           needs=("codes",)),
    Metric("val/d_action_l1", "mean L1 distance with the true codes", "down", "mean"),
    Metric("val/d_rand_l1", "mean L1 distance with codes drawn uniformly", "none", "mean",
           needs=("codes",)),
    Metric("val/d_action_mae", "d_action_l1 / dims", "down", "mean"),
    Metric("val/d_rand_mae", "d_rand_l1 / dims", "none", "mean", needs=("codes",)),
]

_CONTROL = [
    Metric("val/dsnr", "sum(d_rand - d_action) / sum(d_action_eps - d_action) over the split, L2", "up", "sums",
           bounds=(-INF, INF), needs=("codes",)),
    Metric("val/dsnr_se", "its standard error, clustered by video", "down", "sums", needs=("codes",)),
    Metric("val/dsnr_valid", "1 where dsnr_status is ok, else 0", "up", "status", bounds=(0, 1), needs=("codes",)),
    Metric("val/dsnr_status", "ok | no_transitions | single_code | actions_ignored | denominator_not_positive | "
           "nonfinite", "none", "status", needs=("codes",)),
    Metric("val/mse_scored", "mean squared error at the scored transition, the last of each sequence", "down", "mean",
           unit="latent²"),
    Metric("val/control", "1 - mse_true/mse_shuffled, shuffled = another sample's codes at the scored transition, mean "
           "over four others at the same place in their chunks",
           "up", "sums", bounds=(-INF, 1)),
    Metric("val/control_low", "lower 95 % bound of control, clustered by video; below 5 videos the wider of that and "
           "of blocks of each video, which is too tight for one video", "up", "sums", bounds=(-INF, 1)),
    Metric("val/control_high", "upper 95 % bound of control; the same holds", "up", "sums", bounds=(-INF, INF)),
    Metric("val/control_within", "control of the transitions inside a chunk", "up", "sums", bounds=(-INF, 1)),
    Metric("val/control_across", "control of the transitions from one chunk to the next", "up", "sums",
           bounds=(-INF, 1)),
    Metric("val/delta_psnr", "mean 10*log10(mse_rand/mse_true), each at least 1e-10 of the mean mse_rand", "up",
           "mean", unit="dB", bounds=(-INF, INF),
           needs=("codes",)),
    Metric("val/mse_copy", "mean squared error of repeating the last frame", "none", "mean"),
    Metric("val/scored_transitions", "transitions behind the control and DSNR numbers", "none", "counts",
           unit="transitions"),
    Metric("val/labelled_transitions", "transitions whose true action is known, behind the action numbers", "none",
           "counts", unit="transitions"),
    Metric("val/scored_files", "videos they come from", "none", "counts", unit="videos"),
]

_CODEBOOK = [replace(metric, needs=(*metric.needs, "codes")) for metric in (
    Metric("val/codebook_usage", "distinct codes of the scored transitions: the last one of each of at most "
           "eval_sequences sequences; mean over codebooks where slots are residual", "up", "counts", unit="codes"),
    Metric("val/codebook_unique_total", "the same number", "up", "counts", unit="codes"),
    Metric("val/codebook_usage_ratio", "codebook_unique_total / num_embeddings", "up", "counts", bounds=(0, 1)),
    Metric("val/codebook_histogram", "how often each code was used, all slots pooled; codebook by codebook where slots "
           "are residual", "none", "counts", unit="uses"),
    Metric("val/usage_by_slot", "distinct codes of each slot, a list", "up", "counts", unit="codes"),
    Metric("val/perplexity_by_slot", "exp(entropy of the slot's codes) of each slot, a list", "up", "counts",
           unit="codes", bounds=(1, INF)),
    Metric("val/joint_bits", "entropy of the code tuples, log2 perplexity_joint: what an action is told with", "up",
           "counts", unit="bits"),
    Metric("val/slot_redundancy", "(sum of the slots' entropies - joint entropy) / (that sum - the largest of them): 0 "
           "independent slots, 1 copies; null where no two slots say anything. It ranks nothing: residual slots that "
           "mean more repeat more", "none", "counts", bounds=(-INF, 1 + 1e-9)),
    Metric("val/perplexity_slot", "geometric mean over slots of exp(entropy of the slot's codes)", "up", "counts",
           unit="codes", bounds=(1, INF)),
    Metric("val/perplexity_joint", "exp(entropy of the code tuples)", "up", "counts", unit="tuples", bounds=(1, INF)),
    Metric("val/code_entropy_ratio", "mean over slots of entropy / log(num_embeddings)", "up", "counts", bounds=(0, 1)),
    Metric("val/dead_codes", "num_embeddings - codebook_usage: codes never used in the scored transitions", "down",
           "counts", unit="codes"),
    Metric("val/quantization_error", "mean (z_q - z_e)² / variance of z_e, scored transitions, z_q summed over "
           "residual slots; null where nothing varies", "down", "sums", needs=("codebook",)),
    Metric("val/codebook_health", "clip((perplexity_slot - 1)/(P* - 1), 0, 1), P* = max(2, num_embeddings/4)",
           "up", "counts", bounds=(0, 1)),
    Metric("val/collapsed", "1 where control_low is not above 0 and the codes carry next to nothing: perplexity_joint "
           "< 2, or perplexity_slot < 1.5 of parallel slots", "down", "status", bounds=(0, 1)),
)]

_RANKS = [
    Metric("val/effective_rank_context", "exp(entropy of the normalised singular values) (Roy & Vetterli) of the "
           "centred encoder tokens of the frame before the scored one, mean over patches; 0 where nothing varies", "up",
           "counts", unit="directions"),
    Metric("val/effective_rank_target", "the same of z_e of the scored transition, all slots", "up", "counts",
           unit="directions"),
]

_PROBE = [
    Metric("val/probe_accuracy", "share of true actions that a linear probe of the codes tells, fitted on training "
           "videos; by lam evaluate only", "up", "counts", bounds=(0, 1), needs=("labels",),
           evaluate_only=True),
    Metric("val/probe_majority", "the same of always naming the commonest training action", "none", "counts",
           bounds=(0, 1), needs=("labels",), evaluate_only=True),
    Metric("val/probe_shuffled", "the same of a probe fitted on shuffled actions", "none", "counts", bounds=(0, 1),
           needs=("labels",), evaluate_only=True),
    Metric("val/action_nmi", "information of the code tuple about the true action / entropy of the action, chance "
           "(mean over relabellings) taken off both and two of its sd added to the latter; of the labelled "
           "transitions, absent where there are none", "up", "counts", bounds=(0, 1), needs=("codes", "labels")),
]

# Measured where true actions are known, by `lam.evaluation.skill`.
SKILL = [
    Metric("val/action_skill", "(accuracy - majority) / (1 - majority) of a probe of the codes, slots and commonest "
           "tuples, fitted on other videos of the split; absent without true actions", "up", "sums",
           bounds=(-INF, 1), needs=("labels",)),
    Metric("val/action_skill_low", "lower 95 % bound of action_skill: over videos, and no narrower than of "
           "independent labels", "up", "sums", bounds=(-INF, 1),
           needs=("labels",)),
    Metric("val/action_skill_high", "upper 95 % bound", "up", "sums", bounds=(-INF, INF), needs=("labels",)),
    Metric("val/action_accuracy", "share of true actions that this probe tells", "up", "counts", bounds=(0, 1),
           needs=("labels",)),
    Metric("val/action_majority", "the same of always naming the commonest action", "none", "counts",
           bounds=(0, 1), needs=("labels",)),
    Metric("val/action_log_skill", "1 - log loss of the probe / log loss of the actions' frequencies", "up", "sums",
           bounds=(-INF, 1), needs=("labels",)),
    Metric("val/action_skill_embedding", "action_skill of a linear probe of z_e, before the quantiser; with few labels "
           "it may be the lower one", "up", "sums", bounds=(-INF, 1), needs=("labels",)),
]

_BY_SOURCE = [replace(metric, formula=f"{metric.key.removesuffix('_by_source')} of each folder of `data` alone, a list "
                      "in their order", needs=("sources",)) for metric in (
    Metric("val/mse_loss_by_source", "", "down", "counts", unit="latent²"),
    Metric("val/mse_copy_by_source", "", "none", "counts", unit="latent²"),
    Metric("val/control_by_source", "", "up", "counts", bounds=(-INF, 1)),
    Metric("val/action_skill_by_source", "", "up", "counts", bounds=(-INF, 1)),
    Metric("val/perplexity_slot_by_source", "", "up", "counts", unit="codes", bounds=(1, INF)),
    Metric("val/scored_transitions_by_source", "", "none", "counts", unit="transitions"),
)]

_OBJECTIVE = [
    Metric("val/objective_preset", "action | control_health | dsnr_health | mse: what val/objective is here", "none",
           "status"),
    Metric("val/objective", "what ranks runs; see docs/decisions/0002-objective.md", "up", "sums", bounds=(-INF, 1)),
]

# What trackers plot against compute: the same numbers under names of their own, with TFLOPS_AXIS as x axis.
# Records do not repeat them.
TFLOPS_AXIS = "tflops/x_axis"
TFLOPS_VIEWS: dict[str, str] = {
    TFLOPS_AXIS: "total_tflops",
    **{f"tflops/{split}_{name}": f"{split}/{source}" for split in ("train", "val") for name, source in (
        ("loss_mse", "loss"), ("loss_mae", "loss_mae"), ("recon_mse", "mse_loss"), ("recon_mae", "mae_loss"),
        ("rollout_mse", "rollout_loss"), ("rollout_mae", "rollout_loss_mae"), ("vq_loss", "vq_loss"))},
    "tflops/val_dsnr": "val/dsnr",
}

TABLE: dict[str, Metric] = {
    metric.key: metric
    for metric in (*_losses("train"), *_TRAIN, *_RATIOS, *_MODEL, *_losses("val"), *_OBJECTIVE, *_CONTROL,
                   *_SENSITIVITY, *_DISTANCES, *_CODEBOOK, *_RANKS, *_GENERATED, *SKILL, *_BY_SOURCE,
                   *_PROBE)
}

# Written once, into run.json; a channel's name is channel_00, channel_01, ...
DATA_STATS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("data_stats/normalized_mean", "mean of the training split's latents as the model sees them", "none",
               "sums", bounds=(-INF, INF)),
        Metric("data_stats/normalized_std", "their population standard deviation", "none", "sums"),
        Metric("data_stats/normalized_min", "their minimum", "none", "min", bounds=(-INF, INF)),
        Metric("data_stats/normalized_max", "their maximum", "none", "max", bounds=(-INF, INF)),
        Metric("data_stats/{channel_name}_mean", "mean of one channel", "none", "sums", bounds=(-INF, INF)),
        Metric("data_stats/{channel_name}_std", "population standard deviation of one channel", "none", "sums"),
    )
}


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


def with_tflops(record: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch record with its views against compute; a view whose number is absent is absent too."""
    return {**record, **{view: record[key] for view, key in TFLOPS_VIEWS.items() if key in record}}
