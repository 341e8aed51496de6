"""A dense joint-attention LAM of the same widths, for comparison only: every token attends to every one it may see.

The encoder attends over all patches of all frames; the decoder over chunks of [a frame's patches,
the action's codes, queries for the next frame's patches]; both under a block-causal mask. Everything
else (adapters, pooling, quantizer, losses, optimizer step) is the product's own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lam.config import RunConfig
from lam.model.lam import Encoder, LatentActionModel, Output


def block_causal(blocks: int, size: int) -> Tensor:
    """[N, N] mask, True where a token may look: its own block of `size` tokens and earlier ones."""
    block_N = torch.arange(blocks).repeat_interleave(size)
    return block_N[:, None] >= block_N[None, :]


class DenseBlock(nn.Module):
    """Pre-norm block: joint attention and MLP; `fused` chooses the fused kernel or materialised scores."""

    def __init__(self, embed_dim: int, head_dim: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = max(1, embed_dim // head_dim), fused
        self.norm, self.norm_mlp = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.qkv, self.out = nn.Linear(embed_dim, 3 * embed_dim), nn.Linear(embed_dim, embed_dim)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, 4 * embed_dim), nn.GELU(), nn.Linear(4 * embed_dim, embed_dim))

    def forward(self, x_BNE: Tensor, mask_NN: Tensor) -> Tensor:
        B, N, E = x_BNE.shape
        q, k, v = self.qkv(self.norm(x_BNE)).view(B, N, 3, self.heads, E // self.heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_NN)
        else:
            scores = (q @ k.transpose(2, 3)) * (E // self.heads) ** -0.5
            y = scores.masked_fill(~mask_NN, -torch.inf).softmax(dim=-1) @ v
        x_BNE = x_BNE + self.out(y.transpose(1, 2).flatten(2))
        return x_BNE + self.mlp(self.norm_mlp(x_BNE))


class DenseEncoder(Encoder):
    """The product's encoder with joint attention in its blocks."""

    def __init__(self, config: RunConfig, patches: int, fused: bool) -> None:
        super().__init__(config.replace(encoder_depth=1), patches)
        width = config.embed_dim
        self.blocks = nn.ModuleList(DenseBlock(width, config.head_dim, fused) for _ in range(config.encoder_depth))

    def tokens(self, patches_BTPD: Tensor) -> Tensor:
        B, T, P, _ = patches_BTPD.shape
        mask_NN = block_causal(T, P)
        x_BNE = self.positions(self.embed(patches_BTPD)).flatten(1, 2)
        for block in self.blocks:
            x_BNE = block(x_BNE, mask_NN)
        return self.norm(x_BNE).unflatten(1, (T, P))


class DenseDecoder(nn.Module):
    """Chunks of frame, codes and queries -> patches of the next frames."""

    def __init__(self, config: RunConfig, patches: int, fused: bool) -> None:
        super().__init__()
        E, S, L = config.embed_dim, config.num_codes, config.sequence_length - 1
        self.embed, self.code = nn.Linear(config.patch_dim, E), nn.Linear(config.codebook_dim, E)
        self.frame_PE, self.query_PE = (nn.Parameter(0.02 * torch.randn(patches, E)) for _ in range(2))
        self.slot_SE, self.time_L1E = nn.Parameter(0.02 * torch.randn(S, E)), nn.Parameter(0.02 * torch.randn(L, 1, E))
        self.blocks = nn.ModuleList(DenseBlock(E, config.head_dim, fused) for _ in range(config.decoder_depth))
        self.norm, self.head = nn.LayerNorm(E), nn.Linear(E, config.patch_dim)

    def forward(self, patches_BLPD: Tensor, actions_BLSQ: Tensor, past: None = None) -> tuple[Tensor, list]:
        B, L, P, _ = patches_BLPD.shape
        frames, codes = self.embed(patches_BLPD) + self.frame_PE, self.code(actions_BLSQ) + self.slot_SE
        chunk_BLNE = torch.cat([frames, codes, self.query_PE.expand(B, L, -1, -1)], dim=2) + self.time_L1E[:L]
        mask_NN = block_causal(L, chunk_BLNE.shape[2])
        x_BNE = chunk_BLNE.flatten(1, 2)
        for block in self.blocks:
            x_BNE = block(x_BNE, mask_NN)
        return self.head(self.norm(x_BNE.unflatten(1, (L, -1))[:, :, -P:])), []


class DenseModel(LatentActionModel):
    """The product's model with dense transformers; a rollout decodes its history again at every step."""

    def __init__(self, config: RunConfig, latent_shape: tuple[int, int, int], fused: bool = False) -> None:
        super().__init__(config.replace(encoder_depth=1, decoder_depth=1), latent_shape)
        self.config = config
        patches = self.grid[0] * self.grid[1]
        self.encoder = DenseEncoder(config, patches, fused)
        self.decoder = DenseDecoder(config, patches, fused)

    def rollout(self, latents_BTCHW: Tensor, output: Output, anchor: int) -> Tensor:
        first = output.prediction[:, anchor : anchor + 1]
        frames = [latents_BTCHW[:, : anchor + 1], first.detach() if self.config.rollout_detach else first]
        for step in range(1, self.config.rollout_horizon):
            frames.append(self.decode(torch.cat(frames, 1), output.quantized.z_q[:, : anchor + 1 + step])[:, -1:])
        return torch.cat(frames[2:], dim=1)
