"""Data that expand, that are of two shapes, or that end in another way: said in words, and before they are read."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from lam.data import inspect
from lam.data.h5 import list_files, read_info
from lam.data.index import scan_file
from lam.data.readers.hdf import Hdf
from record.errors import BadInput


def sparse(path: Path) -> None:
    """24 GB that take 4 kB: written contiguously and never filled."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((1000, 16, 2, 430, 430))
        h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, plist)


def squeezed(path: Path) -> None:
    """Half a gigabyte of one value."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("embeddings", (16, 16, 2, 512, 512), np.float32, chunks=(1, 16, 2, 512, 512),
                                   compression="gzip", compression_opts=9)
        for chunk in range(16):
            data[chunk] = 1.0


@pytest.mark.parametrize("make", [sparse, squeezed])
def test_a_file_that_next_to_nothing_unpacks_to_is_refused_before_it_is_read(tmp_path: Path, make: object) -> None:
    make(tmp_path / "x.h5")  # type: ignore[operator]
    assert os.stat(tmp_path / "x.h5").st_blocks * 512 < 10_000_000
    with pytest.raises(BadInput, match=r"x.h5:embeddings: takes [\d,]+ bytes and unpacks to [\d,]+, which no"):
        read_info(tmp_path / "x.h5")


def test_a_file_of_another_shape_is_counted_once(tmp_path: Path) -> None:
    for name, side in (("a", 8), ("b", 8), ("c", 4)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["embeddings"] = np.random.default_rng(0).standard_normal((2, 4, 2, side, side)).astype(np.float32)
    found = inspect.inspect(tmp_path)
    assert [row.name for row in found.files] + list(found.problems) == ["a.h5", "b.h5", "c.h5"]


def test_files_that_only_end_in_another_way_are_named(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.hdf5").touch()
    with pytest.raises(BadInput, match=r"holds no \.h5 file; rename its 6 HDF5 files so that they end in \.h5"):
        list_files(tmp_path)


def test_latents_that_no_float_squares_are_refused_as_what_is_not_finite_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["embeddings"] = np.full((2, 4, 2, 8, 8), 1e30, dtype=np.float32)
    with pytest.raises(BadInput, match=r"x.h5:embeddings: holds values up to 1e\+30 in chunk 0; encode the"):
        scan_file(Hdf(tmp_path), "x.h5")


def test_an_object_whose_header_is_damaged_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["embeddings"] = np.ones((4, 4, 2, 4, 4), np.float32)
        file["actions"] = np.zeros((4, 2), np.int64)
        header = h5py.h5o.get_info(file["actions"].id).addr
    content = bytearray(path.read_bytes())
    content[header] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.h5: is damaged \(.*object header version"):
        read_info(path)
