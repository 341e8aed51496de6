"""Folders of .npy or .safetensors files, one video each.

npy: `NAME.npy` holds the latents, `NAME.actions.npy` beside it the actions. safetensors: tensors `embeddings` and
`actions`. Both map the file; safetensors is what keeps bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import ACTIONS, EMBEDDINGS, FileInfo
from lam.data.readers.video import OPEN_VIDEOS, Video, bytes_of, described
from record import files
from record.errors import BadInput

ACTIONS_END = ".actions.npy"


class Files:
    """The videos of a folder of files with one ending."""

    ending: str
    open_videos = OPEN_VIDEOS

    def __init__(self, folder: Path, key: str | None = None) -> None:
        self.folder, self.key = folder, key or EMBEDDINGS

    def names(self) -> list[str]:
        return sorted(each.name for each in self.folder.iterdir()
                      if each.name.endswith(self.ending) and not each.name.startswith("."))

    def home(self, name: str) -> Path:
        return self.folder / name

    def holds(self, name: str) -> bool:
        return self.home(name).exists()


class Npy(Files):
    """A folder of .npy files."""

    ending = ".npy"

    def names(self) -> list[str]:
        return [name for name in super().names() if not name.endswith(ACTIONS_END)]

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        path = self.home(name)
        beside = path.with_name(path.name.removesuffix(self.ending) + ACTIONS_END)
        values = mapped(path)
        actions = mapped(beside) if beside.exists() and (known is None or known.actions) else None
        info = known or described(values.shape, values.dtype.name, actions, path, self.key)

        def hashed() -> Iterator[bytes]:
            yield from bytes_of(path)
            if actions is not None:
                yield from bytes_of(beside)

        return Video(info, values, None if actions is None else (lambda: actions), path, hashed)


def mapped(path: Path) -> NDArray[Any]:
    """The array of an .npy file, not read yet.

    Raises:
        BadInput: it is none, or one that could run code.
    """
    with damage_named(path):
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


class Safetensors(Files):
    """A folder of .safetensors files."""

    ending = ".safetensors"

    def opened(self, name: str, known: FileInfo | None = None) -> Video:
        from safetensors import safe_open  # brings torch, which knows bfloat16

        path = self.home(name)
        with damage_named(path):
            file = safe_open(path, framework="pt")
            held = list(file.keys())
        if self.key not in held:
            raise BadInput("tensor is missing", source=path, key=self.key,
                           remedy=f"the file holds: {', '.join(held) or 'nothing'}")
        values = _Tensor(file.get_slice(self.key))
        actions = file.get_tensor(ACTIONS).numpy() if ACTIONS in held else None
        info = known or described(values.shape, values.stored, actions, path, self.key)
        return Video(info, values, None if actions is None else (lambda: actions), path, partial(bytes_of, path))


class _Tensor:
    """A tensor in a file, of which parts are read."""

    def __init__(self, part: Any) -> None:
        self._part, self.shape = part, tuple(part.get_shape())
        self.stored = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}.get(
            part.get_dtype(), part.get_dtype())

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> Any:
        return self._part[rows]


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """What a library says of a file that it cannot read, with the file and a remedy.

    Raises:
        BadInput: whatever was raised inside, but for a system that opens no more files.
    """
    try:
        yield
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput("no such file", source=path, remedy="check the path or the manifest") from None
    except Exception as error:
        if isinstance(error, OSError):
            files.check_may_open(error)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"cannot be read ({first:.200})", source=path,
                       remedy="write it again, or take it out of the data folder") from None
