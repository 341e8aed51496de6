"""The numbers of an evaluation: recomputed by hand, independent of the batch size, the same twice."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import reference_metrics as reference
import torch
from scipy import stats

from lam import codebook, metrics
from lam.config import RunConfig
from lam.data import demo
from lam.data.windows import Windows, open_split
from lam.evaluation import draws, effective_rank, generation, measure, passes, probe
from lam.metrics import TABLE
from lam.model.lam import LatentActionModel
from lam.training import checkpoints, console
from lam.training.loop import train
from record import files
from record.run import RunFolder

TINY = {"embed_dim": 32, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 32, "codebook_dim": 8,
        "sequence_length": 5, "rollout_horizon": 3, "batch_size": 16, "threads": 1, "device": "cpu", "keep": "all",
        "num_epochs": 1, "steps_per_epoch": 160, "learning_rate": 3e-3, "warmup_steps": 20, "vq_refresh_interval": 50,
        "reconstruction_weight": 0.7, "rollout_weight": 0.3, "commitment_weight": 0.4}


@pytest.fixture(scope="module", params=["residual", "parallel"])
def measured(
    request: pytest.FixtureRequest, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, LatentActionModel, Windows]:
    """A model after a few steps of training, whose decoder heeds its actions, and the split it is measured on."""
    config = RunConfig(data_dir=str(tiny_data), slots=request.param, **TINY)
    windows = open_split(config, "validation", stride=1)
    folder = tmp_path_factory.mktemp("run")
    list(train(config, folder))
    model = LatentActionModel(config, windows.latent_shape)
    checkpoints.load_weights(folder / "checkpoints", "last", model)
    return config, model, windows


@torch.inference_mode()
def dump(config: RunConfig, model: LatentActionModel, windows: Windows) -> reference.Dump:
    """The tensors behind an evaluation, in one batch, without `lam.evaluation.measure`'s loops."""
    model.eval()
    count = len(windows)
    batch = windows.batch(np.arange(count))
    latents, anchor = batch.latents, config.sequence_length - 1 - config.rollout_horizon
    output = model(latents)
    z_q, codes = output.quantized.z_q, output.quantized.codes
    assert codes is not None
    last = codes[:, -1]
    places = zip(batch.file.tolist(), batch.start.tolist(), strict=True)
    drawn = [draws.draw(config, windows.files[file], start) for file, start in places]
    flipped = last.clone()
    for row, (_, slot, shift) in enumerate(drawn):
        flipped[row, slot] = (flipped[row, slot] + shift) % config.num_embeddings
    assert ((flipped != last).sum(1) == 1).all()
    lookup = model.quantizer.lookup
    chunk_places = (batch.start.numpy() + config.sequence_length - 1) % windows.chunk_frames
    partners = draws.partners(chunk_places, config.eval_seed)
    others = {
        **{f"shuffled {number}": z_q[partner, -1] for number, partner in enumerate(partners)},
        "rand": lookup(torch.from_numpy(np.stack([rand for rand, _, _ in drawn]))), "flipped": lookup(flipped),
    }
    rows = draws.subset(count, generation.SEQUENCES)
    free = [latents[rows, 0]]
    for step in range(1, config.sequence_length):
        free.append(model.decode(torch.stack(free, 1), z_q[rows, :step])[:, -1])
    encoded = model.encoder.tokens(model.patches(latents))  # the encoder is causal: later frames change nothing
    seen = {name: model.decode(latents[:, :-1], torch.cat([z_q[:, :-1], other[:, None]], 1))[:, -1]
            for name, other in others.items()}
    tensors: dict[str, torch.Tensor] = {
        "latents": latents, "prediction": output.prediction, "rollout": model.rollout(latents, output, anchor),
        "rand": seen["rand"], "flipped": seen["flipped"],
        "shuffled": torch.stack([seen[f"shuffled {number}"] for number in range(len(partners))]),
        "z_e": output.z_e, "z_q": z_q, "codes": last, "context": encoded[:, -2].mean(1),
        "free": torch.stack(free[1:], 1), "actions": batch.actions[:, -1], "files": batch.file, "starts": batch.start,
    }
    mean, std = stored_moments(config)
    return reference.Dump(**{name: tensor.numpy() for name, tensor in tensors.items()}, mean=mean, std=std,
                          anchor=anchor, free_rows=rows)


def stored_moments(config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population std of each channel, straight from the training files."""
    names = json.loads(config.manifest.read_text())["splits"]["train"]
    parts = []
    for name in names:
        with h5py.File(Path(config.data_dir) / name) as file:
            parts.append(np.asarray(file["embeddings"], dtype=float))
    values = np.concatenate(parts)
    return values.mean((0, 2, 3, 4)), values.std((0, 2, 3, 4))


def close(a: Any, b: Any) -> bool:
    """Equal to float32: a bound near 0 is the difference of two numbers near 1, each known to its epsilon."""
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return bool(np.allclose(a, b, rtol=1e-5, atol=float(np.finfo(np.float32).eps), equal_nan=True))


def test_every_number_is_that_of_an_independent_implementation(measured: Any) -> None:
    """But for the action skill, whose truth is planted in test_skill.py; on eight videos, and on a single one."""
    config, model, windows = measured
    config = config.replace(objective_preset="control_health")
    assert compared(config, model, open_split(config, "train", stride=1))["val/dsnr_status"] == "ok"
    assert compared(config, model, windows)["val/scored_files"] == 1


def compared(config: RunConfig, model: LatentActionModel, windows: Windows) -> dict[str, Any]:
    ours = {key: value for key, value in measure.evaluate(model, windows, config).items()
            if key != "val/objective_preset" and key not in {metric.key for metric in metrics.SKILL}}
    theirs = reference.metrics(dump(config, model, windows), config, windows.chunk_frames)
    assert set(ours) == set(theirs)
    wrong = {key: (ours[key], theirs[key]) for key in ours if not close(ours[key], theirs[key])}
    assert not wrong
    return ours


@pytest.mark.parametrize("size", [1, 7, 32])
def test_numbers_do_not_depend_on_the_evaluation_batch(measured: Any, size: int) -> None:
    config, model, windows = measured
    one, other = (measure.evaluate(model, windows, config.replace(eval_batch_size=n)) for n in (64, size))
    assert not {key: (one[key], other[key]) for key in one if not close(one[key], other[key])}


def test_two_evaluations_are_bit_equal_and_leave_the_model_as_it_was(measured: Any) -> None:
    config, model, windows = measured
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (measure.evaluate(model, windows, config) for _ in range(2))
    assert repr(first) == repr(second)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_every_key_of_an_evaluation_is_in_the_table_and_within_its_bounds(measured: Any) -> None:
    config, model, windows = measured
    for key, value in measure.evaluate(model, windows, config).items():
        low, high = TABLE[key].bounds
        if not isinstance(value, (str, list)):
            assert math.isnan(value) or low <= value <= high, key


def test_a_model_without_codes_has_neither_dsnr_nor_codebook_numbers(measured: Any) -> None:
    config, _, windows = measured
    config = config.replace(quantizer="none")
    record = measure.evaluate(LatentActionModel(config, windows.latent_shape), windows, config)
    assert not {"val/dsnr", "val/dsnr_status", "val/codebook_usage", "val/collapsed"} & set(record)
    assert "val/control" in record


def test_a_single_code_has_no_other_code_to_compare_with(measured: Any) -> None:
    config, _, windows = measured
    config = config.replace(num_embeddings=1)
    record = measure.evaluate(LatentActionModel(config, windows.latent_shape), windows, config)
    assert record["val/dsnr_status"] == "single_code"
    assert "val/d_rand_l2" not in record
    assert record["val/objective"] < 0


class Watched:
    """Windows that remember the most that was read at a time, and how much in all."""

    def __init__(self, windows: Windows) -> None:
        self.windows, self.most, self.read = windows, 0, 0

    def __len__(self) -> int:
        return len(self.windows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.windows, name)

    def batch(self, index: np.ndarray) -> Any:
        self.most, self.read = max(self.most, len(index)), self.read + len(index)
        return self.windows.batch(index)


def test_true_actions_cost_no_latents_and_codes_no_decoder(measured: Any) -> None:
    config, model, windows = measured
    config, watched = config.replace(eval_batch_size=8), Watched(windows)
    measure.evaluate(model, watched, config)  # type: ignore[arg-type]
    assert watched.most == 8
    passes: list[object] = []
    hook = model.decoder.register_forward_hook(lambda *call: passes.append(call))
    found = probe.probe(model, watched, watched, config)  # type: ignore[arg-type]
    hook.remove()
    assert found is not None
    assert watched.most == 8
    assert not passes


def test_an_evaluation_reads_twice_encodes_once_and_decodes_no_frame_again_that_stays(measured: Any) -> None:
    config, model, windows = measured
    watched, frames = Watched(windows), {"encoder": 0, "decoder": 0, "alone": 0}

    def count(name: str, patches: torch.Tensor) -> None:
        frames[name] += patches.shape[0] * patches.shape[1]

    hooks = [model.encoder.embed.register_forward_hook(lambda _, given, __: count("encoder", given[0])),
             model.decoder.embed.register_forward_hook(lambda _, given, __: count("decoder", given[0]))]
    measure.evaluate(model, watched, config)  # type: ignore[arg-type]
    for hook in hooks:
        hook.remove()
    N, T = len(windows), config.sequence_length
    free = len(draws.subset(N, generation.SEQUENCES)) * (T - 1)
    assert watched.read == 2 * N
    assert frames["encoder"] == N * T
    # the true pass, the rollout beyond its first frame, one frame for the true, the random and the flipped codes and
    # those of each partner, the free rollouts
    assert frames["decoder"] == N * ((T - 1) + (config.rollout_horizon - 1) + 3 + draws.PARTNERS) + free


def test_the_probes_codes_are_those_of_the_evaluation(measured: Any) -> None:
    config, model, windows = measured
    index = np.arange(len(windows))
    codes = passes.measured(model, windows, config).scored.codes
    x = probe.features(model, windows, index, config)
    np.testing.assert_array_equal(x.reshape(len(index), config.num_codes, -1).argmax(-1), codes)
    continuous = LatentActionModel(config.replace(quantizer="none"), windows.latent_shape)
    assert probe.features(continuous, windows, index, config).shape == (len(index), config.num_codes * 8)


def test_the_probe_leaves_unlabelled_transitions_out_and_counts_them(measured: Any, tmp_path: Path) -> None:
    config, model, windows = measured
    shutil.copytree(Path(config.data_dir), tmp_path / "data", ignore=shutil.ignore_patterns(".cache"))
    with h5py.File(tmp_path / "data" / windows.files[0], "a") as file:
        file["actions"][6:10] = -1
    some = open_split(config.replace(data_dir=str(tmp_path / "data")), "validation", stride=1)
    found, whole = (probe.probe(model, windows, each, config) for each in (some, windows))
    assert found is not None
    assert whole is not None
    assert (found.transitions, found.unlabelled) == (len(windows) - 4, 4)
    assert (whole.transitions, whole.unlabelled) == (len(windows), 0)


def test_true_actions_here_and_there_are_all_asked_about(measured: Any, tmp_path: Path) -> None:
    """Of 20 sequences drawn from all, few would have one of the labels; the codes are those of a whole evaluation."""
    config, model, windows = measured
    shutil.copytree(Path(config.data_dir), tmp_path / "data", ignore=shutil.ignore_patterns(".cache"))
    for name in windows.files:
        with h5py.File(tmp_path / "data" / name, "a") as file:
            file["actions"][:] = np.where(np.arange(24) % 5 == 4, file["actions"][:], -1)
    some = open_split(config.replace(data_dir=str(tmp_path / "data")), "validation", stride=1)
    rows = np.flatnonzero((windows.starts[:, 1] + config.sequence_length - 1) % 5 == 4)
    np.testing.assert_array_equal(some.labelled, rows)
    whole = passes.measured(model, windows, config).known
    found = passes.measured(model, some, config.replace(eval_sequences=20)).known
    np.testing.assert_array_equal(found.actions, windows.last_actions(rows))
    np.testing.assert_array_equal(found.files, windows.starts[rows, 0])
    np.testing.assert_array_equal(found.codes, whole.codes[rows])
    np.testing.assert_allclose(found.z_e, whole.z_e[rows], atol=1e-5)
    probed = probe.probe(model, windows, some, config)
    assert probed is not None
    assert (probed.transitions, probed.unlabelled) == (len(rows), len(windows) - len(rows))


def test_a_run_is_measured_on_the_chosen_device(tiny_data: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def choose(config: RunConfig) -> torch.device:
        asked.append(config.device)
        return torch.device("cpu")

    for device, wanted in (("cpu", "cpu"), ("auto", "auto"), ("cuda", "auto")):
        folder = RunFolder(tmp_path / device)
        list(train(RunConfig(data_dir=str(tiny_data), **{**TINY, "steps_per_epoch": 1}), folder.path))
        files.write_text(folder.path / "config.yaml",
                         (folder.path / "config.yaml").read_text().replace("device: cpu", f"device: {device}"))
        assert "val/control" in console.measured(folder, "validation", choose=choose)["metrics"]
        assert asked.pop() == wanted


def test_random_codes_depend_on_seed_file_and_place_alone() -> None:
    config = RunConfig()
    assert repr(draws.draw(config, "a.h5", 3)) == repr(draws.draw(config.replace(seed=9), "a.h5", 3))
    others = [draws.draw(config, "b.h5", 3), draws.draw(config, "a.h5", 4),
              draws.draw(config.replace(eval_seed=1), "a.h5", 3)]
    assert len({repr(each) for each in [*others, draws.draw(config, "a.h5", 3)]}) == 4
    shifts = {draws.draw(config, "a.h5", start)[2] for start in range(300)}
    assert shifts == set(range(1, 12))


def test_effective_rank() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(400, 6)))[0]
    basis -= basis.mean(0)
    assert effective_rank.effective_rank(np.linalg.qr(basis)[0]) == pytest.approx(6, rel=1e-3)
    assert effective_rank.effective_rank(np.full((50, 8), 0.1)) == 0
    assert effective_rank.effective_rank(rng.normal(size=(200, 1)) @ np.ones((1, 8)) + 3) == pytest.approx(1, abs=1e-4)
    # The entropy of the values themselves, not of their squares: 2 directions of size 3 and 1.
    sizes = np.array([3.0, 1.0])
    x = np.linalg.qr(basis)[0][:, :2] * sizes
    assert effective_rank.effective_rank(x) == pytest.approx(math.exp(stats.entropy(sizes / 4)), rel=1e-3)
    assert math.isnan(effective_rank.effective_rank(np.array([[math.inf], [1.0]])))


def test_rollouts_of_a_model_that_repeats_itself_do_not_move(measured: Any) -> None:
    config, _, windows = measured
    model = LatentActionModel(config, windows.latent_shape).eval()  # starts at the copy baseline
    record = measure.evaluate(model, windows, config)
    assert record["val/mse_loss"] == pytest.approx(record["val/mse_copy"])
    assert record["val/dsnr_status"] == "actions_ignored"
    frames = windows.batch(np.array([0])).latents
    made = generation.rollout(model, frames[:, 0], torch.zeros(1, 4, 3, 8))
    assert torch.equal(made, frames[:, :1].expand(-1, 4, -1, -1, -1))


@pytest.mark.nightly
def test_along_a_healthy_run_the_objective_rises_as_the_error_falls(
    latents: Callable[[demo.Demo], Path], tmp_path: Path
) -> None:
    folder = latents(demo.Demo(game="breakout", episodes=12, length=40, size=64, seed=0))
    config = RunConfig(data_dir=str(folder), embed_dim=48, encoder_depth=2, decoder_depth=2, head_dim=24, patch_dim=48,
                       patch_size=2, codebook_dim=16, sequence_length=3, batch_size=32, learning_rate=3e-3,
                       warmup_steps=50, vq_refresh_interval=50, num_epochs=8, steps_per_epoch=60, threads=1,
                       device="cpu", rollout_horizon=1)
    records = list(train(config, tmp_path / "run"))
    errors, objectives = ([record[key] for record in records] for key in ("val/mse_loss", "val/objective"))
    assert errors[-1] < errors[0] / 2
    assert codebook.verdict(records[-1]) == "live"
    assert stats.spearmanr(errors, objectives).statistic < -0.9
