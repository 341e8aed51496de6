"""What torch.export makes of a model: two programs that torch runs without this package.

`encode.pt2`: windows [B, T, C, H, W] -> (codes [B, T-1, S], embedding). `step.pt2`: frames [B, L, C, H, W] and codes
[B, L, S] of the L = T - 1 latest transitions -> the next frame [B, C, H, W]. Each is checked against the module before
it is kept; what torch cannot export is said and left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lam.inference.model import ActionModel
from lam.model.lam import LatentActionModel
from record.text import gist

TOLERANCE = 1e-4  # largest difference to the module that is kept, of values of size 1
BATCH = 2  # of the example; any other size may come


class Encode(nn.Module):
    """Windows -> codes (embeddings only, where actions are continuous)."""

    def __init__(self, module: LatentActionModel) -> None:
        super().__init__()
        self.module = module

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Codes and embeddings of every transition."""
        z_e = self.module.encode(windows)
        codes = self.module.quantizer(z_e).codes
        return (z_e,) if codes is None else (codes, z_e)


class NextFrame(nn.Module):
    """The last L frames and the codes that follow them -> the next frame."""

    def __init__(self, module: LatentActionModel) -> None:
        super().__init__()
        self.module = module

    def forward(self, frames: Tensor, codes: Tensor) -> Tensor:
        """What follows the last of these frames."""
        return self.module.decode(frames, self.module.quantizer.lookup(codes))[:, -1]


def write_programs(model: ActionModel, folder: Path) -> dict[str, Any]:
    """Export, check and write both programs; says of each how far it is from the module, or why there is none."""
    T, shape, S = model.config.sequence_length, model.latent_shape, model.config.num_codes
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(BATCH, T, *shape, generator=generator)
    found = {"encode": _kept(Encode(model.module), (windows,), folder / "encode.pt2")}
    if model.config.quantizer == "none":
        return found
    codes = torch.randint(model.config.num_embeddings, (BATCH, T - 1, S), generator=generator)
    return found | {"step": _kept(NextFrame(model.module), (windows[:, 1:], codes), folder / "step.pt2")}


def _kept(program: nn.Module, example: tuple[Tensor, ...], path: Path) -> dict[str, Any]:
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        made = torch.export.export(program.eval(), example, dynamic_shapes=tuple({0: batch} for _ in example))
        other = tuple(torch.cat([each, each.flip(0), each[:1]]) for each in example)  # another batch size
        far = _furthest(made.module()(*other), program(*other))
        if not far <= TOLERANCE:
            return {"written": False, "reason": f"differs from the module by {far:.2g}"}
        torch.export.save(made, path)
    except Exception as error:  # torch names no class of its own for what it cannot export
        return {"written": False, "reason": f"{type(error).__name__}: {gist(error)}"}
    return {"written": True, "file": path.name, "largest_difference": far,
            "inputs": [list(each.shape) for each in example]}


def _furthest(found: Any, expected: Any) -> float:
    pairs = zip(*(each if isinstance(each, tuple) else (each,) for each in (found, expected)), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
