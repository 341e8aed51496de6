"""How an action embedding becomes S discrete codes: one interface, six quantizers.

`ema`, `vq` and `none` are here; `rotation`, `simvq` and `fsq` are in `lam.model.library`, which is
imported only where one of them is asked for. `lam.model.residual` stacks several into slots that add.

A quantizer always computes in float32. In training mode its forward remembers what it saw, and
`after_step`, called once after each optimizer step, does what is not gradient descent: the moving
averages and the revival of dead codes. Evaluation therefore never changes a codebook.

Sources: van den Oord et al. 2017 (VQ-VAE), appendix A.1 for the averages; Łańcucki et al. 2020 for
data-dependent initialisation and revival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lam.config import RunConfig

# Makes, of the rows that one worker saw of a batch, those of all workers.
Whole = Callable[[Tensor], Tensor]


class Quantized(NamedTuple):
    """Result of quantising z_e [B, ..., S, Q], or [B, ..., 1, Q] where slots are residual.

    Attributes:
        z_q: [B, ..., S, Q] what the decoder gets; its gradient goes straight through to z_e.
        codes: [B, ..., S] code numbers; None where actions stay continuous.
        codebook_loss: [B] mean (z_q - z_e)^2 of each sample, whose gradient moves only the codebook; of residual
            slots the mean over slots of the same to what each was given.
        commitment_loss: the same number before its weight, whose gradient moves only the encoder.
    """

    z_q: Tensor
    codes: Tensor | None
    codebook_loss: Tensor
    commitment_loss: Tensor


class Quantizer(nn.Module):
    """What the model, the training loop and the evaluation ask of a quantizer."""

    def forward(self, z_e: Tensor) -> Quantized:
        """Quantise embeddings [B, ..., slots, Q]."""
        raise NotImplementedError

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors of code numbers: [..., S] -> [..., S, Q]; TypeError where actions are continuous."""
        raise TypeError(f"{type(self).__name__} has no codes to look up")

    def restored(self, z_q: Tensor) -> Tensor:
        """What the codes of an action say its embedding was: [..., S, Q] -> the shape of z_e."""
        return z_q

    def prepare(self, z_e: Tensor) -> None:
        """Place the first codes by the embeddings of the first batch, where a quantizer does that; once only."""

    def after_step(self, step: int, optimizer: Optimizer | None = None, whole: Whole | None = None) -> None:
        """Do what follows an optimizer step (`step` counts from 1), where there is something to do."""

    def forget(self) -> None:
        """Drop what the forwards of a step saw that was not taken."""


class Identity(Quantizer):
    """No quantisation: the continuous arm of a comparison."""

    def forward(self, z_e: Tensor) -> Quantized:
        zero = z_e.new_zeros(len(z_e))
        return Quantized(z_e, None, zero, zero)


class Codebook(Quantizer):
    """Nearest-code lookup with k-means or uniform initialisation and revival of dead codes.

    Attributes:
        codes_KQ: the codebook.
        usage_K: moving average of each code's share of the assignments, 1/K when uniform.

    Args:
        number: which of several books this is; each draws revivals of its own.
    """

    codes_KQ: Tensor
    usage_K: Tensor
    initialized: Tensor

    def __init__(self, config: RunConfig, number: int = 0) -> None:
        super().__init__()
        K, Q = config.num_embeddings, config.codebook_dim
        self.config, self.number = config, number
        self.register_codes(torch.empty(K, Q).uniform_(-1 / K, 1 / K))
        self.register_buffer("usage_K", torch.full((K,), 1 / K))
        self.register_buffer("initialized", torch.tensor(config.codebook_init == "uniform"))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def register_codes(self, codes_KQ: Tensor) -> None:
        """Hold the codes as a parameter: gradient descent moves them."""
        self.codes_KQ = nn.Parameter(codes_KQ)

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors of code numbers: [...] -> [..., Q]."""
        return self.codes_KQ[codes]

    def forward(self, z_e: Tensor) -> Quantized:
        z_e = z_e.float()
        if self.training:
            self.prepare(z_e)
        codes = self.nearest(z_e)
        if self.training:
            self._seen.append((z_e.detach().reshape(-1, z_e.shape[-1]), codes.flatten()))
        chosen = self.lookup(codes)
        return Quantized(
            z_q=self._through(z_e, chosen.detach()),
            codes=codes,
            codebook_loss=(chosen - z_e.detach()).pow(2).flatten(1).mean(1),
            commitment_loss=(chosen.detach() - z_e).pow(2).flatten(1).mean(1),
        )

    def nearest(self, z_e: Tensor) -> Tensor:
        """Number of the code nearest to each embedding: [..., Q] -> [...]; remembers nothing."""
        flat_NQ = z_e.detach().float().reshape(-1, z_e.shape[-1])
        # One algorithm whatever the number of rows: the default one changes above 25, and so does its rounding.
        far_NK = torch.cdist(flat_NQ, self.codes_KQ.detach(), compute_mode="donot_use_mm_for_euclid_dist")
        return far_NK.argmin(dim=1).view(z_e.shape[:-1])

    def _through(self, z_e: Tensor, chosen: Tensor) -> Tensor:
        """The chosen codes, with a gradient that goes straight through to the embeddings."""
        return z_e + (chosen - z_e).detach()

    @torch.no_grad()
    def prepare(self, z_e: Tensor) -> None:
        """Place the first codes at the centres of these embeddings, if they are finite; once only."""
        flat_NQ = z_e.detach().float().reshape(-1, z_e.shape[-1])
        if not bool(self.initialized) and bool(flat_NQ.isfinite().all()):
            K = len(self.usage_K)
            self._place(torch.arange(K, device=flat_NQ.device), _centres(flat_NQ, K, self.config.seed))
            self.initialized.fill_(True)

    @torch.no_grad()
    def after_step(self, step: int, optimizer: Optimizer | None = None, whole: Whole | None = None) -> None:
        """Fold what the step's forwards saw into the averages, and revive dead codes when due.

        Args:
            step: optimizer steps so far; the revival interval counts these and not forwards.
            optimizer: where the moments of a revived gradient code are cleared.
            whole: of several workers, what each saw counts at all of them.
        """
        if not self._seen:
            return
        whole = whole or (lambda rows: rows)
        seen_NQ, codes_N = (whole(torch.cat(parts)) for parts in zip(*self._seen, strict=True))
        self.forget()
        counts_K = torch.bincount(codes_N, minlength=len(self.usage_K)).float()
        self.usage_K.lerp_(counts_K / len(codes_N), 1 - usage_decay(self.config))
        self._average(seen_NQ, codes_N, counts_K)
        interval = self.config.vq_refresh_interval
        if interval and step % interval == 0:
            self._revive(seen_NQ, step, optimizer)

    def forget(self) -> None:
        """Drop what the forwards of a step saw that was not taken."""
        self._seen.clear()

    def _average(self, seen_NQ: Tensor, codes_N: Tensor, counts_K: Tensor) -> None:
        """Gradient codebooks have no averages to fold."""

    def _revive(self, seen_NQ: Tensor, step: int, optimizer: Optimizer | None) -> None:
        dead = torch.nonzero(self.usage_K < self.config.revive_below / len(self.usage_K)).flatten()
        if len(dead) == 0:
            return
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step + self.number * 7_919)
        # Without replacement: of two codes in one place the second never wins. Where fewer were seen, some wait.
        picks = torch.randperm(len(seen_NQ), generator=generator)[: len(dead)].to(seen_NQ.device)
        dead = dead[: len(picks)]
        self._place(dead, seen_NQ[picks])
        self.usage_K[dead] = 1 / len(self.usage_K)
        moments = optimizer.state.get(self.codes_KQ, {}) if optimizer is not None else {}
        for name in ("exp_avg", "exp_avg_sq"):
            if name in moments:
                moments[name][dead] = 0

    def _place(self, where: Tensor, vectors: Tensor) -> None:
        self.codes_KQ[where] = vectors


def usage_decay(config: RunConfig) -> float:
    """Decay of the average use, by which codes count as dead.

    That of the codes' averages, or faster, so that one which nobody uses is dead after one interval: with a decay
    of .99 it would take 230 steps whatever the interval is, and with .999 2,300.
    """
    interval, below = config.vq_refresh_interval, config.revive_below
    if interval == 0 or not 0 < below < 1:
        return config.ema_decay
    return min(config.ema_decay, below ** (1 / max(1, interval - 1)))


class EmaCodebook(Codebook):
    """A codebook that follows the exponential averages of the vectors assigned to each code.

    A code's average starts with the weight of a uniform share, so that one without hits stays
    where it is (starting at weight 0 throws it far outside the data after one step).
    """

    sums_KQ: Tensor
    weights_K: Tensor

    def register_codes(self, codes_KQ: Tensor) -> None:
        """Hold the codes as buffers: only the averages move them."""
        self.register_buffer("codes_KQ", codes_KQ)
        self.register_buffer("weights_K", torch.full((len(codes_KQ),), 1 / len(codes_KQ)))
        self.register_buffer("sums_KQ", codes_KQ / len(codes_KQ))

    def _average(self, seen_NQ: Tensor, codes_N: Tensor, counts_K: Tensor) -> None:
        sums_KQ = torch.zeros_like(self.sums_KQ).index_add_(0, codes_N, seen_NQ)
        keep = 1 - self.config.ema_decay
        self.weights_K.lerp_(counts_K / len(codes_N), keep)
        self.sums_KQ.lerp_(sums_KQ / len(codes_N), keep)
        # A code that nobody has used for long has next to no weight left to divide by: it stays.
        held_K1 = (self.weights_K > 1e-6)[:, None]
        self.codes_KQ.copy_(torch.where(held_K1, self.sums_KQ / self.weights_K[:, None], self.codes_KQ))

    def _place(self, where: Tensor, vectors: Tensor) -> None:
        self.codes_KQ[where] = vectors
        self.weights_K[where] = 1 / len(self.weights_K)
        self.sums_KQ[where] = vectors / len(self.weights_K)


def _centres(flat_NQ: Tensor, count: int, seed: int) -> Tensor:
    """k-means++ centres of the data; short of distinct points, the rest are drawn around the data."""
    data = flat_NQ.cpu().double().numpy()
    rng = np.random.default_rng(seed)
    distinct = np.unique(data, axis=0)
    if len(distinct) <= count:
        noise = rng.normal(scale=1e-2 * (data.std() + 1e-3), size=(count - len(distinct), data.shape[1]))
        centres = np.concatenate([distinct, distinct[rng.integers(len(distinct), size=len(noise))] + noise])
    else:
        sample = data[rng.choice(len(data), size=min(len(data), 4096), replace=False)]
        from scipy.cluster.vq import kmeans2  # here: every worker would wait a third of a second for it

        centres, _ = kmeans2(sample, count, iter=10, minit="++", rng=rng)
    return torch.from_numpy(centres).to(flat_NQ)
