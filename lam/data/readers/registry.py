"""Which reader a folder of videos needs; a format that is added is added here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lam.data.h5 import list_files
from lam.data.readers.arrays import Npy, Safetensors
from lam.data.readers.hdf import Hdf
from lam.data.readers.lerobot import INFO, LeRobot
from lam.data.readers.tars import Tars
from lam.data.readers.video import Reader
from lam.data.readers.zarrs import Zarr
from record.errors import BadInput

# Where a folder holds files of several, H5 is meant: people keep other arrays beside their videos.
READERS: dict[str, Callable[[Path, str | None], Reader]] = {
    ".h5": Hdf, ".zarr": Zarr, ".safetensors": Safetensors, ".tar": Tars, ".npy": Npy}


def reader_of(folder: str | Path, latents: str | None = None) -> Reader:
    """Who reads the videos of a folder.

    Args:
        latents: the name of the latents in each: of a dataset, tensor, array, member or feature.

    Raises:
        BadInput: no such folder, or it holds no videos, or videos of several formats.
    """
    folder = Path(folder)
    if (folder / INFO).is_file():
        return LeRobot(folder, latents)
    endings = {each.suffix for each in folder.iterdir() if each.name[0] != "."} if folder.is_dir() else set()
    found = [ending for ending in READERS if ending in endings]
    if not found:
        list_files(folder)  # says what is missing
    if len(found) > 1 and ".h5" not in found:
        raise BadInput(f"holds files of several formats ({', '.join(found)})", source=folder,
                       remedy="keep the videos of each format in a folder of their own")
    return READERS[found[0]](folder, latents)
