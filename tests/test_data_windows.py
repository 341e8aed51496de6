"""What training reads: the same bits from the files and from the cache, from any process."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lam.config import RunConfig, from_mapping
from lam.data import index, sources
from lam.data.index import scan
from lam.data.readers.hdf import Hdf
from lam.data.readers.video import OPEN_VIDEOS
from lam.data.windows import action_names, check, data_fingerprint, load_codec, open_split, summary, window_starts
from record.errors import BadInput, EnvironmentFailed


def config(folder: Path, **more: Any) -> RunConfig:
    return from_mapping({"data_dir": str(folder), "sequence_length": 5, **more}, source="test")


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(tiny_data, tmp_path / "pong", ignore=shutil.ignore_patterns(".cache")))


def rewrite(path: Path, change: Any) -> None:
    with h5py.File(path, "a") as file:
        change(file)


def test_windows_of_a_split(tiny_data: Path) -> None:
    train = open_split(config(tiny_data), "train")
    assert (len(train.files), train.latent_shape, train.chunk_frames) == (8, (16, 8, 8), 2)
    assert len(train) == 8 * 20
    assert train.starts[:2].tolist() == [[0, 0], [0, 1]]
    assert train.starts[-1].tolist() == [7, 19]
    assert len(open_split(config(tiny_data, window_stride=3), "train")) == 8 * 7
    assert len(open_split(config(tiny_data, window_stride=3), "train", stride=5)) == 8 * 4


def test_window_starts_skip_nothing_and_stay_inside() -> None:
    assert window_starts([5, 4], 4, 1).tolist() == [[0, 0], [0, 1], [1, 0]]
    assert window_starts([8], 8, 3).tolist() == [[0, 0]]
    assert window_starts([9], 4, 2).tolist() == [[0, 0], [0, 2], [0, 4]]


@pytest.mark.parametrize("cache", [True, False])
def test_a_batch_is_what_the_files_hold(tiny_data: Path, cache: bool) -> None:
    windows = open_split(config(tiny_data, cache=cache), "validation")
    index = np.array([7, 0, 19, 7])
    batch = windows.batch(index)
    assert (batch.latents.shape, batch.latents.dtype) == ((4, 5, 16, 8, 8), torch.float32)
    assert (batch.actions.shape, batch.actions.dtype) == ((4, 5), torch.int64)
    assert batch.start.tolist() == [7, 0, 19, 7]
    assert batch.file.tolist() == [0, 0, 0, 0]
    with h5py.File(tiny_data / windows.files[0]) as file:
        frames = file["embeddings"][:].transpose(0, 2, 1, 3, 4).reshape(24, 16, 8, 8)
        actions = file["actions"][:]
    for row, start in enumerate(batch.start.tolist()):
        np.testing.assert_array_equal(batch.latents[row].numpy(), frames[start:start + 5])
        np.testing.assert_array_equal(batch.actions[row].numpy(), actions[start:start + 5])


class WithoutLatents:
    """A source whose latents must not be read."""

    def __init__(self, source: sources.Source) -> None:
        self.actions = source.actions

    def frames(self, file: int, first: int, count: int) -> Any:
        raise AssertionError("latents were read")


@pytest.mark.parametrize("cache", [True, False])
def test_the_last_actions_are_read_without_latents(tiny_data: Path, cache: bool) -> None:
    windows = open_split(config(tiny_data, cache=cache), "train")
    index = np.array([7, 0, 130, 7])
    expected = windows.batch(index).actions[:, -1].numpy()
    windows._source = WithoutLatents(windows._source)
    np.testing.assert_array_equal(windows.last_actions(index), expected)


@pytest.mark.parametrize("storage", [
    {}, {"chunks": (1, 16, 2, 8, 8)}, {"chunks": (5, 3, 1, 8, 4), "compression": "gzip", "shuffle": True},
    {"chunks": (12, 16, 2, 8, 8), "fletcher32": True}, {"dtype": "f2"}, {"dtype": "f8"}, {"dtype": ">f4"},
], ids=str)
def test_files_and_cache_give_the_same_bits(data: Path, storage: dict[str, Any]) -> None:
    for path in data.glob("*.h5"):
        def change(file: h5py.File) -> None:
            values = file["embeddings"][:]
            del file["embeddings"]
            file.create_dataset("embeddings", data=values, **storage)

        rewrite(path, change)
    cached = open_split(config(data, cache=True), "train")
    direct = open_split(config(data, cache=False), "train")
    index = np.random.default_rng(0).permutation(len(direct))[:60]
    for a, b in zip(cached.batch(index), direct.batch(index), strict=True):
        assert torch.equal(a, b)


def test_a_batch_may_be_changed_without_harming_the_cache(tiny_data: Path) -> None:
    windows = open_split(config(tiny_data), "train")
    before = windows.batch(np.array([0])).latents.clone()
    windows.batch(np.array([0])).latents.zero_()
    assert torch.equal(windows.batch(np.array([0])).latents, before)


def test_files_without_actions_say_minus_one(data: Path) -> None:
    for path in data.glob("*.h5"):
        rewrite(path, lambda file: file.__delitem__("actions"))
    for cache in (True, False):
        batch = open_split(config(data, cache=cache), "test").batch(np.array([0, 1]))
        assert (batch.actions == -1).all()


def _checksum(windows: Any, queue: Any) -> None:
    queue.put(float(windows.batch(np.arange(20)).latents.numpy().sum(dtype=np.float64)))


@pytest.mark.parametrize(("method", "cache"), [
    ("fork", True), ("fork", False), pytest.param("spawn", False, marks=pytest.mark.nightly)])
def test_windows_go_to_other_processes(tiny_data: Path, cache: bool, method: str) -> None:
    windows = open_split(config(tiny_data, cache=cache), "train")
    expected = float(windows.batch(np.arange(20)).latents.numpy().sum(dtype=np.float64))  # the parent has files open
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_checksum, args=(windows, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=300) for _ in workers] == [expected] * 2
    for worker in workers:
        worker.join(timeout=300)


def test_pickling_carries_no_latents(tiny_data: Path) -> None:
    windows = open_split(config(tiny_data), "train")
    windows.batch(np.arange(50))
    assert len(pickle.dumps(windows)) < 30_000


def _open(folder: str, barrier: Any, queue: Any) -> None:
    barrier.wait()
    built: list[str] = []
    real = index.scan_file
    index.scan_file = lambda reader, name, keep: (built.append(name), real(reader, name, keep))[1]  # type: ignore[func-returns-value]
    total = float(open_split(config(Path(folder)), "train").batch(np.arange(20)).latents.numpy().sum(dtype=np.float64))
    queue.put((total, built))


def test_two_processes_build_one_cache(data: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_open, args=(str(data), barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (first, built_a), (second, built_b) = queue.get(timeout=300), queue.get(timeout=300)
    for worker in workers:
        worker.join(timeout=300)
        assert worker.exitcode == 0
    assert first == second
    assert sorted(built_a + built_b) == sorted(check(config(data)).infos)  # each file read once
    assert not list((data / ".cache").glob("*.tmp"))


def test_a_torn_cache_entry_is_made_again(data: Path) -> None:
    expected = open_split(config(data), "train").batch(np.arange(100))
    for path in (data / ".cache").glob("*.latents.npy"):
        os.truncate(path, 1000)
    assert torch.equal(open_split(config(data), "train").batch(np.arange(100)).latents, expected.latents)


def test_a_cache_of_changed_files_is_not_used(data: Path) -> None:
    before = open_split(config(data), "test").batch(np.array([0])).latents
    name = open_split(config(data), "test").files[0]
    rewrite(data / name, lambda file: file["embeddings"].write_direct(2 * file["embeddings"][:]))
    assert torch.equal(open_split(config(data), "test").batch(np.array([0])).latents, 2 * before)
    assert len(list((data / ".cache").glob("*.latents.npy"))) == 10  # the copy of what it held before is gone


def test_the_cache_goes_to_the_user_where_the_folder_is_closed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / ".cache").write_text("in the way, as a read-only folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    open_split(config(data), "train")
    assert len(list((tmp_path / "home/lamsweep").glob("*/*.latents.npy"))) == 9  # of training and validation


def test_what_the_disk_has_no_room_for_is_read_directly(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = open_split(config(data, cache=False), "train").batch(np.arange(50))
    usage = shutil.disk_usage(data)
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda folder: usage._replace(free=10_000))
    with caplog.at_level(logging.WARNING):
        found = open_split(config(data), "train").batch(np.arange(50))
    assert torch.equal(found.latents, expected.latents)
    assert "needs 0.0 GB, 0.0 GB are free; the files are read directly, which is slower" in caplog.text
    assert not list((data / ".cache").glob("*.npy"))


def direct(data: Path, split: str, **settings: Any) -> sources.Direct:
    """The files of a split, as they are read without a cache."""
    names = tuple(open_split(config(data, cache=False), split).files)
    return sources.Direct(Hdf(data), names, tuple(scan(Hdf(data), names).records.values()), **settings)


def test_a_file_replaced_while_training_is_named(data: Path) -> None:
    source = direct(data, "test", pauses=(0.01,))
    os.truncate((data / source.names[0]), 5000)
    with pytest.raises(EnvironmentFailed, match=rf"{source.names[0]}: can no longer be read .*; put the file"):
        source.frames(0, 0, 5)


def test_a_file_that_comes_back_is_read_on(data: Path) -> None:
    away = data.with_name("away")  # the folder: a file that is renamed is another one by its change time

    def pauses() -> Iterator[float]:
        yield 0.05
        away.rename(data)
        yield 0.0
        raise AssertionError("it was back")

    source = direct(data, "test", pauses=pauses())
    data.rename(away)
    begin = time.monotonic()
    assert source.frames(0, 0, 5).shape == (5, 16, 8, 8)
    assert time.monotonic() - begin >= 0.05


def test_more_files_than_may_be_open(tiny_data: Path) -> None:
    few, many = direct(tiny_data, "train", open_videos=2), direct(tiny_data, "train")
    for file in (0, 1, 2, 3, 0, 5, 1):
        np.testing.assert_array_equal(few.frames(file, 3, 5), many.frames(file, 3, 5))
    assert (len(few._open.opened), len(many._open.opened)) == (2, 5)


@contextmanager
def may_open(more: int) -> Iterator[None]:
    """This process may open so many files more, or none where it is 0."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    handle = os.open(os.devnull, os.O_RDONLY)
    os.close(handle)
    used = max(int(name) for name in os.listdir("/dev/fd") if name.isdigit()) if more else handle - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1 + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("cache", [True, False])
def test_more_videos_than_files_may_be_open(tiny_data: Path, cache: bool) -> None:
    few = open_split(config(tiny_data, cache=cache), "train")
    source = few._source
    assert isinstance(source, sources.Cached | sources.Direct)
    source.records = source.records[:1] * 400  # 400 videos that happen to be the same
    if isinstance(source, sources.Direct):
        source.names = source.names[:1] * 400
    with may_open(OPEN_VIDEOS + 30):
        for video in range(400):
            assert source.frames(video, 0, 2).shape == (2, 16, 8, 8)
            assert source.actions(video, 0, 2).shape == (2,)


@pytest.mark.parametrize("cache", [True, False])
def test_a_file_that_may_not_be_opened_is_not_called_damaged(tiny_data: Path, cache: bool) -> None:
    windows = open_split(config(tiny_data, cache=cache), "train")
    with may_open(0), pytest.raises(EnvironmentFailed, match=r"no more files may be opened .*'ulimit -n 4096'"):
        windows.batch(np.array([0]))
    assert windows.batch(np.array([0])).latents.shape == (1, 5, 16, 8, 8)


def test_a_cache_entry_torn_while_training_is_called_damaged(data: Path) -> None:
    windows = open_split(config(data), "test")
    os.truncate(next((data / ".cache").glob("*.latents.npy")), 1000)
    with pytest.raises(EnvironmentFailed, match=r"\.cache: the cache of decoded latents is damaged .*; remove that"):
        windows.batch(np.array([0]))


def test_fingerprint_names_content_and_split(data: Path, tmp_path: Path) -> None:
    first = data_fingerprint(config(data))
    assert len(first) == 12
    assert data_fingerprint(config(data, sequence_length=8, cache=False)) == first
    copy = shutil.copytree(data, tmp_path / "copy")
    assert data_fingerprint(config(copy)) == first  # the same data elsewhere
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["splits"]["train"], manifest["splits"]["test"] = (
        manifest["splits"]["train"][1:] + manifest["splits"]["test"], manifest["splits"]["train"][:1])
    (data / "manifest.json").write_text(json.dumps(manifest))
    assert data_fingerprint(config(data)) != first
    rewrite(next(copy.glob("*.h5")), lambda file: file["embeddings"].__setitem__((0, 0, 0, 0, 0), 9.0))
    assert data_fingerprint(config(copy)) != first


def test_summary_codec_and_action_names(tiny_data: Path) -> None:
    assert summary(config(tiny_data)) == {
        "files": 10, "too_short": 0, "channels": 16, "grid": [8, 8], "chunk_frames": 2, "latent_frames": 240}
    assert action_names(config(tiny_data)) == ["NOOP", "RIGHT", "LEFT"]
    codec = load_codec(config(tiny_data))
    assert codec is not None
    assert codec.decode(open_split(config(tiny_data), "test").batch(np.array([3])).latents[0].numpy()).shape == (
        5, 4, 64, 64, 3)


def test_no_codec_and_a_damaged_one(data: Path) -> None:
    name = open_split(config(data), "train").files[0]
    rewrite(data / name, lambda file: file["codec"].__delitem__("scale"))
    with pytest.raises(BadInput, match=rf"{name}:scale: dataset is missing; the file holds: components, mean, picture"):
        load_codec(config(data))
    rewrite(data / name, lambda file: file["codec"].create_dataset("scale", data=np.ones(3)))
    with pytest.raises(BadInput, match=rf"{name}:codec: holds arrays of shapes"):
        load_codec(config(data))
    rewrite(data / name, lambda file: file.__delitem__("codec"))
    assert load_codec(config(data)) is None
    rewrite(data / name, lambda file: file.__setitem__("codec", h5py.ExternalLink("x.h5", "/codec")))
    with pytest.raises(BadInput, match=rf"{name}:codec: is a link to 'x.h5:/codec'"):
        load_codec(config(data))


def test_bad_files_stop_a_run_before_it_starts(data: Path) -> None:
    with pytest.raises(BadInput, match=r"no file of train has sequence_length 25 latent frames, the longest has 24; "
                                       r"set sequence_length to 24 or less"):
        open_split(config(data, sequence_length=25), "train")
    validation = open_split(config(data), "validation").files[0]

    def smaller(file: h5py.File) -> None:
        values = file["embeddings"][..., :4, :4]
        del file["embeddings"]
        file["embeddings"] = values

    rewrite(data / validation, smaller)
    with pytest.raises(BadInput, match=rf"{validation}:embeddings: got 4 rows of latent cells, but pong-\d+\.h5 has 8"):
        open_split(config(data), "train")
    (data / validation).write_bytes(b"")
    with pytest.raises(BadInput, match=rf"{validation}: has 0 bytes"):
        data_fingerprint(config(data))


def test_videos_shorter_than_a_sequence_are_left_out_and_counted(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = open_split(config(data), "train")

    def shorter(file: h5py.File) -> None:
        for name, count in (("embeddings", 5), ("actions", 10)):
            values = file[name][:count]
            del file[name]
            file[name] = values

    rewrite(data / whole.files[2], shorter)
    asked = config(data, sequence_length=12)
    with caplog.at_level(logging.WARNING):
        windows = open_split(asked, "train")
    assert windows.files == [name for name in whole.files if name != whole.files[2]]
    assert "1 of 8 files of train are shorter than sequence_length 12 and left out" in caplog.text
    assert summary(asked)["too_short"] == 1
    assert data_fingerprint(asked) == data_fingerprint(config(data)), "the data are the same"


def test_what_was_checked_once_is_not_checked_again(data: Path) -> None:
    asked = config(data)
    checked = check(asked)
    first = open_split(asked, "train", checked=checked)
    for path in (data / "manifest.json", data / ".cache" / "index.json"):
        path.unlink()
    assert open_split(asked, "train", checked=checked).files == first.files
    assert len(data_fingerprint(asked, checked)) == 12
    assert summary(asked, checked)["files"] == 10
    assert load_codec(asked, checked) is not None
    assert action_names(asked, checked) == ["NOOP", "RIGHT", "LEFT"]


def test_a_lock_whose_holder_stands_still_is_said_and_one_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    ended: list[str] = []

    def wait() -> None:
        try:
            with index.locked(tmp_path, silence=0.2):
                ended.append("held")
        except EnvironmentFailed as error:
            ended.append(str(error))

    with index.locked(tmp_path):
        wait()
        waiting = threading.Thread(target=wait)
        waiting.start()
        for _ in range(30):
            time.sleep(0.02)
            index.beat(tmp_path)
    waiting.join(timeout=180)
    assert ended[0].startswith(f"{tmp_path}: another process holds the lock and has finished no file for 0.2 s; end it")
    assert ended[1:] == ["held"]


def test_an_empty_test_split_is_said_so(data: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["splits"]["test"] = []
    (data / "manifest.json").write_text(json.dumps(manifest))
    assert len(open_split(config(data), "train")) == 160
    with pytest.raises(BadInput, match=r"manifest\.json:splits\.test: names no file; write the manifest again"):
        open_split(config(data), "test")


def test_no_such_window(tiny_data: Path) -> None:
    with pytest.raises(IndexError):
        open_split(config(tiny_data), "test").batch(np.array([10**6]))


def test_half_precision_stays_so_in_the_cache_and_is_read_the_same(tiny_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_data, tmp_path / "data", ignore=shutil.ignore_patterns(".cache")))
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            values = file["embeddings"][:].astype(np.float16)
            del file["embeddings"]
            file["embeddings"] = values
    config = RunConfig(data_dir=str(folder), sequence_length=4)
    cached, direct = (open_split(config.replace(cache=cache), "train") for cache in (True, False))
    rows = np.arange(0, len(cached), 7)
    assert np.array_equal(cached.batch(rows).latents, direct.batch(rows).latents)
    assert cached.batch(rows).latents.numpy().dtype == np.float32
    sizes = [path.stat().st_size for path in (folder / ".cache").glob("*.latents16.npy")]
    assert sizes
    assert max(sizes) < 2 * 24 * 16 * 8 * 8 + 200
