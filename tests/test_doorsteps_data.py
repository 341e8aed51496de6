"""Data that are no single folder of H5, through every door: train, evaluate, report, label, promote, monitor.

A mixture of a folder of zarr stores and one of tars; new data are safetensors, and a tar.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typed
from test_data_readers import as_safetensors, as_tars, as_zarr, videos

from analysis.promote.ledger import Ledger
from lam.data import manifest
from record import yamlio
from record.run import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WAIVED = ("live", "dsnr_valid", "beats_copy", "action_skill", "ranks", "codebook", "confirmed", "tested")
RUN = """
data:
  - {dir: stores, weight: 1}
  - {dir: tars, weight: 3}
sequence_length: 4
embed_dim: 16
encoder_depth: 1
decoder_depth: 1
head_dim: 16
patch_dim: 16
codebook_dim: 8
num_codes: 1
num_embeddings: 4
num_epochs: 1
steps_per_epoch: 3
batch_size: 8
eval_sequences: 64
sample_count: 0
threads: 1
device: cpu
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    room = tmp_path_factory.mktemp("doors")
    for name, write in (("stores", as_zarr), ("tars", as_tars), ("new", as_safetensors)):
        (room / name).mkdir()
        write(room / name, videos(10, 12))
    for name in ("stores", "tars"):
        manifest.write_manifest(room / name)
    (room / "run.yaml").write_text(RUN)
    assert _typed(room, "train", "run.yaml", "--run-dir", "hand") == ""
    return room


def _typed(room: Path, *words: str, code: int = 0) -> str:
    """What a command says on stderr beside progress; it ends with `code`."""
    found = typed.lam(room, *words)
    assert found.code == code, (words, found.out, found.err)
    return "" if code == 0 else found.err


def test_a_mixture_of_two_formats_is_evaluated_and_reported_with_all_its_folders(room: Path) -> None:
    code, out, _ = typed.lam(room, "evaluate", "hand", "--split", "test", "--json")
    assert code == 0
    assert len(json.loads(out)["metrics"]["val/mse_loss_by_source"]) == 2
    _typed(room, "report", "hand", "-o", "report.md")
    text = (room / "report.md").read_text()
    assert f"- Data: {room}/stores (weight 1.0) + {room}/tars (weight 3.0)" in text


@pytest.mark.parametrize("folder", ["stores", "tars", "new"])
def test_each_format_is_labelled(room: Path, folder: str) -> None:
    _typed(room, "label", "hand", folder, "-o", f"{folder}.parquet", "--device", "cpu")
    table = pd.read_parquet(room / f"{folder}.parquet")
    assert len(table) == sum(len(latents) - 1 for latents, _ in videos(10, 12).values())
    assert table["code_0"].between(0, 3).all()
    assert len(table["video"].unique()) == 10


def test_a_mixture_is_promoted_trained_again_strictly_and_watched_for_drift(room: Path) -> None:
    waived = [word for gate in WAIVED for word in ("--waive", gate, "--because", "a test")]
    _typed(room, "promote", "hand", "-o", "p.yaml", "--trial", "hand", *waived)
    values = yamlio.load_mapping(room / "p.yaml")
    assert [(part["dir"], part["weight"]) for part in values["data"]] == [
        (str(room / "stores"), 1.0), (str(room / "tars"), 3.0)]
    assert values["provenance"]["snapshot"], "videos of both folders are kept to hold new data to"
    _typed(room, "train", "p.yaml", "--run-dir", "again", "--strict", "--set", "num_epochs=1")
    hand, again = (list(RunFolder(room / name).metrics()) for name in ("hand", "again"))
    assert again[0]["val/mse_loss"] == hand[0]["val/mse_loss"], "bit for bit"
    new = room / "moved"
    new.mkdir(exist_ok=True)
    as_tars(new, {name: (latents * np.float32(3), actions) for name, (latents, actions) in videos(24, 12).items()})
    code, out, err = typed.lam(room, "monitor", "p.yaml", "--data", "moved", "--json")
    assert code == 1, err
    assert json.loads(out)["verdict"] == "drift"
    assert Ledger(room / "p.yaml").entries()[-1].event == "looked"
    _typed(room, "train", "p.yaml", "--run-dir", "other", "--strict", "--set", "data=[{dir: tars}, {dir: stores}]",
           code=2)
