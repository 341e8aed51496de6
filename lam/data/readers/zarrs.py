"""A folder of zarr stores, `NAME.zarr` each one video: an array, or a group with `embeddings` and `actions`.

Needs the package zarr (`pip install 'lamsweep[zarr]'`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from lam.data.h5 import ACTIONS, FileInfo, check_expansion
from lam.data.readers.arrays import Files, damage_named
from lam.data.readers.video import Video, bytes_of, described, on_disk
from record.errors import BadInput


class Zarr(Files):
    """The videos of a folder of zarr stores."""

    ending = ".zarr"

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        path = self.home(name)
        try:
            import zarr
        except ImportError:
            raise BadInput("needs the package zarr, which is not installed", source=path,
                           remedy="pip install 'lamsweep[zarr]'") from None
        with damage_named(path):
            store: Any = zarr.open(path, mode="r")
            values = self._latents(store, name)
            held = None if hasattr(store, "shape") or ACTIONS not in store else store[ACTIONS]
            for each in (values, *(() if held is None else (held,))):  # a chunk is unpacked whole
                most = max(math.prod(each.shape), math.prod(each.chunks)) * each.dtype.itemsize
                check_expansion(most, on_disk(path), path, self.key)
            actions = None if held is None else np.asarray(held[:])
        info = known or described(values.shape, str(values.dtype), actions, path, self.key)
        return Video(info, values, None if actions is None else (lambda: actions), path, partial(bytes_of, path))

    def _latents(self, store: Any, name: str) -> Any:
        if hasattr(store, "shape"):
            return store
        if self.key not in store:
            raise BadInput("array is missing", source=self.home(name), key=self.key,
                           remedy=f"the store holds: {', '.join(sorted(store)) or 'nothing'}")
        return store[self.key]
