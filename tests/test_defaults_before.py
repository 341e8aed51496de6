"""A config that an older version wrote means what it meant then; what a person writes has today's defaults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_driver import options
from torch import nn

from lam import config as config_module
from lam.config import RunConfig, from_mapping, of_run
from lam.model.lam import LatentActionModel
from lam.schema import BEFORE
from lam.training import decay, loop
from record import yamlio
from record.errors import BadInput
from record.run import RunFolder
from sweeps.commands.extending import extend
from sweeps.commands.launching import launch
from sweeps.journal import folders
from sweeps.spec.sections import Tpe
from sweeps.spec.spec import SweepSpec

OLD = Path(__file__).parent / "records_before"
TINY = {"sequence_length": 4, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
        "codebook_dim": 8, "batch_size": 8, "steps_per_epoch": 2, "num_epochs": 2, "learning_rate": 3e-3,
        "eval_sequences": 8, "threads": 1, "sample_count": 0, "device": "cpu"}


def test_a_run_folder_a_sweep_and_a_production_yaml_of_before_mean_parallel_slots() -> None:
    sweep, _ = folders.open_sweep(OLD / "before")
    found = [of_run(RunFolder(OLD / "before" / "trials" / "t0001")), config_module.load(OLD / "production.yaml"),
             sweep.base]
    for config in found:
        assert {key: config.model_dump(mode="json")[key] for key in BEFORE} == BEFORE
        assert not BEFORE.keys() & config.mapping().keys()


def test_what_a_person_leaves_out_has_todays_default() -> None:
    assert from_mapping({"embed_dim": 64}, source="run.yaml").slots == "residual"
    assert "slots" in from_mapping({"embed_dim": 64}, source="run.yaml").mapping()
    assert config_module.load(Path(__file__).parent.parent / "configs" / "seed.yaml").slots == "parallel"


def test_an_old_config_keeps_its_name() -> None:
    values = yamlio.load_mapping(OLD / "production.yaml")
    old = from_mapping(values, source="production.yaml")
    assert old.fingerprint() == values["provenance"]["config_fingerprint"]
    spelt = from_mapping({**old.mapping(), **BEFORE}, source="run.yaml")
    assert spelt.fingerprint() == old.fingerprint()
    assert spelt.replace(slots="residual").fingerprint() != old.fingerprint()


def test_a_record_that_is_moved_or_prolonged_stays_one_and_a_new_config_names_every_key() -> None:
    old = of_run(RunFolder(OLD / "before" / "trials" / "t0001"))
    assert old.replace(num_epochs=99, data_dir="/elsewhere", val_at_tflops=[]).mapping().keys() == old.mapping().keys()
    other = old.replace(commitment_weight=0.5)
    assert other.slots == "parallel"
    assert other.mapping().keys() == RunConfig().mapping().keys()


def as_before(folder: Path) -> None:
    """Make of a run's config.yaml and checkpoint what the version before wrote of the same run."""
    run = RunFolder(folder)
    values = {key: value for key, value in run.config().items() if key not in BEFORE}
    run.config_file.write_text(yamlio.dump_mapping(values))
    path = folder / "checkpoints" / "last.pt"
    state = torch.load(path, weights_only=True)
    state["sums"] = []
    del state["skipped"]
    torch.save(state, path)


def test_a_run_of_before_is_resumed_as_what_it_was(tiny_data: Path, tmp_path: Path) -> None:
    config = RunConfig(data_dir=str(tiny_data), slots="parallel", label_sequences=None, **TINY)
    whole = list(loop.train(config, tmp_path / "whole"))
    epochs = loop.train(config, tmp_path / "cut")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    as_before(tmp_path / "cut")
    with pytest.raises(BadInput, match="another config \\(slots: 'parallel' -> 'residual'\\)"):
        next(loop.train(config.replace(slots="residual"), tmp_path / "cut"))
    (last,) = loop.train(of_run(RunFolder(tmp_path / "cut")), tmp_path / "cut")
    same = [key for key in last if "second" not in key]
    assert {key: last[key] for key in same} == {key: whole[1][key] for key in same}


def test_an_optimizers_state_of_one_group_goes_on_in_two() -> None:
    torch.manual_seed(0)
    model = LatentActionModel(RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, sequence_length=4), (16, 8, 8))
    one = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number + 1))
    one.step()
    two = torch.optim.AdamW(decay.groups(model, 0.01), lr=1e-3)
    two.load_state_dict(decay.regrouped(one.state_dict(), model))
    assert [group["weight_decay"] for group in two.param_groups] == [0.01, 0.0]
    for parameter in model.parameters():
        assert torch.equal(two.state[parameter]["exp_avg"], one.state[parameter]["exp_avg"])
    assert decay.regrouped(two.state_dict(), model) == two.state_dict()


def names_of(group: dict[str, Any], model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if any(parameter is one for one in group["params"])}


@pytest.mark.parametrize("quantizer", ["vq", "simvq", "ema"])
def test_weights_that_multiply_decay_and_nothing_else(quantizer: str) -> None:
    config = RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, sequence_length=4, quantizer=quantizer)
    model = LatentActionModel(config, (16, 8, 8))
    decayed, kept = (names_of(group, model) for group in decay.groups(model, 0.1))
    assert decayed | kept == {name for name, _ in model.named_parameters()}
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert {"encoder.queries_SE", "encoder.positions.space_PE", "encoder.norm.weight", "decoder.head.bias"} <= kept
    assert {name for name in kept | decayed if name.startswith("quantizer.")} <= kept


def test_a_search_of_before_keeps_its_densities_its_name_and_can_be_launched_again(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "before", tmp_path / "before"))
    values = json.loads((folder / "sweep.json").read_text())
    values["spec"]["search"] = {**values["spec"]["search"], "random": None, "tpe": {"n_startup_trials": 30}}
    values["asked"]["search"] = {"tpe": {"n_startup_trials": 30}}
    (folder / "sweep.json").write_text(json.dumps(values))
    begun = folders.sweep_in(folder)
    assert begun.spec.search.tpe == Tpe(n_startup_trials=30, multivariate=True)
    assert begun.asked()["search"] == values["asked"]["search"]
    assert spelt({"tpe": {"n_startup_trials": 30, "multivariate": True}}) == values["asked"]["search"]
    assert spelt("tpe") == {"tpe": {"n_startup_trials": 10, "multivariate": False}}


def spelt(search: Any) -> dict[str, Any]:
    spec = {"name": "x", "base": {}, "space": {"commitment_weight": {"uniform": [0, 1]}}, "budget": {"trials": 1}}
    return SweepSpec.model_validate({**spec, "search": search}).search.asked()


@pytest.mark.nightly
def test_a_sweep_of_before_is_extended_with_trials_like_its_own(tmp_path: Path, ray_address: str) -> None:
    folder = Path(shutil.copytree(OLD / "before", tmp_path / "before"))
    fingerprint = json.loads((folder / "sweep.json").read_text())["fingerprint"]
    extend(folder, {"trials": 1}, options=options(ray_address))
    assert json.loads((folder / "sweep.json").read_text())["fingerprint"] == fingerprint
    assert of_run(RunFolder(folder / "trials" / "t0007")).slots == "parallel"
    launch(folder / "sweep.yaml", tmp_path, options(ray_address))  # over: no trial, no refusal
