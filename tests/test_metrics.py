"""The metric table: the frozen keys, the views against compute, the generated page, what a run really writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lam import docs, metrics
from lam.config import RunConfig
from lam.metrics import DATA_STATS, TABLE, TFLOPS_VIEWS, better, with_tflops
from lam.model.lam import LatentActionModel
from lam.training import vitals
from lam.training.loop import train
from lam.training.sums import Spread, Sums
from record.run import RunFolder
from record.workload.metric import RECORD_KEYS

LOSSES = ("loss", "loss_mae", "mse_loss", "mae_loss", "vq_loss", "codebook_loss", "commitment_loss", "rollout_loss",
          "rollout_loss_mae", "recon_loss")
TRAIN = ("codebook_usage", "lr", "kl_weight", "grad_norm", "grad_norm_mean", "grad_norm_std", "grad_norm_max",
         "grad_norm_min", "batch_loss_mean", "batch_loss_std", "batch_loss_max", "batch_loss_min", "batch_loss_cv",
         "loss_decrease", "loss_decrease_pct", "is_improving", "update_ratio_encoder", "update_ratio_decoder",
         "update_ratio_codebook")
VAL = ("action_sensitivity_l2", "action_sensitivity_l1", "action_sensitivity_mae", "action_sensitivity_cos", "dsnr",
       "d_action_l2", "d_rand_l2", "d_action_eps_l2", "d_action_l1", "d_rand_l1", "d_action_mae", "d_rand_mae",
       "codebook_usage", "codebook_unique_total", "codebook_usage_ratio", "codebook_histogram")
OTHERS = ("total_tflops", "model/weight_mean", "model/weight_std", "model/weight_max", "model/ema_diff",
          "loss_ratio/mse_loss", "loss_ratio/vq_loss", "loss_ratio/rollout_loss", "validation/gen_std",
          "validation/gen_mean", "validation/gen_range")
VIEWS = {
    *(f"tflops/{split}_{name}" for split in ("train", "val") for name in (
        "loss_mse", "loss_mae", "recon_mse", "recon_mae", "rollout_mse", "rollout_mae", "vq_loss")),
    "tflops/val_dsnr", "tflops/x_axis",
}
DATA = {f"data_stats/{name}" for name in ("normalized_mean", "normalized_std", "normalized_min", "normalized_max",
                                          "{channel_name}_mean", "{channel_name}_std")}
CONFIG = RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=16, codebook_dim=4,
                   sequence_length=4, batch_size=8, steps_per_epoch=3, num_epochs=2, threads=1, device="cpu",
                   sample_count=0)


def test_frozen_keys() -> None:
    frozen = {*(f"{split}/{name}" for split in ("train", "val") for name in LOSSES),
              *(f"train/{name}" for name in TRAIN), *(f"val/{name}" for name in VAL), *OTHERS}
    assert frozen <= set(TABLE)
    assert set(TFLOPS_VIEWS) == VIEWS
    assert set(DATA_STATS) == DATA


def test_every_view_names_a_metric() -> None:
    assert set(TFLOPS_VIEWS.values()) <= set(TABLE)


def test_views_repeat_the_numbers_that_are_there() -> None:
    record = {"epoch": 1, "total_tflops": 2.0, "train/loss": 0.5, "val/dsnr": math.nan}
    views = {key: value for key, value in with_tflops(record).items() if key not in record}
    assert math.isnan(views.pop("tflops/val_dsnr"))
    assert views == {"tflops/x_axis": 2.0, "tflops/train_loss_mse": 0.5}


def test_better_follows_the_direction_and_never_prefers_nan() -> None:
    assert better("val/objective", 0.2, 0.1)
    assert better("val/mse_loss", 0.1, 0.2)
    assert not better("val/mse_loss", math.nan, 0.2)
    assert better("val/mse_loss", 0.1, math.nan)
    with pytest.raises(ValueError, match="metric train/lr has no direction"):
        better("train/lr", 1, 2)


def test_generated_pages_are_fresh() -> None:
    assert docs.main(check=True) == 0


def test_a_page_without_a_metric_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    docs.main(check=False, folder=tmp_path)
    assert docs.main(check=True, folder=tmp_path) == 0
    monkeypatch.delitem(metrics.TABLE, "val/dsnr")
    assert docs.main(check=True, folder=tmp_path) == 1
    assert "docs/metrics.md is stale; run 'make docs'" in capsys.readouterr().out


def test_a_run_writes_every_key_of_the_table_but_the_named_ones(tiny_data: Path, tmp_path: Path) -> None:
    records = list(train(CONFIG.replace(data_dir=str(tiny_data), change_weight=1.0, action_weight=0.1), tmp_path))
    first = {"train/loss_decrease", "train/loss_decrease_pct", "train/is_improving"}
    elsewhere = {"model/ema_diff", *(key for key in TABLE if key.startswith("val/probe") or key.endswith("_by_source"))}
    assert set(records[0]) == {*TABLE, *RECORD_KEYS} - first - elsewhere
    assert set(records[1]) == {*TABLE, *RECORD_KEYS} - elsewhere
    stats = RunFolder(tmp_path).identity()["data_stats"]
    assert {key.replace("channel_03", "{channel_name}") for key in stats} >= DATA
    assert len(stats) == 4 + 2 * 16


def test_averaged_weights_are_compared(tiny_data: Path, tmp_path: Path) -> None:
    records = list(train(CONFIG.replace(data_dir=str(tiny_data), average_weights=0.9, num_epochs=1), tmp_path))
    assert 0 < records[0]["model/ema_diff"] < 0.1


def test_numbers_of_the_steps() -> None:
    found = vitals.of_steps(spread(1.0, 3.0), spread(0.5, 0.7, 0.9))
    assert found["train/grad_norm_mean"] == 2
    assert found["train/grad_norm_std"] == 1
    assert (found["train/grad_norm_max"], found["train/grad_norm_min"]) == (3, 1)
    assert found["train/batch_loss_std"] == pytest.approx(math.sqrt(0.08 / 3))
    assert found["train/batch_loss_cv"] == pytest.approx(math.sqrt(0.08 / 3) / 0.7)
    assert math.isnan(vitals.of_steps(spread(1.0), spread(0.0, 0.0))["train/batch_loss_cv"])


def spread(*values: float) -> Spread:
    found = Spread()
    for value in values:
        found.add(value)
    return found


def test_running_sums_are_those_of_the_columns_and_do_not_grow_with_the_steps() -> None:
    rng = np.random.default_rng(0)
    columns = {"loss": 1e3 + rng.random(500), "grad_norm": np.where(rng.random(500) < 0.1, math.nan, rng.random(500))}
    sums, sizes = Sums(), []
    for values in zip(*columns.values(), strict=True):
        sums.add(dict(zip(columns, values, strict=True)))
        sizes.append(len(json.dumps(sums.state())))
    for name, column in columns.items():
        found = sums.of[name]
        assert found.mean == pytest.approx(np.nanmean(column), rel=1e-12)
        assert found.std == pytest.approx(np.nanstd(column), rel=1e-9)
        assert (found.low, found.high) == (np.nanmin(column), np.nanmax(column))
    assert sums.mean("grad_norm") == pytest.approx(np.nan_to_num(columns["grad_norm"]).mean(), rel=1e-12)
    assert max(sizes) < 2 * sizes[0] + 100
    again, listed = Sums(), Sums()
    again.restore(json.loads(json.dumps(sums.state())))
    listed.restore([{"loss": 1.0}, {"loss": 3.0}])  # as an older version saved them
    assert again.of["loss"] == sums.of["loss"]
    assert listed.of["loss"].mean == 2


def test_a_loss_that_is_not_a_number_spoils_the_mean_and_a_rollout_that_was_not_run_does_not() -> None:
    sums = Sums()
    for values in ({"loss": 1.0, "rollout_loss": math.nan}, {"loss": math.nan, "rollout_loss": 2.0}):
        sums.add(values)
    assert all(math.isnan(each) for each in (sums.of["loss"].mean, sums.of["loss"].std, sums.of["loss"].high))
    assert sums.of["rollout_loss"].mean == 2


def test_ratios_count_a_step_without_the_term_as_nothing() -> None:
    sums = Sums()
    for rollout in (math.nan, 4.0):
        sums.add({"mse_loss": 1.0, "rollout_loss": rollout})
    ratios = vitals.loss_ratios({"mse_loss": sums.mean("mse_loss"), "rollout_loss": 0.5 * sums.mean("rollout_loss")})
    assert ratios == {"loss_ratio/mse_loss": 0.5, "loss_ratio/rollout_loss": 0.5}


def test_progress_is_absent_in_the_first_epoch() -> None:
    assert vitals.progress(None, 1.0) == {}
    assert vitals.progress(2.0, 1.5) == {
        "train/loss_decrease": 0.5, "train/loss_decrease_pct": 25.0, "train/is_improving": 1}
    assert vitals.progress(1.0, 1.0)["train/is_improving"] == 0


def test_weights_are_those_of_the_tensors_named_weight() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    with torch.no_grad():
        for value, layer in zip((1.0, 3.0), layers, strict=True):
            layer.weight.fill_(-value)
            layer.bias.fill_(100)
        layers[0].weight[0, 0] = 9.0
    found = vitals.of_weights(layers)
    assert found == {
        "model/weight_mean": 3.0, "model/weight_std": 0.0, "model/weight_max": 3.0, "model/weight_abs_max": 9.0}


def test_update_ratio_tells_a_frozen_part_from_one_that_moves() -> None:
    model = LatentActionModel(CONFIG, (16, 8, 8))
    before = vitals.snapshot(model)
    assert set(vitals.update_ratios(model, before).values()) == {0.0}
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(1.01)
        model.quantizer.books[0].codes_KQ[0] += 1  # a revival
    ratios = vitals.update_ratios(model, before)
    assert ratios["train/update_ratio_encoder"] == 0
    assert ratios["train/update_ratio_decoder"] == pytest.approx(0.01, rel=1e-4)
    assert ratios["train/update_ratio_codebook"] > 0.1
    without_codes = LatentActionModel(CONFIG.replace(quantizer="none"), (16, 8, 8))
    assert set(vitals.snapshot(without_codes)) == {"encoder", "decoder"}
