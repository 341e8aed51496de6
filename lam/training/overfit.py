"""The overfit check: can this model learn one batch by heart? Where it cannot, training on more is no use.

Nothing is written. The criteria and the hints are those of the LAM training guide (docs/references.md).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from lam.config import RunConfig
from lam.data import windows as data
from lam.model import losses
from lam.model.lam import LatentActionModel
from lam.training.devices import choose_device
from lam.training.stepping import Stepper
from record.progress import track

MSE_BELOW, MAE_BELOW = 0.01, 0.05
MOST_STEPS = 2000
LARGEST_BATCH = 4
LEAST_RATE = 1e-3
CHECK_EVERY = 20
HINTS = (
    "check the data: 'lam data inspect' shows shapes and ranges; latents should be [chunks, channels, 2, height, "
    "width] and of unit variance",
    "raise learning_rate to 1e-3 or more",
    "raise --steps to 4000 or more (2000 is the default)",
)


@dataclass(frozen=True)
class Overfit:
    """Errors on the one batch, measured in evaluation mode, after `steps` optimizer steps."""

    mse: float
    mae: float
    steps: int
    seconds: float
    sequences: int

    @property
    def passed(self) -> bool:
        """Whether both errors are below the criteria."""
        return self.mse < MSE_BELOW and self.mae < MAE_BELOW


def overfit(config: RunConfig, most_steps: int = MOST_STEPS) -> Overfit:
    """Train on one batch until it is known by heart, or for `most_steps`.

    The batch has at most 4 sequences, spread over the training split; the learning rate is at least
    1e-3 and stays constant after its warmup; weight decay is off.
    """
    config = config.replace(batch_size=min(config.batch_size, LARGEST_BATCH), weight_decay=0.0, lr_decay_epochs=None,
                            learning_rate=max(config.learning_rate, LEAST_RATE), average_weights=None)
    if config.threads:
        torch.set_num_threads(config.threads)
    windows = data.open_split(config, "train")
    torch.manual_seed(config.seed)
    model = LatentActionModel(config, windows.latent_shape).to(choose_device(config))
    index = torch.linspace(0, len(windows) - 1, config.batch_size).long().unique().numpy()
    latents = windows.batch(index).latents.to(next(model.parameters()).device)
    stepper, begin = Stepper(config, model, steps_per_epoch=1), time.monotonic()
    anchors = max(1, config.sequence_length - config.rollout_horizon)
    found = Overfit(math.nan, math.nan, 0, 0.0, len(latents))
    for step in track(range(1, most_steps + 1), most_steps, "overfitting one batch"):
        model.train()
        values = stepper.step(latents, step % anchors if config.rollout_horizon > 1 else None)
        if step % CHECK_EVERY == 0 or step == most_steps or math.isnan(values["loss"]):
            mse, mae = _errors(stepper, latents)
            found = Overfit(mse, mae, step, time.monotonic() - begin, len(latents))
            if found.passed or math.isnan(values["loss"]):
                break
    return found


@torch.no_grad()
def _errors(stepper: Stepper, latents_BTCHW: torch.Tensor) -> tuple[float, float]:
    model = stepper.model.eval()
    with stepper.eager():
        values = losses.terms(model, latents_BTCHW, model(latents_BTCHW), None)
    return float(values["mse_loss"].mean()), float(values["mae_loss"].mean())
