"""Labels that a person gave: `labels.csv` beside the H5 files, one true action a line, read over what the files say.

    file,frame,action
    clip-0003.h5,17,LEFT

`frame` is the latent frame that the action led into; `action` is a name of the data's action table or a number of it.
Where no file has a table, names count from 0 in the order in which they first stand here; then there may be no action
by number, here or in the files, since nothing says which name it is. Of two lines about one frame the later counts, so
that answers are only ever added.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import MOST_KINDS
from lam.data.index import Header
from lam.data.sources import Source
from record import files
from record.errors import BadInput
from record.schema import suggest

FILE_NAME = "labels.csv"
COLUMNS = ("file", "frame", "action")


@dataclass(frozen=True)
class GivenLabels:
    """What `labels.csv` says.

    Attributes:
        names: of the actions by number, the data's own or those first used here; empty where only numbers are.
        of: for each file the action by latent frame.
        digest: of the text, "" where there is none: other labels are other data.
        path: of the file, where its names are of its own; None where the data have a table.
    """

    names: tuple[str, ...] = ()
    of: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    digest: str = ""
    path: Path | None = None

    @property
    def count(self) -> int:
        """Transitions with a label."""
        return sum(len(frames) for frames in self.of.values())


def read(folder: Path, records: Mapping[str, Header], names: Sequence[str]) -> GivenLabels:
    """The labels of a data folder; none where it has no such file.

    Args:
        names: the data's action table, empty where it has none.

    Raises:
        BadInput: naming the line, what it says and what may stand there.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return GivenLabels(tuple(names))
    content = files.read_record(path)
    try:
        rows = list(csv.reader(content.decode("utf-8").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot be read as lines of values ({error})", source=path,
                       remedy="save it as UTF-8 text with commas") from None
    header = rows[0] if rows else []
    if tuple(header) != COLUMNS:
        raise BadInput(f"begins with {','.join(header)!r:.60}, expected {','.join(COLUMNS)}", source=path,
                       remedy="write that as its first line")
    known, of = list(names), dict[str, dict[int, int]]()
    for number, row in enumerate(rows[1:], 2):
        if row:
            file, frame, action = _line(row, records, known, bool(names), f"{path}:{number}")
            of.setdefault(file, {})[frame] = action
    _refuse_names_beside_numbers(rows[1:], names, path)
    return GivenLabels(tuple(known), of, hashlib.sha256(content).hexdigest(), None if names else path)


def _refuse_names_beside_numbers(rows: Sequence[Sequence[str]], names: Sequence[str], path: Path) -> None:
    """Where no table says which name a number is: the second of the two ways is an error, with its line."""
    ways = [(number, row[2]) for number, row in enumerate(rows, 2) if row]
    if names or not ways:
        return
    first = ways[0][1]
    for number, action in ways:
        if action.isdecimal() != first.isdecimal():
            raise BadInput(f"got {action!r:.40} beside {first!r:.40}, and no file says which action has which number",
                           source=f"{path}:{number}", key="action", remedy="write names alone, or numbers alone")


def check_numbers(given: GivenLabels, source: Source, headers: Sequence[Header]) -> None:
    """Refuse names in labels.csv beside numbers in the files that have no name: 0 here would not be 0 there.

    Raises:
        BadInput: both are there.
    """
    if given.path is None or not given.names:
        return
    for file, header in enumerate(headers):
        if header.info.actions and (source.actions(file, 0, header.info.latent_frames) >= 0).any():
            raise BadInput(f"got {given.names[0]!r:.40}, and the videos have numbers of actions without names",
                           source=given.path, key="action", remedy="write their numbers, or give the videos the "
                           "attribute action_names")


def _line(row: list[str], records: Mapping[str, Header], known: list[str], fixed: bool,
          place: str) -> tuple[str, int, int]:
    if len(row) != len(COLUMNS):
        raise BadInput(f"got {len(row)} values, expected {','.join(COLUMNS)}", source=place)
    file, frame, action = row
    if file not in records:
        raise BadInput(f"got {file!r}, no file of the manifest", source=place, key="file",
                       remedy=suggest(file, sorted(records)))
    frames = records[file].info.latent_frames
    if not frame.isdecimal() or len(frame) > 9 or not 1 <= int(frame) < frames:
        raise BadInput(f"got {frame!r}, expected a latent frame from 1 to {frames - 1}", source=place, key="frame")
    return file, int(frame), _number(action, known, fixed, place)


def _number(action: str, known: list[str], fixed: bool, place: str) -> int:
    """The number of an action; a new name is added to `known` unless that is the data's own table."""
    if action in known:
        return known.index(action)
    most = len(known) if fixed else MOST_KINDS
    if action.isdecimal() and len(action) < 10 and int(action) < most:
        return int(action)
    if fixed or not action or action.isdecimal():
        raise BadInput(f"got {action!r}, no action of the data", source=place, key="action",
                       remedy=suggest(action, known) if known else f"a number below {MOST_KINDS}, or a name")
    known.append(action)
    return len(known) - 1


class Labelled:
    """A source whose actions are those of `labels.csv` where it has one."""

    def __init__(self, source: Source, given: Sequence[Mapping[int, int]]) -> None:
        self.source, self.given = source, given

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        return self.source.frames(file, first, count)

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        found, given = self.source.actions(file, first, count), self.given[file]
        if not given:
            return found
        return np.array([given.get(first + place, action) for place, action in enumerate(found.tolist())], np.int64)


def append(folder: Path, file: str, frame: int, action: str) -> None:
    """Add one label, durably."""
    path = folder / FILE_NAME
    new = not path.exists()
    with open(path, "a", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow((file, frame, action))
        out.flush()
        os.fsync(out.fileno())
