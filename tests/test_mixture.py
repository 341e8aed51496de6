"""Several folders of data as one: what a batch holds, what metrics say by folder, what is refused, what goes on."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import typed
from safetensors.torch import load_file

import lam
from lam import config as configs
from lam.config import RunConfig
from lam.data import manifest, mixture
from lam.data.windows import action_names, check, data_fingerprint, open_split, summary
from lam.labelling.labelling import Asked, label
from lam.schema import RESUMABLE
from lam.training.loop import train
from record import yamlio
from record.errors import BadInput
from record.run import RunFolder

SMALL: dict[str, Any] = {
    "sequence_length": 4, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16,
    "codebook_dim": 8, "num_codes": 1, "num_embeddings": 4, "steps_per_epoch": 3, "num_epochs": 2, "batch_size": 8,
    "threads": 1, "device": "cpu", "sample_count": 0, "warmup_steps": 2, "eval_sequences": 64, "keep": "all"}


def write(folder: Path, side: int = 4, videos: int = 4, names: list[str] | None = None, shift: float = 0.0) -> Path:
    folder.mkdir()
    for number in range(videos):
        random = np.random.default_rng((number, int(shift)))
        with h5py.File(folder / f"v{number}.h5", "w") as file:
            file["embeddings"] = (random.normal(size=(15, 6, 1, side, side)) + shift).astype(np.float32)
            file["actions"] = random.integers(0, 2, 15)
            if names:
                file.attrs["action_names"] = json.dumps(names)
    manifest.write_manifest(folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "near", names=["LEFT", "RIGHT"]), write(tmp_path / "far", names=["RIGHT", "UP"], shift=9.0)


def mixed(near: Path, far: Path, weights: tuple[float, float] = (1.0, 3.0), **more: Any) -> RunConfig:
    return RunConfig.model_validate({**SMALL, "data": [{"dir": str(near), "weight": weights[0]},
                                                       {"dir": str(far), "weight": weights[1]}], **more})


def test_batches_hold_each_folder_by_its_weight_and_none_twice_before_all_once() -> None:
    groups = [np.arange(30), np.arange(30, 90)]
    drawn = np.concatenate(list(mixture.batches(groups, [1, 3], 50, 40, (0, 1))))
    assert abs((drawn < 30).mean() - 0.25) < 0.03
    first = drawn[drawn < 30][:30]
    assert sorted(first.tolist()) == list(range(30))
    again = np.concatenate(list(mixture.batches(groups, [1, 3], 50, 40, (0, 1))))
    np.testing.assert_array_equal(drawn, again)
    assert not np.array_equal(drawn, np.concatenate(list(mixture.batches(groups, [1, 3], 50, 40, (0, 2)))))


def test_one_folder_is_drawn_as_it_always_was() -> None:
    """The order that runs of one folder were trained in before there were mixtures."""
    random, pool, expected = np.random.default_rng((7, 3)), np.empty(0, np.int64), []
    for _ in range(5):
        while len(pool) < 8:
            pool = np.concatenate([pool, random.permutation(20)])
        expected.append(pool[:8])
        pool = pool[8:]
    found = list(mixture.batches([np.arange(20)], [1.0], 8, 5, (7, 3)))
    np.testing.assert_array_equal(found, expected)


def test_actions_of_the_same_name_are_one_action(folders: tuple[Path, Path]) -> None:
    config = mixed(*folders)
    assert action_names(config) == ["LEFT", "RIGHT", "UP"]
    windows = open_split(config, "train")
    assert windows.sources == ["near", "far"]
    for number, name in enumerate(windows.files):
        with h5py.File(folders[windows.source_of[number]] / name.partition("/")[2]) as file:
            own = file["actions"][:]
            np.testing.assert_array_equal(windows.latents_of(number, 2, 3), file["embeddings"][2:5, :, 0])
        np.testing.assert_array_equal(windows.actions_of(number), own + windows.source_of[number])
    assert windows.batch(np.array([0, len(windows) - 1])).latents.mean((1, 2, 3, 4))[1] > 8


def test_numbers_without_names_beside_names_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = mixed(write(tmp_path / "near", names=["A", "B"]), write(tmp_path / "far"))
    windows = open_split(config, "train")
    assert "far: its actions have numbers without names" in caplog.text
    assert (windows.actions_of(len(windows.files) - 1) == -1).all()
    assert (windows.actions_of(0) >= 0).all()


def test_training_writes_metrics_by_folder_and_goes_on_bit_for_bit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = mixed(*folders)
    whole = list(train(config, tmp_path / "whole"))
    record = whole[-1]
    assert record["val/scored_transitions_by_source"] == [12, 12]
    for key in ("mse_loss", "mse_copy"):
        assert np.mean(record[f"val/{key}_by_source"]) == pytest.approx(record[f"val/{key}"])
    assert len(record["val/control_by_source"]) == len(record["val/action_skill_by_source"]) == 2
    assert RunFolder(tmp_path / "whole").identity()["data"]["sources"] == ["near", "far"]
    with contextlib.closing(train(config, tmp_path / "cut")) as epochs:  # type: ignore[type-var]
        next(epochs)
    moved = [Path(shutil.copytree(folder, tmp_path / "moved" / folder.name)) for folder in folders]
    rest = list(train(mixed(*moved), tmp_path / "cut"))
    assert [each["epoch"] for each in rest] == [2]
    assert rest[-1]["val/mse_loss"] == record["val/mse_loss"]
    weights = [load_file(tmp_path / name / "checkpoints/last.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    with pytest.raises(BadInput, match=r"holds a run with another config \(data: .*weight.*-> "):
        list(train(mixed(*moved, weights=(1.0, 1.0)), tmp_path / "cut"))


def test_a_mixture_is_evaluated_labelled_named_and_exported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = mixed(*folders)
    record = list(train(config, tmp_path / "run"))[-1]
    code, out, _ = typed.lam(tmp_path, "evaluate", "run", "--json")
    assert code == 0
    assert json.loads(out)["metrics"]["val/mse_loss_by_source"] == record["val/mse_loss_by_source"]
    done = label(Asked(str(tmp_path / "run"), folders[1], tmp_path / "codes.npz", device="cpu"))
    with np.load(done.out) as found:
        assert len(found["codes"]) == 4 * 14
        assert list(found["action_names"]) == ["LEFT", "RIGHT", "UP"]
    assert typed.lam(tmp_path, "export", "run", "-o", "model")[0] == 0
    shared = yamlio.load_mapping(tmp_path / "model" / "config.yaml")
    assert str(tmp_path) not in json.dumps(shared), "an export says nothing of its maker's folders"
    assert lam.load(tmp_path / "model", device="cpu").latent_shape == (6, 4, 4)


def test_the_data_are_told_by_content_and_the_config_by_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = mixed(*folders)
    moved = mixed(*(Path(shutil.copytree(folder, tmp_path / "m" / folder.name)) for folder in folders))
    assert data_fingerprint(config) == data_fingerprint(moved)
    assert config.comparable(RESUMABLE) == moved.comparable(RESUMABLE)
    assert config.comparable(RESUMABLE) != mixed(*folders, weights=(2.0, 1.0)).comparable(RESUMABLE)
    assert data_fingerprint(config) not in [data_fingerprint(RunConfig(data_dir=str(each))) for each in folders]
    assert configs.from_mapping(config.mapping(), source="record") == config
    assert summary(config)["files"] == 8


def test_paths_are_relative_to_the_yaml(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yamlio.dump_mapping({**SMALL, "data": [{"dir": "near"}, {"dir": "far"}]}))
    config = configs.relative_paths_from(configs.load(tmp_path / "run.yaml"), tmp_path)
    assert [part.dir for part in config.data] == [str(folder) for folder in folders]
    assert check(config).parts[1].shown("v0.h5") == "far/v0.h5"


@pytest.mark.parametrize(("data", "words"), [
    ([{"dir": "near", "weight": -1}, {"dir": "far"}], r"data\.0\.weight: got -1, .*greater than 0"),
    ([{"dir": "near"}, {"dir": "./near"}], "data has the dir near twice; raise its weight instead"),
    ([{"dir": "a/x"}, {"dir": "b/x"}], "data has the name x twice; give each a name of its own"),
    ([{"dir": "near", "wieght": 2}], r"data\.0\.wieght: unknown key"),
])
def test_what_is_no_mixture_is_said(data: list[Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        configs.from_mapping({**SMALL, "data": data}, source="run.yaml")
    with pytest.raises(BadInput, match="got data_dir there and data; leave data_dir out"):
        configs.from_mapping({**SMALL, "data_dir": "there", "data": [{"dir": "here"}]}, source="run.yaml")


def test_folders_of_another_shape_are_told_with_their_names(tmp_path: Path) -> None:
    config = mixed(write(tmp_path / "near"), write(tmp_path / "far", side=8))
    with pytest.raises(BadInput, match=r"far/v\d\.h5:embeddings: got 8 rows of latent cells, but near/v\d\.h5 has 4"):
        check(config)


def test_a_folder_without_labels_has_no_skill(tmp_path: Path) -> None:
    near, far = write(tmp_path / "near", names=["A", "B"]), write(tmp_path / "far")
    for path in far.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["actions"]
    record = list(train(mixed(near, far), tmp_path / "run"))[-1]
    assert math.isnan(record["val/action_skill_by_source"][1])


@pytest.mark.slow
def test_runs_of_a_mixture_are_reported(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for seed in (0, 1):
        list(train(mixed(*folders, seed=seed), tmp_path / f"run{seed}"))
    code, _, err = typed.lam(tmp_path, "report", "run0", "run1", "-o", "report.md")
    assert code == 0, err
    assert "near" in (tmp_path / "report.md").read_text()
