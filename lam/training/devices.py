"""Where a run computes: on the device that its config names."""

from __future__ import annotations

import math

import psutil
import torch

from lam.config import RunConfig
from record.errors import MEMORY_REMEDY, BadInput, EnvironmentFailed


def choose_device(config: RunConfig) -> torch.device:
    """The device that `config.device` names.

    Raises:
        BadInput: cuda was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise BadInput("got 'cuda', but torch sees no GPU here", source="config", key="device",
                       remedy="use device: auto, or install a CUDA build of torch")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def check_room(config: RunConfig, latent_shape: tuple[int, int, int], device: torch.device, workers: int = 1,
               here: int = 1) -> None:
    """Refuse what cannot fit, before a model is built, by lower bounds of what it takes.

    Args:
        latent_shape: (C, H, W) of one latent frame.
        workers: processes that share a batch.
        here: how many of them are on this machine; its memory holds the shares of all, a GPU's that of one.

    Raises:
        EnvironmentFailed: it needs more than the memory that is free.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    beside = 1 if device.type == "cuda" else here
    for what, (need, remedy) in lower_bounds(config, latent_shape, workers, beside).items():
        if need > free:
            raise EnvironmentFailed(f"{what} take {need / 2**30:,.0f} GiB, {free / 2**30:,.1f} GiB are free on "
                                    f"{device}; {remedy}")


def lower_bounds(config: RunConfig, latent_shape: tuple[int, int, int], workers: int = 1,
                 beside: int = 1) -> dict[str, tuple[int, str]]:
    """What training takes at least of one memory, in bytes, with what makes it less.

    The latents of a batch, a block's projections, and the codes with their averages.

    Args:
        workers: processes that share a batch; each computes its share in as many parts as are left to it.
        beside: how many of them have this memory.
    """
    parts = workers * math.ceil(config.accumulate_parts / workers)
    latents = beside * config.batch_size * config.sequence_length * math.prod(latent_shape) // parts
    weights = 4 * config.embed_dim**2 * 4  # with their gradients and the optimizer's two averages
    codes = config.num_embeddings * config.codebook_dim * 2 if config.quantizer not in ("none", "fsq") else 0
    return {f"the latents of one batch of {config.batch_size:,}": (4 * latents, MEMORY_REMEDY),
            f"the weights of a block of embed_dim {config.embed_dim:,}": (4 * weights, "use a smaller embed_dim"),
            f"the {config.num_embeddings:,} codes of codebook_dim {config.codebook_dim:,}":
                (4 * codes, "use a smaller num_embeddings or codebook_dim")}
