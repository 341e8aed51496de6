"""A data set that LeRobot wrote, alone and in a mixture that a sweep searches, through every door."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typed
from safetensors.torch import save_file
from test_data_readers import REAL
from test_doorsteps_data import RUN, WAIVED

import lam
from lam.data import manifest
from lam.evaluation import by_source
from record import yamlio
from record.run import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore")
WAIVE = [word for gate in WAIVED for word in ("--waive", gate, "--because", "a test")]
MIXTURE = [{"dir": "robots", "weight": 1}, {"dir": "games", "weight": 3}]
TRANSITIONS = 11 + 8 + 1 + 10 + 9  # of the episodes of 12, 9, 2, 11 and 10 frames


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeRobot's data set, a folder of safetensors of the same shape, a run's YAML and a sweep's."""
    room, random = tmp_path_factory.mktemp("robots"), np.random.default_rng(0)
    shutil.copytree(REAL, room / "robots")
    (room / "games").mkdir()
    for number in range(8):
        save_file({"embeddings": torch.from_numpy(random.normal(size=(10, 4, 6, 6)).astype(np.float32)),
                   "actions": torch.from_numpy(random.integers(0, 3, 10))}, room / "games" / f"v{number}.safetensors")
    for folder in ("robots", "games"):
        manifest.write_manifest(room / folder)
    model = yamlio.parse_mapping(RUN)
    model["patch_size"] = 3  # of a grid of 6 x 6
    del model["data"]
    (room / "run.yaml").write_text(yamlio.dump_mapping({**model, "data_dir": "robots"}))
    (room / "sweep.yaml").write_text(yamlio.dump_mapping({
        "name": "mixed", "base": {**model, "data": MIXTURE, "eval_sequences": 32},
        "space": {"learning_rate": {"choice": [1e-4, 1e-3]}}, "search": {"grid": {}}, "budget": {"trials": 2}}))
    return room


def _typed(room: Path, *words: str, code: int = 0) -> str:
    found = typed.lam(room, *words)
    assert found.code == code, (words, found.out, found.err)
    return found.out if code == 0 else found.err


def _labelled(room: Path, run: str) -> None:
    """Every transition of every episode has its codes; the one of two frames too, which no training sees."""
    _typed(room, "label", run, "robots", "-o", f"{Path(run).name}.parquet", "--device", "cpu")
    table = pd.read_parquet(room / f"{Path(run).name}.parquet")
    assert len(table) == TRANSITIONS
    assert table["video"].unique().tolist() == [f"episode-{number:06d}" for number in range(5)]
    assert table["code_0"].between(0, 3).all()


def test_a_set_of_lerobot_is_trained_on_labelled_reported_and_promoted(room: Path) -> None:
    _typed(room, "train", "run.yaml", "--run-dir", "hand")
    _labelled(room, "hand")
    _typed(room, "report", "hand", "-o", "report.md")
    assert f"- Data: {room}/robots" in (room / "report.md").read_text()
    _typed(room, "promote", "hand", "-o", "p.yaml", "--trial", "hand", *WAIVE)
    assert yamlio.load_mapping(room / "p.yaml")["data_dir"] == str(room / "robots")
    _typed(room, "train", "p.yaml", "--run-dir", "again", "--strict")
    hand, again = (list(RunFolder(room / name).metrics()) for name in ("hand", "again"))
    assert again[0]["val/mse_loss"] == hand[0]["val/mse_loss"], "bit for bit"
    _typed(room, "export", "again", "-o", "model")
    frames = np.random.default_rng(1).normal(size=(6, 4, 6, 6)).astype(np.float32)
    codes = lam.load(room / "model", device="cpu").encode(frames).codes
    assert codes is not None
    assert codes.shape == (5, 1)


@pytest.mark.nightly
def test_a_sweep_over_a_mixture_is_planned_launched_reported_and_promoted(room: Path, ray_address: str) -> None:
    assert "every corner is a valid run" in _typed(room, "sweep", "plan", "sweep.yaml")
    _typed(room, "sweep", "launch", "sweep.yaml", "--address", ray_address)
    trials = sorted((room / "runs/mixed/trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        record = list(RunFolder(trial).metrics())[-1]
        assert {len(record[f"val/{key}_by_source"]) for key in by_source.KEYS} == {2}
        assert sum(record["val/scored_transitions_by_source"]) == record["val/scored_transitions"]
        assert RunFolder(trial).identity()["data"]["sources"] == ["robots", "games"]
    _typed(room, "report", "runs/mixed", "-o", "mixed.md")
    assert f"{room}/robots (weight 1.0) + {room}/games (weight 3.0)" in (room / "mixed.md").read_text()
    _typed(room, "promote", "runs/mixed", "-o", "m.yaml", "--trial", trials[0].name, *WAIVE)
    values = yamlio.load_mapping(room / "m.yaml")
    assert [(part["dir"], part["weight"]) for part in values["data"]] == [
        (str(room / "robots"), 1.0), (str(room / "games"), 3.0)]
    _labelled(room, str(trials[0].relative_to(room)))
    _typed(room, "train", "m.yaml", "--run-dir", "made", "--strict")
    assert len(list(RunFolder(room / "made").metrics())[-1]["val/mse_loss_by_source"]) == 2
