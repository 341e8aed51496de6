"""Every quantizer, with slots that add and slots side by side, with labels in training and without."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lam.config import RunConfig
from lam.training import loop
from record.run import RunFolder

TINY: dict[str, Any] = {
    "sequence_length": 4, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
    "codebook_dim": 8, "num_embeddings": 6, "batch_size": 8, "steps_per_epoch": 2, "num_epochs": 2,
    "learning_rate": 3e-3, "warmup_steps": 2, "vq_refresh_interval": 3, "revive_below": 0.5, "rollout_prob": 0.5,
    "eval_sequences": 8, "threads": 1, "sample_count": 0, "device": "cpu",
}
QUANTIZERS = ("ema", "vq", "rotation", "simvq", "fsq", "none")
CROSSINGS = list(itertools.product(QUANTIZERS, ("residual", "parallel"), (0.0, 0.2)))


def kept(folder: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """The records without their times, and the last weights."""
    timeless = [{key: value for key, value in record.items() if "second" not in key}
                for record in RunFolder(folder).metrics()]
    return json.dumps(timeless), load_file(folder / "checkpoints" / "last.safetensors")


@pytest.mark.parametrize(("quantizer", "slots", "action_weight"), CROSSINGS)
def test_it_trains_is_evaluated_and_goes_on_bit_for_bit(quantizer: str, slots: str, action_weight: float,
                                                        tiny_data: Path, tmp_path: Path) -> None:
    config = RunConfig(data_dir=str(tiny_data), quantizer=quantizer, slots=slots, action_weight=action_weight,
                       keep="all", **TINY)
    last = list(loop.train(config, tmp_path / "whole"))[-1]
    assert math.isfinite(last["val/mse_loss"])
    assert math.isfinite(last["val/objective"])
    assert math.isfinite(last["val/action_skill"])
    assert ("train/action_loss" in last) == (action_weight > 0)
    assert (last.get("val/collapsed") is None) == (quantizer == "none")
    assert ("val/quantization_error" in last) == (quantizer not in ("fsq", "none"))  # both spaces are one
    epochs = loop.train(config, tmp_path / "cut")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    (again,) = loop.train(config, tmp_path / "cut")
    assert again["epoch"] == 2
    (whole, weights), (cut, others) = kept(tmp_path / "whole"), kept(tmp_path / "cut")
    assert whole == cut
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
