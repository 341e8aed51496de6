"""What of a labelling is done: one file a portion beside the result, until all are there and become the result.

Each appears whole, so that a kill at any moment loses at most what was under way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lam.data.index import Header
from record import files
from record.errors import BadInput

Columns = dict[str, NDArray[Any]]
ASKED = "asked.json"


class Parts:
    """The portions of one result, `count` of them, in the folder `.NAME.parts` beside it."""

    def __init__(self, out: Path, count: int, asked: Mapping[str, Any]) -> None:
        self.folder, self.count = out.with_name(f".{out.name}.parts"), count
        self._asked = json.loads(json.dumps(files.jsonable(dict(asked))))

    def begin(self) -> None:
        """Make the folder, or go on with one that was asked the same.

        Raises:
            BadInput: what lies there was begun with another model, other data or other columns.
        """
        path = self.folder / ASKED
        if path.is_file():
            try:
                known = files.parse_json(files.read_record(path))
            except ValueError as error:
                raise BadInput(f"is damaged ({error})", source=path,
                               remedy="delete its folder to begin anew") from None
            changed = [key for key in self._asked if not isinstance(known, dict) or known.get(key) != self._asked[key]]
            if changed:
                raise BadInput(f"was begun with another {' and '.join(changed)}", source=self.folder,
                               remedy="delete that folder to begin anew, or name another --output")
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, self._asked)

    def missing(self) -> list[int]:
        """Numbers of the portions that are still to do."""
        return [number for number in range(self.count) if not self._path(number).exists()]

    def save(self, number: int, columns: Columns) -> None:
        """Keep a portion."""
        files.write_atomic(self._path(number), lambda file: np.savez(file, allow_pickle=False, **columns))

    def load(self, number: int) -> Columns:
        """A portion that was kept.

        Raises:
            BadInput: it is damaged.
        """
        try:
            with open(self._path(number), "rb") as file, np.load(file, allow_pickle=False) as found:
                return dict(found)
        except Exception as error:  # a damaged archive raises whatever its parts have become
            raise BadInput(f"cannot be read ({error})", source=self._path(number),
                           remedy="delete it and run the same command again") from None

    def all(self) -> Iterator[Columns]:
        """Every portion, in order, one in memory at a time."""
        return (self.load(number) for number in range(self.count))

    def remove(self) -> None:
        """Drop all of it: the result is there."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def listing(folder: Path, known: Mapping[str, Header]) -> str:
    """Twelve hex digits that name the files of a folder, as the file system says that they are."""
    found = [str(folder.resolve()), *sorted((name, each.size, each.mtime_ns, each.ctime_ns)
                                            for name, each in known.items())]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:12]
