"""Training: records, resuming bit for bit, divergence, refusals."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lam.config import RunConfig, of_run
from lam.data import windows as data
from lam.evaluation import draws, measure
from lam.inference import exporting
from lam.metrics import TABLE
from lam.model.lam import LatentActionModel
from lam.training import checkpoints
from lam.training.loop import learning_rate, train
from record import files
from record.errors import BadInput
from record.run import RunFolder
from record.workload.metric import RECORD_KEYS

TIMES = {"seconds", "train_seconds", "train/samples_per_second"}

# train/* of five one-step epochs. After a change that is meant, take the new numbers from the failure's message; those
# of the guide's model were written by version 0.1.0 and stay.
GUIDE = {"slots": "parallel", "quantizer": "vq", "codebook_init": "uniform", "vq_refresh_interval": 0,
         "normalize_codes": False, "predict_residual": False, "weight_decay": 0.0}
GOLDEN: dict[str, tuple[dict[str, Any], dict[str, list[float]]]] = {
    "guide": (GUIDE, {
        "loss": [1.819316, 2.098111, 2.085874, 1.743388, 2.171932],
        "mse_loss": [0.9389532, 0.8926235, 1.041248, 0.8451872, 1.067465],
        "vq_loss": [0.1340551, 0.1075296, 0.04406429, 0.03063696, 0.03038453],
        "rollout_loss": [0.7463078, 1.097957, 1.000562, 0.867564, 1.074082],
        "grad_norm": [0.4214086, 0.3657582, 0.1591333, 0.1490991, 0.152407],
    }),
    "default": ({}, {
        "loss": [2.884612, 3.726477, 3.562409, 3.198478, 3.978543],
        "mse_loss": [1.427536, 1.613788, 1.761223, 1.382173, 1.841337],
        "vq_loss": [0.009048955, 0.07360192, 0.03240407, 0.01776557, 0.01565678],
        "rollout_loss": [1.448027, 2.039086, 1.768782, 1.798539, 2.121549],
        "grad_norm": [0.1167248, 0.3789603, 0.1991036, 0.1135358, 0.1507108],
    }),
}


@pytest.fixture
def config(tiny_data: Path) -> RunConfig:
    return RunConfig(
        data_dir=str(tiny_data), sequence_length=4, embed_dim=16, encoder_depth=1, decoder_depth=1, head_dim=8,
        patch_dim=16, codebook_dim=8, num_codes=2, batch_size=8, steps_per_epoch=4, num_epochs=3, learning_rate=3e-3,
        warmup_steps=4, vq_refresh_interval=3, eval_sequences=24, threads=1,
    )


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [files.jsonable({key: value for key, value in record.items() if key not in TIMES}) for record in records]


def test_every_key_of_a_record_is_in_the_table(config: RunConfig, tmp_path: Path) -> None:
    for record in train(config, tmp_path / "run"):
        assert set(record) <= set(TABLE) | set(RECORD_KEYS)
        for key in ("train/loss", "val/objective", "val/dsnr_status", "val/codebook_histogram", "total_tflops"):
            assert key in record


def test_numbers_lie_in_their_bounds(config: RunConfig, tmp_path: Path) -> None:
    for record in train(config, tmp_path / "run"):
        for key, value in record.items():
            if key in TABLE and isinstance(value, (int, float)) and math.isfinite(value):
                low, high = TABLE[key].bounds
                assert low - 1e-6 <= value <= high + 1e-6, key


@pytest.mark.parametrize("stop_after", [1, 2])
def test_stopped_and_resumed_equals_uninterrupted(config: RunConfig, tmp_path: Path, stop_after: int) -> None:
    whole = list(train(config, tmp_path / "whole"))
    epochs = train(config, tmp_path / "cut")
    for _ in range(stop_after):
        next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    assert RunFolder(tmp_path / "cut").identity()["state"] == "interrupted"
    list(train(config, tmp_path / "cut"))
    assert without_times(RunFolder(tmp_path / "cut").metrics()) == without_times(whole)
    for name in ("best.safetensors",):
        same = [(tmp_path / folder / "checkpoints" / name).read_bytes() for folder in ("whole", "cut")]
        assert same[0] == same[1]


def test_kill_between_record_and_checkpoint_is_repaired(config: RunConfig, tmp_path: Path) -> None:
    whole = list(train(config, tmp_path / "whole"))
    epochs = train(config, tmp_path / "cut")
    next(epochs)
    saved = (tmp_path / "cut/checkpoints/last.pt").read_bytes()
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    (tmp_path / "cut/checkpoints/last.pt").write_bytes(saved)
    with open(tmp_path / "cut/metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "train/lo')
    list(train(config, tmp_path / "cut"))
    assert without_times(RunFolder(tmp_path / "cut").metrics()) == without_times(whole)


def test_finished_run_has_nothing_to_do_and_keeps_only_the_best_weights(config: RunConfig, tmp_path: Path) -> None:
    list(train(config, tmp_path / "run"))
    assert list(train(config, tmp_path / "run")) == []
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["best.safetensors"]
    assert len(RunFolder(tmp_path / "run").metrics()) == 3


def test_samples_are_pictures_of_the_best_epoch(config: RunConfig, tmp_path: Path) -> None:
    list(train(config, tmp_path / "run"))
    (path,) = (tmp_path / "run/samples").iterdir()
    with np.load(path) as strips:
        assert strips["pictures"].shape == (4, 4, 64, 64, 3)
        assert strips["pictures"].dtype == np.uint8
        assert strips["pictures"].std() > 1
        assert strips["codes"].shape == (4, 2, 2)
        assert list(strips["action_names"]) == data.action_names(config)


def test_diverging_run_ends_as_failed_with_the_step_and_the_remedy(config: RunConfig, tmp_path: Path) -> None:
    records = list(train(config.replace(learning_rate=1e18, grad_clip=1e30, warmup_steps=0), tmp_path / "run"))
    assert math.isnan(records[-1]["train/loss"])
    assert "val/objective" not in records[-1]
    known = RunFolder(tmp_path / "run").identity()
    assert known["state"] == "failed"
    assert "the loss stopped being finite at step" in known["reason"]
    assert "lower learning_rate (now 1e+18)" in known["reason"]


def test_folder_of_another_config_is_refused(config: RunConfig, tmp_path: Path) -> None:
    next(train(config, tmp_path / "run"))
    with pytest.raises(BadInput, match=r"holds a run with another config \(embed_dim: 16 -> 32\); name another folder"):
        next(train(config.replace(embed_dim=32), tmp_path / "run"))


def test_an_interrupted_run_is_prolonged_and_moved(config: RunConfig, tmp_path: Path, tiny_data: Path) -> None:
    epochs = train(config.replace(num_epochs=2), tmp_path / "run")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    shutil.copytree(tiny_data, tmp_path / "elsewhere")
    moved = config.replace(num_epochs=3, data_dir=str(tmp_path / "elsewhere"), keep="all", eval_batch_size=7)
    assert [record["epoch"] for record in train(moved, tmp_path / "run")] == [2, 3]
    assert of_run(RunFolder(tmp_path / "run")) == moved


def test_a_run_prolonged_is_the_longer_run_bit_for_bit(config: RunConfig, tmp_path: Path) -> None:
    config = config.replace(keep="all", device="cpu", lr_decay_epochs=8, steps_per_epoch=2)
    records = list(train(config.replace(num_epochs=5), tmp_path / "run"))
    assert RunFolder(tmp_path / "run").identity()["state"] == "finished"
    records += list(train(config.replace(num_epochs=8), tmp_path / "run"))
    whole = list(train(config.replace(num_epochs=8), tmp_path / "whole"))
    assert without_times(records) == without_times(whole)
    for name in ("best", "last"):
        one, other = ((tmp_path / run / "checkpoints" / f"{name}.safetensors").read_bytes() for run in ("run", "whole"))
        assert one == other
    assert list(train(config.replace(num_epochs=8), tmp_path / "run")) == []


def test_a_run_prolonged_says_where_the_schedule_does_not_allow_equality(
    config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config.replace(keep="all", val_every=2, steps_per_epoch=1)
    list(train(config.replace(num_epochs=3), tmp_path / "run"))
    assert "validated as the last one" not in caplog.text
    records = list(train(config.replace(num_epochs=4), tmp_path / "run"))
    assert "epoch 3 was validated as the last one, which val_every 2 leaves out: a run of 4 epochs" in caplog.text
    assert ["val/mse_loss" in record for record in RunFolder(tmp_path / "run").metrics()] == [False, True, True, True]
    assert len(records) == 1


def test_a_run_begins_with_the_weights_of_another(config: RunConfig, tmp_path: Path) -> None:
    list(train(config.replace(num_epochs=2), tmp_path / "first"))
    tuned = config.replace(init_from=str(tmp_path / "first"), num_epochs=1, steps_per_epoch=1, learning_rate=1e-9,
                           device="cpu", quantizer="ema")
    list(train(tuned, tmp_path / "tuned"))
    first, then = (load_file(tmp_path / run / "checkpoints/best.safetensors") for run in ("first", "tuned"))
    for name in ("encoder.embed.weight", "encoder.head.weight", "decoder.head.weight", "adapter_out.weight"):
        assert torch.allclose(first[name], then[name], atol=1e-6), name
    exporting.export(tmp_path / "first", tmp_path / "export")
    records = [list(train(tuned.replace(init_from=str(tmp_path / where)), tmp_path / f"from-{where}"))
               for where in ("first", "export")]
    assert without_times(records[0]) == without_times(records[1])


def test_a_run_cut_off_before_its_first_checkpoint_still_begins_with_those_weights(config: RunConfig,
                                                                                 tmp_path: Path) -> None:
    list(train(config, tmp_path / "first"))
    tuned = config.replace(init_from=str(tmp_path / "first"), num_epochs=1)
    whole = list(train(tuned, tmp_path / "whole"))
    folder = RunFolder(tmp_path / "run")
    known = {key: value for key, value in RunFolder(tmp_path / "whole").identity().items() if key != "schema"}
    folder.start(tuned.mapping(), known | {"state": "running"})
    assert without_times(list(train(tuned, folder.path))) == without_times(whole)


@pytest.mark.parametrize(("changes", "message"), [
    ({"embed_dim": 32}, r"best.safetensors:init_from: holds another model: \d+ of its tensors differ, first "
     r"encoder.queries_SE \(\[1, 16\], this config needs \[1, 32\]\)"),
    ({"init_from": "nowhere"}, "config:init_from: got 'nowhere', which holds no weights; name a run"),
])
def test_weights_of_another_model_are_refused(changes: dict[str, Any], message: str, config: RunConfig,
                                              tmp_path: Path) -> None:
    list(train(config.replace(num_epochs=1, steps_per_epoch=1), tmp_path / "first"))
    with pytest.raises(BadInput, match=message):
        next(train(config.replace(**{"init_from": str(tmp_path / "first"), **changes}), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_that_kept_no_state_cannot_be_prolonged(config: RunConfig, tmp_path: Path) -> None:
    config = config.replace(num_epochs=1, steps_per_epoch=1)
    list(train(config, tmp_path / "run"))
    with pytest.raises(BadInput, match=r"num_epochs: got 2, and the run in .* has finished after 1 epochs: what a "
                       r"resume needs was deleted; .* --set init_from=.*; keep: all would have kept it"):
        next(train(config.replace(num_epochs=2), tmp_path / "run"))


def test_a_run_that_was_stopped_keeps_no_resume_state_and_stays_as_it_is(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    epochs = train(config, folder.path)
    next(epochs)
    folder.stop("it was not among the best", for_good=True)
    epochs.close()  # type: ignore[attr-defined]
    known = folder.identity()
    assert (known["state"], known["reason"]) == ("stopped", "it was not among the best")
    assert not (folder.checkpoints / "last.pt").exists()
    assert list(train(config, folder.path)) == []
    assert folder.identity() == known
    assert len(folder.metrics()) == 1


def test_a_run_that_was_stopped_for_now_goes_on_where_it_was(config: RunConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    epochs = train(config, folder.path)
    next(epochs)
    folder.stop("the budget is spent", for_good=False)
    epochs.close()  # type: ignore[attr-defined]
    assert folder.identity()["state"] == "stopped"
    assert [record["epoch"] for record in train(config, folder.path)] == [2, 3]
    assert folder.identity()["state"] == "finished"
    assert "reason" not in folder.identity()


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_losses_are_the_recorded_ones(config: RunConfig, tmp_path: Path, name: str) -> None:
    """What five steps of a seed give, on every CPU: a change here changes what training computes."""
    changes, golden = GOLDEN[name]
    golden_config = config.replace(num_codes=3, steps_per_epoch=1, num_epochs=5, sample_count=0, val_every=5,
                                   eval_sequences=8, **changes)
    records = list(train(golden_config, tmp_path / "run"))
    found = {key: [record[f"train/{key}"] for record in records] for key in golden}
    assert found == {key: pytest.approx(values, rel=1e-3) for key, values in golden.items()}


def test_resume_on_other_data_is_refused(config: RunConfig, tmp_path: Path, tiny_data: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    config = config.replace(data_dir=str(tmp_path / "data"))
    epochs = train(config, tmp_path / "run")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    names = sorted((tmp_path / "data").glob("*.h5"))
    shutil.copyfile(names[0], names[1])
    with pytest.raises(BadInput, match="the data changed since this run began"):
        next(train(config, tmp_path / "run"))


def test_damaged_checkpoint_names_the_file(config: RunConfig, tmp_path: Path) -> None:
    epochs = train(config, tmp_path / "run")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    path = tmp_path / "run/checkpoints/last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadInput, match=r"last\.pt: cannot be read as a checkpoint"):
        next(train(config, tmp_path / "run"))


def trained(config: RunConfig, folder: Path) -> tuple[LatentActionModel, data.Windows]:
    list(train(config, folder))
    windows = data.open_split(config, "validation", stride=1)
    model = LatentActionModel(config, windows.latent_shape)
    checkpoints.load_weights(folder / "checkpoints", "best", model)
    return model, windows


def test_evaluation_does_not_depend_on_the_batch_size_and_repeats_bit_for_bit(
    config: RunConfig, tmp_path: Path
) -> None:
    model, windows = trained(config, tmp_path / "run")
    records = [
        measure.evaluate(model, windows, config.replace(eval_batch_size=size)) for size in (1, 7, 32, 32)
    ]
    ones, sevens, whole, again = (files.jsonable(record) for record in records)
    assert whole == again
    for record in (ones, sevens):
        for word in ("val/dsnr_status", "val/objective_preset"):
            assert record.pop(word) == whole[word]
        for key, value in record.items():
            expected = whole[key]  # None: not defined on so few videos
            assert value == (expected if expected is None else pytest.approx(expected, rel=1e-5, abs=1e-5)), key


def test_evaluation_leaves_the_model_as_it_was(config: RunConfig, tmp_path: Path) -> None:
    model, windows = trained(config, tmp_path / "run")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure.evaluate(model.train(), windows, config)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_flipped_codes_differ_in_exactly_one_slot(config: RunConfig) -> None:
    for start in range(50):
        rand, slot, shift = draws.draw(config, "a.h5", start)
        assert rand.shape == (2,)
        assert 0 <= slot < 2
        assert 1 <= shift < config.num_embeddings
    again = [draws.draw(config, "a.h5", 7) for _ in range(2)]
    assert again[0][1:] == again[1][1:]
    assert np.array_equal(again[0][0], again[1][0])


def test_partners_are_others_at_the_same_place_of_their_chunks() -> None:
    places = np.random.default_rng(0).integers(2, size=101)
    found = draws.partners(places, 3)
    for partner in found:
        assert sorted(partner) == list(range(101))
        assert (partner != np.arange(101)).all()
        assert (places[partner] == places).all()
    assert len(np.unique(found[:, 0])) == draws.PARTNERS
    assert (draws.partners(np.array([0, 0, 1]), 3) == [[1, 0, 2]] * draws.PARTNERS).all()


def test_scored_sequences_lie_at_every_place_of_a_chunk_in_every_video() -> None:
    """Equal steps of two would score each video at one place alone."""
    videos, length = 8, 128
    index = draws.subset(videos * length, 512)
    assert len(np.unique(index)) == 512
    assert len(np.unique(draws.subset(160, 64))) == 64
    shares = [(index[index // length == video] % 2).mean() for video in range(videos)]
    assert min(shares) > 0.3
    assert max(shares) < 0.7
    assert (draws.subset(7, 512) == np.arange(7)).all()


def test_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    config = RunConfig(learning_rate=1.0, warmup_steps=10, lr_decay_epochs=10, num_epochs=20)
    assert learning_rate(config.replace(lr_decay_epochs=None), 5, 10) == pytest.approx(0.5)
    assert learning_rate(config, 100, 10) == pytest.approx(0.1)
    assert learning_rate(config, 150, 10) == pytest.approx(0.1)


def test_steps_are_logged_and_done_again_only_once(config: RunConfig, tmp_path: Path) -> None:
    config = config.replace(log_steps=2, checkpoint_steps=None)
    epochs = train(config, tmp_path / "run")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    folder = RunFolder(tmp_path / "run")
    folder.append_step({"epoch": 2, "step": 6})  # written after the checkpoint that the run goes on from
    list(train(config, folder.path))
    lines = list(files.read_json_lines(folder.steps_file))
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 2), (1, 4), (2, 6), (2, 8), (3, 10), (3, 12)]
    assert all(line["train/samples_per_second"] > 0 for line in lines)
    every = list(train(config.replace(log_steps=1), tmp_path / "every"))
    lines = list(files.read_json_lines(RunFolder(tmp_path / "every").steps_file))
    mean = np.mean([line["train/loss"] for line in lines if line["epoch"] == 2])
    assert mean == pytest.approx(every[1]["train/loss"])
    list(train(config.replace(log_steps=None, num_epochs=1), tmp_path / "none"))
    assert not (tmp_path / "none" / "steps.jsonl").exists()
