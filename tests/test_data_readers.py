"""Videos in other formats are the videos they are in H5: the same frames, actions, statistics and codes."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typed
import zarr
from safetensors.torch import save_file

from lam.config import RunConfig
from lam.data import manifest
from lam.data.index import scan
from lam.data.readers.registry import reader_of
from lam.data.windows import check, data_fingerprint, open_split, outline, summary
from record.errors import BadInput

SHAPE = (6, 4, 4)
REAL = Path(__file__).parent / "lerobot_v3"
Videos = dict[str, tuple[np.ndarray, np.ndarray]]


def lerobot(**changes: object) -> Callable[[Path], object]:
    """A data set whose meta/info.json says something else."""

    def make(folder: Path) -> object:
        shutil.copytree(REAL, folder, dirs_exist_ok=True)
        about = json.loads((folder / "meta/info.json").read_text())
        return (folder / "meta/info.json").write_text(json.dumps(about | changes))

    return make


def videos(count: int = 4, frames: int = 9) -> Videos:
    random = np.random.default_rng(0)
    return {f"v{number}": (random.normal(size=(frames + number, *SHAPE)).astype(np.float32),
                           random.integers(-1, 3, frames + number)) for number in range(count)}


def as_npy(folder: Path, given: Videos) -> None:
    for name, (latents, actions) in given.items():
        np.save(folder / f"{name}.npy", latents)
        np.save(folder / f"{name}.actions.npy", actions)


def as_safetensors(folder: Path, given: Videos) -> None:
    for name, (latents, actions) in given.items():
        save_file({"embeddings": torch.from_numpy(latents), "actions": torch.from_numpy(actions)},
                  folder / f"{name}.safetensors")


def as_zarr(folder: Path, given: Videos) -> None:
    for name, (latents, actions) in given.items():
        group = zarr.open_group(folder / f"{name}.zarr", mode="w")
        group.create_array("embeddings", data=latents, chunks=(3, *SHAPE))
        group.create_array("actions", data=actions)


def as_tars(folder: Path, given: Videos) -> None:
    webdataset: Any = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(folder / "shard-%04d.tar"), maxcount=2, verbose=0) as out:
        for name, (latents, actions) in given.items():
            out.write({"__key__": name, "embeddings.npy": latents, "actions.npy": actions, "note.txt": "hello"})


FORMATS = {"npy": as_npy, "safetensors": as_safetensors, "zarr": as_zarr, "tar": as_tars}
Write = Callable[[Path, Videos], None]


def config(folder: Path, **more: Any) -> RunConfig:
    return RunConfig(data_dir=str(folder), sequence_length=4, **more)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_a_format_gives_the_frames_and_actions_that_were_written(write: Write, tmp_path: Path) -> None:
    given = videos()
    write(tmp_path, given)
    manifest.write_manifest(tmp_path)
    for cache in (False, True):
        windows = open_split(config(tmp_path, cache=cache), "train")
        for number, name in enumerate(windows.files):
            latents, actions = given[Path(name).name.partition(".")[0]]
            np.testing.assert_array_equal(windows.latents_of(number, 1, 5), latents[1:6])
            np.testing.assert_array_equal(windows.actions_of(number), actions)
    found = scan(reader_of(tmp_path), windows.files[:1]).records[windows.files[0]]
    latents = given[Path(windows.files[0]).name.partition(".")[0]][0]
    np.testing.assert_allclose(found.mean, latents.mean((0, 2, 3)), atol=1e-6)
    assert (summary(config(tmp_path))["chunk_frames"], outline(config(tmp_path), "train")[1]) == (1, SHAPE)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_what_changed_is_other_data(write: Write, tmp_path: Path) -> None:
    given, folder = videos(), tmp_path / "data"
    folder.mkdir()
    write(folder, given)
    manifest.write_manifest(folder)
    before = data_fingerprint(config(folder))
    assert data_fingerprint(config(Path(shutil.copytree(folder, tmp_path / "copy")))) == before
    for name, (latents, actions) in given.items():
        given[name] = (latents + 1, actions)
    write(folder, given)
    assert data_fingerprint(config(folder)) != before


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_sixteen_bits_stay_sixteen_bits_and_are_read_the_same(kind: torch.dtype, tmp_path: Path) -> None:
    for name, (latents, _) in videos().items():
        save_file({"embeddings": torch.from_numpy(latents).to(kind)}, tmp_path / f"{name}.safetensors")
    manifest.write_manifest(tmp_path)
    cached, direct = (open_split(config(tmp_path, cache=cache), "train") for cache in (True, False))
    rows = np.arange(len(cached))
    assert torch.equal(cached.batch(rows).latents, direct.batch(rows).latents)
    true = videos()[cached.files[0].partition(".")[0]][0]
    assert torch.equal(cached.batch(rows[:1]).latents[0], torch.from_numpy(true[:4]).to(kind).float())
    sizes = [path.stat().st_size for path in (tmp_path / ".cache").glob("*.latents*.npy")]
    assert max(sizes) < 2 * 12 * int(np.prod(SHAPE)) + 200


def test_a_data_set_that_lerobot_wrote_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Written by LeRobot 0.4.4: five episodes of 12, 9, 2, 11 and 10 frames, actions 0..2, drawn from seed 0."""
    folder = Path(shutil.copytree(REAL, tmp_path / "set"))
    code, _, _ = typed.lam(tmp_path, "data", "manifest", "set")
    assert code == 0
    random = np.random.default_rng(0)
    true = []
    for frames in (12, 9, 2, 11, 10):
        drawn = [(random.normal(size=(4, 6, 6)).astype(np.float32), random.integers(3)) for _ in range(frames)]
        true.append((np.stack([each for each, _ in drawn]), np.array([action for _, action in drawn])))
    reader = reader_of(folder)
    assert reader.names() == [f"episode-{number:06d}" for number in range(5)]
    for name, (latents, done) in zip(reader.names(), true, strict=True):
        video = reader.opened(name)
        np.testing.assert_array_equal(video.frames(0, len(latents)), latents)
        np.testing.assert_array_equal(video.actions(), [-1, *done[:-1]])  # what was done at a frame led into the next
    with caplog.at_level(logging.WARNING):
        short = summary(config(folder))["too_short"]
    assert short == 1
    assert len(open_split(config(folder), "train")) > 0


def test_lerobot_two_and_features_with_other_names(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    about = {"codebase_version": "v2.1", "chunks_size": 1000, "features": {
        "first": {"dtype": "float32", "shape": [2, 2, 3], "names": ["height", "width", "channels"]},
        "second": {"dtype": "float32", "shape": [3, 2, 2]}, "action": {"dtype": "float32", "shape": [2]}},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"}
    (tmp_path / "meta").mkdir()
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    (tmp_path / "meta/info.json").write_text(json.dumps(about))
    (tmp_path / "meta/episodes.jsonl").write_text("".join(
        json.dumps({"episode_index": number, "length": 3}) + "\n" for number in range(2)))
    first = np.arange(36, dtype=np.float32).reshape(3, 2, 2, 3)
    for number in range(2):
        pandas.DataFrame({"first": (first + number).tolist(), "second": first.reshape(3, 3, 2, 2).tolist(),
                          "action": [[0.5, 1.5]] * 3, "episode_index": number}).to_parquet(
                              tmp_path / f"data/chunk-000/episode_{number:06d}.parquet")
    with pytest.raises(BadInput, match=r"has several features of shape \[C, H, W\] and floats: first, second; set"):
        reader_of(tmp_path)
    with pytest.raises(BadInput, match="feature 'action' is no latent"):
        reader_of(tmp_path, "action")
    video = reader_of(tmp_path, "first").opened("episode-000001")
    np.testing.assert_array_equal(video.frames(0, 3), (first + 1).transpose(0, 3, 1, 2))
    assert not video.info.actions


@pytest.mark.parametrize(("make", "words"), [
    (lambda folder: np.save(folder / "a.npy", np.zeros((3, 4))), r"a\.npy:embeddings: got shape \[3, 4\], expected \["),
    (lambda folder: np.save(folder / "a.npy", np.zeros((3, *SHAPE), np.int64)), "got type int64, expected"),
    (lambda folder: (folder / "a.npy").write_bytes(b"nonsense"), r"a\.npy: cannot be read .*; write it again, or"),
    (lambda folder: save_file({"other": torch.zeros(2)}, folder / "a.safetensors"),
     r"a\.safetensors:embeddings: tensor is missing; the file holds: other"),
    (lambda folder: (folder / "a.tar").write_bytes(b"x" * 2000), r"a\.tar: cannot be read"),
    (lambda folder: [np.save(folder / "a.npy", np.zeros((3, *SHAPE))), (folder / "a.tar").touch()],
     r"holds files of several formats \(\.tar, \.npy\); keep the videos of each format in a folder"),
    (lambda folder: np.lib.format.open_memmap(folder / "a.npy", "w+", np.float32, (100_000, 6, 40, 40)),
     r"a\.npy:embeddings: takes [\d,]+ bytes and unpacks to 3,840,000,000, which no latents do"),
    (lambda folder: zarr.create_array(folder / "a.zarr", shape=(10**9, *SHAPE), chunks=(3, *SHAPE), dtype="f4"),
     r"a\.zarr:embeddings: takes [\d,]+ bytes and unpacks to 384,000,000,000, which no latents do"),
    (lambda folder: zarr.create_array(folder / "a.zarr", shape=(9, *SHAPE), chunks=(10**9, *SHAPE), dtype="f4"),
     r"a\.zarr:embeddings: takes [\d,]+ bytes and unpacks to 384,000,000,000, which no latents do"),
    (lerobot(data_path="../../secret.parquet"), r"data_path: names .\.\./\.\./secret\.parquet., which lies outside"),
    (lerobot(data_path="/etc/{file_index}"), "names '/etc/0', which lies outside of the data set"),
    (lerobot(data_path="{file_index:0999999999d}"), r"info\.json: is damaged \(ValueError: data_path '"),
    (lerobot(features={"a": 5}), r"info\.json: is damaged \(TypeError"),
    (lerobot(features={"a": {"shape": 3, "dtype": "float32"}}), "has no feature of shape"),
])
def test_what_cannot_be_used_is_named(make: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    make(tmp_path)

    def first() -> object:
        reader = reader_of(tmp_path)
        return reader.opened(reader.names()[0])

    with pytest.raises(BadInput, match=words):
        first()


def test_a_tar_that_is_cut_off_ends_in_one_message(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, *SHAPE), np.float32))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("v.embeddings.npy")
        member.size = 200  # of an array of a thousand
        tar.addfile(member, io.BytesIO(buffer.getvalue()[:200]))
    with pytest.raises(BadInput, match="an array of objects, or one that is cut off"):
        reader_of(tmp_path).opened("a.tar/v")


def test_training_reads_every_byte_at_most_twice_before_its_first_step(tmp_path: Path) -> None:
    """Once for the hash, once for everything else; read() is counted by the system, maps of the cache are none."""
    h5py: Any = pytest.importorskip("h5py")
    for number in range(6):
        with h5py.File(tmp_path / f"v{number}.h5", "w") as file:
            file["embeddings"] = np.random.default_rng(number).normal(size=(400, 16, 1, 8, 8)).astype(np.float32)
    manifest.write_manifest(tmp_path)
    held = sum(path.stat().st_size for path in tmp_path.glob("*.h5"))

    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = read_so_far()
    checked = check(config(tmp_path))
    outline(config(tmp_path), "train")
    assert read_so_far() - before < held / 10, "headers only"
    before = read_so_far()
    train, validation = (open_split(config(tmp_path), split, checked=checked) for split in ("train", "validation"))
    data_fingerprint(config(tmp_path), checked)
    train.batch(np.arange(8))
    validation.batch(np.arange(8))
    assert held < read_so_far() - before < 2.1 * held
