"""Picture strips of a run as PNG data: frame, true next frame, two predictions, and where they differ."""

from __future__ import annotations

import base64
import io
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.read.reading import Trial
from record import files

PANELS = ("Frame", "True next frame", "Prediction, its own action", "Prediction, another action", "Difference")
MOST_BYTES = 1 << 28  # hundreds of strips of the largest pictures
MIN_SIDE = 144
MAX_STRIPS = 4

_NAME = re.compile(r"epoch-([0-9]{1,9})\.npz")


@dataclass(frozen=True)
class Strip:
    """One transition.

    Attributes:
        images: PNG data URIs in the order of `PANELS`; the last is the heat map of
            |own - other|, black = 0, brightest = `largest` of 255.
        action, other_action: names of the true action and of the one the other codes stand for, "unknown" where
            the data does not say.
        codes, other_codes: code tuples behind the two predictions.
    """

    images: tuple[str, ...]
    action: str
    other_action: str
    codes: tuple[int, ...]
    other_codes: tuple[int, ...]
    file: str
    frame: int
    largest: int


@dataclass(frozen=True)
class Strips:
    """The strips of a run, or the reason that there are none."""

    label: str
    epoch: int | None
    strips: tuple[Strip, ...]
    note: str = ""


def strips_of(trial: Trial, epoch: int | None) -> Strips:
    """Strips of the validation at `epoch`, or of the nearest one before it, or of the first one."""
    named = ((_NAME.fullmatch(path.name), path) for path in trial.path.glob("samples/epoch-*.npz"))
    found = {int(name[1]): path for name, path in named if name}
    if not found:
        return Strips(trial.label, None, (), "No picture was recorded: the data has no codec back to pixels.")
    before = [number for number in found if epoch is None or number <= epoch]
    chosen = max(before) if before else min(found)
    try:
        return Strips(trial.label, chosen, _read(found[chosen]))
    except Exception as error:  # a damaged archive raises whatever its parts have become; a report stands without it
        return Strips(trial.label, chosen, (), f"{found[chosen].name} cannot be read ({error}).")


def _read(path: Path) -> tuple[Strip, ...]:
    with np.load(io.BytesIO(files.read_record(path, MOST_BYTES)), allow_pickle=False) as data:
        _check_size(data.zip)
        names = dict(enumerate(str(name) for name in data["action_names"]))
        return tuple(
            _strip(data["pictures"][index], data["codes"][index],
                   tuple(names.get(int(data[key][index]), "unknown") for key in ("actions", "other_actions")),
                   str(data["files"][index]), int(data["frames"][index]))
            for index in range(min(MAX_STRIPS, len(data["pictures"])))
        )


def _check_size(archive: zipfile.ZipFile) -> None:
    """Refuse arrays that unpack to more than pictures are, by what the archive says before anything is unpacked.

    Python unpacks no more of an entry than it says; what an array's own header asks for beyond that is memory that is
    never touched, so it is held to the entry's size as well.

    Raises:
        ValueError: an entry is too large, or its array would be.
    """
    for entry in archive.infolist():
        with archive.open(entry) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, kind = read(file)
        if entry.file_size > MOST_BYTES or math.prod(shape) * kind.itemsize > entry.file_size:
            raise ValueError(f"{entry.filename} asks for {math.prod(shape) * kind.itemsize:,} bytes")


def _strip(pictures: NDArray[np.uint8], codes: NDArray[np.integer], actions: tuple[str, ...], file: str,
           frame: int) -> Strip:
    own, other = pictures[2].astype(np.int16), pictures[3].astype(np.int16)
    difference = np.abs(own - other).max(axis=-1)
    images = (*pictures, heat(difference))
    first, second = (tuple(int(code) for code in row) for row in codes)
    return Strip(images=tuple(data_uri(image) for image in images), action=actions[0], other_action=actions[1],
                 codes=first, other_codes=second, file=file, frame=frame, largest=int(difference.max()))


def heat(amounts: NDArray[np.integer], largest: int | None = None) -> NDArray[np.uint8]:
    """[H, W] amounts as [H, W, 3] colours from black over red to pale yellow, scaled to `largest` or to their own."""
    scaled = amounts / max(1, int(amounts.max()) if largest is None else largest)
    stops = np.array([[8, 8, 16], [150, 20, 80], [240, 110, 30], [255, 245, 190]], dtype=float)
    places = np.linspace(0, 1, len(stops))
    channels = [np.interp(scaled, places, stops[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def data_uri(picture: NDArray[np.uint8]) -> str:
    """[H, W, 3] as a PNG data URI, enlarged by a whole factor without smoothing."""
    from PIL import Image  # for runs that kept pictures

    image = Image.fromarray(np.ascontiguousarray(picture), mode=None)
    factor = max(1, -(-MIN_SIDE // max(image.size)))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
