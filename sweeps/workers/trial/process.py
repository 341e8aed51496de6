"""What every process of a trial does: find what it trains, keep to its share of the machine, say why it failed."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

from record.errors import MEMORY_REMEDY, BadData, EnvironmentFailed, LamError, is_out_of_memory

# What the system says of a disk that is full, read-only, broken or gone.
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN,
               errno.ENOLCK, errno.EOPNOTSUPP}
# What CUDA says of a GPU that is broken, taken or gone.
BROKEN_GPU = ("uncorrectable ECC error", "no CUDA-capable device", "devices are busy or unavailable",
              "driver version is insufficient", "fallen off the bus", "system not yet initialized")


def resolve(dotted: str) -> Any:
    """The object that ``package.module:name`` names."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def claim_gpu(share: float) -> None:
    """Keep this process to its share of a GPU: with none it sees none, with a part it may use that part of the memory.

    Ray leaves all GPUs visible to a worker that asked for none, and caps nothing.
    """
    if share == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif share < 1:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(share)


def use_threads(threads: int) -> None:
    """Compute with so many threads; 0 leaves them as they are."""
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def is_environment(error: Exception) -> bool:
    """Whether the machine failed and not the training: what it was doing can go on once that is mended.

    Data is the machine's: the driver has read it before it started a trial.
    """
    if isinstance(error, OSError):
        return error.errno in ENVIRONMENT
    return isinstance(error, EnvironmentFailed | BadData) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in BROKEN_GPU))


def reason(error: Exception) -> dict[str, str]:
    """Rule and sentence of a training that raised; the traceback goes to the trial's output.log."""
    if is_environment(error):
        return {"rule": "environment", "sentence": str(error)}
    if not isinstance(error, LamError):
        sys.excepthook(type(error), error, error.__traceback__)
    rule = "out_of_memory" if is_out_of_memory(error) else "raised"
    text = str(error) or "no message"
    remedy = f"; {MEMORY_REMEDY}" if rule == "out_of_memory" else ""
    return {"rule": rule, "sentence": f"training raised {type(error).__name__}: {text.splitlines()[0][:300]}{remedy}"}
