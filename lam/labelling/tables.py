"""Labels as a file: H5, Parquet or npz, written portion by portion, so that none has to fit the memory.

H5 and npz hold one array a column; `files` are the videos by number. Parquet spells videos and actions out and has a
column for each slot. Each says inside which weights and data it came from.
"""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from record import files
from record.errors import BadInput

Columns = dict[str, NDArray[Any]]


class Table(NamedTuple):
    """What is written.

    Attributes:
        rows: transitions in all.
        portions: of their columns, in order; asked for as often as a format needs to read them.
        files: names of the videos by number.
        actions: names of the true actions by number; empty where none is known.
        provenance: which weights and data.
    """

    rows: int
    portions: Callable[[], Iterator[Columns]]
    files: Sequence[str]
    actions: Sequence[str]
    provenance: Mapping[str, Any]

    def about(self) -> str:
        """The provenance as JSON."""
        return json.dumps(files.jsonable(dict(self.provenance)))


def write_table(path: Path, table: Table) -> Path:
    """Write a table in the format that the file's name ends in."""
    form = form_of(path)
    return files.write_atomic(path, lambda file: form(file, table))


def form_of(path: Path) -> Callable[[IO[bytes], Table], None]:
    """How a file of this name is written.

    Raises:
        BadInput: its ending names no format, or one that cannot be written here; or it is a folder.
    """
    forms = {".h5": _h5, ".parquet": _parquet, ".npz": _npz}
    if path.is_dir():
        raise BadInput(f"got {str(path)!r}, which is a folder", key="--output",
                       remedy=f"name a file that ends in {', '.join(forms)}")
    if path.suffix not in forms:
        raise BadInput(f"got {path.name!r}", key="--output", remedy=f"end it in {', '.join(forms)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise BadInput(f"got {path.name!r}, and pyarrow, which writes Parquet, is not installed", key="--output",
                       remedy="pip install pyarrow, or end it in .h5 or .npz")
    return forms[path.suffix]


def _h5(file: IO[bytes], table: Table) -> None:
    with h5py.File(file, "w") as out:
        done = 0
        for columns in table.portions():
            for name, values in columns.items():
                if name not in out:
                    out.create_dataset(name, (table.rows, *values.shape[1:]), values.dtype, chunks=True)
                out[name][done : done + len(values)] = values
            done += len(columns["frame"])
        out.create_dataset("files", data=[name.encode() for name in table.files])
        out.attrs["provenance"] = table.about()
        out.attrs["action_names"] = json.dumps(list(table.actions))


def _npz(file: IO[bytes], table: Table) -> None:
    """As np.savez, without an array that holds all rows; each column is read on its own."""
    first = next(table.portions())
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as out:
        for name, values in first.items():
            with out.open(f"{name}.npy", "w", force_zip64=True) as array:
                np.lib.format.write_array_header_1_0(array, {
                    "descr": values.dtype.str, "fortran_order": False, "shape": (table.rows, *values.shape[1:])})
                for columns in table.portions():
                    array.write(np.ascontiguousarray(columns[name]).data)
        for name, text in (("files", np.array(table.files)), ("action_names", np.array(table.actions, np.str_)),
                           ("provenance", np.array(table.about()))):
            with out.open(f"{name}.npy", "w") as array:
                np.lib.format.write_array(array, text, allow_pickle=False)


def _parquet(file: IO[bytes], table: Table) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    for columns in table.portions():
        batch = pa.table(_arrow(columns, table)).replace_schema_metadata({"lam": table.about()})
        writer = writer or parquet.ParquetWriter(file, batch.schema)
        writer.write_table(batch)
    assert writer is not None, "there is no labelling without a portion"
    writer.close()


def _arrow(columns: Columns, table: Table) -> dict[str, Any]:
    """The columns as arrow has them."""
    import pyarrow as pa

    found: dict[str, Any] = {"video": np.array(table.files, object)[columns["video"]]}
    for name, values in columns.items():
        if name == "codes":
            found |= {f"code_{slot}": values[:, slot] for slot in range(values.shape[1])}
        elif name == "embedding":
            found[name] = pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1])
        elif name == "action":
            found[name] = np.array(table.actions, object)[values]
        elif name != "video":
            found[name] = values
    return found
