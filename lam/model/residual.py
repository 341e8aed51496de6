"""Slots that add: each codes what the slots before it left of one embedding, with a book of its own.

Residual vector quantisation (Juang and Gray 1982; Zeghidour et al. 2021, SoundStream). The books' entries are not
summed here: the decoder gets them side by side, as it gets the codes of parallel slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lam.model.quantizers import Codebook, Quantized, Quantizer, Whole


class ResidualSlots(Quantizer):
    """A stack of codebooks, the first of which codes the embedding and every other one what is left of it.

    Each book places its first codes by, averages over and revives from what it is given itself.
    """

    def __init__(self, books: Sequence[Codebook]) -> None:
        super().__init__()
        self.books = nn.ModuleList(books)

    def _each(self) -> list[Codebook]:
        return cast("list[Codebook]", list(self.books))

    def forward(self, z_e: Tensor) -> Quantized:
        """Quantise embeddings [B, ..., 1, Q]; z_q is [B, ..., S, Q]."""
        left, found, codes = z_e.float(), [], []
        for book in self._each():
            quantized: Quantized = book(left)
            assert quantized.codes is not None
            left = left - book.lookup(quantized.codes).detach()
            found.append(quantized)
            codes.append(quantized.codes)
        return Quantized(
            z_q=torch.cat([each.z_q for each in found], dim=-2),
            codes=torch.cat(codes, dim=-1),
            codebook_loss=torch.stack([each.codebook_loss for each in found]).mean(0),
            commitment_loss=torch.stack([each.commitment_loss for each in found]).mean(0),
        )

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors of code numbers, each slot's in its own book: [..., S] -> [..., S, Q]."""
        return torch.stack([book.lookup(codes[..., slot]) for slot, book in enumerate(self._each())], dim=-2)

    def restored(self, z_q: Tensor) -> Tensor:
        """The sum of the entries: [..., S, Q] -> [..., 1, Q]."""
        return z_q.sum(dim=-2, keepdim=True)

    @torch.no_grad()
    def prepare(self, z_e: Tensor) -> None:
        """Place each book's first codes by what the books before it leave of these embeddings; once only."""
        left = z_e.detach().float()
        for book in self._each():
            book.prepare(left)
            left = left - book.lookup(book.nearest(left))

    def after_step(self, step: int, optimizer: Optimizer | None = None, whole: Whole | None = None) -> None:
        """What follows an optimizer step, book by book."""
        for book in self._each():
            book.after_step(step, optimizer, whole)

    def forget(self) -> None:
        """Drop what the forwards of a step saw that was not taken."""
        for book in self._each():
            book.forget()
