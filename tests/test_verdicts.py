"""Every verdict (healthy, warning, abort, outside the ranges, drift) is reached, and none of them by ten healthy ones.

Runs are records held to a promoted YAML's rules; data sets are real latents seen by a real model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typed
from build_records import Planted, confirmed, record, write_run, write_sweep

from analysis.promote import Wish, promote
from analysis.promote.ledger import Ledger
from analysis.promote.looking import look
from lam import config
from lam.data import demo
from lam.data.h5 import EMBEDDINGS
from lam.training import loop
from record import files, yamlio
from record.health import engine, production, profile
from record.health.production import Production

HEALTHY = [Planted(control=0.47 * by, perplexity=8.9 * by, mse=0.013 / by)
           for by in (0.965, 0.97, 0.975, 0.98, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Production:
    room = tmp_path_factory.mktemp("promoted")
    folder = write_sweep(room / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])
    for seed, change in ((101, 0.96), (102, 1.0), (103, 1.05)):
        write_run(folder / "confirm" / "t0005" / f"seed-{seed}", Planted(
            control=0.47 * change, perplexity=8.9 * change, mse=0.013 / change, seed=seed), run_id=f"seed-{seed}")
    promote(folder, room / "production.yaml")
    return production.of_yaml(room / "production.yaml")


def _verdict(watched: Production, planted: Planted, **last: Any) -> str:
    rows = [files.jsonable(record(planted, epoch)) for epoch in range(1, planted.epochs + 1)]
    rows[-1] |= last
    placed = [watched.placed(row) for row in rows]
    known = profile.load("lam").model_copy(update={"rules": watched.rules(), "diagnoses": []})
    return production.verdict(engine.judge_records(placed, known, {}))


def test_ten_healthy_runs_are_healthy(watched: Production) -> None:
    assert [_verdict(watched, run) for run in HEALTHY] == ["healthy"] * 10


@pytest.mark.parametrize(("planted", "last", "verdict"), [
    (Planted(control=0.47, perplexity=8.9, mse=0.013), {"val/dsnr_status": "actions_ignored"}, "warning"),
    (Planted(control=0.47, perplexity=8.9, mse=0.05), {}, "outside the expected ranges"),
    (Planted(control=0.0, perplexity=1.0, mse=0.06), {}, "abort"),
    (Planted(control=0.47, perplexity=8.9, mse=0.013), {"val/loss": 5.0}, "abort"),
])
def test_each_fault_of_a_run_has_its_verdict(watched: Production, planted: Planted, last: dict[str, Any],
                                             verdict: str) -> None:
    assert _verdict(watched, planted, **last) == verdict


# ---- data: a small model of panning pictures, and videos that it has never seen

TINY: dict[str, Any] = {
    "sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
    "codebook_dim": 8, "num_codes": 2, "num_embeddings": 4, "batch_size": 16, "num_epochs": 1, "steps_per_epoch": 60,
    "warmup_steps": 5, "learning_rate": 5e-3, "vq_refresh_interval": 10, "rollout_horizon": 1, "eval_sequences": 32,
    "sample_count": 0, "threads": 1, "device": "cpu"}
GATES = ("live", "dsnr_valid", "beats_copy", "action_skill", "ranks", "codebook", "confirmed", "tested")
TAUGHT, KEPT, SAMPLE = 8, 16, 8
Array = np.ndarray[Any, Any]
Change = Callable[[Array], Array]


@pytest.fixture(scope="module")
def served(latents: Callable[[demo.Demo], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A production YAML with its snapshot, and videos of the same kind that neither training nor snapshot saw."""
    room = tmp_path_factory.mktemp("served")
    made = latents(demo.Demo(game="panning", episodes=44, length=20, size=32, seed=0))
    videos = sorted(made.glob("*.h5"))
    (room / "data").mkdir()
    for video in videos[: TAUGHT + KEPT]:
        shutil.copy(video, room / "data")
    names = [video.name for video in videos]
    (room / "data" / "manifest.json").write_text(json.dumps({"splits": {
        "train": names[:TAUGHT], "validation": names[TAUGHT:16], "test": names[16 : TAUGHT + KEPT]}}))
    list(loop.train(config.from_mapping(TINY | {"data_dir": str(room / "data")}, source="test"), room / "hand"))
    result = promote(room / "hand", room / "p.yaml", wish=Wish(trial="hand", waivers=dict.fromkeys(GATES, "a test")))
    assert result.promoted
    assert f"{KEPT} videos are kept to hold new data to" in result.summary()
    return room / "p.yaml", videos[TAUGHT + KEPT :]


def _folder(room: Path, videos: list[Path], change: Change | None = None) -> Path:
    room.mkdir(parents=True)
    for video in videos:
        shutil.copy(video, room)
        if change is not None:
            with h5py.File(room / video.name, "r+") as file:
                file[EMBEDDINGS][...] = change(file[EMBEDDINGS][...])
    return room


def _look(served: tuple[Path, list[Path]], data: Path, room: Path) -> tuple[int, dict[str, Any]]:
    """`lam monitor FILE --data DIR --json`, on a copy of the promotion: each test looks for the first time."""
    file = room / "p.yaml"
    if not file.exists():
        shutil.copy(served[0], file)
        shutil.copytree(Ledger(served[0]).folder, Ledger(file).folder)
    code, out, err = typed.lam(room, "monitor", "p.yaml", "--data", str(data), "--json")
    assert code in (0, 1), err
    return code, json.loads(out)


@pytest.mark.nightly
def test_ten_healthy_samples_of_the_same_data_do_not_drift(served: tuple[Path, list[Path]], tmp_path: Path) -> None:
    for number in range(10):
        chosen = np.random.default_rng(number).permutation(len(served[1]))[:SAMPLE]
        code, said = _look(served, _folder(tmp_path / str(number), [served[1][each] for each in chosen]), tmp_path)
        assert (code, said["verdict"], said["look"]) == (0, "no drift", number + 1), said
    lines = Ledger(tmp_path / "p.yaml").file.read_text()
    assert _look(served, tmp_path / "9", tmp_path)[1]["again"]
    assert Ledger(tmp_path / "p.yaml").file.read_text() == lines, "the same videos are no further look"


def _half_still(chunks: Array) -> Array:
    """A player that does nothing every other frame: [chunks, C, frames of a chunk, H, W], the second as the first."""
    chunks[:, :, 1] = chunks[:, :, 0]
    return chunks


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "change", "aspect"), [
    ("darker", lambda chunks: chunks * 0.6, "latents"), ("brighter", lambda chunks: chunks + 1.0, "latents"),
    ("half still", _half_still, "loss")])
def test_changed_data_drift_with_a_remedy(served: tuple[Path, list[Path]], tmp_path: Path, name: str,
                                          change: Change, aspect: str) -> None:
    code, said = _look(served, _folder(tmp_path / name, served[1][:SAMPLE], change), tmp_path)
    assert (code, said["verdict"]) == (1, "drift"), said
    assert aspect in [test["aspect"] for test in said["tests"] if test["drifted"]], said
    assert said["remedy"][0].startswith("label a little")


@pytest.mark.nightly
def test_another_game_drifts(served: tuple[Path, list[Path]], latents: Callable[[demo.Demo], Path],
                             tmp_path: Path) -> None:
    pong = latents(demo.Demo(game="pong", episodes=10, length=20, size=32, seed=0))
    code, said = _look(served, _folder(tmp_path / "pong", sorted(pong.glob("*.h5"))), tmp_path)
    assert (code, said["verdict"], len(said["remedy"]) >= 2) == (1, "drift", True)
    told = typed.lam(tmp_path, "monitor", "p.yaml", "--data", "pong", "--notify-file", "told.jsonl")
    assert told.code == 1
    assert "DRIFT latents" in told.out
    assert "the data are no more what p.yaml was chosen on" in told.err
    assert json.loads((tmp_path / "told.jsonl").read_text())["event"] == "drift"


@pytest.mark.long
def test_a_snapshot_is_whole_and_can_be_taken_again(served: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data = _folder(tmp_path / "new", served[1][:SAMPLE])
    _look(served, data, tmp_path)
    file, ledger = tmp_path / "p.yaml", Ledger(tmp_path / "p.yaml")
    kept = ledger.folder / yamlio.load_mapping(file)["provenance"]["snapshot"]["file"]
    kept.write_text(kept.read_text().replace("0.", "1.", 1))
    code, _, err = typed.lam(tmp_path, "monitor", "p.yaml", "--data", "new")
    assert (code, ".json: is not what was written; restore it from a copy, or take one" in err) == (2, True), err
    code, out, err = typed.lam(tmp_path, "promotions", "snapshot", "p.yaml", "--data", str(served[0].parent / "data"))
    assert code == 0, err
    assert out.startswith(f"{TAUGHT + KEPT} videos are kept with version 1")
    assert look(file, data).values["look"] == 1, "a new snapshot begins anew"
