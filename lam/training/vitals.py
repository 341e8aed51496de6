"""Vital signs of training: gradients, batch losses, weights and progress of one epoch.

Pure functions. Standard deviations are over the population. Keys and formulas are those of
`lam.metrics`; a number that is not defined is NaN, or absent where it cannot exist yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lam.model.lam import LatentActionModel
from lam.training.sums import Spread


def of_steps(grad_norm: Spread, loss: Spread) -> dict[str, float]:
    """Spread of the gradient norm and of the loss over the steps of an epoch."""
    return {
        "train/grad_norm_mean": grad_norm.mean,
        "train/grad_norm_std": grad_norm.std,
        "train/grad_norm_max": grad_norm.high,
        "train/grad_norm_min": grad_norm.low,
        "train/batch_loss_mean": loss.mean,
        "train/batch_loss_std": loss.std,
        "train/batch_loss_max": loss.high,
        "train/batch_loss_min": loss.low,
        "train/batch_loss_cv": loss.std / loss.mean if loss.mean > 0 else math.nan,
    }


def loss_ratios(parts: Mapping[str, float]) -> dict[str, float]:
    """Each weighted term's share of the loss.

    Args:
        parts: mean over the epoch's steps of each weighted term that has a gradient.
    """
    total = sum(parts.values())
    return {f"loss_ratio/{name}": part / total if total > 0 else math.nan for name, part in parts.items()}


def progress(previous: float | None, current: float) -> dict[str, float]:
    """How the loss moved since the epoch before; empty in the first epoch."""
    if previous is None:
        return {}
    decrease = previous - current
    return {
        "train/loss_decrease": decrease,
        "train/loss_decrease_pct": 100 * decrease / previous if previous else math.nan,
        "train/is_improving": int(decrease > 0),
    }


@torch.no_grad()
def of_weights(model: torch.nn.Module) -> dict[str, float]:
    """Statistics of mean |w| over the tensors named "weight", and the largest |w| of all of them."""
    weights = [tensor for name, tensor in model.named_parameters() if name.split(".")[-1] == "weight"]
    means = np.array([float(tensor.abs().mean()) for tensor in weights])
    return {
        "model/weight_mean": float(means.mean()),
        "model/weight_std": float(means.std()),
        "model/weight_max": float(means.max()),
        "model/weight_abs_max": max(float(tensor.abs().max()) for tensor in weights),
    }


@torch.no_grad()
def ema_difference(parameters: Sequence[Tensor], averages: Sequence[Tensor]) -> dict[str, float]:
    """Mean over tensors of mean |p - p_ema|."""
    gaps = [float((p - average).abs().mean()) for p, average in zip(parameters, averages, strict=True)]
    return {"model/ema_diff": sum(gaps) / len(gaps)}


Snapshot = dict[str, list[Tensor]]


@torch.no_grad()
def snapshot(model: LatentActionModel) -> Snapshot:
    """Copies of the encoder's, the decoder's and the codebook's numbers, to be compared a step later."""
    return {part: [tensor.detach().clone() for tensor in tensors] for part, tensors in _parts(model).items()}


@torch.no_grad()
def update_ratios(model: LatentActionModel, before: Snapshot) -> dict[str, float]:
    """‖w - w_before‖ / ‖w_before‖ of each part; 0 for one that does not move, NaN for one that was all 0."""
    ratios = {}
    for part, tensors in _parts(model).items():
        size = _norm(before[part])
        moved = _norm([now - then for now, then in zip(tensors, before[part], strict=True)])
        ratios[f"train/update_ratio_{part}"] = moved / size if size > 0 else math.nan
    return ratios


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().pow(2).sum()) for tensor in tensors))


def _parts(model: LatentActionModel) -> dict[str, list[Tensor]]:
    """The tensors of each part; a model without codes has no codebook."""
    parts: dict[str, list[Tensor]] = {
        "encoder": [*model.adapter_in.parameters(), *model.encoder.parameters()],
        "decoder": [*model.decoder.parameters(), *model.adapter_out.parameters()],
    }
    if model.config.quantizer != "none":
        codes_K = torch.arange(model.config.num_embeddings, device=parts["encoder"][0].device)
        quantizer: Any = model.quantizer
        parts["codebook"] = [quantizer.lookup(codes_K[:, None].expand(-1, model.config.books))]
    return parts


def of_model(model: LatentActionModel, before: Snapshot, evaluated: torch.nn.Module) -> dict[str, float]:
    """What the weights look like, how far the last step moved them, and the average that is evaluated from them.

    Args:
        before: the weights before the last step; empty where an epoch that diverged has none.
    """
    found = of_weights(model)
    if before:
        found |= update_ratios(model, before)
    if evaluated is not model:
        found |= ema_difference([*model.parameters()], [*evaluated.parameters()])
    return found
