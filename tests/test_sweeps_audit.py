"""The knob audit: static rules, and probes that train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_training import prepare

from lam.config import RunConfig
from record import yamlio
from record.errors import BadInput
from sweeps.commands.launching import Options, launch
from sweeps.commands.planning import plan
from sweeps.spec import audit, probing
from sweeps.spec.audit import Audited
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep

TINY: dict[str, Any] = {
    "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16, "codebook_dim": 8,
    "num_codes": 2, "num_embeddings": 4, "sequence_length": 4, "patch_size": 4, "eval_sequences": 8, "threads": 1,
    "vq_refresh_interval": 50,
}


def sweep_of(folder: Path, space: dict[str, Any], **base: Any) -> Sweep:
    values = {"name": "s", "base": {**TINY, **base}, "space": space, "budget": {"trials": 2},
              "scheduler": {"asha": {"max_epochs": 5}}}
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping(values))
    return load(path)


def words(found: tuple[Audited, ...]) -> dict[str, str]:
    return {item.knob: item.word for item in found}


@pytest.mark.parametrize(("knob", "base", "needs"), [
    ({"rollout_weight": {"uniform": [0, 1]}}, {"rollout_horizon": 1}, "rollout_horizon above 1"),
    ({"rollout_prob": {"uniform": [0, 1]}}, {"rollout_horizon": 1}, "rollout_horizon above 1"),
    ({"ema_decay": {"uniform": [0.9, 0.99]}}, {"quantizer": "vq", "vq_refresh_interval": 0}, "quantizer ema"),
    ({"revive_below": {"uniform": [0.1, 0.5]}}, {"vq_refresh_interval": 0}, "vq_refresh_interval above 0"),
    ({"commitment_weight": {"uniform": [0.1, 1]}}, {"quantizer": "none", "objective_preset": "mse"}, "other than none"),
    ({"num_embeddings": {"choice": [4, 8]}}, {"quantizer": "none", "objective_preset": "mse"}, "other than none"),
])
def test_known_inert_pairs(knob: dict[str, Any], base: dict[str, Any], needs: str, tmp_path: Path) -> None:
    if "num_embeddings" in knob:
        base = {**base, "num_embeddings": 12}
    found = audit.audit(sweep_of(tmp_path, knob, **base), probe=None)
    assert [item.word for item in found] == ["inert"]
    assert needs in found[0].sentence


def test_a_knob_may_act_in_part_of_the_space(tmp_path: Path) -> None:
    found = audit.audit(sweep_of(tmp_path, {"rollout_horizon": {"choice": [1, 2]},
                                            "rollout_weight": {"uniform": [0.5, 1]}}), probe=None)
    weight = found[1]
    assert weight.word == "active"
    assert 0.3 < weight.reach < 0.7
    assert "% of the space" in weight.sentence


def test_a_refresh_acts_late_and_not_at_all_in_a_short_run(tmp_path: Path) -> None:
    space = {"revive_below": {"uniform": [0.1, 0.5]}}
    late = audit.audit(sweep_of(tmp_path, space, vq_refresh_interval=3000, steps_per_epoch=1000), probe=None)
    assert late[0].sentence == "revive_below: acts only after step 3000 (the first revival of dead codes)"
    never = audit.audit(sweep_of(tmp_path, space, vq_refresh_interval=3000, steps_per_epoch=100), probe=None)
    assert never[0].word == "inert"
    assert "a trial has 500 steps" in never[0].why
    gradient = audit.audit(sweep_of(tmp_path, {"ema_decay": {"uniform": [0.9, 0.99]}}, quantizer="vq",
                                    steps_per_epoch=100), probe=None)
    assert gradient[0].step == 50  # a gradient codebook reads it only to tell which codes are dead


def test_what_there_is_no_time_for_is_not_probed(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"weight_decay": {"uniform": [0.1, 0.2]}})
    found = audit.audit(sweep, probe=lambda trained, configs, seconds: {})
    assert words(found) == {"weight_decay": "not probed"}


def test_the_two_runs_differ_in_the_knob_alone(tmp_path: Path) -> None:
    asked: dict[str, RunConfig] = {}

    def probe(trained: str, configs: Any, seconds: float) -> dict[str, str]:
        assert 0 < seconds <= 30
        asked.update(configs)
        return dict.fromkeys(configs, "same")

    found = audit.audit(sweep_of(tmp_path, {"grad_clip": {"uniform": [0.5, 2]}, "seed": {"choice": [1, 2]}}), probe)
    assert words(found) == {"grad_clip": "acts only after a step", "seed": "inert"}
    first, second = list(asked.values())[:2]
    changed = {key for key, value in first.mapping().items() if value != second.mapping()[key]}
    assert changed == {"grad_clip"}
    assert (first.steps_per_epoch, first.warmup_steps) == (audit.STEPS, 0)


@pytest.mark.nightly
def test_probes_that_train(tiny_data: Path, tmp_path: Path) -> None:
    space = {
        "learning_rate": {"loguniform": [1e-4, 1e-2]}, "commitment_weight": {"loguniform": [0.02, 2.0]},
        "weight_decay": {"loguniform": [1e-14, 1e-12]},  # 1 - rate * decay is 1 in float32
        "ema_decay": {"uniform": [0.9, 0.99]}, "revive_below": {"uniform": [0.05, 0.5]},
        "embed_dim": {"choice": [16, 32]},
    }
    sweep = sweep_of(tmp_path, space, data_dir=str(tiny_data), embed_dim=512, steps_per_epoch=100)
    # A busy machine may need the audit's own 30 s for the import of torch alone.
    found = audit.audit(sweep, lambda trained, configs, seconds: probing.digests(trained, configs, seconds=300))
    assert words(found) == {
        "learning_rate": "active", "commitment_weight": "active", "weight_decay": "inert", "ema_decay": "active",
        "revive_below": "acts only after a step", "embed_dim": "active"}
    with pytest.raises(BadInput, match=r"space.weight_decay: changes nothing in this space: two runs that differ in it "
                                       r"alone are bit-equal after 3 steps; .* or give --allow-inert"):
        audit.refuse_inert(sweep, found)


@pytest.mark.slow
def test_a_probe_is_killed_when_its_time_is_up(tiny_data: Path, tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path, {"seed": {"choice": [1, 2]}}, data_dir=str(tiny_data))
    configs = {str(seed): sweep.base.replace(seed=seed) for seed in range(3)}
    assert probing.digests("lam", configs, seconds=0.2) == {}


def test_plan_prints_the_audit_and_launch_refuses(tmp_path: Path) -> None:
    sweep_of(tmp_path, {"rollout_weight": {"uniform": [0, 1]}}, rollout_horizon=1)
    path = tmp_path / "sweep.yaml"
    shown = plan(path, prepare=prepare)
    assert "  rollout_weight: inert (it needs rollout_horizon above 1 and rollout_prob above 0)" in shown
    options = Options(quiet=True, train="fake_training:train", prepare=prepare)
    with pytest.raises(BadInput, match=r"space.rollout_weight: changes nothing in this space: it needs"):
        launch(path, tmp_path / "runs", options)
    assert not (tmp_path / "runs").exists()
