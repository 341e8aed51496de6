"""The loss: a dict of terms, a dict of weights, one line for the total. Keys as in lam.metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from lam.config import RunConfig
from lam.model.lam import LatentActionModel, Output


def weights(config: RunConfig) -> dict[str, float]:
    """Weight of each term that is back-propagated; `change_loss` comes weighted, since its weight may decay."""
    return {
        "mse_loss": config.reconstruction_weight,
        "vq_loss": 1.0,
        "rollout_loss": config.rollout_weight,
    } | ({"change_loss": 1.0} if config.change_weight else {}) | (
        {"action_loss": config.action_weight} if config.action_weight else {})


def with_gradient(config: RunConfig) -> dict[str, str]:
    """Of each weighted term, the term that has a gradient: codes that follow averages take none from their loss."""
    averaged = config.quantizer in ("ema", "rotation")
    return {name: "commitment_loss" if averaged and name == "vq_loss" else name for name in weights(config)}


def expected_weights(config: RunConfig) -> dict[str, float]:
    """The same in the mean over training steps, of which only `rollout_prob` have a rollout."""
    weight = weights(config)
    return weight | {"rollout_loss": weight["rollout_loss"] * config.rollout_prob}


def terms(model: LatentActionModel, latents_BTCHW: Tensor, output: Output, anchor: int | None,
          emphasis_HW: Tensor | None = None) -> dict[str, Tensor]:
    """Every loss of one batch, each sample's own value: tensors of shape [B].

    Args:
        anchor: last true frame before the rollout; None = no rollout, whose losses are then 0.
        emphasis_HW: further weight of the reconstruction at each cell of the grid; None = no such term.
    """
    error = output.prediction - latents_BTCHW[:, 1:]
    mse, mae = error.pow(2).flatten(1).mean(1), error.abs().flatten(1).mean(1)
    codebook = output.quantized.codebook_loss
    commitment = model.config.commitment_weight * output.quantized.commitment_loss
    rollout_mse, rollout_mae = _rollout_errors(model, latents_BTCHW, output, anchor)
    return {
        "mse_loss": mse,
        "recon_loss": mse,
        "mae_loss": mae,
        "codebook_loss": codebook,
        "commitment_loss": commitment,
        "vq_loss": codebook + commitment,
        "rollout_loss": rollout_mse,
        "rollout_loss_mae": rollout_mae,
    } | ({} if emphasis_HW is None else {
        "change_loss": model.config.reconstruction_weight * (error.pow(2) * emphasis_HW).flatten(1).mean(1)})


def total(values: dict[str, Tensor], weight: dict[str, float]) -> Tensor:
    """The loss that is back-propagated, of the terms that are there."""
    return torch.stack([weight[name] * values[name].mean() for name in weight if name in values]).sum()


def total_mae(values: dict[str, Tensor], config: RunConfig) -> Tensor:
    """The monitoring total: absolute errors in place of squared ones."""
    return (
        config.reconstruction_weight * values["mae_loss"].mean()
        + values["vq_loss"].mean()
        + config.rollout_weight * values["rollout_loss_mae"].mean()
    )


def _rollout_errors(
    model: LatentActionModel, latents_BTCHW: Tensor, output: Output, anchor: int | None
) -> tuple[Tensor, Tensor]:
    """Squared and absolute error [B] of the same rollout."""
    if anchor is None or model.config.rollout_horizon == 1:
        zero = latents_BTCHW.new_zeros(len(latents_BTCHW))
        return zero, zero
    steps = model.config.rollout_horizon - 1
    error = model.rollout(latents_BTCHW, output, anchor) - latents_BTCHW[:, anchor + 2 : anchor + 2 + steps]
    return error.pow(2).flatten(1).mean(1), error.abs().flatten(1).mean(1)
