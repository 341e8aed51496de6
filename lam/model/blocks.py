"""Transformer blocks factorised over space and time.

A joint block attends over all T*P tokens and costs (T*P)^2; here each token attends to the P tokens
of its frame, then to the frames up to its own at its place: T*P*(P + T).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Memory(NamedTuple):
    """Keys and values of earlier frames in one block's time attention, [B*P, heads, frames, head width] each."""

    keys: Tensor
    values: Tensor

    def until(self, frames: int) -> Memory:
        """Those of the first frames only."""
        return Memory(self.keys[:, :, :frames], self.values[:, :, :frames])


class Attention(nn.Module):
    """Multi-head self-attention over the second-to-last axis, through the fused kernel.

    Args:
        width: of all heads together.
        rotary: turn queries and keys by their place (Su et al. 2021), so that only distances count.
    """

    def __init__(self, embed_dim: int, head_dim: int, width: int, rotary: bool = False) -> None:
        super().__init__()
        self.rotary = rotary
        self.heads = max(1, width // head_dim)
        self.qkv = nn.Linear(embed_dim, 3 * width)
        self.out = nn.Linear(width, embed_dim)

    def forward(self, x_NLE: Tensor, causal: bool = False, past: Memory | None = None) -> tuple[Tensor, Memory]:
        """Attend to x itself and to `past`; returns what is added to x, and the memory with x in it."""
        N, L, _ = x_NLE.shape
        q, k, v = self.qkv(x_NLE).view(N, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.rotary:
            first = 0 if past is None else past.keys.shape[2]
            q, k = rotate(q, first), rotate(k, first)
        if past is not None:
            k, v = torch.cat([past.keys, k], dim=2), torch.cat([past.values, v], dim=2)
        y = attend(q, k, v, causal)
        return self.out(y.transpose(1, 2).flatten(2)), Memory(k, v)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Scaled dot-product attention of [N, heads, L, width] tensors.

    On a CPU in bf16 the fused kernel takes 2.5 to 3 times as long as its parts for the few tokens that
    a frame or a sequence has (docs/LOG.md), so there the parts are used; everywhere else the kernel is.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores.softmax(dim=-1).to(v.dtype) @ v


def rotate(x_NHLD: Tensor, first: int) -> Tensor:
    """Turn pairs of numbers of the places first, first + 1, ... by angles that grow with the place; sizes stay."""
    half = x_NHLD.shape[-1] // 2
    places_L = torch.arange(first, first + x_NHLD.shape[2], device=x_NHLD.device)
    rates = 10_000.0 ** (-torch.arange(half, device=x_NHLD.device) / max(1, half))
    angles = places_L[:, None] * rates
    cos, sin = angles.cos().to(x_NHLD.dtype), angles.sin().to(x_NHLD.dtype)
    a, b, rest = x_NHLD[..., :half], x_NHLD[..., half : 2 * half], x_NHLD[..., 2 * half :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


class SpaceTimeBlock(nn.Module):
    """Pre-norm block: attention in space, causal attention in time, MLP; each one a residual."""

    def __init__(self, embed_dim: int, head_dim: int, rotary: bool = False) -> None:
        super().__init__()
        self.norm_space, self.norm_time, self.norm_mlp = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.space = Attention(embed_dim, head_dim, embed_dim)
        self.time = Attention(embed_dim, head_dim, embed_dim, rotary)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), nn.GELU(), nn.Linear(4 * embed_dim, embed_dim))

    def forward(self, x_BTPE: Tensor, past: Memory | None = None) -> tuple[Tensor, Memory]:
        """The tokens after the block, and its memory.

        Args:
            past: memory of the frames before x; x is then a single frame.
        """
        B, T, P, E = x_BTPE.shape
        attended, _ = self.space(self.norm_space(x_BTPE).view(B * T, P, E))
        x_BTPE = x_BTPE + attended.view(B, T, P, E)
        x_BPTE = x_BTPE.transpose(1, 2)
        attended, memory = self.time(self.norm_time(x_BPTE).reshape(B * P, T, E), causal=past is None, past=past)
        x_BTPE = x_BTPE + attended.view(B, P, T, E).transpose(1, 2)
        return x_BTPE + self.mlp(self.norm_mlp(x_BTPE)), memory


def run(block: nn.Module, recompute: bool, x_BTPE: Tensor, past: Memory | None = None) -> tuple[Tensor, Memory]:
    """The block; with `recompute` only its input is kept, and the rest computed again on the way back."""
    if recompute and torch.is_grad_enabled():
        found: tuple[Tensor, Memory] = checkpoint(block, x_BTPE, past, use_reentrant=False, preserve_rng_state=False)
        return found
    known: tuple[Tensor, Memory] = block(x_BTPE, past)
    return known


class Positions(nn.Module):
    """Learned position of each patch and of each frame, added to the tokens; where `frames` is None of patches."""

    def __init__(self, frames: int | None, patches: int, embed_dim: int) -> None:
        super().__init__()
        self.space_PE = nn.Parameter(0.02 * torch.randn(patches, embed_dim))
        self.time_T1E = None if frames is None else nn.Parameter(0.02 * torch.randn(frames, 1, embed_dim))

    def forward(self, x_BTPE: Tensor, first: int = 0) -> Tensor:
        """Add the positions of frames first, first + 1, ..."""
        if self.time_T1E is None:
            return x_BTPE + self.space_PE
        return x_BTPE + self.space_PE + self.time_T1E[first : first + x_BTPE.shape[1]]
