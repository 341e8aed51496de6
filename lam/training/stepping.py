"""One optimizer step: learning rate, precision, accumulation, clipping, the quantizer's upkeep, averaged weights."""

from __future__ import annotations

import copy
import math
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lam.config import RunConfig
from lam.model import losses
from lam.model.lam import LatentActionModel, Output
from lam.training import decay
from lam.training.guidance import change
from lam.training.guidance.labels import ActionHead
from lam.training.workers.group import ALONE, Group
from record.errors import BadInput

MOST_SKIPPED = 10  # steps in a row without a finite gradient; that many end the run as diverged


class Stepper:
    """The model and everything else that an optimizer step changes.

    Attributes:
        number: optimizer steps so far.
        skipped: how many of the last ones, in a row, changed nothing since their gradient was not finite.

    Args:
        change_HW: how much each cell of the grid changes, relative to their mean (`lam.training.guidance.change`);
            None = the loss has no weight for that.
        kinds: true actions that training may see are numbers below this; None = it sees none.
        group: the workers that take each step together, each with its share of the batch and all with the same result.
    """

    def __init__(self, config: RunConfig, model: LatentActionModel, steps_per_epoch: int,
                 change_HW: Tensor | None = None, kinds: int | None = None, group: Group = ALONE) -> None:
        self.config, self.model, self.steps_per_epoch, self.group = config, model, steps_per_epoch, group
        self.device = next(model.parameters()).device
        self.change_HW = None if change_HW is None else change_HW.to(self.device)
        self.skipped = 0
        self.head = None if kinds is None else ActionHead(config, kinds).to(self.device)
        own = [] if self.head is None else [{"params": list(self.head.parameters()), "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(
            [*decay.groups(model, config.weight_decay), *own], lr=config.learning_rate, fused=True)
        self.average = None if config.average_weights is None else WeightAverage(model, config.average_weights)
        self.number = 0
        if config.compile:
            compile_model(model)

    @property
    def evaluated(self) -> LatentActionModel:
        """The model to measure and to keep: the averaged weights where they are asked for."""
        return self.model if self.average is None else self.average.model

    def eager(self) -> AbstractContextManager[object]:
        """Measurements run uncompiled: their numbers must not depend on how the model was trained."""
        return torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()

    def step(self, latents_BTCHW: Tensor, anchor: int | None, actions_BL: Tensor | None = None) -> dict[str, float]:
        """Take one step on a batch, of which this worker has its share; returns losses, gradient norm and codes in use.

        `actions_BL` are the true actions that training may see, -1 elsewhere; None where it sees none.
        A step whose gradient is not finite changes nothing and is counted; the returned loss is NaN where the loss
        is not finite either, or where MOST_SKIPPED steps in a row were such.
        """
        self.number += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.number, self.steps_per_epoch)
        self.optimizer.zero_grad(set_to_none=True)
        labels = 0 if actions_BL is None else self.group.total(_known(actions_BL))
        values, codes = self._backward(latents_BTCHW, anchor, actions_BL, labels)
        values = self.group.sums(values)
        self._add_up_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        loss = losses.total(values, losses.weights(self.config))
        record = _floats(values | {"loss": loss, "loss_mae": losses.total_mae(values, self.config), "grad_norm": norm})
        record["skipped_steps"] = float(self._take_or_skip(record))
        if anchor is None:  # no rollout: nothing to average
            record["rollout_loss"] = record["rollout_loss_mae"] = math.nan
        if actions_BL is not None and not labels:
            record["action_loss"] = math.nan
        if codes is not None:
            record["codebook_usage"] = distinct(self.group.gathered(codes), self.config.books)
        return record

    def _take_or_skip(self, record: dict[str, float]) -> bool:
        """Take the step if its numbers are finite; whether it was skipped. Corrects what the record says of it."""
        if math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"]):
            self.skipped = 0
            self._update()
            return False
        self.model.quantizer.forget()
        self.skipped += 1
        record["grad_norm"] = math.nan
        if not math.isfinite(record["loss"]) or self.skipped >= MOST_SKIPPED:
            record["loss"] = math.nan
        return True

    def _backward(self, latents_BTCHW: Tensor, anchor: int | None, actions_BL: Tensor | None,
                  labels: int) -> tuple[dict[str, Tensor], Tensor | None]:
        """Gradients of the batch's loss, part by part; returns its mean losses and its codes.

        Every term is a mean over samples, so the parts' terms weighted by their shares are the batch's; so are those of
        several workers, whose shares are parts that are computed at the same time.

        Args:
            labels: known actions of the batch, at all workers.
        """
        sequences = self.group.total(len(latents_BTCHW))
        wanted = math.ceil(self.config.accumulate_parts / self.group.size)
        parts = latents_BTCHW.tensor_split(min(wanted, len(latents_BTCHW)))
        if len(parts) > 1 or self.group.size > 1:
            self._prepare_quantizer(parts)
        means: dict[str, Tensor] = {}
        codes: list[Tensor] = []
        emphasis_HW, done = self._emphasis(), 0
        for part in parts:
            with self._autocast():
                output = self.model(part, remember=anchor is not None)
                values = losses.terms(self.model, part, output, anchor, emphasis_HW)
            shares = {name: value.mean() * (len(part) / sequences) for name, value in values.items()}
            if actions_BL is not None:
                shares["action_loss"] = self._naming(output, actions_BL[done : done + len(part)], labels)
            done += len(part)
            losses.total(shares, losses.weights(self.config)).backward()
            means = {name: means.get(name, 0) + share.detach() for name, share in shares.items()}
            if output.quantized.codes is not None:
                codes.append(output.quantized.codes.flatten(0, -2))
        return means, torch.cat(codes) if codes else None

    def _naming(self, output: Output, actions_BL: Tensor, known: int) -> Tensor:
        """This part's share of the mean cross-entropy over the batch's `known` true actions; 0 where it has none."""
        assert self.head is not None, "who hands over actions said how many kinds there are"
        teach = self.number > self.config.action_start_epoch * self.steps_per_epoch
        return self.head.loss(output.quantized.z_q, actions_BL, teach) / max(1, known)

    def _emphasis(self) -> Tensor | None:
        """The further weight [H, W] of the reconstruction at this step."""
        if self.change_HW is None:
            return None
        return change.weight(self.config, self.number, self.steps_per_epoch) * self.change_HW

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bf16")

    @torch.no_grad()
    def _prepare_quantizer(self, parts: tuple[Tensor, ...]) -> None:
        """First codes come from the whole batch, however many parts and workers it has."""
        if self.number == 1:
            with self._autocast():
                z_e = torch.cat([self.model.encode(part) for part in parts])
            self.model.quantizer.prepare(self.group.gathered(z_e.float()))

    def _update(self) -> None:
        self.optimizer.step()
        self.model.quantizer.after_step(self.number, self.optimizer, self.group.gathered)
        # On a GPU sums over codes add in any order: without this the workers' codebooks would drift apart.
        self.group.equal(each for each in self.model.quantizer.buffers() if each.is_floating_point())
        if self.average is not None:
            self.average.update(self.model, self.number)

    def _add_up_gradients(self) -> None:
        """The batch's gradients are the sums of the workers'; what one of them does not train, none does."""
        trained = (each for group in self.optimizer.param_groups for each in group["params"])
        self.group.add_up(each.grad for each in trained if each.grad is not None)

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {
            "step": self.number,
            "skipped": self.skipped,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.model.state_dict(),
            "head": None if self.head is None else self.head.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.number, self.skipped = state["step"], state.get("skipped", 0)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(decay.regrouped(state["optimizer"], self.model))
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        if self.head is not None:
            self.head.load_state_dict(state["head"])


class WeightAverage:
    """A model whose weights follow those of another: average <- decay * average + (1 - decay) * weights.

    The decay grows from 0.2 to its final value over the first steps, so that the start is forgotten
    soon. The codebook is copied, not averaged: a revived code jumps, and the mean of two codes is none. What
    else a quantizer trains (the maps of fsq and simvq) is averaged like all weights.
    """

    def __init__(self, model: LatentActionModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: LatentActionModel, step: int) -> None:
        """Fold in the weights after optimizer step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (9 + step))
        get_ema_multi_avg_fn(decay)(list(self.model.parameters()), list(model.parameters()), None)
        averaged = {name for name, _ in model.quantizer.named_parameters() if name.split(".")[-1] != "codes_KQ"}
        copied = {name: value for name, value in model.quantizer.state_dict().items() if name not in averaged}
        self.model.quantizer.load_state_dict(copied, strict=False)


def _known(actions_BL: Tensor) -> int:
    return int((actions_BL >= 0).sum())


def distinct(codes_NS: Tensor, books: int) -> float:
    """Distinct codes in a batch, mean over codebooks: one for all slots, or one a slot."""
    by_book = codes_NS.unbind(-1) if books > 1 else (codes_NS,)
    return sum(len(torch.unique(codes)) for codes in by_book) / len(by_book)


def rollout_anchor(config: RunConfig, epoch: int, number: int) -> int | None:
    """Where a step's rollout starts, from (seed, epoch, step); None = this step has none."""
    if config.rollout_horizon == 1:
        return None
    rng = np.random.default_rng((config.seed, epoch, number))
    coin, place = rng.random(), rng.integers(config.sequence_length - config.rollout_horizon)
    return int(place) if coin < config.rollout_prob else None


def learning_rate(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of a step (from 1): linear warmup, then constant or a cosine down to a tenth."""
    rate = config.learning_rate * min(1.0, step / max(1, config.warmup_steps))
    if config.lr_decay_epochs is None:
        return rate
    progress = min(1.0, step / (config.lr_decay_epochs * steps_per_epoch))
    return rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


def compile_model(model: LatentActionModel) -> None:
    """Compile the two transformers; names of weights and everything else stay as they are.

    Raises:
        BadInput: the model is on the CPU and there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if next(model.parameters()).device.type == "cpu" and shutil.which(compiler) is None:
        raise BadInput(f"got true, but there is no C++ compiler here ({compiler} was not found)", source="config",
                       key="compile", remedy="set compile: false, or install a compiler (CXX names another)")
    model.encoder.compile()
    model.decoder.compile()


def _floats(values: dict[str, Tensor]) -> dict[str, float]:
    """All values in one transfer from the device."""
    return dict(zip(values, torch.stack([value.detach().float() for value in values.values()]).tolist(), strict=True))
