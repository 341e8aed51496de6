"""Where a run computes: on the device that its config names."""

from __future__ import annotations

import torch

from lam.config import RunConfig
from record.errors import BadInput


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
