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
from numpy.typing import NDArray
from torch import Tensor

from lam.model.lam import LatentActionModel

Array = NDArray[np.float64]


def of_steps(grad_norms: Array, losses: Array) -> dict[str, float]:
    """Spread of the gradient norm and of the loss over the steps of an epoch, [steps] each."""
    mean, std = float(losses.mean()), float(losses.std())
    return {
        "train/grad_norm_mean": float(grad_norms.mean()),
        "train/grad_norm_std": float(grad_norms.std()),
        "train/grad_norm_max": float(grad_norms.max()),
        "train/grad_norm_min": float(grad_norms.min()),
        "train/batch_loss_mean": mean,
        "train/batch_loss_std": std,
        "train/batch_loss_max": float(losses.max()),
        "train/batch_loss_min": float(losses.min()),
        "train/batch_loss_cv": std / mean if mean > 0 else math.nan,
    }


def loss_ratios(terms: Mapping[str, Array], weights: Mapping[str, float]) -> dict[str, float]:
    """Each weighted term's share of the loss; NaN in a term is a step that did not have it."""
    parts = {name: weight * float(np.nan_to_num(terms[name]).mean()) for name, weight in weights.items()}
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
        codes = torch.arange(model.config.num_embeddings, device=parts["encoder"][0].device)
        quantizer: Any = model.quantizer
        parts["codebook"] = [quantizer.lookup(codes)]
    return parts
