"""True actions in training: which ones, what they change, and that a validation never scores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lam.config import RunConfig, from_mapping
from lam.data.windows import open_split
from lam.model.lam import LatentActionModel
from lam.schema import BEFORE
from lam.training import loop
from lam.training.guidance import labels
from lam.training.guidance.labels import ActionHead, Labels
from lam.training.stepping import Stepper
from lam.training.sums import Sums
from record.errors import BadData
from record.run import RunFolder

SMALL = RunConfig(embed_dim=16, head_dim=16, patch_dim=16, codebook_dim=8, num_embeddings=4, encoder_depth=1,
                  decoder_depth=1, sequence_length=4, batch_size=8, steps_per_epoch=4, num_epochs=2, warmup_steps=0,
                  learning_rate=3e-3, sample_count=0, threads=1, action_weight=0.5)


def trained(data: Path, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    return list(loop.train(SMALL.replace(data_dir=str(data), **changes), folder))


def of_train(data: Path, **changes: Any) -> Labels:
    config = SMALL.replace(data_dir=str(data), **changes)
    return Labels(config, open_split(config, "train"))


def test_a_share_is_drawn_the_same_way_always_and_a_smaller_one_is_part_of_it(tiny_data: Path) -> None:
    some, fewer, again = (of_train(tiny_data, labels={"share": share}) for share in (0.5, 0.2, 0.5))
    every = of_train(tiny_data)
    assert every.count == sum(len(actions) - 1 for actions in every.actions)
    assert 0.35 < some.count / every.count < 0.65
    assert 0.1 < fewer.count / every.count < 0.3
    for all_, part, less, same in zip(every.actions, some.actions, fewer.actions, again.actions, strict=True):
        assert (part == same).all()
        assert (part[part >= 0] == all_[part >= 0]).all()
        assert ((less < 0) | (less == part)).all()


def test_labels_of_named_files_alone_are_used(tiny_data: Path) -> None:
    windows = open_split(SMALL.replace(data_dir=str(tiny_data)), "train")
    found = of_train(tiny_data, labels={"files": [windows.files[1]]})
    assert [bool((actions >= 0).any()) for actions in found.actions] == [name == windows.files[1]
                                                                        for name in windows.files]


def test_a_video_that_scores_cannot_teach(tiny_data: Path, tmp_path: Path) -> None:
    scored = open_split(SMALL.replace(data_dir=str(tiny_data)), "validation").files[0]
    with pytest.raises(BadData, match=rf"labels.files: got '{scored}', which is no usable file of the training split"):
        trained(tiny_data, tmp_path, labels={"files": [scored]})


def test_no_label_to_learn_from_is_said_before_anything_is_trained(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"action_weight: got 0.5, and the training split holds no true action"):
        trained(tiny_data, tmp_path / "run", labels={"share": 1e-9})
    assert not (tmp_path / "run").exists()


def test_each_transition_has_the_action_that_led_into_its_second_frame(tiny_data: Path) -> None:
    config = SMALL.replace(data_dir=str(tiny_data))
    windows = open_split(config, "train")
    batch = windows.batch(np.array([0, 7, 30]))
    assert (Labels(config, windows).of(batch) == batch.actions[:, 1:]).all()


def test_the_loss_is_the_mean_over_the_labels_of_a_batch_in_parts_or_not(tiny_data: Path, tmp_path: Path) -> None:
    one, parts = (trained(tiny_data, tmp_path / str(count), accumulate_parts=count, num_epochs=1)[0]
                  for count in (1, 3))
    assert one["train/action_loss"] == pytest.approx(parts["train/action_loss"], rel=1e-4)
    plain = sum(one[f"train/{name}"] for name in ("mse_loss", "vq_loss", "rollout_loss"))
    assert one["train/loss"] == pytest.approx(plain + 0.5 * one["train/action_loss"], rel=1e-5)
    assert one["train/labels"] == of_train(tiny_data).count
    assert "val/action_loss" not in one


def test_the_head_is_a_linear_softmax_on_the_code() -> None:
    head = ActionHead(SMALL, 3)
    z_q = torch.randn(2, 3, SMALL.num_codes, SMALL.codebook_dim, requires_grad=True)
    actions = torch.tensor([[0, -1, 2], [-1, -1, 1]])
    assert head.loss(z_q, actions, teach=True).item() == pytest.approx(3 * np.log(3))  # it starts without an opinion
    with torch.no_grad():
        head.weight_AC.normal_()
    logits = z_q.flatten(2) @ head.weight_AC.T + head.bias_A
    expected = F.cross_entropy(logits[actions >= 0], actions[actions >= 0], reduction="sum")
    assert head.loss(z_q, actions, teach=True).item() == pytest.approx(expected.item())
    head.loss(z_q, actions, teach=False).backward()
    assert head.weight_AC.grad is not None
    assert z_q.grad is None


def test_codes_are_left_alone_until_the_head_has_learned(tiny_data: Path, tmp_path: Path) -> None:
    """Up to the epoch named, training is what it is without labels; from then on the labels move the codes."""
    alone, late = (trained(tiny_data, tmp_path / str(number), num_epochs=3, **changes) for number, changes in
                   enumerate(({"action_weight": 0.0}, {"action_start_epoch": 2})))
    assert [one["train/mse_loss"] == other["train/mse_loss"] for one, other in zip(alone, late, strict=True)] == [
        True, True, False]
    assert late[0]["train/action_loss"] != pytest.approx(np.log(3), abs=1e-3)  # the head is learning


def test_a_batch_without_a_label_has_no_action_loss_and_trains_on(tiny_data: Path) -> None:
    config = SMALL.replace(data_dir=str(tiny_data))
    windows = open_split(config, "train")
    stepper = Stepper(config, LatentActionModel(config, windows.latent_shape), 4, kinds=3)
    batch = windows.batch(np.arange(8))
    without = stepper.step(batch.latents, None, torch.full_like(batch.actions[:, 1:], -1))
    assert np.isnan(without["action_loss"])
    assert np.isfinite(without["loss"])
    sums = Sums()
    sums.add(without)
    sums.add(stepper.step(batch.latents, None, batch.actions[:, 1:]))
    assert (sums.of["action_loss"].count, sums.of["loss"].count) == (1, 2)


def test_labels_move_the_encoder(tiny_data: Path) -> None:
    config = SMALL.replace(data_dir=str(tiny_data))
    windows = open_split(config, "train")
    batch, model, head = windows.batch(np.arange(8)), LatentActionModel(config, windows.latent_shape), ActionHead(
        config, 3)
    with torch.no_grad():
        head.weight_AC.normal_()
    head.loss(model(batch.latents).quantized.z_q, batch.actions[:, 1:], teach=True).backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())
    assert all(parameter.grad is None for parameter in model.decoder.parameters())


def test_a_record_of_before_was_trained_without_labels(tiny_data: Path) -> None:
    old = SMALL.replace(action_weight=0.0).mapping()
    for key in ("action_weight", "action_start_epoch", "labels"):
        del old[key]
    read = from_mapping({**old, **{key: BEFORE[key] for key in ("slots",)}}, source="config.yaml")
    assert read.action_weight == 0
    assert "labels" not in read.mapping()
    assert read.fingerprint() == SMALL.replace(action_weight=0.0).replace(slots="parallel").fingerprint()


def test_the_head_goes_on_where_it_was(tiny_data: Path, tmp_path: Path) -> None:
    whole = trained(tiny_data, tmp_path / "whole")
    first = loop.train(SMALL.replace(data_dir=str(tiny_data)), tmp_path / "cut")
    next(first)
    first.close()
    rest = trained(tiny_data, tmp_path / "cut")
    assert [record["epoch"] for record in rest] == [2]
    assert rest[0]["train/action_loss"] == whole[1]["train/action_loss"]
    assert len(RunFolder(tmp_path / "cut").metrics()) == 2


def test_a_draw_knows_nothing_of_the_number_of_frames() -> None:
    assert (labels.drawn("a.h5", 50, 0.3) == labels.drawn("a.h5", 80, 0.3)[:50]).all()
