"""What an optimizer step does and what it leaves alone: revivals, skipped steps, weights of the loss, modulation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lam.config import RunConfig
from lam.data.windows import open_split
from lam.model import losses, quantizers
from lam.model.lam import LatentActionModel
from lam.training import loop, stepping
from lam.training.guidance import change
from lam.training.stepping import Stepper
from record.run import RunFolder

SMALL = RunConfig(embed_dim=32, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=32, codebook_dim=8,
                  sequence_length=6)
SHAPE = (16, 8, 8)
TINY = {"sequence_length": 4, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
        "codebook_dim": 8, "batch_size": 8, "steps_per_epoch": 4, "num_epochs": 1, "learning_rate": 3e-3,
        "eval_sequences": 8, "threads": 1, "sample_count": 0, "device": "cpu"}


def latents(batch: int = 4) -> Tensor:
    return torch.randn(batch, 6, *SHAPE, generator=torch.Generator().manual_seed(0))


def stepper(**changes: Any) -> Stepper:
    torch.manual_seed(0)
    config = SMALL.replace(**{"warmup_steps": 0, **changes})
    return Stepper(config, LatentActionModel(config, SHAPE).train(), 10)


# ---- revival


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_a_code_that_nobody_uses_is_revived_at_the_first_interval_whatever_the_codebooks_decay(decay: float) -> None:
    """With the codebook's decay of .999 its use would fall below a tenth only after 2,300 steps."""
    config = SMALL.replace(codebook_init="uniform", vq_refresh_interval=20, ema_decay=decay, slots="parallel")
    torch.manual_seed(0)
    book = quantizers.EmaCodebook(config)
    data = torch.randn(64, 8, generator=torch.Generator().manual_seed(1)) * 0.01 + 5  # nearest to one code alone
    for step in range(1, 21):
        before = book.codes_KQ.clone()
        book(data)
        book.after_step(step)
    assert ((book.codes_KQ - before).norm(dim=1) > 1).sum() == 11


def test_use_decays_no_slower_than_the_codes_and_as_they_do_where_nothing_is_revived() -> None:
    assert quantizers.usage_decay(SMALL.replace(ema_decay=0.5)) == 0.5
    assert quantizers.usage_decay(SMALL.replace(vq_refresh_interval=0)) == 0.99
    assert quantizers.usage_decay(SMALL) ** 100 < SMALL.revive_below < quantizers.usage_decay(SMALL) ** 98


def test_revived_codes_are_never_twins() -> None:
    config = SMALL.replace(quantizer="vq", codebook_init="uniform", vq_refresh_interval=1, revive_below=12.0)
    for step in range(1, 30):
        book = quantizers.Codebook(config)
        book(torch.randn(12, 8))
        book.after_step(step)
        assert len(book.codes_KQ.detach().unique(dim=0)) == 12
    few = quantizers.Codebook(config)
    few(torch.randn(5, 8))
    few.after_step(1)
    assert len(few.codes_KQ.detach().unique(dim=0)) == 12  # five are placed, the rest waits where it is


# ---- numbers that are not finite


def spoil_gradient(model: LatentActionModel, times: int) -> None:
    left = [times]

    def hook(gradient: Tensor) -> Tensor:
        left[0] -= 1
        return gradient * math.nan if left[0] >= 0 else gradient

    model.decoder.head.weight.register_hook(hook)


def test_one_gradient_that_is_not_finite_is_skipped_and_counted() -> None:
    taken = stepper(quantizer="vq")
    spoil_gradient(taken.model, 1)
    before = {name: value.clone() for name, value in taken.model.state_dict().items() if "initialized" not in name}
    first = taken.step(latents(), None)
    assert first["skipped_steps"] == 1
    assert math.isfinite(first["loss"])
    assert math.isnan(first["grad_norm"])
    after = taken.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("quantizer"))
    assert all(book._seen == [] for book in taken.model.quantizer.books)
    second = taken.step(latents(), None)
    assert (second["skipped_steps"], taken.skipped) == (0, 0)
    assert math.isfinite(second["grad_norm"])


def test_gradients_that_stay_so_end_the_run_as_diverged() -> None:
    taken = stepper()
    spoil_gradient(taken.model, 100)
    seen = [taken.step(latents(), None)["loss"] for _ in range(stepping.MOST_SKIPPED)]
    assert [math.isfinite(loss) for loss in seen] == [True] * (stepping.MOST_SKIPPED - 1) + [False]


def test_skipped_steps_are_counted_across_a_resume() -> None:
    first, second = stepper(), stepper()
    spoil_gradient(first.model, 100)
    first.step(latents(), None)
    second.restore(first.state())
    assert second.skipped == 1


def test_a_run_counts_the_steps_it_skipped(tiny_data: Path, tmp_path: Path) -> None:
    run = loop.Run(RunConfig(data_dir=str(tiny_data), **TINY), RunFolder(tmp_path / "run"))
    spoil_gradient(run.model, 1)
    (record,) = loop.epochs(run)
    assert record["train/skipped_steps"] == 1
    assert math.isfinite(record["train/grad_norm"])
    assert run.folder.identity()["state"] == "finished"


@pytest.mark.parametrize("slots", ["residual", "parallel"])
def test_embeddings_that_are_not_finite_in_the_first_batch_end_as_diverged_and_in_no_traceback(
    slots: str, tiny_data: Path, tmp_path: Path
) -> None:
    run = loop.Run(RunConfig(data_dir=str(tiny_data), slots=slots, **TINY), RunFolder(tmp_path / "run"))
    with torch.no_grad():
        run.model.encoder.head.bias.fill_(math.nan)
    list(loop.epochs(run))
    assert run.folder.identity()["state"] == "failed"
    assert "stopped being finite at step 1" in run.folder.identity()["reason"]


# ---- the loss


@pytest.mark.parametrize(("quantizer", "part"), [("ema", "commitment_loss"), ("rotation", "commitment_loss"),
                                                 ("vq", "vq_loss"), ("simvq", "vq_loss")])
def test_the_share_of_a_term_is_that_of_its_part_with_a_gradient(
    quantizer: str, part: str, tiny_data: Path, tmp_path: Path
) -> None:
    config = RunConfig(data_dir=str(tiny_data), quantizer=quantizer, rollout_horizon=1, **TINY)
    (record,) = loop.train(config, tmp_path / "run")
    whole = record["train/mse_loss"] + record[f"train/{part}"]
    assert record["loss_ratio/vq_loss"] == pytest.approx(record[f"train/{part}"] / whole)


@pytest.mark.parametrize("quantizer", ["ema", "rotation", "vq", "simvq"])
def test_what_counts_as_having_a_gradient_has_one(quantizer: str) -> None:
    config = SMALL.replace(quantizer=quantizer)
    model = LatentActionModel(config, SHAPE).train()
    model(latents())
    value = losses.terms(model, latents(), model(latents()), None)["codebook_loss"].mean()
    assert value.requires_grad == (losses.with_gradient(config)["vq_loss"] == "vq_loss")


def test_where_the_picture_changes_is_the_mean_squared_change_of_each_cell(tiny_data: Path) -> None:
    windows = open_split(RunConfig(data_dir=str(tiny_data), sequence_length=4), "train")
    x = windows.batch(np.arange(len(windows))).latents.double().numpy()
    moved = ((x[:, 1:] - x[:, :-1]) ** 2).mean((0, 1, 2))
    found = change.relative(change.differences(windows)).numpy()
    np.testing.assert_allclose(found, moved / moved.mean(), rtol=1e-5)


@dataclass
class Moving:
    """Windows in which stripes wander by one cell a frame and a single cell flickers by chance."""

    latents: torch.Tensor
    latent_shape: tuple[int, int, int] = (1, 8, 8)

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, index: Any) -> Any:
        return SimpleNamespace(latents=self.latents[torch.as_tensor(index)])


def moving(flicker: float) -> Moving:
    random = np.random.default_rng(0)
    x = np.zeros((400, 3, 1, 8, 8), np.float32)
    for frame in range(3):
        on = (np.arange(8)[None, :] - np.arange(400)[:, None] - frame) % 3 == 0
        x[:, frame, 0] = on[:, :, None]
        x[:, frame, 0, 5, 5] += flicker * random.choice([-1.0, 1.0], 400)
    return Moving(torch.from_numpy(x))


def test_what_moves_by_itself_is_no_innovation() -> None:
    windows: Any = moving(flicker=0.5)
    by_difference = change.relative(change.differences(windows))
    by_innovation = change.relative(change.innovations(windows))
    assert by_difference.max() < 4
    assert by_innovation.argmax() == 5 * 8 + 5
    assert by_innovation[5, 5] > 30
    assert by_innovation.mean() == pytest.approx(1)
    still: Any = Moving(torch.ones(9, 3, 1, 8, 8))
    np.testing.assert_array_equal(change.innovations(still), np.zeros((8, 8)))


def test_the_change_weight_leans_on_those_cells_and_validation_stays_plain(tiny_data: Path, tmp_path: Path) -> None:
    config = RunConfig(data_dir=str(tiny_data), change_weight=3.0, reconstruction_weight=0.5,
                       **{**TINY, "steps_per_epoch": 1})
    (record,) = loop.train(config, tmp_path / "run")
    windows = open_split(config, "train")
    moved = change.relative(change.innovations(windows))
    model = LatentActionModel(config, windows.latent_shape)  # starts at the copy baseline
    x = windows.batch(np.arange(8)).latents
    with torch.no_grad():
        values = losses.terms(model, x, model(x), None, emphasis_HW=3.0 * moved)
    expected = 0.5 * 3.0 * ((x[:, 1:] - x[:, :-1]) ** 2 * moved).mean()
    assert float(values["change_loss"].mean()) == pytest.approx(float(expected), rel=1e-5)
    parts = 0.5 * record["train/mse_loss"] + record["train/vq_loss"] + record["train/rollout_loss"]
    assert record["train/loss"] == pytest.approx(parts + record["train/change_loss"], rel=1e-5)
    assert "val/change_loss" not in record
    assert record["val/loss"] == pytest.approx(
        0.5 * record["val/mse_loss"] + record["val/vq_loss"] + record["val/rollout_loss"], rel=1e-6)


def test_the_change_weight_falls_to_0_and_stays_where_no_decay_is_asked_for() -> None:
    config = SMALL.replace(change_weight=3.0, change_weight_decay_epochs=2)
    found = [change.weight(config, step, 10) for step in (1, 11, 20, 21, 30)]
    assert found == pytest.approx([3.0, 1.5, 0.15, 0.0, 0.0])
    assert change.weight(SMALL.replace(change_weight=3.0), 99, 10) == 3.0


# ---- the model


def test_the_encoder_sees_the_change_of_a_patch_and_no_later_frame() -> None:
    torch.manual_seed(0)
    encoder = LatentActionModel(SMALL.replace(frame_difference=True), SHAPE).encoder
    patches = torch.randn(2, 6, 4, 32)
    z_e, later = encoder(patches), patches.clone()
    later[:, 4:] += 1
    assert torch.equal(encoder(later)[:, 2], z_e[:, 2])
    with torch.no_grad():
        encoder.embed_change.weight.zero_()
    assert not torch.allclose(encoder(patches), z_e)


@pytest.mark.parametrize("depth", [3, 12])
def test_the_size_of_the_tokens_grows_with_depth_under_film_and_not_under_adaln(depth: int) -> None:
    sizes = {}
    for name in ("film", "adaln"):
        torch.manual_seed(0)
        config = SMALL.replace(action_modulation=name, decoder_depth=depth, embed_dim=64)
        decoder = LatentActionModel(config, SHAPE).decoder
        for block in decoder.blocks:  # the blocks' own part aside
            for parameter in (*block.space.out.parameters(), *block.time.out.parameters(), *block.mlp[2].parameters()):
                torch.nn.init.zeros_(parameter)
        found: list[Tensor] = []
        decoder.norm.register_forward_hook(lambda _, given, __, found=found: found.append(given[0]))
        decoder(torch.randn(8, 5, 4, 32), torch.randn(8, 5, 3, 8))
        sizes[name] = float(found[0].detach().pow(2).mean().sqrt())
    assert sizes["adaln"] < 1.0
    assert sizes["film"] > (1.15 if depth == 3 else 2.5) * sizes["adaln"]


def test_actions_reach_the_prediction_under_adaln_once_it_has_learned() -> None:
    taken = stepper(action_modulation="adaln", learning_rate=1e-2)
    for _ in range(3):
        taken.step(latents(), 1)
    model = taken.model.eval()
    frames, actions = latents()[:, :-1], torch.randn(4, 5, 3, 8)
    assert not torch.allclose(model.decode(frames, actions), model.decode(frames, -actions))


def test_a_pass_without_a_rollout_keeps_no_memory() -> None:
    model = LatentActionModel(SMALL, SHAPE)
    assert model(latents(), remember=False).memory == []
    assert len(model(latents()).memory) == SMALL.decoder_depth
    kept: list[bool] = []
    taken = stepper()
    forward = taken.model.forward
    taken.model.forward = lambda x, remember=True: kept.append(remember) or forward(x, remember)  # type: ignore
    taken.step(latents(), None)
    taken.step(latents(), 1)
    assert kept == [False, True]
