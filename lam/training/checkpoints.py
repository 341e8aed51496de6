"""Checkpoints of a run: atomic, and never able to run code when they are read.

`last.pt` holds what a resume needs and is read with weights_only; weights that are kept are
safetensors. Both are replaced whole, so that a kill at any moment leaves the one before.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import nn

from record import files
from record.errors import BadInput
from record.run import LAST_STATE


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace last.pt, the state that a resume starts from."""
    files.write_atomic(folder / LAST_STATE, lambda file: _save(state, file))


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    """`torch.save`, which hides what the system refused (a full disk) behind a RuntimeError of its own."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        hidden: BaseException | None = error
        while hidden is not None and not isinstance(hidden, OSError):
            hidden = hidden.__context__
        raise hidden or error from None


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state of last.pt; None where there is none.

    Raises:
        BadInput: the file is damaged.
    """
    path = folder / LAST_STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise BadInput(f"cannot be read as a checkpoint ({error})", source=path,
                       remedy="delete it to train this run from the start") from None
    return state


def save_weights(folder: Path, name: str, model: nn.Module) -> None:
    """Write the model's weights as NAME.safetensors."""
    data = save({key: value.contiguous() for key, value in model.state_dict().items()})
    files.write_atomic(folder / f"{name}.safetensors", lambda file: file.write(data))


def load_weights(folder: Path, name: str, model: nn.Module) -> None:
    """Load NAME.safetensors into the model.

    Raises:
        BadInput: missing, damaged, or of another shape than the model.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        have = ", ".join(sorted(file.stem for file in folder.glob("*.safetensors"))) or "none"
        raise BadInput(f"no such checkpoint (there are: {have})", source=path, remedy="train the run first")
    try:
        model.load_state_dict(load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise BadInput(f"does not fit the run's config ({str(error).splitlines()[0]})", source=path,
                       remedy="the file or config.yaml was changed; train the run again") from None


def retain(folder: Path, keep: str) -> None:
    """Delete what a finished run no longer needs, by the config's `keep`."""
    (folder / LAST_STATE).unlink(missing_ok=True)
    if keep == "all":
        return
    unwanted = "best" if keep == "last" else "last"
    (folder / f"{unwanted}.safetensors").unlink(missing_ok=True)
