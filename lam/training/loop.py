"""Training of one model, as a generator of epoch records.

Whatever is random is a function of (seed, epoch, step), so nothing of it needs saving: a run that is
killed and started again continues from its last saved state and ends, on a CPU, bit-equal to one that
was not. On a GPU it is equal to rounding: sums over codes and attention's way back add in any order.
An epoch's record is on disk, and its checkpoint after it, before it is yielded. Of several workers
(`lam.training.workers`) the first one does what is told here, the others compute their share of each step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lam.config import RunConfig
from lam.data import mixture
from lam.data import windows as data
from lam.evaluation import measure, samples
from lam.metrics import better
from lam.model import flops, losses
from lam.trackers import RunTrackers
from lam.training import checkpoints, identity, vitals
from lam.training.patience import Patience
from lam.training.stepping import learning_rate, rollout_anchor
from lam.training.sums import Sums
from lam.training.watch import Watch
from lam.training.workers.group import ALONE, Group, joined
from lam.training.workers.learner import Learner, follow
from record.health.engine import Finding
from record.run import RunFolder
from record.workload.together import Gone, nobody_gone

# What a resume needs besides what the stepper holds, by the names of a run's attributes.
STATE_FIELDS = ("epoch", "epoch_seconds", "seconds", "tflops", "tflops_before", "best", "previous_loss", "diverged")


def train(config: RunConfig, run_dir: str | Path) -> Generator[dict[str, Any], None, None]:
    """Train, yielding the record of each epoch still to do; the same call again resumes.

    Closing the generator leaves a resumable run. A run whose loss stops being finite yields a last
    record with NaN losses and ends in the state `failed`; so does one that a health rule aborts, where
    `health.abort` is set, after its last record and with its checkpoints kept.

    Raises:
        BadInput: the config or its data are wrong, or `run_dir` holds a run of another config.
    """
    yield from epochs(Run(config, RunFolder(run_dir)))


def train_together(config: RunConfig, run_dir: str | Path,
                   gone: Gone = nobody_gone) -> Generator[dict[str, Any], None, None]:
    """`train` with the workers that the environment tells of: all call this, the first one alone yields and writes.

    Raises:
        BadInput: as `train`, or the environment is not that of one of several workers.
        WorkerLost: another worker is gone; the same call resumes, with as many or fewer.
    """
    with joined(config, gone) as group:
        if group.rank == 0:
            yield from epochs(Run(config, RunFolder(run_dir), group))
        else:
            follow(config, group)


def epochs(run: Run) -> Iterator[dict[str, Any]]:
    """`train` for a run that exists: a seam for those who change something of it first (tests plant faults here)."""
    try:
        while not run.is_over:
            record = run.train_epoch(run.epoch + 1)
            if run.validation_is_due():
                record |= run.validate()
            run.commit(record)
            run.aborted = run.watch.abort(record)
            yield record
        run.finish()
    finally:
        run.close()


class Run(Learner):
    """The state of one training run: what a worker has, and position and records."""

    def __init__(self, config: RunConfig, folder: RunFolder, group: Group = ALONE) -> None:
        super().__init__(config, group, anew=bool(config.init_from) and identity.begins_anew(folder))
        self.folder = folder
        self.validation_set = data.open_split(config, "validation", stride=1, checked=self.data)
        self.epoch = 0
        self.sums, self.epoch_seconds = Sums(), 0.0  # of the epoch under way
        self.tflops = self.tflops_before = self.seconds = 0.0
        self.best = math.nan
        self.previous_loss: float | None = None
        self.diverged = False
        self.aborted: Finding | None = None
        self.watch = Watch(config, folder, self.steps_per_epoch)
        self.patience = Patience(config.early_stopping)
        self._begin()
        self.logged = (time.perf_counter(), self.stepper.number)  # when the last line of steps.jsonl was written
        self.saved = time.perf_counter()
        self.trackers = None if self.is_over else RunTrackers(config, folder)
        if group.size > 1 and not self.is_over:
            group.said(checkpoints.packed(self.stepper.state()))
            group.total(0)  # all are there: no epoch's clock counts their start

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left to train."""
        over = self.diverged or self.aborted is not None or self.patience.exhausted
        return over or self.epoch >= self.config.num_epochs

    # ---- an epoch

    def train_epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch, or the rest of one; returns its record without validation."""
        begin = time.perf_counter() - self.epoch_seconds
        self.model.train()
        before: vitals.Snapshot = {}
        for number, index in enumerate(self._batches(epoch)):
            if number < self.sums.count:  # done before the run was interrupted
                continue
            if number == self.steps_per_epoch - 1:
                before = vitals.snapshot(self.model)
            self._train_step(epoch, number, index)
            if self.diverged:
                break
            self.epoch_seconds = time.perf_counter() - begin
            if self._save_is_due(number + 1):
                self._save_state()
        spent = time.perf_counter() - begin
        record = {
            "epoch": epoch,
            "step": self.stepper.number,
            "seconds": round(self.seconds + spent, 3),
            "train_seconds": round(spent, 3),
            "total_tflops": self.tflops,
            "train/lr": learning_rate(self.config, self.stepper.number, self.steps_per_epoch),
            "train/kl_weight": 1.0,
            "train/samples_per_second": self.sums.count * self.config.batch_size / spent,
            **self._means(),
            **vitals.of_model(self.model, before, self.stepper.evaluated),
        }
        record |= vitals.progress(self.previous_loss, record["train/loss"])
        self.previous_loss = record["train/loss"]
        self.epoch, self.seconds = epoch, self.seconds + spent
        self.sums, self.epoch_seconds = Sums(), 0.0
        return record

    def _means(self) -> dict[str, float]:
        """`train/*` means over the epoch's steps, their spread, and the terms' shares; NaN where it diverged."""
        weight, trained, of = losses.weights(self.config), losses.with_gradient(self.config), self.sums.of
        parts = {name: weight[name] * self.sums.mean(trained[name]) for name in weight}
        return {**{f"train/{name}": spread.mean for name, spread in of.items()},
                "train/skipped_steps": of["skipped_steps"].total,
                **({"train/labels": self.labels.count} if self.labels else {}),
                **vitals.of_steps(of["grad_norm"], of["loss"]), **vitals.loss_ratios(parts)}

    def _train_step(self, epoch: int, number: int, index: NDArray[np.int64]) -> None:
        values = self.learn(*self.group.said((epoch, number, index)))
        anchor = rollout_anchor(self.config, epoch, number)
        self.tflops += len(index) * flops.training_flops(self.config, self.train_set.latent_shape, anchor) / 1e12
        self.sums.add(values)
        self._log_step(epoch, values)
        self.diverged = not math.isfinite(values["loss"])

    def _log_step(self, epoch: int, values: dict[str, float]) -> None:
        """A line of steps.jsonl every `log_steps` steps; samples/s are those since the line before, or the start."""
        every, step = self.config.log_steps, self.stepper.number
        if not every or step % every:
            return
        now, (then, done) = time.perf_counter(), self.logged
        self.logged = (now, step)
        self.folder.append_step({
            "epoch": epoch, "step": step, "total_tflops": self.tflops,
            "train/lr": learning_rate(self.config, step, self.steps_per_epoch),
            "train/samples_per_second": (step - done) * self.config.batch_size / (now - then),
            **{f"train/{name}": value for name, value in values.items()}})

    def _save_is_due(self, done: int) -> bool:
        """Every `checkpoint_steps`, and `checkpoint_minutes` after the last save; an epoch's end saves anyway."""
        steps, minutes = self.config.checkpoint_steps, self.config.checkpoint_minutes
        due = steps is not None and done % steps == 0
        late = minutes is not None and time.perf_counter() - self.saved >= 60 * minutes
        return (due or late) and done < self.steps_per_epoch

    def _batches(self, epoch: int) -> Iterator[NDArray[np.int64]]:
        """Sequence numbers of each step, from (seed, epoch)."""
        windows = self.train_set
        return mixture.batches(windows.by_source, windows.weights, self.config.batch_size, self.steps_per_epoch,
                               (self.config.seed, epoch))

    # ---- validation, records, checkpoints

    def validation_is_due(self) -> bool:
        """Every `val_every` epochs, past each of `val_at_tflops`, and at the last; a diverged model is not measured."""
        due = (self.epoch % self.config.val_every == 0 or self.epoch == self.config.num_epochs
               or any(self.tflops_before < mark <= self.tflops for mark in self.config.val_at_tflops))
        return due and not self.diverged

    def validate(self) -> dict[str, Any]:
        """All `val/*` numbers."""
        begin = time.perf_counter()
        with self.stepper.eager():
            record = measure.evaluate(self.stepper.evaluated, self.validation_set, self.config)
        self.seconds += time.perf_counter() - begin
        return record

    def commit(self, record: dict[str, Any]) -> None:
        """Write the record, then the checkpoint that covers it: a resume drops records beyond its checkpoint."""
        self.folder.append(record)
        if "val/objective" in record and (math.isnan(self.best) or
                                          better("val/objective", record["val/objective"], self.best)):
            self.best = record["val/objective"]
            checkpoints.save_weights(self.folder.checkpoints, "best", self.stepper.evaluated)
            samples.keep_newest(self.folder.samples, self.epoch, self.stepper.evaluated, self.validation_set,
                                self.config, self.data)
        every = self.config.checkpoint_every
        if every and self.epoch % every == 0:
            checkpoints.save_weights(self.folder.checkpoints, f"epoch-{self.epoch}", self.stepper.evaluated)
        if self.patience.rule is not None and self.patience.rule.metric in record:
            self.patience.see(record[self.patience.rule.metric])
        self.tflops_before = self.tflops
        self._save_state()
        if self.trackers is not None:
            self.trackers.log(record)

    def finish(self) -> None:
        """Mark the run finished or failed, and delete what it no longer needs; a run that is over stays as it is."""
        if self.folder.identity().get("state") != "running":
            return
        if not self.diverged:
            checkpoints.save_weights(self.folder.checkpoints, "last", self.stepper.evaluated)
        failure = self._failure()
        if failure:
            self.folder.update_identity(state="failed", **failure)
            return
        checkpoints.retain(self.folder.checkpoints, self.config.keep)
        early = {"stopped_early": self.patience.reason} if self.patience.exhausted else {}
        self.folder.update_identity(state="finished", epoch=self.epoch, **early)

    def _failure(self) -> dict[str, Any]:
        """What run.json says of a run that failed; empty for one that did not."""
        if self.diverged:
            return {"reason": f"the loss stopped being finite at step {self.stepper.number}; lower learning_rate (now "
                              f"{self.config.learning_rate:g}) or grad_clip (now {self.config.grad_clip:g})"}
        if self.aborted is not None:
            return {"epoch": self.epoch, "rule": self.aborted.rule, "reason":
                    f"health rule {self.aborted.rule}: {self.aborted.sentence}. {self.aborted.remedy}"}
        return {}

    def close(self) -> None:
        """Leave a run that was not finished marked as interrupted, and its trackers with all they can still take."""
        if self.folder.identity().get("state") == "running":
            self.folder.update_identity(state="interrupted", epoch=self.epoch)
        if self.trackers is not None:
            self.trackers.close(self.folder.identity()["state"])

    # ---- beginning and resuming

    def _begin(self) -> None:
        if not self.folder.exists():
            known = identity.identify(self.config, self.folder, self.model, self.train_set, self.data)
            self.folder.start(self.config.mapping(), known)
            return
        identity.refuse_other_config(self.folder, self.config)
        known = self.folder.identity()
        if identity.is_over(self.folder, self.config):
            self.diverged = known.get("state") == "failed"
            self.epoch = self.epoch if self.diverged else self.config.num_epochs
            return
        if identity.is_prolonged(self.folder, self.config):
            identity.say_what_differs(self.folder, self.config)
        identity.refuse_other_data(self.folder, self.config, self.data)
        self._restore(checkpoints.load_state(self.folder.checkpoints, self.device))
        going_on = {key: value for key, value in known.items() if key != "reason"} | {"state": "running"}
        self.folder.start(self.config.mapping(), going_on)  # what a resume may change may have changed

    def _save_state(self) -> None:
        """Write what a resume continues from; `sums` are those of an epoch under way, empty between two."""
        checkpoints.save_state(self.folder.checkpoints, {
            **self.stepper.state(),
            "sums": self.sums.state(),
            "patience": (self.patience.best, self.patience.stale),
            **{name: getattr(self, name) for name in STATE_FIELDS},
        })
        self.saved = time.perf_counter()

    def _restore(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            with checkpoints.restoring(self.folder.checkpoints):
                self.stepper.restore(state)
                self.sums.restore(state["sums"])
                self.patience.best, self.patience.stale = state["patience"]
                for name in STATE_FIELDS:
                    setattr(self, name, state[name])
        self.folder.keep_until(self.epoch)
        self.folder.keep_steps_until(self.stepper.number)
        if records := self.folder.metrics():  # killed after the record that aborts it: nothing more is trained
            self.aborted = self.watch.abort(records[-1])
