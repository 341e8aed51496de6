"""Codes for every transition of a folder: those of the evaluation, however many work on it and however often killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
from interrupting import answer_ctrl_c
from test_inference import trained
from typer.testing import CliRunner

import lam
from lam.cli import build
from lam.data.readers.registry import reader_of
from lam.data.sources import Direct
from lam.data.windows import open_split
from lam.evaluation import passes
from lam.inference.model import ActionModel
from lam.labelling import coding, labelling, plan, tables
from lam.labelling.labelling import Asked
from record.errors import BadInput


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_data, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def asked(run: Path, tiny_data: Path, tmp_path: Path) -> Asked:
    return Asked(str(run), tiny_data, tmp_path / "codes.npz", device="cpu", portion=60)


def columns(path: Path) -> dict[str, Any]:
    with np.load(path) as found:
        return dict(found)


def same(one: Path, other: Path) -> bool:
    a, b = columns(one), columns(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_codes_are_those_of_the_evaluation_transition_by_transition(asked: Asked) -> None:
    labelling.label(asked)
    found = columns(asked.out)
    model = lam.load(asked.model, device="cpu")
    windows = open_split(model.config, "validation", stride=1)
    measured = passes.measured(model.module, windows, model.config.replace(eval_sequences=10_000)).scored
    of = {(found["files"][video], frame): row for row, (video, frame) in
          enumerate(zip(found["video"], found["frame"], strict=True))}
    rows = [of[windows.files[file], target] for file, target in zip(measured.files, measured.targets, strict=True)]
    assert measured.codes is not None
    assert np.array_equal(found["codes"][rows], measured.codes)
    assert set(found["place"][rows]) == {model.config.sequence_length - 2}
    about = json.loads(str(found["provenance"]))
    assert about["measured_place"] == model.config.sequence_length - 2
    assert about["model"]["weights_sha256"] == model.provenance["weights_sha256"]
    assert about["data"]["transitions"] == len(found["frame"]) == 10 * 23


def test_every_column_is_what_the_model_says(asked: Asked) -> None:
    labelling.label(replace(asked, embedding=True))
    found, model = columns(asked.out), lam.load(asked.model, device="cpu")
    with h5py.File(asked.data / str(found["files"][3])) as file:
        frames = file["embeddings"][:].transpose(0, 2, 1, 3, 4).reshape(-1, 16, 8, 8)
    rows = found["video"] == 3
    said = model.encode(frames)
    assert said.codes is not None
    assert np.array_equal(found["frame"][rows], np.arange(1, 24))
    assert np.array_equal(found["place"][rows], [0, 1] + [2] * 21)
    assert np.array_equal(found["codes"][rows], said.codes.numpy())
    assert np.array_equal(found["tuple"][rows], model.number(said.codes))
    assert np.allclose(found["distance"][rows], said.distance.numpy(), atol=1e-5)
    assert np.allclose(found["embedding"][rows], said.embedding.flatten(1).numpy(), atol=1e-5)
    row = np.flatnonzero(rows)[5]
    name, share = next(iter(model.actions_of(said.codes[5].tolist()).items()))
    assert (str(found["action_names"][found["action"][row]]), float(found["probability"][row])) == (
        name, pytest.approx(share))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_codes_do_not_depend_on_the_batch(asked: Asked, batch_size: int) -> None:
    labelling.label(asked)
    other = replace(asked, out=asked.out.with_name("other.npz"), batch_size=batch_size)
    labelling.label(other)
    one, two = columns(asked.out), columns(other.out)
    assert np.array_equal(one["codes"], two["codes"])
    assert np.allclose(one["distance"], two["distance"], atol=1e-5)


def test_of_a_portion_a_few_batches_are_read_ahead_and_not_all(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lam.load(asked.model, device="cpu")
    found = plan.planned(reader_of(asked.data), model.latent_shape)
    source = found.source()
    reads: list[int] = []
    seen: list[int] = []

    def frames(file: int, first: int, count: int) -> Any:
        reads.append(file)
        return Direct.frames(source, file, first, count)

    def read(windows: Any) -> Any:
        seen.append(len(reads))
        return ActionModel.read(model, windows)

    monkeypatch.setattr(source, "frames", frames)
    monkeypatch.setattr(model, "read", read)
    columns = coding.Coder(model, source, batch_size=8).portion(found.portions[0])
    assert len(columns["frame"]) == 10 * 23
    assert seen[0] <= coding.AHEAD + 2 < len(reads) == 30


@pytest.mark.long
def test_several_workers_make_the_same_file(asked: Asked) -> None:
    labelling.label(asked)
    labelling.label(replace(asked, out=asked.out.with_name("other.npz"), workers=4))
    assert same(asked.out, asked.out.with_name("other.npz"))


@pytest.mark.nightly
def test_a_cluster_makes_the_same_file(asked: Asked, ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labelling.label(asked)
    monkeypatch.setattr(labelling, "entry_points", lambda **which: [EntryPoint("ray", "sweeps.pool:over_cluster", "")])
    other = replace(asked, out=asked.out.with_name("other.npz"), workers=2, address=ray_address)
    labelling.label(other)
    assert same(asked.out, other.out)


def test_without_a_pool_a_cluster_is_refused(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelling, "entry_points", lambda **which: [])
    with pytest.raises(BadInput, match="--address: nothing that is installed works on a Ray cluster"):
        labelling.label(replace(asked, address="10.0.0.1:6379"))


@pytest.mark.slow
def test_killed_and_begun_again_it_makes_the_same_file(asked: Asked) -> None:
    labelling.label(asked)
    killed = replace(asked, out=asked.out.with_name("killed.npz"))
    code = ("from pathlib import Path, PosixPath\nfrom lam.labelling import labelling, parts\n"
            "from lam.labelling.labelling import Asked\nimport time\n"
            "save = parts.Parts.save\n"
            "def slow(*a): save(*a); time.sleep(60 if a[1] == 1 else 0)\n"
            "parts.Parts.save = slow\n"
            f"labelling.label({killed!r})")
    process = subprocess.Popen([sys.executable, "-c", code])
    folder = asked.out.with_name(".killed.npz.parts")
    while not (folder / "000001.npz").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = (folder / "000000.npz").stat().st_mtime_ns
    assert not killed.out.exists()
    seen: list[int] = []
    labelling.label(killed, done=lambda number: seen.append(number))
    assert seen == [2, 3]  # of four, the first two were kept
    assert kept
    assert same(asked.out, killed.out)
    assert not folder.exists()


@pytest.mark.slow
def test_ctrl_c_while_the_workers_begin_is_heard_by_none_of_them(asked: Asked) -> None:
    code = ("from pathlib import Path, PosixPath\nfrom lam.labelling import labelling\n"
            "from lam.labelling.labelling import Asked\n"
            f"try: labelling.label({replace(asked, workers=2)!r})\n"
            "except KeyboardInterrupt: print('interrupted')")
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, preexec_fn=answer_ctrl_c) as process:
        me = psutil.Process(process.pid)
        while sum("spawn_main" in " ".join(child.cmdline()) for child in me.children()) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, errors = process.communicate(timeout=120)
    assert said == "interrupted\n"
    assert "Traceback" not in errors, errors
    assert not asked.out.exists()


def test_a_labelling_of_another_model_does_not_go_on(asked: Asked, tiny_data: Path, tmp_path: Path) -> None:
    from lam.labelling.parts import Parts

    Parts(asked.out, 4, {"model": "another"}).begin()
    with pytest.raises(BadInput, match="was begun with another model and data and columns and batch size and portion "
                                       "and naming of codes; delete that folder to begin anew"):
        labelling.label(asked)


def test_a_labelling_of_other_data_of_the_same_names_and_sizes_does_not_go_on(asked: Asked, tmp_path: Path) -> None:
    """Killed after a portion, given another folder, or the same one with other content."""
    data = Path(shutil.copytree(asked.data, tmp_path / "data"))
    other = Path(shutil.copytree(asked.data, tmp_path / "other"))
    asked = replace(asked, data=data)

    def killed(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        labelling.label(asked, done=killed)
    with pytest.raises(BadInput, match="was begun with another data; delete that folder"):
        labelling.label(replace(asked, data=other))
    video = min(data.glob("*.h5"))
    with h5py.File(video, "r+") as file:
        file["embeddings"][0] = 0
    with pytest.raises(BadInput, match="was begun with another data; delete that folder"):
        labelling.label(asked)


def test_labels_have_no_names_where_the_training_videos_are_gone(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    gone = Path(shutil.copytree(run, tmp_path / "run"))
    config = (gone / "config.yaml").read_text()
    (gone / "config.yaml").write_text(config.replace(str(tiny_data), str(tmp_path / "gone")))
    out = tmp_path / "codes.npz"
    told = CliRunner().invoke(build(), ["label", str(gone), str(tiny_data), "-o", str(out)], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "codes have no names" in told.output
    assert not len(columns(out)["action_names"])


@pytest.mark.parametrize("ending", [".npz", ".h5", ".parquet"])
def test_videos_of_one_frame_only_are_refused(ending: str, asked: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    written(folder, 1, "v.h5")
    out = tmp_path / f"codes{ending}"
    with pytest.raises(BadInput, match="videos: holds videos of one latent frame only, which have no transition"):
        labelling.label(replace(asked, data=folder, out=out))
    assert not out.exists()


def test_the_three_formats_hold_the_same(asked: Asked) -> None:
    outs = [asked.out.with_name(name) for name in ("codes.npz", "codes.h5", "codes.parquet")]
    for out in outs:
        labelling.label(replace(asked, out=out, embedding=True))
    arrays, table = columns(outs[0]), pd.read_parquet(outs[2])
    with h5py.File(outs[1]) as file:
        for name in ("video", "frame", "place", "codes", "tuple", "distance", "action", "probability", "embedding"):
            assert np.array_equal(file[name][:], arrays[name]), name
        assert [name.decode() for name in file["files"][:]] == arrays["files"].tolist()
        assert file.attrs["provenance"] == str(arrays["provenance"])
    assert table["video"].tolist() == arrays["files"][arrays["video"]].tolist()
    assert np.array_equal(table[["code_0", "code_1", "code_2"]].to_numpy(), arrays["codes"])
    assert table["action"].tolist() == arrays["action_names"][arrays["action"]].tolist()
    assert np.array_equal(np.stack(table["embedding"].to_list()), arrays["embedding"])


def written(folder: Path, frames: int, name: str, shape: tuple[int, int] = (8, 8)) -> None:
    latents = np.random.default_rng(frames).normal(size=(frames, 16, 1, *shape)).astype(np.float32)
    with h5py.File(folder / name, "w") as file:
        file["embeddings"] = latents


def test_short_videos_and_files_that_cannot_be_used_are_counted(asked: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for frames in (1, 2, 3, 4, 5, 130):
        written(folder, frames, f"v{frames:03d}.h5")
    (folder / "broken.h5").write_bytes(b"nothing")
    done = labelling.label(replace(asked, data=folder))
    assert (done.videos, done.short, done.transitions) == (5, 1, 1 + 2 + 3 + 4 + 129)
    assert list(done.problems) == ["broken.h5"]
    found = columns(asked.out)
    assert found["frame"][:10].tolist() == [1, 1, 2, 1, 2, 3, 1, 2, 3, 4]
    assert found["place"][:10].tolist() == [0, 0, 1, 0, 1, 2, 0, 1, 2, 2]
    assert found["frame"][10:].tolist() == list(range(1, 130))  # the long one is cut into portions


def test_latents_of_another_shape_are_refused(asked: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    written(folder, 5, "v.h5", (4, 4))
    with pytest.raises(BadInput, match=r"v.h5: holds latents \[16, 4, 4\], the model was trained on \[16, 8, 8\]"):
        labelling.label(replace(asked, data=folder))


@pytest.mark.parametrize("quantizer", ["none", "fsq"])
def test_what_a_model_lacks_has_no_column(quantizer: str, tiny_data: Path, tmp_path: Path) -> None:
    folder = trained(tiny_data, tmp_path / "run", quantizer=quantizer, steps_per_epoch=4)
    labelling.label(Asked(str(folder), tiny_data, tmp_path / "codes.npz", device="cpu"))
    found = columns(tmp_path / "codes.npz")
    assert np.isnan(found["distance"]).all()
    assert ("codes" in found) == (quantizer == "fsq")


def test_portions_hold_whole_videos_but_for_long_ones() -> None:
    found = plan.portions([5, 1, 30, 5, 5], 10)
    assert [[tuple(piece) for piece in portion] for portion in found] == [
        [(0, 1, 4), (2, 1, 10)], [(2, 11, 10)], [(2, 21, 9), (3, 1, 4)], [(4, 1, 4)]]


def test_no_name_stays_of_a_result_that_cannot_be_written(asked: Asked) -> None:
    with pytest.raises(BadInput, match=r"--output: got 'codes\.csv'; end it in \.h5, \.parquet, \.npz"):
        labelling.label(replace(asked, out=asked.out.with_name("codes.csv")))
    assert not any(asked.out.parent.iterdir())


def test_a_folder_as_a_result_is_refused_before_hours_of_work(asked: Asked) -> None:
    folder = asked.out.with_name("codes.h5")
    folder.mkdir()
    with pytest.raises(BadInput, match=r"--output: got '.*codes\.h5', which is a folder; name a file that ends"):
        labelling.label(replace(asked, out=folder))
    assert [path.name for path in asked.out.parent.iterdir()] == ["codes.h5"]


def test_a_video_with_nan_gets_no_codes_but_is_named(asked: Asked, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    written(folder, 12, "v.h5")
    with h5py.File(folder / "v.h5", "r+") as file:
        file["embeddings"][7, 3] = np.nan
    with pytest.raises(BadInput, match=r"v\.h5: holds NaN or infinite latents in frames 0 to 11; encode the video"):
        labelling.label(replace(asked, data=folder))
    assert not asked.out.exists()


def test_a_labelling_whose_codes_have_other_names_by_now_does_not_go_on(asked: Asked,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """True actions were given between a kill and the next start: a result has one naming."""
    def killed(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        labelling.label(asked, done=killed)
    monkeypatch.setattr(ActionModel, "naming", None)
    with pytest.raises(BadInput, match="was begun with another naming of codes; delete that folder"):
        labelling.label(asked)


def test_parquet_without_pyarrow_is_refused_before_hours_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadInput, match=r"--output: got 'codes\.parquet', and pyarrow, which writes Parquet, is not "
                                       r"installed; pip install pyarrow, or end it in \.h5 or \.npz"):
        tables.form_of(Path("codes.parquet"))


def test_a_copy_of_the_data_gives_the_same_content(asked: Asked, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(asked.data, tmp_path / "copy"))
    shutil.rmtree(copy / ".cache", ignore_errors=True)
    labelling.label(asked)
    labelling.label(replace(asked, data=copy, out=tmp_path / "other.npz"))
    one, other = (json.loads(str(columns(path)["provenance"]))["data"] for path in (asked.out, tmp_path / "other.npz"))
    assert one["sha256"] == other["sha256"]
