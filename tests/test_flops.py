"""The count of a training step's operations: which keys change it, and that two counts say it of every anchor."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from lam.config import RunConfig
from lam.model import flops, losses
from lam.model.lam import LatentActionModel

SHAPE = (4, 4, 4)
SMALL = RunConfig(sequence_length=7, embed_dim=16, encoder_depth=1, decoder_depth=1, head_dim=8, patch_dim=8,
                  codebook_dim=4, num_embeddings=6, rollout_horizon=2)
# Read, and without a matrix product of their own: how numbers begin, follow and are weighed, and what is done twice.
UNCOUNTED = {"seed", "codebook_init", "ema_decay", "revive_below", "vq_refresh_interval", "commitment_weight",
             "action_weight", "change_weight", "recompute"}


class Reads:
    """A config that remembers which of its fields were asked for."""

    def __init__(self, config: RunConfig, seen: set[str]) -> None:
        self._config, self._seen = config, seen

    def __getattr__(self, name: str) -> Any:
        if name in RunConfig.model_fields:
            self._seen.add(name)
            return getattr(self._config, name)
        found = getattr(type(self._config), name)
        return found.fget(self) if isinstance(found, property) else found.__get__(self)


@pytest.mark.parametrize("changes", [
    {"quantizer": name, "slots": slots} for name in ("ema", "vq", "rotation", "simvq", "fsq", "none")
    for slots in ("residual", "parallel")] + [{"time_positions": "rotary", "frame_difference": True}])
def test_whatever_the_model_reads_is_counted_or_known_to_cost_nothing(changes: dict[str, Any]) -> None:
    seen: set[str] = set()
    config = cast(RunConfig, Reads(SMALL.replace(**changes), seen))
    latents = torch.randn(1, 7, *SHAPE)
    model = LatentActionModel(config, SHAPE)
    losses.total(losses.terms(model, latents, model(latents), 1), losses.weights(config)).backward()
    assert {"embed_dim", "slots", "rollout_horizon"} <= seen
    assert seen <= UNCOUNTED | set(flops.COUNTED)


@pytest.mark.parametrize("changes", [{}, {"time_positions": "rotary", "rollout_horizon": 4},
                                     {"rollout_detach": False, "quantizer": "none", "decoder_depth": 2}])
def test_the_count_is_a_straight_line_in_the_anchor(changes: dict[str, Any]) -> None:
    config = SMALL.replace(**changes)
    for anchor in range(config.sequence_length - config.rollout_horizon):
        assert flops.training_flops(config, SHAPE, anchor) == flops._counted(config, SHAPE, anchor, "cpu")


def test_configs_that_differ_in_other_keys_are_counted_once() -> None:
    flops.training_flops(SMALL, SHAPE, 1)
    before = flops._counted.cache_info().misses
    assert flops.training_flops(SMALL.replace(seed=5, learning_rate=0.5, data_dir="x"), SHAPE, 2) > 0
    assert flops._counted.cache_info().misses == before


@pytest.mark.parametrize("quantizer", ["ema", "simvq", "none"])
def test_what_is_computed_and_what_is_not_count_the_same(quantizer: str) -> None:
    config, before = SMALL.replace(quantizer=quantizer), torch.random.get_rng_state()
    for anchor in (None, 0):
        assert flops._counted(config, SHAPE, anchor, "cpu") == flops._counted(config, SHAPE, anchor, "meta") > 0
    assert torch.equal(torch.random.get_rng_state(), before), "and no draw of a training is another for it"
