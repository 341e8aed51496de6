"""Every shipped run config is valid, builds at the guide's latents, and says what its name promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lam import config
from lam.model.lam import LatentActionModel

FOLDER = Path(__file__).parent.parent / "configs"
SHIPPED = sorted(path.name for path in FOLDER.glob("*.yaml"))


def test_the_promised_configs_are_shipped() -> None:
    assert {"seed.yaml", "vq_refresh.yaml", "no_vq.yaml", "vq_no_refresh.yaml", "vq_gentle.yaml"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_config_builds_a_model_for_the_guides_latents(name: str) -> None:
    loaded = config.load(FOLDER / name)
    with torch.device("meta"):
        model = LatentActionModel(loaded, (16, 64, 64)).eval()
        output = model(torch.empty(1, loaded.sequence_length, 16, 64, 64))
    assert output.prediction.shape == (1, loaded.sequence_length - 1, 16, 64, 64)
    assert model.grid == (16, 16)


def test_the_arms_differ_in_their_quantizer_alone() -> None:
    arms = {name: config.load(FOLDER / f"{name}.yaml").mapping() for name in
            ("vq_refresh", "no_vq", "vq_no_refresh", "vq_gentle")}
    knobs = ("quantizer", "commitment_weight", "ema_decay", "vq_refresh_interval", "revive_below")
    assert [tuple(arms[name][knob] for knob in knobs) for name in arms] == [
        ("ema", 0.3, 0.99, 500, 0.01), ("none", 0.25, 0.99, 100, 0.1), ("ema", 0.3, 0.99, 0, 0.01),
        ("ema", 0.15, 0.95, 3000, 0.01)]
    rest = [{key: value for key, value in arm.items() if key not in knobs} for arm in arms.values()]
    assert all(arm == rest[0] for arm in rest)
