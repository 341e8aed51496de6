"""Transformer blocks factorised over space and time.

A joint block attends over all T*P tokens and costs (T*P)^2; here each token attends to the P tokens
of its frame, then to the frames up to its own at its place: T*P*(P + T).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention over the second-to-last axis, through the fused kernel."""

    def __init__(self, embed_dim: int, head_dim: int) -> None:
        super().__init__()
        self.heads = max(1, embed_dim // head_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, x_NLE: Tensor, causal: bool = False) -> Tensor:
        N, L, E = x_NLE.shape
        q, k, v = self.qkv(x_NLE).view(N, L, 3, self.heads, E // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(N, L, E))


class SpaceTimeBlock(nn.Module):
    """Pre-norm block: attention in space, causal attention in time, MLP; each one a residual."""

    def __init__(self, embed_dim: int, head_dim: int) -> None:
        super().__init__()
        self.norm_space, self.norm_time, self.norm_mlp = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.space = Attention(embed_dim, head_dim)
        self.time = Attention(embed_dim, head_dim)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), nn.GELU(), nn.Linear(4 * embed_dim, embed_dim))

    def forward(self, x_BTPE: Tensor) -> Tensor:
        B, T, P, E = x_BTPE.shape
        x_BTPE = x_BTPE + self.space(self.norm_space(x_BTPE).view(B * T, P, E)).view(B, T, P, E)
        x_BPTE = x_BTPE.transpose(1, 2)
        attended = self.time(self.norm_time(x_BPTE).reshape(B * P, T, E), causal=True)
        x_BTPE = x_BTPE + attended.view(B, P, T, E).transpose(1, 2)
        return x_BTPE + self.mlp(self.norm_mlp(x_BTPE))


class Positions(nn.Module):
    """Learned position of each patch and of each frame, added to the tokens."""

    def __init__(self, frames: int, patches: int, embed_dim: int) -> None:
        super().__init__()
        self.space_PE = nn.Parameter(0.02 * torch.randn(patches, embed_dim))
        self.time_T1E = nn.Parameter(0.02 * torch.randn(frames, 1, embed_dim))

    def forward(self, x_BTPE: Tensor) -> Tensor:
        return x_BTPE + self.space_PE + self.time_T1E[: x_BTPE.shape[1]]
