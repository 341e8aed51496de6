"""W&B, reduced to what is needed here: a run that sends nothing of the machine, and whether a key is there."""

from __future__ import annotations

import netrc
import os
from typing import Any
from urllib.parse import urlparse

CONNECT_SECONDS = 20.0


def begin(*, online: bool, finish_seconds: float, **fields: Any) -> Any:
    """Begin a run of its own, beside any other: no environment, no arguments, no code, no console output go with it.

    Args:
        fields: of `wandb.init`: project, name, dir and the like.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb.init(
        mode="online" if online else "offline", reinit="create_new",
        settings=wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
            x_disable_meta=True, x_save_requirements=False, x_disable_machine_info=True,
            init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", CONNECT_SECONDS)), finish_timeout=finish_seconds,
        ), **fields)


def has_key() -> bool:
    """Whether W&B would find an API key: in the environment, or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
