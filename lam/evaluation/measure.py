"""Evaluation of a model on one split: losses, DSNR, control and codebook health, once over the split.

Every number is a function of (weights, split, eval_seed): no rollout coin, a fixed anchor, no
codebook update, random codes drawn from (eval_seed, file, frame). A sequence is scored at its last
transition; sequences start at every frame of a file, evenly thinned to `eval_sequences`, so that
each scored transition counts once. What codes tell of true actions is asked of `label_sequences` that
have one, scored or not.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from lam import codebook
from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation import by_source, control, effective_rank, passes, skill
from lam.model import losses
from lam.model.lam import LatentActionModel

Array = NDArray[Any]


def evaluate(model: LatentActionModel, windows: Windows, config: RunConfig) -> dict[str, Any]:
    """Every `val/*` number of a split; keys and formulas are those of `lam.metrics`.

    Raises:
        ValueError: the split holds no sequence.
    """
    was_training = model.training
    found = passes.measured(model.eval(), windows, config)
    model.train(was_training)
    record: dict[str, Any] = _losses(found.losses, config) | found.generated
    record["val/effective_rank_context"] = effective_rank.effective_rank(found.context_NE)
    record["val/effective_rank_target"] = effective_rank.effective_rank(found.z_e.reshape(len(found.z_e), -1))
    record |= control.metrics(found.scored, config.num_embeddings, windows.chunk_frames)
    record |= skill.metrics(found.known, config.num_embeddings)
    record |= by_source.metrics(found, windows, config)
    if found.scored.codes is not None:
        record |= _codebook(found.scored.codes, record["val/control_low"], config)
        if config.quantizer != "fsq":  # there z_q lies in another space than z_e
            variance = float(found.z_e.var(axis=0).mean())
            record["val/quantization_error"] = float(found.error_q.mean()) / variance if variance > 0 else math.nan
    preset = codebook.preset_of(record, config.objective_preset)
    return record | {"val/objective_preset": preset, "val/objective": codebook.objective(record, preset)}


def _losses(per_sample: dict[str, Array], config: RunConfig) -> dict[str, float]:
    record = {name: float(values.mean()) for name, values in per_sample.items()}
    weight = losses.expected_weights(config)
    record["loss"] = sum(weight[name] * record[name] for name in weight if name in record)
    record["loss_mae"] = (
        weight["mse_loss"] * record["mae_loss"] + record["vq_loss"]
        + weight["rollout_loss"] * record["rollout_loss_mae"]
    )
    if config.rollout_horizon == 1:
        record["rollout_loss"] = record["rollout_loss_mae"] = math.nan
    return {f"val/{name}": value for name, value in record.items()}


def _codebook(codes_NS: Array, control_low: float, config: RunConfig) -> dict[str, Any]:
    state = codebook.codebook_health(codes_NS, config.num_embeddings, config.full_health_perplexity,
                                     config.books, control_low)
    return {
        "val/codebook_usage": state.unique,
        "val/codebook_unique_total": state.unique,
        "val/codebook_usage_ratio": state.unique / config.num_embeddings,
        "val/codebook_histogram": state.histogram,
        "val/usage_by_slot": state.usage_by_slot,
        "val/perplexity_by_slot": state.perplexity_by_slot,
        "val/joint_bits": state.joint_bits,
        "val/slot_redundancy": state.redundancy,
        "val/perplexity_slot": state.perplexity_slot,
        "val/perplexity_joint": state.perplexity_joint,
        "val/code_entropy_ratio": state.entropy_ratio,
        "val/dead_codes": config.num_embeddings - state.unique,
        "val/codebook_health": state.health,
        "val/collapsed": int(state.collapsed),
    }
