"""Files that are either whole or absent: atomic replacement, JSON with NaN as null, torn-line reading."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from record.errors import BadInput, EnvironmentFailed

T = TypeVar("T")
MOST_BYTES = 1 << 29  # of one record: a hundred times what a long sweep writes into one file
MOST_LEVELS = 50  # of lists and mappings in one another; ours nest seven deep
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a sweep or a trial: it becomes a folder


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Call `write` on a temporary file beside `path`, fsync it, and rename it over `path` for good."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with naming(path), os.fdopen(handle, "w+b") as file:  # H5 reads what it wrote
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


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the file in what the system refuses meanwhile: of an open file it says "no space left" and not where."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def room(error: OSError) -> str:
    """What is free where a disk is full, as words to add; '' for other errors."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not isinstance(error.filename, str):
        return ""
    there = next((place for place in Path(error.filename).absolute().parents if place.exists()), Path("/"))
    return f" ({shutil.disk_usage(there).free / 1e9:.1f} GB are free there)"


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
    """A value of a record as a float: NaN for what is absent, no number, or an integer that no float holds."""
    try:
        return float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:
        return math.nan


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def plain(path: str | Path) -> Path:
    """The absolute path without the ".." that was typed on the way; with it where it leads through a link."""
    there = os.path.abspath(path)
    try:
        same = os.path.realpath(there) == os.path.realpath(path)
    except ValueError:  # no system has such a path
        same = False
    return Path(there) if same else Path(path).absolute()


def stands(path: Path) -> bool:
    """Whether a record is there to be read; a link that leads nowhere is a damaged one, not a missing one."""
    return os.path.lexists(path)


def read_record(path: str | Path, most: int = MOST_BYTES, start: int = 0) -> bytes:
    """The bytes of a record: of a regular file that is no larger than one can be. Never waits, as a pipe would.

    Args:
        start: how many bytes are left out at its begin.

    Raises:
        BadInput: it is something else, or larger.
        OSError: it cannot be opened.
    """
    handle = _without_waiting(path)
    try:
        state = os.fstat(handle)
        if stat.S_ISDIR(state.st_mode):
            raise BadInput("is a folder, expected a file", source=path, remedy="restore it from a copy")
        if not stat.S_ISREG(state.st_mode):
            raise BadInput("is no regular file", source=path, remedy="restore it from a copy")
        if state.st_size > most:
            raise BadInput(f"has {state.st_size:,} bytes, at most {most:,} are read", source=path,
                           remedy="is this the right file?")
        if start:
            os.lseek(handle, start, os.SEEK_SET)
        parts = []  # without Python's own buffers: a report reads thirty thousand small files
        while most > 0 and (part := os.read(handle, min(most, max(4096, state.st_size + 1)))):
            parts.append(part)
            most -= len(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def _without_waiting(path: str | Path) -> int:
    """A handle that takes a pipe for what it is at once."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP) and os.path.islink(path):
            raise BadInput("is a link that leads nowhere", source=path, remedy="restore it from a copy") from None
        raise


def parse_json(data: bytes | str, **options: Any) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or nests deeper than any record does.
    """
    try:
        value = json.loads(data, **options)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if not is_shallow(value):
        raise ValueError("it nests too deep")
    return value


def is_shallow(value: Any) -> bool:
    """Whether lists and mappings nest no deeper than MOST_LEVELS."""
    level, depth = [value], 0
    while level := [item for each in level if isinstance(each, (dict, list))
                    for item in (each.values() if isinstance(each, dict) else each)]:
        depth += 1
        if depth > MOST_LEVELS:
            return False
    return True


def read_json_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; a half-written last line is left out.

    Raises:
        ValueError: a line other than the last is not JSON (the file was damaged, not interrupted).
    """
    path = Path(path)
    if stands(path):
        yield from parse_json_lines(read_record(path), path)


def parse_json_lines(data: bytes, source: str | Path) -> Iterator[dict[str, Any]]:
    """As `read_json_lines`, of bytes; errors name `source`."""
    return parse_lines(data, source, lambda line, number: parse_json(line))


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
        except ValueError as error:
            if number == len(lines):
                return
            raise ValueError(f"{source}:{number}: not JSON: {error}") from None
