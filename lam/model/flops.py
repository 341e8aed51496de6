"""Floating-point operations of a training step, counted by torch's own counter.

It adds up the matrix products of the forward and the backward pass. On the meta device nothing is computed; a small
model is counted while it computes zeros on the CPU, since an operation on the meta device takes Python some 300 us:
the same count either way. Fused CPU attention would count as 0, so the mathematical form is counted.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lam.config import RunConfig
from lam.model import losses
from lam.model.lam import LatentActionModel

# The config's keys that change what is counted: one count, which takes most of a second, serves all configs that agree
# in them.
COUNTED = ("sequence_length", "patch_size", "patch_dim", "embed_dim", "head_dim", "encoder_depth", "decoder_depth",
           "quantizer", "slots", "num_codes", "num_embeddings", "codebook_dim", "normalize_codes", "frame_pool",
           "frame_difference", "time_positions", "action_modulation", "predict_residual", "rollout_horizon",
           "rollout_detach", "reconstruction_weight", "rollout_weight")

QUICK = 1e8  # multiplications of a forward pass that are computed sooner than they are left out


@lru_cache(maxsize=4096)
def training_flops(config: RunConfig, latent_shape: tuple[int, int, int], anchor: int | None) -> int:
    """Operations of forward and backward for ONE sequence; they grow in proportion to the batch.

    A rollout's step attends to one frame more for each frame that its anchor is later, so the count is a straight line
    in the anchor, and its two ends are all that is counted.

    Args:
        anchor: last true frame before the rollout; None = a step without rollout.
    """
    same = RunConfig(data_dir=".", **{key: getattr(config, key) for key in COUNTED})
    last = config.sequence_length - config.rollout_horizon - 1
    device = "cpu" if _multiplications(same, latent_shape) < QUICK else "meta"
    if anchor is None or last <= 0:
        return _counted(same, latent_shape, anchor, device)
    low, high = (_counted(same, latent_shape, end, device) for end in (0, last))
    return low + (high - low) * anchor // last


@lru_cache(maxsize=256)
def _counted(config: RunConfig, latent_shape: tuple[int, int, int], anchor: int | None, device: str) -> int:
    model = _built(config, latent_shape, device)
    with torch.device(device), sdpa_kernel(SDPBackend.MATH):
        latents = torch.zeros(1, config.sequence_length, *latent_shape)
        with FlopCounterMode(display=False) as counter:
            values = losses.terms(model, latents, model(latents), anchor)
            losses.total(values, losses.weights(config)).backward()
    return int(counter.get_total_flops())


def weight_bytes(config: RunConfig, latent_shape: tuple[int, int, int]) -> int:
    """Size of the model's weights in a file."""
    return sum(tensor.numel() * tensor.element_size()
               for tensor in _built(config, latent_shape, "meta").state_dict().values())


def _multiplications(config: RunConfig, latent_shape: tuple[int, int, int]) -> int:
    """About how many a forward pass of one sequence has, in the blocks' linear maps and between a frame's cells."""
    cells = latent_shape[1] * latent_shape[2] // config.patch_size**2
    depth = config.encoder_depth + config.decoder_depth
    return depth * config.sequence_length * cells * config.embed_dim * (12 * config.embed_dim + cells)


def _built(config: RunConfig, latent_shape: tuple[int, int, int], device: str) -> LatentActionModel:
    """A model whose first weights take no number from anybody's random generator; on meta they have no storage."""
    if config.quantizer == "fsq":  # its two small maps cannot be built without storage; they are far below 1 %
        config = config.replace(quantizer="none")
    with torch.random.fork_rng(devices=()), torch.device(device):
        return LatentActionModel(config, latent_shape).eval()
