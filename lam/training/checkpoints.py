"""Checkpoints of a run: atomic, and never able to run code when they are read.

`last.pt` holds what a resume needs and is read with weights_only; weights that are kept are
safetensors. Both are replaced whole, so that a kill at any moment leaves the one before.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import nn

from record import files
from record.errors import BadInput, is_out_of_memory
from record.run import LAST_STATE
from record.text import gist


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
    except Exception as error:  # a damaged pickle raises whatever the instruction it has become raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]  # torch's advice is to run its code
        raise _no_state(path, f"cannot be read as a checkpoint ({first.partition('. ')[0]})") from None
    return state


def packed(state: dict[str, Any]) -> bytes:
    """A state as it is sent to another worker."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """What was packed, in this machine's own memory."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state


@contextlib.contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Whatever a state that is not this run's makes fail in the with-block is a fault of its file.

    Raises:
        BadInput: something failed.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {gist(error)}"
        raise _no_state(folder / LAST_STATE, f"is no state of this run ({why})") from None


def _no_state(path: Path, what: str) -> BadInput:
    return BadInput(what, source=path, remedy="delete it to train this run from the start")


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


def begin_from(where: Path, model: nn.Module) -> None:
    """Load the best (or else last) weights of a run, or those of an export, into a model that begins to train.

    Raises:
        BadInput: there are none, or they are those of another model.
    """
    names = ("model", "checkpoints/best", "checkpoints/last")
    path = next((where / f"{name}.safetensors" for name in names if (where / f"{name}.safetensors").is_file()), None)
    if path is None:
        raise BadInput(f"got {str(where)!r}, which holds no weights", source="config", key="init_from",
                       remedy="name a run that kept its weights, or a folder of 'lam export'")
    try:
        found = load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(f"cannot be read ({gist(error)})", source=path, remedy="restore it from a copy") from None
    wanted = model.state_dict()
    other = [name for name in {**wanted, **found} if name not in wanted or name not in found
             or wanted[name].shape != found[name].shape]
    if other:
        shapes = [list(each[other[0]].shape) if other[0] in each else "missing" for each in (found, wanted)]
        raise BadInput(f"holds another model: {len(other)} of its tensors differ, first {other[0]} ({shapes[0]}, this "
                       f"config needs {shapes[1]})", source=path, key="init_from",
                       remedy="give the run the same keys of the model as the weights have, and latents of their shape")
    model.load_state_dict(found)


def retain(folder: Path, keep: str) -> None:
    """Delete what a finished run no longer needs, by the config's `keep`; with its state goes what prolongs it."""
    if keep == "all":
        return
    (folder / LAST_STATE).unlink(missing_ok=True)
    unwanted = "best" if keep == "last" else "last"
    (folder / f"{unwanted}.safetensors").unlink(missing_ok=True)
