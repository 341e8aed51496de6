"""Files that are either whole or absent: atomic replacement, JSON with NaN as null, torn-line reading."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from record.errors import EnvironmentFailed

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a sweep or a trial: it becomes a folder


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Call `write` on a temporary file beside `path`, fsync it, and rename it over `path` for good."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return path


def sync_folder(path: str | Path) -> None:
    """Force the folder's entries to the disk, so that a new file's name outlives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_may_open(error: OSError) -> None:
    """Raise where what failed is that this process, or the system, may open no more files: nothing is damaged then.

    Raises:
        EnvironmentFailed: with the limit to raise.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise EnvironmentFailed(f"no more files may be opened ({os.strerror(error.errno)}); raise the limit, for "
                                "example with 'ulimit -n 4096', then run the same command again") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> Path:
    """Atomically replace `path` with UTF-8 text."""
    return write_atomic(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: str | Path, value: Any) -> Path:
    """Atomically replace `path` with indented JSON; NaN and infinities become null."""
    return write_text(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """One compact JSON line, newline included; NaN and infinities become null."""
    return json.dumps(jsonable(value), separators=(",", ":"), allow_nan=False) + "\n"


def jsonable(value: Any) -> Any:
    """`value` with numpy scalars and arrays made plain and non-finite floats made None."""
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def as_number(value: Any) -> float:
    """A value of a record as a float: NaN for what is absent or no number."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; a half-written last line is left out.

    Raises:
        ValueError: a line other than the last is not JSON (the file was damaged, not interrupted).
    """
    path = Path(path)
    if path.exists():
        yield from parse_json_lines(path.read_bytes(), path)


def parse_json_lines(data: bytes, source: str | Path) -> Iterator[dict[str, Any]]:
    """As `read_json_lines`, of bytes; errors name `source`."""
    return parse_lines(data, source, lambda line, number: json.loads(line))


def parse_lines(data: bytes, source: str | Path, parse: Callable[[bytes, int], T]) -> Iterator[T]:
    """What `parse` makes of each line and its number; blank lines and a half-written last one are left out.

    Raises:
        ValueError: `parse` raised one for a line other than the last: it is not JSON.
    """
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield parse(line, number)
        except ValueError:
            if number == len(lines):
                return
            raise ValueError(f"{source}:{number}: not JSON: {line[:80]!r}") from None
