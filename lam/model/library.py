"""Quantizers whose mathematics is that of the package vector-quantize-pytorch, behind the same interface.

`rotation`: the ema codebook with the rotation trick's gradient (Fifty et al. 2024, arXiv 2410.06424).
`simvq`: a frozen codebook seen through one trained linear map (Zhu et al. 2024, arXiv 2411.02038).
`fsq`: each of a few scalars rounded to a few levels, no codebook at all (Mentzer et al. 2023, arXiv 2309.15505).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from vector_quantize_pytorch import FSQ, SimVQ
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from lam.config import RunConfig
from lam.model.quantizers import Codebook, EmaCodebook, Quantized, Quantizer


class RotationCodebook(EmaCodebook):
    """The ema codebook; the gradient reaches an embedding rotated and scaled as the embedding was onto its code."""

    def _through(self, z_e: Tensor, chosen: Tensor) -> Tensor:
        # The rotation's rounding error has no place in measurements, which need no gradient.
        return rotate_to(z_e, chosen) if self.training else super()._through(z_e, chosen)


class SimCodebook(Codebook):
    """Frozen random codes seen through one linear map, which the codebook loss trains.

    The map moves every code at once, so there is nothing to revive, and k-means has nothing to place.
    """

    def register_codes(self, codes_KQ: Tensor) -> None:
        """Hold the codes as the library's module."""
        self.book = SimVQ(dim=codes_KQ.shape[1], codebook_size=len(codes_KQ), rotation_trick=False)

    @property
    def codes_KQ(self) -> Tensor:  # type: ignore[override]
        """The codes as the map shows them now."""
        return self.book.codebook

    def prepare(self, z_e: Tensor) -> None:
        """The frozen codes stay as they were drawn."""

    def _revive(self, seen_NQ: Tensor, step: int, optimizer: Optimizer | None) -> None:
        """A single code cannot be moved."""


class ResidualScalars(Quantizer):
    """Residual slots of finite scalars: each slot rounds what the ones before it left, on a grid as much finer.

    The library's `ResidualFSQ` returns the sum of its layers alone; the decoder wants them side by side, with a
    gradient each, so the layers are the library's and the chain is here. A slot has a map back of its own.
    """

    scales_SD: Tensor

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        sizes = levels(config.num_embeddings)
        self.inward = nn.Linear(config.codebook_dim, len(sizes))
        self.book = FSQ(sizes, preserve_symmetry=True, bound_hard_clamp=True)
        self.outward = nn.ModuleList(nn.Linear(len(sizes), config.codebook_dim) for _ in range(config.num_codes))
        counts_D = torch.tensor(sizes, dtype=torch.float32)
        self.register_buffer("reach_D", counts_D / (counts_D - 1), persistent=False)  # where all steps are as wide
        powers_S1 = torch.arange(config.num_codes)[:, None]
        self.register_buffer("scales_SD", counts_D ** -powers_S1, persistent=False)

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors of code numbers, each slot's through its own map: [..., S] -> [..., S, Q]."""
        return torch.stack([back(self.book.implicit_codebook[codes[..., slot]])
                            for slot, back in enumerate(self.outward)], dim=-2)

    def restored(self, z_q: Tensor) -> Tensor:
        """In z_e's shape [..., 1, Q], though in another space."""
        return z_q.sum(dim=-2, keepdim=True)

    def forward(self, z_e: Tensor) -> Quantized:
        flat_NQ = z_e.float().reshape(-1, z_e.shape[-1])
        left_ND, vectors, codes = self.inward(flat_NQ).tanh() * self.reach_D, [], []
        for scale_D, back in zip(self.scales_SD, self.outward, strict=True):
            rounded_1ND, codes_1N = self.book((left_ND / scale_D)[None])
            left_ND = left_ND - (rounded_1ND[0] * scale_D).detach()
            vectors.append(back(rounded_1ND[0]))
            codes.append(codes_1N[0].long())
        zero = z_e.new_zeros(len(z_e), dtype=torch.float32)
        before = z_e.shape[:-2]
        z_q, numbers = (torch.stack(parts, dim=1).unflatten(0, before) for parts in (vectors, codes))
        return Quantized(z_q, numbers, zero, zero)


class ScalarCodebook(Quantizer):
    """Finite scalar quantisation: a linear map to a few scalars, rounding, and a linear map back.

    `num_embeddings` is the product of the scalars' levels: 12 = 4 x 3. Neither map has a loss of its
    own, and z_q lies in another space than z_e, so both losses are 0.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.book = FSQ(levels(config.num_embeddings), dim=config.codebook_dim, preserve_symmetry=True)

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors of code numbers: [...] -> [..., Q]."""
        return self.book.indices_to_codes(codes.flatten()).unflatten(0, codes.shape)

    def forward(self, z_e: Tensor) -> Quantized:
        flat_1NQ = z_e.float().reshape(1, -1, z_e.shape[-1])
        z_q, codes = self.book(flat_1NQ)
        zero = z_e.new_zeros(len(z_e), dtype=torch.float32)
        return Quantized(z_q.view(z_e.shape), codes.long().view(z_e.shape[:-1]), zero, zero)


def levels(count: int) -> list[int]:
    """Levels whose product is `count`: its prime factors, pairs of twos taken together, largest first.

    Raises:
        ValueError: fewer than two codes have no levels.
    """
    if count < 2:
        raise ValueError(f"fsq needs at least 2 codes, got {count}")
    found, factor = [], 4
    while count > 1:
        if count % factor == 0:
            found.append(factor)
            count //= factor
        else:
            factor = {4: 2, 2: 3}.get(factor, factor + 2)
    return sorted(found, reverse=True)


KINDS: dict[str, type[Codebook]] = {"rotation": RotationCodebook, "simvq": SimCodebook}


def scalars(config: RunConfig) -> Quantizer:
    """The quantizer `fsq`, of slots side by side or of slots that add."""
    return ResidualScalars(config) if config.residual_slots else ScalarCodebook(config)
