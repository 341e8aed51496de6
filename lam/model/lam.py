"""The latent action model: encoder -> codes -> decoder, between two convolutional adapters.

The encoder sees frames up to t+1 for the action of transition t and nothing later; the decoder
predicts frame t+1 from the frames and the actions up to t.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lam.config import RunConfig
from lam.model import blocks, quantizers
from lam.model.blocks import Memory, Positions, SpaceTimeBlock
from lam.model.quantizers import Quantized, Quantizer
from lam.model.residual import ResidualSlots
from record.errors import BadInput


class Output(NamedTuple):
    """One teacher-forced pass.

    Attributes:
        prediction: of frames 1..T-1, [B, T-1, C, H, W].
        z_e: action embeddings, [B, T-1, S, Q], or [B, T-1, 1, Q] where slots are residual.
        quantized: their codes.
        memory: of each decoder block, where it was asked for; a rollout continues from it.
    """

    prediction: Tensor
    z_e: Tensor
    quantized: Quantized
    memory: list[Memory]


class Encoder(nn.Module):
    """Patches of T frames -> the embeddings of each transition's action: [B, T, P, D] -> [B, T-1, S, Q].

    Parallel slots have an embedding each; residual slots share one, and S is then 1 in this class.
    """

    def __init__(self, config: RunConfig, patches: int) -> None:
        super().__init__()
        E = config.embed_dim
        self.normalize, self.recompute = config.normalize_codes, config.recompute
        self.embed = nn.Linear(config.patch_dim, E)
        rotary = config.time_positions == "rotary"
        self.positions = Positions(None if rotary else config.sequence_length, patches, E)
        self.blocks = nn.ModuleList(SpaceTimeBlock(E, config.head_dim, rotary) for _ in range(config.encoder_depth))
        self.norm = nn.LayerNorm(E)
        rows = 1 if config.residual_slots else config.num_codes
        self.queries_SE = nn.Parameter(torch.randn(rows, E) / math.sqrt(E))
        self.keys, self.values = nn.Linear(E, E, bias=False), nn.Linear(E, E)
        self.frame_pool = config.frame_pool
        if config.frame_pool == "attention":
            self.frame_query, self.frame_key = nn.Linear(E, E), nn.Linear(E, E)
        self.head = nn.Linear(E, config.codebook_dim)
        self.embed_change = nn.Linear(config.patch_dim, E, bias=False) if config.frame_difference else None

    def tokens(self, patches_BTPD: Tensor) -> Tensor:
        """Each patch in the light of its frame and the frames before it: [B, T, P, D] -> [B, T, P, E]."""
        x_BTPE = self.positions(self.embed(patches_BTPD))
        if self.embed_change is not None:
            x_BTPE = x_BTPE + self.embed_change(_changes(patches_BTPD))
        for block in self.blocks:
            x_BTPE, _ = blocks.run(block, self.recompute, x_BTPE)
        return self.norm(x_BTPE)

    def forward(self, patches_BTPD: Tensor) -> Tensor:
        return self.read(self.tokens(patches_BTPD))

    def read(self, x_BTPE: Tensor) -> Tensor:
        """The action embeddings that the tokens hold: [B, T, P, E] -> [B, T-1, S, Q]."""
        if self.frame_pool == "last":
            x_BTSE = self._pool_patches(x_BTPE[:, 1:])
        else:
            x_BTSE = self._pool_frames(self._pool_patches(x_BTPE))[:, 1:]
        z_e = self.head(x_BTSE)
        return F.layer_norm(z_e.float(), z_e.shape[-1:]) if self.normalize else z_e

    def _pool_frames(self, x_BTSE: Tensor) -> Tensor:
        """Each frame's slots, mixed with those of the frames before it."""
        if self.frame_pool == "mean":
            counts_T11 = torch.arange(1, x_BTSE.shape[1] + 1, device=x_BTSE.device)[:, None, None]
            return x_BTSE.cumsum(dim=1) / counts_T11
        x_BSTE = x_BTSE.transpose(1, 2)
        mixed_BSTE = F.scaled_dot_product_attention(
            self.frame_query(x_BSTE), self.frame_key(x_BSTE), x_BSTE, is_causal=True)
        return mixed_BSTE.transpose(1, 2)

    def _pool_patches(self, x_BTPE: Tensor) -> Tensor:
        """Each slot's query gathers the patches of its frame: [B, T, P, E] -> [B, T, S, E].

        Keys are never formed: q.(K x) = (q K).x. Nor are the patches' values: the weights sum to 1, so
        the value of the gathered patches is the gathered value.
        """
        B, T, _, _ = x_BTPE.shape
        queries = (self.queries_SE @ self.keys.weight).expand(B, T, -1, -1).to(x_BTPE.dtype)
        return self.values(F.scaled_dot_product_attention(queries, x_BTPE, x_BTPE))


def _changes(x_BTPD: Tensor) -> Tensor:
    """By how much each patch differs from itself a frame before; 0 in the first frame."""
    return F.pad(x_BTPD[:, 1:] - x_BTPD[:, :-1], (0, 0, 0, 0, 1, 0))


class Decoder(nn.Module):
    """Patches of frames 0..L-1 and the actions after each -> patches of frames 1..L.

    An action scales and shifts the tokens of its frame before every block, so that what it does depends on what is
    there, which a sum cannot say. `film` does so to the tokens themselves (Perez et al. 2018), whose size then grows
    with every block; `adaln` adds their scaled and shifted norm, from zero (after Peebles and Xie 2023, adaLN-Zero).
    """
    def __init__(self, config: RunConfig, patches: int) -> None:
        super().__init__()
        E = config.embed_dim
        self.recompute = config.recompute
        self.embed = nn.Linear(config.patch_dim, E)
        width, self.normed = config.num_codes * config.codebook_dim, config.action_modulation == "adaln"
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * E) for _ in range(config.decoder_depth))
        if self.normed:
            for modulation in self.modulations:
                _zero(modulation)
        rotary = config.time_positions == "rotary"
        self.positions = Positions(None if rotary else config.sequence_length - 1, patches, E)
        self.blocks = nn.ModuleList(SpaceTimeBlock(E, config.head_dim, rotary) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(E)
        self.head = nn.Linear(E, config.patch_dim)

    def forward(
        self, patches_BLPD: Tensor, actions_BLSQ: Tensor, past: list[Memory] | None = None, remember: bool = True
    ) -> tuple[Tensor, list[Memory]]:
        """The patches of the next frames, and the memory of every block.

        Args:
            past: memory of the frames before these; there is then a single frame to continue with.
            remember: whether a memory is wanted; keeping one holds every block's keys and values.
        """
        action_BL1A = actions_BLSQ.flatten(2).unsqueeze(2)
        x_BLPE = self.positions(self.embed(patches_BLPD), first=past[0].keys.shape[2] if past else 0)
        memory = []
        for number, (block, modulation) in enumerate(zip(self.blocks, self.modulations, strict=True)):
            scale_BL1E, shift_BL1E = modulation(action_BL1A).chunk(2, dim=-1)
            if self.normed:
                x_BLPE = x_BLPE + F.layer_norm(x_BLPE, x_BLPE.shape[-1:]) * scale_BL1E + shift_BL1E
            else:
                x_BLPE = x_BLPE * (1 + scale_BL1E) + shift_BL1E
            x_BLPE, seen = blocks.run(block, self.recompute, x_BLPE, past[number] if past else None)
            if remember:
                memory.append(seen)
        return self.head(self.norm(x_BLPE)), memory


class LatentActionModel(nn.Module):
    """The whole model for latents of shape [B, T, C, H, W].

    Raises:
        BadInput: the grid is not divisible by `patch_size`.
    """

    def __init__(self, config: RunConfig, latent_shape: tuple[int, int, int]) -> None:
        super().__init__()
        C, H, W = latent_shape
        size, D = config.patch_size, config.patch_dim
        if H % size or W % size:
            raise BadInput(f"got {size}, which does not divide the latents' grid {H}x{W}", source="config",
                           key="patch_size", remedy="choose a divisor of both sides")
        self.config = config
        self.grid = (H // size, W // size)
        patches = self.grid[0] * self.grid[1]
        self.adapter_in = nn.Conv2d(C, D, size, size)
        self.encoder = Encoder(config, patches)
        self.quantizer = make_quantizer(config)
        self.decoder = Decoder(config, patches)
        self.adapter_out = nn.ConvTranspose2d(D, C, size, size)
        if config.predict_residual:
            _zero(self.adapter_out)  # training starts at the copy-last-frame baseline

    def forward(self, latents_BTCHW: Tensor, remember: bool = True) -> Output:
        """A teacher-forced pass; `remember` = a rollout will go on from it."""
        patches_BTPD = self.patches(latents_BTCHW)
        z_e = self.encoder(patches_BTPD)
        quantized = self.quantize(z_e)
        prediction, memory = self._predict(latents_BTCHW[:, :-1], patches_BTPD[:, :-1], quantized.z_q,
                                           remember=remember)
        return Output(prediction, z_e, quantized, memory)

    def quantize(self, z_e: Tensor) -> Quantized:
        """The codes of embeddings, in float32 whatever the rest is computed in."""
        with torch.autocast("cuda" if z_e.is_cuda else "cpu", enabled=False):
            return self.quantizer.forward(z_e.float())

    def encode(self, latents_BTCHW: Tensor) -> Tensor:
        """Action embeddings before quantisation: [B, T, C, H, W] -> [B, T-1, S, Q] (S = 1 if slots are residual)."""
        return self.encoder(self.patches(latents_BTCHW))

    def decode(self, frames_BLCHW: Tensor, actions_BLSQ: Tensor) -> Tensor:
        """Predict the frame after each given one: [B, L, C, H, W] -> the same shape, one frame later."""
        return self._predict(frames_BLCHW, self.patches(frames_BLCHW), actions_BLSQ, remember=False)[0]

    def follow(
        self, frames_BLCHW: Tensor, actions_BLSQ: Tensor, past: list[Memory] | None = None
    ) -> tuple[Tensor, list[Memory]]:
        """`decode`, and the memory to go on from; after the memory of what came before there is one frame, L = 1."""
        return self._predict(frames_BLCHW, self.patches(frames_BLCHW), actions_BLSQ, past)

    def rollout(self, latents_BTCHW: Tensor, output: Output, anchor: int) -> Tensor:
        """Predictions of frames anchor+2 .. anchor+rollout_horizon, each fed back as the next input.

        The first prediction, of frame anchor+1, is the teacher-forced one of `output`.

        Returns:
            [B, rollout_horizon - 1, C, H, W]
        """
        frame_B1CHW = output.prediction[:, anchor : anchor + 1]
        if self.config.rollout_detach:
            frame_B1CHW = frame_B1CHW.detach()
        # The decoder is causal: what it made of frames 0..anchor is what it would make of them again.
        memory = [block.until(anchor + 1) for block in output.memory]
        frames = []
        for position in range(anchor + 1, anchor + self.config.rollout_horizon):
            action_B1SQ = output.quantized.z_q[:, position : position + 1]
            frame_B1CHW, memory = self.follow(frame_B1CHW, action_B1SQ, memory)
            frames.append(frame_B1CHW)
        return torch.cat(frames, dim=1)

    def patches(self, latents_BTCHW: Tensor) -> Tensor:
        """[B, T, C, H, W] -> [B, T, P, D]."""
        B, T = latents_BTCHW.shape[:2]
        return self.adapter_in(latents_BTCHW.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (B, T))

    def _predict(
        self, frames_BLCHW: Tensor, patches_BLPD: Tensor, actions_BLSQ: Tensor, past: list[Memory] | None = None,
        remember: bool = True,
    ) -> tuple[Tensor, list[Memory]]:
        B, L = frames_BLCHW.shape[:2]
        decoded_BLPD, memory = self.decoder(patches_BLPD, actions_BLSQ, past, remember)
        x_NDP = decoded_BLPD.flatten(0, 1).transpose(1, 2)
        change = self.adapter_out(x_NDP.unflatten(2, self.grid)).float().unflatten(0, (B, L))
        return frames_BLCHW + change if self.config.predict_residual else change, memory


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def make_quantizer(config: RunConfig) -> Quantizer:
    """The quantizer that `config.quantizer` and `config.slots` name."""
    if config.quantizer == "none":
        return quantizers.Identity()
    kinds: dict[str, type[quantizers.Codebook]] = {"ema": quantizers.EmaCodebook, "vq": quantizers.Codebook}
    if config.quantizer not in kinds:
        from lam.model import library  # the library takes over a second to import

        if config.quantizer == "fsq":
            return library.scalars(config)
        kinds |= library.KINDS
    books = [kinds[config.quantizer](config, number) for number in range(config.books)]
    return ResidualSlots(books) if config.residual_slots else books[0]
