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


def check_room(config: RunConfig, latent_shape: tuple[int, int, int], device: torch.device) -> None:
    """Refuse a batch that cannot fit, before a model is built: its latents alone are a lower bound of what it takes.

    Args:
        latent_shape: (C, H, W) of one latent frame.

    Raises:
        EnvironmentFailed: they need more than the memory that is free.
    """
    need = 4 * config.batch_size * config.sequence_length * math.prod(latent_shape) // config.accumulate_parts
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if need > free:
        raise EnvironmentFailed(f"the latents of one batch of {config.batch_size:,} take {need / 2**30:,.0f} GiB, "
                                f"{free / 2**30:,.1f} GiB are free on {device}; {MEMORY_REMEDY}")
