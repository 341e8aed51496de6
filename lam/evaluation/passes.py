"""The passes of an evaluation: the data are read twice, encoded once and decoded once.

The first reading encodes, since another sample's codes may come from any batch. The second predicts with the true
codes and keeps the decoder's memory; with each kind of codes at the scored transition only that frame is decoded.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation import draws, generation
from lam.evaluation.control import Distances, Scored
from lam.evaluation.generation import RolloutSums
from lam.evaluation.skill import Known
from lam.model import losses
from lam.model.lam import LatentActionModel, Output
from lam.model.quantizers import Quantized

Array = NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """What was measured on a split, per sample, in its order.

    Attributes:
        losses: [N] each, keys as in `lam.model.losses.terms`, plus mse_copy.
        error_q: [N] mean squared difference of z_e and what the codes say it was, scored transition.
        z_e: [N, S, Q] its embedding before quantisation, S = 1 where slots are residual.
        context_NE: the encoder's view of the frame before the scored one, mean over its patches.
        scored: distances and codes of the scored transition.
        known: the transitions whose true action is known, whether they were scored or not.
        generated: `validation/gen_*`.
    """

    losses: dict[str, Array]
    error_q: Array
    z_e: Array
    context_NE: Array
    scored: Scored
    known: Known
    generated: dict[str, float]


class Encoded(NamedTuple):
    """Actions of the split, batch by batch, and the frames' context [N, E]."""

    z_e: list[Tensor]
    quantized: list[Quantized]
    context_NE: Array

    @property
    def actions_NLSQ(self) -> Tensor:
        """What the decoder is given for each transition."""
        return torch.cat([each.z_q for each in self.quantized])

    @property
    def codes_NS(self) -> Tensor | None:
        """Codes of the last transition; None where actions are continuous."""
        last = [each.codes[:, -1] for each in self.quantized if each.codes is not None]
        return torch.cat(last) if last else None

    @property
    def z_e_NSQ(self) -> Tensor:
        """Embeddings of the last transition, in float64."""
        return torch.cat([each[:, -1] for each in self.z_e]).double()

    def known(self, windows: Windows, index: Array) -> Known:
        """The last transitions of these windows, which were encoded, with their true actions."""
        codes = self.codes_NS
        return Known(None if codes is None else codes.cpu().numpy(), self.z_e_NSQ.cpu().numpy(),
                     windows.last_actions(index), windows.starts[index, 0])


class Predicted(NamedTuple):
    """What one batch gave; distances by the kind of action at the scored transition."""

    losses: dict[str, Array]
    distances: dict[str, Distances]
    made: list[tuple[RolloutSums, RolloutSums]]


@torch.inference_mode()
def measured(model: LatentActionModel, windows: Windows, config: RunConfig) -> Measured:
    """Run the model over the split with the true codes, with others at the scored transition, and on its own."""
    index = draws.subset(len(windows), config.eval_sequences)
    encoded = _encode(model, windows, index, config)
    others = _other_actions(model, windows, index, encoded, config)
    alone = np.isin(np.arange(len(index)), draws.subset(len(index), generation.SEQUENCES))
    parts, row = [], 0
    for number, latents in enumerate(_latents(model, windows, index, config)):
        rows = slice(row, row := row + len(latents))
        here = {name: action_NSQ[rows] for name, action_NSQ in others.items()}
        parts.append(_predict(model, latents, (encoded.z_e[number], encoded.quantized[number]), here, alone[rows],
                              windows))
    z_e = encoded.z_e_NSQ
    restored = model.quantizer.restored(encoded.actions_NLSQ[:, -1])
    return Measured(
        losses=_join([part.losses for part in parts]),
        error_q=(restored - z_e).double().pow(2).flatten(1).mean(1).cpu().numpy(), z_e=z_e.cpu().numpy(),
        context_NE=encoded.context_NE,
        scored=_scored(windows, index, encoded.codes_NS, [part.distances for part in parts]),
        known=_known(model, windows, index, encoded, config),
        generated=_generated([made for part in parts for made in part.made]),
    )


def _encode(model: LatentActionModel, windows: Windows, index: Array, config: RunConfig) -> Encoded:
    """The first reading; tokens of a frame know nothing of later ones, so the scored frame leaves its context alone."""
    z_e, quantized, context = [], [], []
    for latents in _latents(model, windows, index, config):
        tokens_BTPE = model.encoder.tokens(model.patches(latents))
        z_e.append(model.encoder.read(tokens_BTPE))
        quantized.append(model.quantize(z_e[-1]))
        context.append(tokens_BTPE[:, -2].mean(1).float().cpu().numpy())
    return Encoded(z_e, quantized, np.concatenate(context))


def _known(model: LatentActionModel, windows: Windows, index: Array, encoded: Encoded, config: RunConfig) -> Known:
    """Codes of transitions with a true action, scored ones or not: to encode some more costs little."""
    wanted = draws.labelled(windows.labelled, config.label_sequences or config.eval_sequences)
    scored, further = np.isin(index, wanted), np.setdiff1d(wanted, index)
    known = encoded.known(windows, index).rows(scored)
    if not len(further):
        return known
    more = _encode(model, windows, further, config).known(windows, further)
    codes = None if known.codes is None or more.codes is None else np.concatenate([known.codes, more.codes])
    both = Known(codes, np.concatenate([known.z_e, more.z_e]), np.concatenate([known.actions, more.actions]),
                 np.concatenate([known.files, more.files]))
    return both.rows(np.argsort(np.concatenate([index[scored], further])))


def _predict(model: LatentActionModel, latents: Tensor, actions: tuple[Tensor, Quantized], others: dict[str, Tensor],
             alone: Array, windows: Windows) -> Predicted:
    """The second reading, of one batch."""
    z_e, quantized = actions
    prediction, memory = model.follow(latents[:, :-1], quantized.z_q)
    output = Output(prediction, z_e, quantized, memory)
    values = losses.terms(model, latents, output, model.config.sequence_length - 1 - model.config.rollout_horizon)
    values["mse_copy"] = (latents[:, 1:] - latents[:, :-1]).pow(2).flatten(1).mean(1)
    before = [block.until(latents.shape[1] - 2) for block in memory]
    found = {}  # the true action takes the others' way, so that rounding cancels where the action changes nothing
    for name, action_BSQ in {"true": quantized.z_q[:, -1], **others}.items():
        last_B1CHW, _ = model.follow(latents[:, -2:-1], action_BSQ[:, None], before)
        found[name] = draws.distances(last_B1CHW[:, 0], latents[:, -1])
    return Predicted({name: value.double().cpu().numpy() for name, value in values.items()}, found,
                     _left_alone(model, latents, quantized.z_q, alone, windows))


def _left_alone(model: LatentActionModel, latents: Tensor, actions_BLSQ: Tensor, alone: Array,
                windows: Windows) -> list[tuple[RolloutSums, RolloutSums]]:
    """Sums over free-running rollouts of the chosen rows of a batch, and over the true frames of the same places."""
    if not alone.any():
        return []
    rows = torch.from_numpy(np.flatnonzero(alone)).to(latents.device)
    frames = generation.rollout(model, latents[rows, 0], actions_BLSQ[rows])
    return [(generation.sums(frames, windows.scale), generation.sums(latents[rows, 1:], windows.scale))]


def _generated(parts: list[tuple[RolloutSums, RolloutSums]]) -> dict[str, float]:
    made, real = zip(*parts, strict=True)
    return generation.rollout_metrics(functools.reduce(generation.add, made), functools.reduce(generation.add, real))


def _other_actions(model: LatentActionModel, windows: Windows, index: Array, encoded: Encoded,
                   config: RunConfig) -> dict[str, Tensor]:
    """What stands in for the action of the scored transition, [N, S, Q] each; a slot's codes are of its own book."""
    partners = draws.partners(_targets(windows, index) % windows.chunk_frames, config.eval_seed)
    others = {f"shuffled {number}": encoded.actions_NLSQ[partner, -1] for number, partner in enumerate(partners)}
    codes_NS = encoded.codes_NS
    if codes_NS is not None and config.num_embeddings > 1:
        names = [windows.files[int(file)] for file in windows.starts[index, 0]]
        drawn = [draws.draw(config, name, int(start))
                 for name, start in zip(names, windows.starts[index, 1], strict=True)]
        rand = torch.from_numpy(np.stack([rand for rand, _, _ in drawn])).to(codes_NS.device)
        flipped = codes_NS.clone()
        for row, (_, slot, shift) in enumerate(drawn):
            flipped[row, slot] = (flipped[row, slot] + shift) % config.num_embeddings
        others |= {"rand": model.quantizer.lookup(rand), "flipped": model.quantizer.lookup(flipped)}
    return others


def _targets(windows: Windows, index: Array) -> Array:
    """[N] the latent frame that each window's last transition leads into."""
    return windows.starts[index, 1] + windows.sequence_length - 1


def _scored(windows: Windows, index: Array, codes_NS: Tensor | None, parts: list[dict[str, Distances]]) -> Scored:
    found = {name: Distances(*(np.concatenate(column) for column in
                               zip(*(part[name] for part in parts), strict=True))) for name in parts[0]}
    return Scored(
        codes=None if codes_NS is None else codes_NS.cpu().numpy(),
        files=windows.starts[index, 0],
        targets=_targets(windows, index),
        dims=int(np.prod(windows.latent_shape)),
        true=found["true"], shuffled=_mean_of([found[name] for name in found if name.startswith("shuffled")]),
        rand=found.get("rand"), flipped=found.get("flipped"),
    )


def _mean_of(ways: list[Distances]) -> Distances:
    """The mean of several measurements of the same samples."""
    return Distances(*(np.mean(columns, axis=0) for columns in zip(*ways, strict=True)))


def _latents(model: LatentActionModel, windows: Windows, index: Array, config: RunConfig) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    for begin in range(0, len(index), config.eval_batch_size):
        yield windows.batch(index[begin : begin + config.eval_batch_size]).latents.to(device)


def _join(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
