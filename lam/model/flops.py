"""Floating-point operations of a training step, counted by torch's own counter on the meta device.

Nothing is computed: the model is built without storage and the counter adds up the matrix products
of the forward and the backward pass. Fused CPU attention would count as 0, so the mathematical form
is counted.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lam.config import RunConfig
from lam.model import losses
from lam.model.lam import LatentActionModel


@lru_cache(maxsize=256)
def training_flops(config: RunConfig, latent_shape: tuple[int, int, int], anchor: int | None) -> int:
    """Operations of forward and backward for ONE sequence; they grow in proportion to the batch.

    Args:
        anchor: last true frame before the rollout; None = a step without rollout.
    """
    model = _without_storage(config.replace(recompute=False), latent_shape)  # what is computed twice is counted once
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH):
        latents = torch.empty(1, config.sequence_length, *latent_shape)
        with FlopCounterMode(display=False) as counter:
            values = losses.terms(model, latents, model(latents), anchor)
            losses.total(values, losses.weights(config)).backward()
    return int(counter.get_total_flops())


def weight_bytes(config: RunConfig, latent_shape: tuple[int, int, int]) -> int:
    """Size of the model's weights in a file."""
    return sum(tensor.numel() * tensor.element_size()
               for tensor in _without_storage(config, latent_shape).state_dict().values())


def _without_storage(config: RunConfig, latent_shape: tuple[int, int, int]) -> LatentActionModel:
    if config.quantizer == "fsq":  # its two small maps cannot be built without storage; they are far below 1 %
        config = config.replace(quantizer="none")
    with torch.device("meta"):
        return LatentActionModel(config, latent_shape).eval()
