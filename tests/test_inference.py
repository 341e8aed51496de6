"""A trained model in use: it agrees with the evaluation, goes frame by frame, and can be taken along."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import lam
from lam.config import RunConfig
from lam.data.windows import Windows, open_split
from lam.evaluation import generation, passes
from lam.inference import exporting, naming, opening
from lam.inference.exported import CARD, DOCUMENT, WEIGHTS
from lam.inference.model import ActionModel
from lam.inference.naming import Naming
from lam.inference.playing import Game
from lam.training.loop import train
from record.errors import BadInput
from record.run import RunFolder
from record.workload import workload

SMALL = {"embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16, "codebook_dim": 8,
         "sequence_length": 4, "batch_size": 16, "threads": 1, "device": "cpu", "num_epochs": 1, "steps_per_epoch": 40,
         "learning_rate": 5e-3, "warmup_steps": 5, "vq_refresh_interval": 20, "sample_count": 0}


def trained(data: Path, folder: Path, **changes: object) -> Path:
    list(train(RunConfig.model_validate({"data_dir": str(data), **SMALL, **changes}), folder))
    return folder


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_data, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def model(run: Path) -> ActionModel:
    return lam.load(run, device="cpu")


@pytest.fixture
def windows(run: Path, model: ActionModel) -> Windows:
    return open_split(model.config, "validation", stride=1)


def video(windows: Windows) -> Tensor:
    return torch.from_numpy(windows.latents_of(0, 0, windows.frames[0]).copy())


def test_codes_of_a_video_are_those_of_the_evaluation(model: ActionModel, windows: Windows) -> None:
    found = model.encode(video(windows))
    measured = passes.measured(model.module, windows, model.config.replace(eval_sequences=10_000))
    of_first = measured.scored.files == 0
    assert found.codes is not None
    assert measured.scored.codes is not None
    assert found.codes.shape == (windows.frames[0] - 1, 3)
    last = found.codes[model.config.sequence_length - 2:]
    assert np.array_equal(last.numpy(), measured.scored.codes[of_first])
    squared = found.distance[model.config.sequence_length - 2:].pow(2) / model.config.codebook_dim
    assert np.allclose(squared.numpy(), measured.error_q[of_first], rtol=1e-4)


def test_the_first_transitions_are_read_at_their_place_in_the_first_window(model: ActionModel,
                                                                           windows: Windows) -> None:
    whole, first = model.encode(video(windows)), model.encode(video(windows)[:4])
    assert whole.codes is not None
    assert first.codes is not None
    assert torch.equal(whole.codes[:3], first.codes)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_codes_do_not_depend_on_the_batch(model: ActionModel, windows: Windows, batch_size: int) -> None:
    one, other = model.encode(video(windows)), model.encode(video(windows), batch_size)
    assert one.codes is not None
    assert other.codes is not None
    assert torch.equal(one.codes, other.codes)
    assert torch.allclose(one.embedding, other.embedding, atol=1e-5)


def test_many_videos_at_once_are_each_of_them(model: ActionModel, windows: Windows) -> None:
    both = torch.stack([video(windows), video(windows).flip(0)])
    found, alone = model.encode(both), model.encode(both[1].numpy())
    assert found.codes is not None
    assert alone.codes is not None
    assert torch.equal(found.codes[1], alone.codes)
    assert found.vectors.shape == (2, 23, 3, 8)
    assert found.embedding.shape == (2, 23, 1, 8)


def test_two_frames_are_enough_and_one_is_not(model: ActionModel, windows: Windows) -> None:
    assert model.encode(video(windows)[:2]).distance.shape == (1,)
    with pytest.raises(BadInput, match="frames: got 1 frame, a transition needs 2"):
        model.encode(video(windows)[:1])


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_steps_are_what_the_decoder_says_of_the_last_frames(
    positions: str, tiny_data: Path, tmp_path: Path, run: Path
) -> None:
    folder = run if positions == "learned" else trained(tiny_data, tmp_path / "run", time_positions="rotary")
    model = lam.load(folder, device="cpu")
    frames = video(open_split(model.config, "validation", stride=1))[:9]
    codes = model.encode(frames).codes
    assert codes is not None
    state = None
    for place in range(8):
        predicted, state = model.step(frames[place], codes[place], state)
        begin = max(0, place - 2)
        whole = model.decode(frames[begin:place + 1], codes[begin:place + 1])
        assert torch.allclose(predicted, whole[-1], atol=1e-5)


def test_imagining_with_the_true_codes_is_the_rollout_of_the_evaluation(model: ActionModel, windows: Windows) -> None:
    latents = windows.batch(np.arange(5)).latents
    found = model.encode(latents)
    made = model.imagine(latents[:, 0], found.codes)
    with torch.inference_mode():
        rolled = generation.rollout(model.module, latents[:, 0], found.vectors)
    assert torch.allclose(made, rolled, atol=1e-6)
    assert torch.allclose(model.imagine(latents[0, 0], found.codes[0]), rolled[0], atol=1e-5)  # type: ignore[index]


def test_what_was_seen_counts_in_what_is_imagined(model: ActionModel, windows: Windows) -> None:
    frames = video(windows)
    codes = model.encode(frames).codes
    assert codes is not None
    made = model.imagine(frames[:3], codes[:6])
    assert made.shape == (4, *model.latent_shape)
    assert torch.allclose(made[0], model.decode(frames[:3], codes[:3])[-1], atol=1e-5)


def test_the_codebook_is_what_codes_are_looked_up_in(model: ActionModel, windows: Windows) -> None:
    found = model.encode(video(windows))
    assert model.codebook.shape == (3, 12, 8)
    assert found.codes is not None
    for slot in range(3):
        assert torch.allclose(model.codebook[slot][found.codes[:, slot]], found.vectors[:, slot])


def test_a_tuple_has_a_number_and_a_number_its_tuple(model: ActionModel) -> None:
    assert model.number([[0, 0, 0], [0, 1, 2], [11, 11, 11]]).tolist() == [0, 14, 1727]
    assert model.tuple_of(14) == (0, 1, 2)


def test_codes_have_the_actions_that_they_were_seen_with(model: ActionModel, run: Path) -> None:
    known = model.naming
    assert known is not None
    assert known.names == ("NOOP", "RIGHT", "LEFT")
    commonest = known.tuples[known.counts.sum(1).argmax()]
    found = model.actions_of(commonest.tolist())
    assert list(found) == sorted(found, key=lambda name: -found[name])
    assert sum(found.values()) == pytest.approx(1)
    assert model.actions_of(int(model.number(commonest))) == found


def test_shares_of_a_tuple_lean_on_those_of_its_first_codes() -> None:
    known = Naming(("A", "B"), np.array([[0, 0], [0, 1], [1, 0]]), np.array([[90, 10], [0, 0], [0, 100]]))
    base = (np.array([90, 110]) + 0.5) / 201
    first = (np.array([90, 10]) + base) / 101
    assert known.shares(np.array([[0, 0]]))[0] == pytest.approx((np.array([90, 10]) + first) / 101)
    assert known.shares(np.array([[0, 7]]))[0] == pytest.approx(first)  # never seen: what its first code says
    assert known.shares(np.array([[9, 9]]))[0] == pytest.approx(base)
    assert naming.counted(("A",), np.zeros((2, 1)), np.array([-1, -1])) is None


@pytest.mark.parametrize(("call", "message"), [
    (lambda model: model.encode(np.zeros((5, 16, 4, 4))), r"frames: got shape \[5, 16, 4, 4\], expected "
     r"\[B, T, 16, 8, 8\] or \[T, 16, 8, 8\]"),
    (lambda model: model.decode(np.zeros((4, 16, 8, 8)), np.zeros((4, 3), int)), "got 4 frames, the decoder sees at "
     "most 3 at once; go one by one with 'step'"),
    (lambda model: model.step(np.zeros((16, 8, 8)), [0, 1]), r"got codes of shape \[1, 2\], expected \[1, 3\]"),
    (lambda model: model.step(np.zeros((16, 8, 8)), [0, 1, 12]), r"codes: got \[\[0, 1, 12\]\]; an action is 3 codes "
     "from 0 to 11"),
    (lambda model: model.actions_of([0, 1]), r"codes: got \[\[0, 1\]\]; an action is 3 codes from 0 to 11"),
    (lambda model: model.imagine(np.zeros((3, 16, 8, 8)), np.zeros((2, 3), int)), "got 2 actions for 3 frames"),
    (lambda model: model.imagine(np.zeros((16, 8, 8)), np.zeros((0, 3), int)), "got 0 actions for 1 frames"),
    (lambda model: model.decode(np.zeros((9, 16, 8, 8)), np.zeros((8, 3), int)), "got 9 frames, the decoder sees at "
     "most 3 at once"),
    (lambda model: model.actions_of(12**3), "number: got 1728; an action's number is from 0 to 1727"),
    (lambda model: model.tuple_of(-1), "number: got -1; an action's number is from 0 to 1727"),
])
def test_what_does_not_fit_is_said_with_its_shape(model: ActionModel, call: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        call(model)  # type: ignore[operator]


def test_arrays_of_other_bytes_and_reversed_ones_are_read(model: ActionModel) -> None:
    frames = np.random.default_rng(0).normal(size=(6, 16, 8, 8)).astype(np.float32)
    expected = model.encode(frames).embedding
    assert torch.equal(model.encode(frames.astype(">f4")).embedding, expected)
    assert torch.equal(model.encode(frames[::-1].copy()[::-1]).embedding, expected)


@pytest.mark.parametrize("changes", [{"quantizer": "none"}, {"quantizer": "fsq"}, {"slots": "parallel"},
                                     {"quantizer": "simvq"}])
def test_every_kind_of_action_is_read_and_decoded(changes: dict[str, str], tiny_data: Path, tmp_path: Path) -> None:
    model = lam.load(trained(tiny_data, tmp_path / "run", steps_per_epoch=4, **changes), device="cpu")
    frames = video(open_split(model.config, "validation", stride=1))
    found = model.encode(frames)
    given = found.vectors if found.codes is None else found.codes
    made = model.imagine(frames[0], given[:5])
    assert made.shape == (5, 16, 8, 8)
    assert bool(made.isfinite().all())
    if changes.get("quantizer") == "none":
        assert found.codes is None
        assert bool(found.distance.isnan().all())
        with pytest.raises(BadInput, match="actions are continuous"):
            _ = model.codebook


# ---- taken along

@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exporting.export(run, tmp_path_factory.mktemp("exports") / "small", programs=True)


@pytest.mark.long
def test_an_export_is_the_model(exported: Path, model: ActionModel, windows: Windows) -> None:
    taken = lam.load(exported, device="cpu")
    one, other = model.encode(video(windows)), taken.encode(video(windows))
    assert one.codes is not None
    assert other.codes is not None
    assert torch.equal(one.codes, other.codes)
    assert taken.naming is not None
    assert model.naming is not None
    assert taken.actions_of([0, 0, 0]) == model.actions_of([0, 0, 0])
    assert taken.provenance["data_fingerprint"] == model.provenance["data_fingerprint"]
    assert taken.provenance["chunk_frames"] == 2


def test_an_export_says_nothing_of_the_machine_and_has_a_card(exported: Path, tiny_data: Path) -> None:
    for name in ("config.yaml", DOCUMENT, CARD):
        assert str(tiny_data.parent) not in (exported / name).read_text(), name
    card = (exported / CARD).read_text()
    assert "# Latent action model small" in card
    assert "val/mse_loss" in card
    assert "NOOP" in card
    assert "actions of 3 codes from 12" in card
    assert "`encode.pt2` (windows [B, T, C, H, W] -> codes" in card


def test_the_programs_run_without_the_package(exported: Path, model: ActionModel, windows: Windows) -> None:
    known = json.loads((exported / DOCUMENT).read_text())["programs"]
    assert [known[name]["written"] for name in ("encode", "step")] == [True, True], known
    latents = windows.batch(np.arange(5)).latents
    codes, _ = torch.export.load(exported / "encode.pt2").module()(latents)
    assert torch.equal(codes, model.encode(latents).codes)  # type: ignore[arg-type]
    frame = torch.export.load(exported / "step.pt2").module()(latents[:, :3], codes)
    assert torch.allclose(frame, model.decode(latents[:, :3], codes)[:, -1], atol=1e-5)


def test_an_export_opens_where_ray_mlflow_and_wandb_are_not(exported: Path) -> None:
    code = ("import sys\n"
            "for name in ('ray', 'mlflow', 'wandb', 'optuna', 'h5py.never'): sys.modules[name] = None\n"
            f"import lam, torch\nmodel = lam.load({str(exported)!r}, device='cpu')\n"
            "frames = torch.zeros(6, *model.latent_shape)\n"
            "print(tuple(model.imagine(frames[0], model.encode(frames).codes).shape))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(5, 16, 8, 8)\n", done.stderr


def test_a_model_is_opened_and_exported_without_its_data(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(tiny_data), str(tmp_path / "gone")))
    assert lam.load(copy, device="cpu").codebook.shape == (3, 12, 8)
    taken = lam.load(exporting.export(copy, tmp_path / "export"), device="cpu")
    with pytest.raises(BadInput, match="no true action is known of this model's training videos"):
        taken.actions_of(0)


def test_a_run_without_its_data_has_no_names(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(tiny_data), str(tmp_path / "gone")))
    model = lam.load(copy, device="cpu")
    assert model.naming is None
    assert {key["means"] for key in Game(model, tiny_data).shown()["keys"]} == {""}


def test_a_store_writes_nothing_outside_the_copy(tmp_path: Path) -> None:
    from pyarrow import fs

    class Store:
        def get_file_info(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
            return [fs.FileInfo(f"{selector.base_dir}/../../config.yaml", type=fs.FileType.File)]

    with pytest.raises(BadInput, match=r"bucket/model: holds a file named '../../config.yaml', which lies outside"):
        opening._fetch(Store(), "bucket/model", tmp_path / "copy")
    assert not any(tmp_path.iterdir())


def test_an_export_replaces_itself_and_nothing_else(run: Path, exported: Path, tmp_path: Path) -> None:
    exporting.export(run, tmp_path / "export")
    exporting.export(run, tmp_path / "export")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="is there already and is no export"):
        exporting.export(run, other)
    (tmp_path / "export" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"export: holds 'mine\.txt', which no export wrote; move it elsewhere"):
        exporting.export(run, tmp_path / "export")
    (tmp_path / "export" / "mine.txt").unlink()
    document = json.loads((tmp_path / "export" / DOCUMENT).read_text()) | {"weights_sha256": "0" * 64}
    (tmp_path / "export" / DOCUMENT).write_text(json.dumps(document))
    with pytest.raises(BadInput, match="holds the export of another model"):
        exporting.export(run, tmp_path / "export")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "other"]


def test_weights_that_were_changed_are_refused(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(BadInput, match="is not the file that was exported"):
        lam.load(copy)


@pytest.mark.parametrize(("given", "message"), [
    ("nowhere", "nowhere: no such folder; name a run folder, or one of 'lam export'"),
    (".", "holds no run"),
])
def test_where_there_is_no_model_is_said(given: str, message: str, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        lam.load(given)


def test_a_checkpoint_that_is_not_kept_is_named(run: Path) -> None:
    with pytest.raises(BadInput, match=r"no such checkpoint \(there are: best\)"):
        lam.load(run, "epoch-7")


def test_the_workload_exports(run: Path, tmp_path: Path) -> None:
    made = workload.find("lam").export(RunFolder(run), tmp_path / "export")
    assert (made / WEIGHTS).is_file()
    assert lam.load(made).config.num_codes == 3


def test_a_model_on_a_store_is_opened_by_its_uri(exported: Path, s3: str, model: ActionModel) -> None:
    from pyarrow import fs

    store, path = fs.FileSystem.from_uri(s3)
    fs.copy_files(str(exported), f"{path}/model", source_filesystem=fs.LocalFileSystem(), destination_filesystem=store)
    assert torch.equal(lam.load(f"{s3}/model", device="cpu").codebook, model.codebook)
