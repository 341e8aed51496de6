"""Evaluation of a model on one split: losses, DSNR, control and codebook health, once over the split.

Every number is a function of (weights, split, eval_seed): no rollout coin, a fixed anchor, no
codebook update, random codes drawn from (eval_seed, file, frame). A sequence is scored at its last
transition; sequences start at every frame of a file, evenly thinned to `eval_sequences`, so that
each scored transition counts once.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lam import codebook
from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation import control, effective_rank, generation
from lam.evaluation.control import Distances, Scored
from lam.model import losses
from lam.model.lam import LatentActionModel

Array = NDArray[Any]


@dataclass(frozen=True)
class TruePass:
    """The teacher-forced pass over a split: per-sample numbers, and what the second pass builds on.

    Attributes:
        losses: [N] each, keys as in `lam.model.losses.terms`, plus mse_copy.
        error_q: [N] mean (z_q - z_e)² of the scored transition.
        z_e_NSQ: its embedding before quantisation.
        context_NE: the encoder's view of the frame before the scored one, mean over its patches.
        actions_NLSQ: what the decoder was given for each transition.
        codes_NS: codes of the last transition; None where actions are continuous.
        distances: of the last prediction.
    """

    losses: dict[str, Array]
    error_q: Array
    z_e_NSQ: Array
    context_NE: Array
    actions_NLSQ: Tensor
    codes_NS: Tensor | None
    distances: Distances


def evaluate(model: LatentActionModel, windows: Windows, config: RunConfig) -> dict[str, Any]:
    """Every `val/*` number of a split; keys and formulas are those of `lam.metrics`.

    Raises:
        ValueError: the split holds no sequence.
    """
    true, scored, generated = score(model, windows, config)
    record = _losses(true, config) | generated
    record["val/effective_rank_context"] = effective_rank.effective_rank(true.context_NE)
    record["val/effective_rank_target"] = effective_rank.effective_rank(true.z_e_NSQ.reshape(len(true.z_e_NSQ), -1))
    record |= control.metrics(scored, config.num_embeddings, windows.chunk_frames)
    if scored.codes is not None:
        record |= _codebook(scored.codes, config)
        if config.quantizer != "fsq":  # there z_q lies in another space than z_e
            variance = float(true.z_e_NSQ.var(axis=0).mean())
            record["val/quantization_error"] = float(true.error_q.mean()) / variance if variance > 0 else math.nan
    record["val/objective"] = codebook.objective(record, config.objective_preset)
    return record


def score(
    model: LatentActionModel, windows: Windows, config: RunConfig
) -> tuple[TruePass, Scored, dict[str, float]]:
    """Run the model over the split with the true codes, with others at the scored transition, and on its own."""
    index = subset(len(windows), config.eval_sequences)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        true = true_pass(model, windows, index, config)
        others = {
            name: _second_pass(model, windows, index, true, last_NSQ, config)
            for name, last_NSQ in _other_actions(model, windows, index, true, config).items()
        }
        generated = _generate(model, windows, index, true, config)
    model.train(was_training)
    scored = Scored(
        codes=None if true.codes_NS is None else true.codes_NS.cpu().numpy(),
        actions=windows.last_actions(index),
        files=windows.starts[index, 0],
        targets=windows.starts[index, 1] + config.sequence_length - 1,
        dims=int(np.prod(windows.latent_shape)),
        true=true.distances,
        shuffled=others["shuffled"],
        rand=others.get("rand"),
        flipped=others.get("flipped"),
    )
    return true, scored, generated


def subset(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `count` indices, evenly spread."""
    if count == 0:
        raise ValueError("the split holds no sequence")
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))


def true_pass(model: LatentActionModel, windows: Windows, index: Array, config: RunConfig) -> TruePass:
    """The teacher-forced pass; every sample's numbers are independent of the batch it came in."""
    anchor = config.sequence_length - 1 - config.rollout_horizon
    parts: list[dict[str, Any]] = []
    for latents in _latents(model, windows, index, config):
        output = model(latents)
        context = model.encoder.tokens(model.patches(latents[:, :-1]))[:, -1].mean(1)
        values = losses.terms(model, latents, output, anchor)
        values["mse_copy"] = (latents[:, 1:] - latents[:, :-1]).pow(2).flatten(1).mean(1)
        codes = output.quantized.codes
        parts.append({
            "losses": {name: value.double().cpu().numpy() for name, value in values.items()},
            "error_q": (output.quantized.z_q - output.z_e)[:, -1].double().pow(2).flatten(1).mean(1).cpu().numpy(),
            "z_e": output.z_e[:, -1].double().cpu().numpy(),
            "context": context.float().cpu().numpy(),
            "actions": output.quantized.z_q,
            "codes": None if codes is None else codes[:, -1],
            "distances": distances(output.prediction[:, -1], latents[:, -1]),
        })
    return TruePass(
        losses={name: np.concatenate([part["losses"][name] for part in parts]) for name in parts[0]["losses"]},
        error_q=_join(parts, "error_q"),
        z_e_NSQ=_join(parts, "z_e"),
        context_NE=_join(parts, "context"),
        actions_NLSQ=torch.cat([part["actions"] for part in parts]),
        codes_NS=None if parts[0]["codes"] is None else torch.cat([part["codes"] for part in parts]),
        distances=_stack([part["distances"] for part in parts]),
    )


def _generate(
    model: LatentActionModel, windows: Windows, index: Array, true: TruePass, config: RunConfig
) -> dict[str, float]:
    """`validation/gen_*`: free-running rollouts of some of the scored sequences."""
    rows = subset(len(index), generation.SEQUENCES)
    parts: list[tuple[generation.RolloutSums, generation.RolloutSums]] = []
    for begin in range(0, len(rows), config.eval_batch_size):
        chosen = rows[begin : begin + config.eval_batch_size]
        actions = true.actions_NLSQ[torch.from_numpy(chosen).to(true.actions_NLSQ.device)]
        latents = windows.batch(index[chosen]).latents.to(actions.device)
        frames = generation.rollout(model, latents[:, 0], actions)
        parts.append((generation.sums(frames, windows.scale), generation.sums(latents[:, 1:], windows.scale)))
    made, real = zip(*parts, strict=True)
    return generation.rollout_metrics(functools.reduce(generation.add, made), functools.reduce(generation.add, real))


def _second_pass(
    model: LatentActionModel, windows: Windows, index: Array, true: TruePass, last_NSQ: Tensor, config: RunConfig
) -> Distances:
    """Distances of the last prediction when the last transition's action is replaced."""
    parts: list[Distances] = []
    row = 0
    for latents in _latents(model, windows, index, config):
        rows = slice(row, row + len(latents))
        row += len(latents)
        actions = torch.cat([true.actions_NLSQ[rows, :-1], last_NSQ[rows, None]], dim=1)
        parts.append(distances(model.decode(latents[:, :-1], actions)[:, -1], latents[:, -1]))
    return _stack(parts)


def _other_actions(
    model: LatentActionModel, windows: Windows, index: Array, true: TruePass, config: RunConfig
) -> dict[str, Tensor]:
    """What stands in for the action of the scored transition, [N, S, Q] each."""
    partner = derangement(len(index), config.eval_seed)
    others = {"shuffled": true.actions_NLSQ[partner, -1]}
    quantizer = model.quantizer
    if true.codes_NS is not None and config.num_embeddings > 1:
        names = [windows.files[int(file)] for file in windows.starts[index, 0]]
        draws = [draw(config, name, int(start)) for name, start in zip(names, windows.starts[index, 1], strict=True)]
        rand = torch.from_numpy(np.stack([rand for rand, _, _ in draws])).to(true.codes_NS.device)
        flipped = true.codes_NS.clone()
        for row, (_, slot, shift) in enumerate(draws):
            flipped[row, slot] = (flipped[row, slot] + shift) % config.num_embeddings
        others |= {"rand": quantizer.lookup(rand), "flipped": quantizer.lookup(flipped)}
    return others


def draw(config: RunConfig, file: str, start: int) -> tuple[Array, int, int]:
    """The random choices for one sample: uniform codes [S], the slot to flip, the shift (1..K-1) that flips it.

    They depend on (eval_seed, file, start, S, K) alone, so that epochs, trials and batch sizes compare.
    """
    key = hashlib.sha256(f"{config.eval_seed}/{file}/{start}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    K = config.num_embeddings
    return rng.integers(K, size=config.num_codes), int(rng.integers(config.num_codes)), int(rng.integers(1, K))


def derangement(count: int, seed: int) -> NDArray[np.int64]:
    """A seeded cyclic permutation: nobody is their own partner (but for a lone sample)."""
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, dtype=np.int64)
    partner[order] = np.roll(order, 1)
    return partner


def distances(prediction: Tensor, target: Tensor) -> Distances:
    """Distances between [B, C, H, W] pairs of float32, over all dims of a sample, summed up in float64.

    DSNR and the sensitivities are small differences of these; float32 sums would cost them digits.
    """
    a, b = prediction.float().flatten(1).double(), target.float().flatten(1).double()
    error = a - b
    values = (
        error.norm(dim=1),
        error.abs().sum(dim=1),
        1 - F.cosine_similarity(a, b),
        error.pow(2).mean(dim=1),
    )
    return Distances(*(value.cpu().numpy() for value in values))


def _losses(true: TruePass, config: RunConfig) -> dict[str, float]:
    record = {name: float(values.mean()) for name, values in true.losses.items()}
    weight = losses.expected_weights(config)
    record["loss"] = sum(weight[name] * record[name] for name in weight)
    record["loss_mae"] = (
        weight["mse_loss"] * record["mae_loss"] + record["vq_loss"]
        + weight["rollout_loss"] * record["rollout_loss_mae"]
    )
    if config.rollout_horizon == 1:
        record["rollout_loss"] = record["rollout_loss_mae"] = math.nan
    return {f"val/{name}": value for name, value in record.items()}


def _codebook(codes_NS: Array, config: RunConfig) -> dict[str, Any]:
    state = codebook.codebook_health(codes_NS, config.num_embeddings, config.full_health_perplexity)
    return {
        "val/codebook_usage": state.unique,
        "val/codebook_unique_total": state.unique,
        "val/codebook_usage_ratio": state.unique / config.num_embeddings,
        "val/codebook_histogram": state.histogram,
        "val/perplexity_slot": state.perplexity_slot,
        "val/perplexity_joint": state.perplexity_joint,
        "val/code_entropy_ratio": state.entropy_ratio,
        "val/dead_codes": config.num_embeddings - state.unique,
        "val/codebook_health": state.health,
        "val/collapsed": int(state.collapsed),
    }


def _latents(model: LatentActionModel, windows: Windows, index: Array, config: RunConfig) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    for begin in range(0, len(index), config.eval_batch_size):
        yield windows.batch(index[begin : begin + config.eval_batch_size]).latents.to(device)


def _join(parts: list[dict[str, Any]], name: str) -> Array:
    return np.concatenate([part[name] for part in parts])


def _stack(parts: list[Distances]) -> Distances:
    return Distances(*(np.concatenate(column) for column in zip(*parts, strict=True)))
