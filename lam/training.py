"""Training of one model, as a generator of epoch records.

Whatever is random is a function of (seed, epoch, step), so nothing of it needs saving: a run that is
killed and started again continues from its last epoch's checkpoint and ends bit-equal to one that
was not. An epoch's record is on disk, and its checkpoint after it, before it is yielded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lam import checkpoints, evaluation, flops, identity, losses, samples
from lam.config import RunConfig
from lam.data import windows as data
from lam.errors import BadInput
from lam.metrics import better
from lam.model.lam import LatentActionModel
from lam.records import RunFolder


def train(config: RunConfig, run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """Train, yielding the record of each epoch still to do; the same call again resumes.

    Closing the generator leaves a resumable run. A run whose loss stops being finite yields a last
    record with NaN losses and ends in the state `failed`.

    Raises:
        BadInput: the config or its data are wrong, or `run_dir` holds a run of another config.
    """
    run = Run(config, RunFolder(run_dir))
    try:
        while run.epoch < config.num_epochs and not run.diverged:
            record = run.train_epoch(run.epoch + 1)
            if run.validation_is_due():
                record |= run.validate()
            run.commit(record)
            yield record
        run.finish()
    finally:
        run.close()


class Run:
    """The state of one training run: model, optimizer, position, records."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self.config, self.folder = config, folder
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = choose_device(config)
        self.train_set = data.open_split(config, "train")
        self.validation_set = data.open_split(config, "validation", stride=1)
        torch.manual_seed(config.seed)
        self.model = LatentActionModel(config, self.train_set.latent_shape).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.steps_per_epoch = config.steps_per_epoch or max(1, len(self.train_set) // config.batch_size)
        self.epoch = self.step = 0
        self.tflops = self.tflops_before = self.seconds = 0.0
        self.best = math.nan
        self.diverged = False
        self._begin()

    # ---- an epoch

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch; returns its record without validation."""
        begin, self.tflops_before = time.perf_counter(), self.tflops
        self.model.train()
        sums = Sums()
        for number, index in enumerate(self._batches(epoch)):
            values = self._train_step(index, self._anchor(epoch, number))
            sums.add(values)
            if not math.isfinite(values["loss"]):
                self.diverged = True
                break
        self.epoch = epoch
        spent = time.perf_counter() - begin
        self.seconds += spent
        return {
            "epoch": epoch,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "train_seconds": round(spent, 3),
            "total_tflops": self.tflops,
            "train/lr": self.optimizer.param_groups[0]["lr"],
            "train/kl_weight": 1.0,
            "train/samples_per_second": sums.count * self.config.batch_size / spent,
            **sums.means(),
        }

    def _train_step(self, index: NDArray[np.int64], anchor: int | None) -> dict[str, float]:
        """One optimizer step; returns the batch's losses."""
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step, self.steps_per_epoch)
        latents = self.train_set.batch(index).latents.to(self.device, non_blocking=True)
        output = self.model(latents)
        values = losses.terms(self.model, latents, output, anchor)
        loss = losses.total(values, losses.weights(self.config))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        if torch.isfinite(loss) and torch.isfinite(norm):
            self.optimizer.step()
            self.model.quantizer.after_step(self.step, self.optimizer)
        self.tflops += len(index) * self._flops(anchor) / 1e12
        return self._step_values(values, loss, norm, output.quantized.codes, anchor)

    def _step_values(
        self, values: dict[str, Tensor], loss: Tensor, norm: Tensor, codes: Tensor | None, anchor: int | None
    ) -> dict[str, float]:
        record = {name: float(value.detach().mean()) for name, value in values.items()}
        if anchor is None and self.config.rollout_horizon > 1:  # no coin, no rollout: nothing to average
            record["rollout_loss"] = record["rollout_loss_mae"] = math.nan
        record |= {
            "loss": float(loss.detach()) if math.isfinite(float(norm)) else math.nan,
            "loss_mae": float(losses.total_mae({name: value.detach() for name, value in values.items()}, self.config)),
            "grad_norm": float(norm),
        }
        if codes is not None:
            record["codebook_usage"] = float(len(torch.unique(codes)))
        return record

    def _batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Sequence numbers of each step: permutations of the split, one after another, from (seed, epoch)."""
        rng = np.random.default_rng((self.config.seed, epoch))
        count, size = len(self.train_set), self.config.batch_size
        pool: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        for _ in range(self.steps_per_epoch):
            while len(pool) < size:
                pool = np.concatenate([pool, rng.permutation(count)])
            yield pool[:size]
            pool = pool[size:]

    def _anchor(self, epoch: int, number: int) -> int | None:
        """Where a step's rollout starts, from (seed, epoch, step); None = this step has none."""
        config = self.config
        if config.rollout_horizon == 1:
            return None
        rng = np.random.default_rng((config.seed, epoch, number))
        coin, place = rng.random(), rng.integers(config.sequence_length - config.rollout_horizon)
        return int(place) if coin < config.rollout_prob else None

    def _flops(self, anchor: int | None) -> int:
        return flops.training_flops(self.config, self.train_set.latent_shape, anchor)

    # ---- validation, records, checkpoints

    def validation_is_due(self) -> bool:
        """Every `val_every` epochs, past each of `val_at_tflops`, and at the last; a diverged model is not measured."""
        due = (self.epoch % self.config.val_every == 0 or self.epoch == self.config.num_epochs
               or any(self.tflops_before < mark <= self.tflops for mark in self.config.val_at_tflops))
        return due and not self.diverged

    def validate(self) -> dict[str, Any]:
        """All `val/*` numbers."""
        begin = time.perf_counter()
        record = evaluation.evaluate(self.model, self.validation_set, self.config)
        self.seconds += time.perf_counter() - begin
        return record

    def commit(self, record: dict[str, Any]) -> None:
        """Write the record, then the checkpoint that covers it: a resume drops records beyond its checkpoint."""
        self.folder.append(record)
        if "val/objective" in record and (math.isnan(self.best) or
                                          better("val/objective", record["val/objective"], self.best)):
            self.best = record["val/objective"]
            checkpoints.save_weights(self.folder.checkpoints, "best", self.model)
            self._write_samples()
        every = self.config.checkpoint_every
        if every and self.epoch % every == 0:
            checkpoints.save_weights(self.folder.checkpoints, f"epoch-{self.epoch}", self.model)
        checkpoints.save_state(self.folder.checkpoints, self._state())

    def _write_samples(self) -> None:
        codec = data.load_codec(self.config) if self.config.sample_count else None
        if codec is None:
            return
        path = self.folder.samples / f"epoch-{self.epoch}.npz"
        samples.write(path, self.model, self.validation_set, self.config, codec, data.action_names(self.config))
        for older in self.folder.samples.glob("epoch-*.npz"):
            if older != path:
                older.unlink()

    def finish(self) -> None:
        """Mark the run finished or failed, and delete what it no longer needs."""
        if self.diverged:
            reason = f"the loss stopped being finite at step {self.step}; lower learning_rate (now " \
                     f"{self.config.learning_rate:g}) or grad_clip (now {self.config.grad_clip:g})"
            self.folder.update_identity(state="failed", reason=reason)
            return
        checkpoints.save_weights(self.folder.checkpoints, "last", self.model)
        checkpoints.retain(self.folder.checkpoints, self.config.keep)
        self.folder.update_identity(state="finished", epoch=self.epoch)

    def close(self) -> None:
        """Leave a run that was not finished marked as interrupted."""
        if self.folder.identity().get("state") == "running":
            self.folder.update_identity(state="interrupted", epoch=self.epoch)

    # ---- beginning and resuming

    def _begin(self) -> None:
        if not self.folder.exists():
            self.folder.start(self.config, identity.of_run(self.config, self.folder, self.model, self.train_set))
            return
        _refuse_other_config(self.folder, self.config)
        known = self.folder.identity()
        if known.get("state") in ("finished", "failed"):
            self.epoch = self.config.num_epochs if known["state"] == "finished" else self.epoch
            self.diverged = known["state"] == "failed"
            return
        identity.refuse_other_data(self.folder, self.config)
        self._restore(checkpoints.load_state(self.folder.checkpoints, self.device))
        self.folder.update_identity(state="running")

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in ("epoch", "step", "tflops", "seconds", "best", "diverged")},
        }

    def _restore(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.model.load_state_dict(state.pop("model"))
            self.optimizer.load_state_dict(state.pop("optimizer"))
            for name, value in state.items():
                setattr(self, name, value)
        self.folder.keep_until(self.epoch)


class Sums:
    """Means over an epoch's steps; a step without a value (NaN for a rollout that was not run) is left out."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    @property
    def count(self) -> int:
        """Steps added."""
        return len(self.steps)

    def add(self, values: dict[str, float]) -> None:
        """Add one step."""
        self.steps.append(values)

    def means(self) -> dict[str, float]:
        """`train/*` means, and the largest gradient norm; the loss of a diverged epoch is NaN."""
        columns = {name: np.array([step[name] for step in self.steps]) for name in self.steps[0]}
        record = {f"train/{name}": _mean(name, column) for name, column in columns.items()}
        record["train/grad_norm_max"] = float(columns["grad_norm"].max())
        return record


def _mean(name: str, column: NDArray[np.float64]) -> float:
    if name.startswith("rollout"):
        column = column[~np.isnan(column)]
    return float(column.mean()) if len(column) else 0.0


def learning_rate(config: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of a step (from 1): linear warmup, then constant or a cosine down to a tenth."""
    rate = config.learning_rate * min(1.0, step / max(1, config.warmup_steps))
    if config.lr_decay_epochs is None:
        return rate
    progress = min(1.0, step / (config.lr_decay_epochs * steps_per_epoch))
    return rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


def choose_device(config: RunConfig) -> torch.device:
    """The device that `config.device` names.

    Raises:
        BadInput: cuda was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise BadInput("got 'cuda', but torch sees no GPU here", source="config", key="device",
                       remedy="use device: auto, or install a CUDA build of torch")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def _refuse_other_config(folder: RunFolder, config: RunConfig) -> None:
    """A folder holds one run: continuing it with other settings would mix two."""
    known, asked = folder.config().mapping(), config.mapping()
    changed = [f"{key}: {known.get(key)!r} -> {asked[key]!r}" for key in asked if known.get(key) != asked[key]]
    if changed:
        raise BadInput(f"holds a run with another config ({'; '.join(changed)})", source=folder.path,
                       remedy="name another folder with --run-dir, or put the settings back")
