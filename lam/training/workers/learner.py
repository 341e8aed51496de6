"""What every worker of a run has, and what those beside the first one do: their share of each batch, and no record.

The first worker says which step is next. So data order, stopping, validation, checkpoints and the watch are its own,
and a run is the same run with any number of workers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lam.config import RunConfig
from lam.data import windows as data
from lam.model.lam import LatentActionModel
from lam.training import checkpoints, identity
from lam.training.devices import check_room, choose_device
from lam.training.guidance import change
from lam.training.guidance.labels import Labels
from lam.training.stepping import Stepper, rollout_anchor
from lam.training.workers.group import Group


class Learner:
    """Data, model and optimizer of one worker.

    Args:
        anew: the run begins here, from the weights that `init_from` names.
    """

    def __init__(self, config: RunConfig, group: Group, anew: bool = False) -> None:
        self.config, self.group = config, group
        if config.threads or group.here > 1:
            torch.set_num_threads(config.threads or max(1, torch.get_num_threads() // group.here))
        self.device = choose_device(config)
        self.data = data.check(config)
        self.train_set = data.open_split(config, "train", checked=self.data)
        identity.refuse_without_labels(config, self.data)
        check_room(config, self.train_set.latent_shape, self.device, group.size, group.here)
        torch.manual_seed(config.seed)
        self.model = LatentActionModel(config, self.train_set.latent_shape)
        if anew:
            checkpoints.begin_from(Path(str(config.init_from)), self.model)
        self.model.to(self.device)
        self.steps_per_epoch = config.steps_in_epoch(len(self.train_set))
        self.labels = Labels(config, self.train_set) if config.action_weight else None
        self.stepper = Stepper(config, self.model, self.steps_per_epoch, change.of_config(config, self.train_set),
                               self.labels.kinds if self.labels else None, group)

    def learn(self, epoch: int, number: int, index: NDArray[np.int64]) -> dict[str, float]:
        """Take a step on this worker's share of a batch; what the stepper says of it is of the whole batch.

        Args:
            number: of the step in its epoch, from 0.
            index: sequences of the whole batch.
        """
        batch = self.train_set.batch(self.group.share(index))
        actions = self.labels.of(batch).to(self.device, non_blocking=True) if self.labels else None
        latents = batch.latents.to(self.device, non_blocking=True)
        return self.stepper.step(latents, rollout_anchor(self.config, epoch, number), actions)


def follow(config: RunConfig, group: Group, made: type[Learner] = Learner) -> None:
    """Take every step that the first worker says, from its weights on, until it says no more.

    Args:
        made: what takes the steps: a seam for those who change something of it (tests plant faults here).

    Raises:
        WorkerLost: another worker is gone.
    """
    learner = made(config, group)
    if (state := group.said()) is None:
        return
    learner.stepper.restore(checkpoints.unpacked(state))
    learner.model.train()
    group.total(0)
    while (step := group.said()) is not None:
        learner.learn(*step)
