"""Bad latents files: every one is refused with the file, the dataset and the remedy."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lam.data.h5 import check_same_shape, list_files, read_info
from lam.data.index import FileRecord, scan, scan_file
from lam.data.readers.hdf import Hdf
from lam.data.readers.video import Reader
from record.errors import BadInput

SHAPE = (4, 16, 2, 8, 8)
GOOD = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def scanned(path: Path) -> FileRecord:
    return scan_file(Hdf(path.parent), path.name)


def write(path: Path, data: object = GOOD, name: str = "embeddings", **more: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=data, **more)
    return path


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def truncated(path: Path) -> None:
    write(path)
    os.truncate(path, path.stat().st_size // 2)


def group_instead(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("embeddings")


def external_link(path: Path) -> None:
    other = write(path.with_name("other.hdf5"))
    with h5py.File(path, "w") as file:
        file["embeddings"] = h5py.ExternalLink(other.name, "/embeddings")


def soft_link(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["embeddings"] = h5py.SoftLink("/elsewhere")


def external_storage(path: Path) -> None:
    secret = path.with_name("secret.bin")
    secret.write_bytes(b"s" * GOOD.nbytes)
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", SHAPE, "f4", external=[(str(secret), 0, GOOD.nbytes)])


def virtual(path: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource("gone.h5", "embeddings", SHAPE)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("embeddings", layout)


def unknown_filter(path: Path) -> None:
    with h5py.File(path, "w") as file:
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        create.set_chunk(SHAPE)
        create.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, create)


def huge_claim(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", (10**9, 16, 2, 64, 64), "f4", chunks=(1, 16, 2, 64, 64))


def never_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("embeddings", SHAPE, "f4")


def bad_actions(path: Path) -> None:
    write(path)
    with h5py.File(path, "a") as file:
        file["actions"] = np.zeros(7, np.int64)


def bad_names(path: Path) -> None:
    write(path)
    with h5py.File(path, "a") as file:
        file.attrs["action_names"] = "NOOP, LEFT"


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: None, "a.h5: no such file; check the path or the manifest"),
    (lambda path: path.mkdir(), "a.h5: is a folder, expected an H5 file"),
    (raw(b""), "a.h5: has 0 bytes"),
    (raw(b"just some text\n" * 100), "a.h5: cannot be opened as an H5 file (not an H5 file)"),
    (truncated, "a.h5: cannot be opened as an H5 file (truncated)"),
    (lambda path: write(path, name="latents"), "a.h5:embeddings: dataset is missing; the file holds: latents"),
    (group_instead, "a.h5:embeddings: is a group, expected a dataset"),
    (lambda path: write(path, np.float32(1)), "a.h5:embeddings: got shape [], expected [N_chunks, C, T_latent, H, W]"),
    (lambda path: write(path, GOOD[0]), "a.h5:embeddings: got shape [16, 2, 8, 8], expected"),
    (lambda path: write(path, GOOD.astype(int)), "a.h5:embeddings: got type int64, expected"),
    (lambda path: write(path, GOOD[:0]), "a.h5:embeddings: got shape [0, 16, 2, 8, 8], which holds no data"),
    (external_link, "a.h5:embeddings: is a link to 'other.hdf5:/embeddings', expected data in the file itself"),
    (soft_link, "a.h5:embeddings: is a link to '/elsewhere'"),
    (external_storage, "a.h5:embeddings: keeps its data outside the file ("),
    (virtual, "a.h5:embeddings: is a virtual dataset, whose data lies in other files; copy the data into the file"),
    (unknown_filter, "a.h5:embeddings: is compressed with filter 32015 ("),
    (huge_claim, "a.h5:embeddings: claims shape [1000000000, 16, 2, 64, 64] but only 0 of 1,000,000,000 storage"),
    (never_written, "a.h5:embeddings: claims shape [4, 16, 2, 8, 8] but only 0 of 32,768 bytes were written"),
    (bad_actions, "a.h5:actions: got shape [7] of int64, expected [8] of integers, one for each latent frame"),
    (bad_names, "a.h5:attribute action_names: got 'NOOP, LEFT', expected a JSON list of words"),
])
def test_what_cannot_be_used_is_named(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "a.h5"
    make(path)
    with pytest.raises(BadInput) as caught:
        read_info(path)
    before, found, after = str(caught.value).partition(message)
    assert found, before
    assert "; " in message or "; " in after  # a remedy follows


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_bad_numbers_name_the_first_bad_chunk(tmp_path: Path, value: float, word: str) -> None:
    data = GOOD.copy()
    data[2:, 3, 1, 4, 5] = value
    with pytest.raises(BadInput, match=rf"a\.h5:embeddings: holds {word} in chunk 2; encode the video again"):
        scanned(write(tmp_path / "a.h5", data))


def test_doubles_beyond_float32_are_infinite(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="overflow"), pytest.raises(BadInput, match="holds infinity in chunk 0"):
        scanned(write(tmp_path / "a.h5", np.full(SHAPE, 1e300)))


def test_a_flipped_bit_in_checksummed_data_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", chunks=(1, *SHAPE[1:]), fletcher32=True)
    content = bytearray(path.read_bytes())
    at = content.find(GOOD[2].tobytes())
    content[at + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.h5:embeddings: chunks 0 to 3 cannot be read .* the file is damaged"):
        scanned(path)


def test_constant_latents_are_a_warning_at_every_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.h5", np.ones(SHAPE, np.float32))
    write(tmp_path / "b.h5")
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = scan(Hdf(tmp_path), ["a.h5", "b.h5"]).records
        assert "every channel is constant in 1 of 2 files (a.h5)" in caplog.text
    assert [found["a.h5"].constant, found["b.h5"].constant] == [True, False]


@pytest.mark.parametrize(("actions", "message"), [([-2] * 8, "holds -2, expected -1 (unknown) to 1"),
                                                  ([2] * 8, "holds 2, expected -1 (unknown) to 1")])
def test_actions_must_have_names(tmp_path: Path, actions: list[int], message: str) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["actions"] = np.array(actions)
        file.attrs["action_names"] = '["NOOP", "LEFT"]'
    with pytest.raises(BadInput) as caught:
        scanned(path)
    assert message in str(caught.value)


def test_continuous_actions_are_left_out_with_one_warning_a_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.h5", "b.h5"):
        with h5py.File(write(tmp_path / name), "a") as file:
            file["actions"] = np.zeros((8, 7), np.float32)
    with caplog.at_level(logging.WARNING):
        assert [scanned(tmp_path / name).info.actions for name in ("a.h5", "b.h5")] == [False, False]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: continuous actions, which no code can be compared with, are left out"]


def test_statistics_are_those_of_the_latents(tmp_path: Path) -> None:
    data = (GOOD * np.arange(1, 17)[:, None, None, None] + 100).astype(np.float32)
    record = scanned(write(tmp_path / "a.h5", data))
    flat = data.transpose(1, 0, 2, 3, 4).reshape(16, -1).astype(np.float64)
    np.testing.assert_allclose(record.mean, flat.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(record.std, flat.std(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(record.low, flat.min(axis=1))
    np.testing.assert_array_equal(record.high, flat.max(axis=1))


def test_files_must_agree(tmp_path: Path) -> None:
    infos = {"a.h5": read_info(write(tmp_path / "a.h5")), "b.h5": read_info(write(tmp_path / "b.h5", GOOD[:, :8]))}
    with pytest.raises(BadInput, match=r"b\.h5:embeddings: got 8 channels, but a\.h5 has 16; encode all videos alike"):
        check_same_shape(infos)


def test_flattened_frame_order(tmp_path: Path) -> None:
    flat = GOOD.transpose(0, 2, 1, 3, 4).reshape(8, 16, 8, 8)
    video = Hdf(write(tmp_path / "a.h5").parent).opened("a.h5")
    for first in range(8):
        for count in range(1, 9 - first):
            np.testing.assert_array_equal(video.frames(first, count), flat[first:first + count])
    video.close()


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nope: no such folder; check the path"):
        list_files(tmp_path / "nope")
    with pytest.raises(BadInput, match=r"holds no \.h5 file"):
        list_files(tmp_path)
    write(tmp_path / "b.h5")
    write(tmp_path / ".hidden.h5")
    (tmp_path / "a.txt").touch()
    assert list_files(tmp_path) == ["b.h5"]
    with pytest.raises(BadInput, match="is a file, expected a folder"):
        list_files(tmp_path / "b.h5")


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5", GOOD + 1)
    read: list[str] = []

    def spy(reader: Reader, name: str) -> FileRecord:
        read.append(name)
        return scan_file(reader, name)

    first = scan(Hdf(tmp_path), ["a.h5", "b.h5"], spy)
    assert scan(Hdf(tmp_path), ["a.h5", "b.h5"], spy) == first
    assert read == ["a.h5", "b.h5"]
    write(tmp_path / "b.h5", GOOD + 2)
    second = scan(Hdf(tmp_path), ["a.h5", "b.h5"], spy)
    assert read == ["a.h5", "b.h5", "b.h5"]
    assert second.records["b.h5"].sha256 != first.records["b.h5"].sha256
    (tmp_path / ".cache/index.json").write_text("{torn")
    assert scan(Hdf(tmp_path), ["a.h5", "b.h5"]) == second


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"")
    found = scan(Hdf(tmp_path), ["a.h5", "b.h5", "c.h5"])
    assert list(found.records) == ["a.h5"]
    assert list(found.problems) == ["b.h5", "c.h5"]
