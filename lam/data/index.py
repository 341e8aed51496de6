"""What is known about the files of a data folder, so that each is read in full only once.

The index holds a content hash, the header and per-channel statistics of every file, keyed by the file's
size and times. A file whose size and times did not change is not read again; that is what makes a
fingerprint fast the second time, and it is also its limit: damage that changes neither goes unseen.
NaN and infinite latents are found here, before anything trains on them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from lam.data.h5 import ACTIONS, EMBEDDINGS, UNKNOWN_ACTION, FileInfo, dataset, open_file, read_info
from record import files
from record.errors import BadInput, EnvironmentFailed
from record.progress import track
from record.schema import Strict

log = logging.getLogger(__name__)

FOLDER = ".cache"
INDEX = "index.json"
BEAT = "lock.beat"
VERSION = 1
SILENCE_SECONDS = 600.0  # a holder of the lock that finished no file for so long is taken for dead
LARGEST = 1e15  # of a latent; squares of larger ones are beyond a float32, and training ends in NaN
READ_BYTES = 32 << 20  # latents decoded at a time while a file is scanned


class Header(Strict):
    """What is known of a file whose latents nobody has read.

    Attributes:
        size, mtime_ns, ctime_ns: what the file system said when it was looked at.
        info: its header.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    info: FileInfo

    def describes(self, stat: os.stat_result) -> bool:
        """Whether the file still is the one that was looked at."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class FileRecord(Header):
    """One file that was read in full.

    Attributes:
        sha256: hash of the file's bytes.
        mean, std, low, high: [C] statistics of the latents, std over the population.
    """

    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def constant(self) -> bool:
        """Whether every channel has one value throughout the video."""
        return self.low == self.high


class Scan(NamedTuple):
    """Records of the files that can be used, and what is wrong with the others."""

    records: dict[str, FileRecord]
    problems: dict[str, BadInput]


def cache_folder(data_dir: str | Path) -> Path:
    """Where the index and the decoded latents lie: beside the data, else in the user's cache folder."""
    beside = Path(data_dir) / FOLDER
    try:
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    except OSError:
        log.debug("%s cannot be made; the user's cache folder is used", beside)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(str(Path(data_dir).resolve()).encode()).hexdigest()[:16]
    folder = home / "lamsweep" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path, silence: float = SILENCE_SECONDS) -> Iterator[None]:
    """The lock under which the index and the cache of `folder` are written; whoever holds it says so with `beat`.

    Raises:
        EnvironmentFailed: another process has held it for `silence` seconds or more without a beat.
    """
    lock = FileLock(folder / "lock")
    while True:
        last = _last_beat(folder)
        try:
            lock.acquire(timeout=silence)
            break
        except Timeout:
            if _last_beat(folder) == last:
                raise EnvironmentFailed(f"{folder}: another process holds the lock and has finished no file for "
                                        f"{silence:g} s; end it (it may be on another machine), then run the same "
                                        "command again") from None
    try:
        yield
    finally:
        lock.release()


def beat(folder: Path) -> None:
    """Show those who wait for the lock that its holder goes on."""
    (folder / BEAT).touch()


def _last_beat(folder: Path) -> int:
    """When the holder last went on, by the file system's own clock; 0 where it never did."""
    try:
        return (folder / BEAT).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def scan(data_dir: str | Path, names: Sequence[str], read: Callable[[Path], FileRecord] | None = None) -> Scan:
    """Records of `names`, from the index where it is up to date, else by reading the files in full (`scan_file`)."""
    data_dir, folder = Path(data_dir), cache_folder(data_dir)
    known = _current(data_dir, names, stored_records(folder))
    if len(known) == len(names):
        return Scan(known, {})
    with locked(folder):
        stored = stored_records(folder)  # another process may have scanned them while we waited
        known = _current(data_dir, names, stored)
        fresh, problems = _scan_all(data_dir, [name for name in names if name not in known], read or scan_file,
                                    folder)
        if fresh:
            kept = {name: record for name, record in stored.items() if (data_dir / name).exists()}
            _store(folder, kept | fresh)
    found = known | fresh
    return Scan({name: found[name] for name in names if name in found}, problems)


def headers(data_dir: Path, names: Sequence[str]) -> tuple[dict[str, Header], dict[str, BadInput]]:
    """(headers, problems) of files by name: from the index where it is up to date, else from the files' own headers."""
    found: dict[str, Header] = dict(_current(data_dir, names, stored_records(data_dir / FOLDER)))
    problems: dict[str, BadInput] = {}
    missing = [name for name in names if name not in found]
    for name in track(missing, len(missing), f"looking at {data_dir}"):
        try:
            info, stat = read_info(data_dir / name), (data_dir / name).stat()
            found[name] = Header(size=stat.st_size, mtime_ns=stat.st_mtime_ns, ctime_ns=stat.st_ctime_ns, info=info)
        except BadInput as error:
            problems[name] = error
    return {name: found[name] for name in names if name in found}, problems


def _current(data_dir: Path, names: Sequence[str], stored: dict[str, FileRecord]) -> dict[str, FileRecord]:
    return {name: stored[name] for name in names
            if name in stored and (data_dir / name).exists() and stored[name].describes((data_dir / name).stat())}


def _scan_all(data_dir: Path, names: list[str], read: Callable[[Path], FileRecord], folder: Path) -> Scan:
    result = Scan({}, {})
    for name in track(names, len(names), f"reading {data_dir}"):
        beat(folder)
        try:
            result.records[name] = read(data_dir / name)
        except BadInput as error:
            result.problems[name] = error
    return result


def scan_file(path: Path) -> FileRecord:
    """Read one file in full.

    Raises:
        BadInput: it cannot be used; for NaN, infinite or unreadable latents the first such chunk is named.
    """
    info = read_info(path)
    before = path.stat()
    with open(path, "rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()
    with open_file(path) as file:
        statistics = _statistics(dataset(file, EMBEDDINGS, path), path)
        if info.actions:
            _check_values(dataset(file, ACTIONS, path)[:], info, path)
    after = path.stat()
    record = FileRecord(size=before.st_size, mtime_ns=before.st_mtime_ns, ctime_ns=before.st_ctime_ns, sha256=digest,
                        info=info, **{key: tuple(map(float, values)) for key, values in statistics.items()})
    if not record.describes(after):
        raise BadInput("changed while it was read", source=path, remedy="wait until it is complete, then try again")
    if record.constant:
        log.warning("%s: every channel of %s is constant; nothing can be learned from it", path, EMBEDDINGS)
    return record


def blocks(data: h5py.Dataset, path: Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first chunk, float32 [k, C, T, H, W]) over a file, each block of bounded size.

    Raises:
        BadInput: the storage of a block is damaged.
    """
    per_chunk = 4 * int(np.prod(data.shape[1:]))
    at_once = max(1, READ_BYTES // per_chunk)
    for first in range(0, data.shape[0], at_once):
        try:
            yield first, data[first:first + at_once].astype(np.float32, copy=False)
        except OSError as error:
            raise BadInput(f"chunks {first} to {min(first + at_once, data.shape[0]) - 1} cannot be read ({error})",
                           source=path, key=EMBEDDINGS, remedy="the file is damaged; copy or encode it again") from None


def _statistics(data: h5py.Dataset, path: Path) -> dict[str, NDArray[np.float64]]:
    """mean, std, low and high of each channel, [C]; sums are taken around the first block's mean, in float64."""
    count, channels = 0, data.shape[1]
    centre = total = squares = np.zeros(channels)
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    for first, block in blocks(data, path):
        _check_finite(block, first, path)
        values = block.transpose(1, 0, 2, 3, 4).reshape(channels, -1)
        if count == 0:
            centre = values.mean(axis=1, dtype=np.float64)
        shifted = values - centre[:, None].astype(np.float32)
        count += values.shape[1]
        total = total + shifted.sum(axis=1, dtype=np.float64)
        squares = squares + np.einsum("cn,cn->c", shifted, shifted, dtype=np.float64)
        low, high = np.minimum(low, values.min(axis=1)), np.maximum(high, values.max(axis=1))
    centre = centre.astype(np.float32).astype(np.float64)
    variance = np.clip(squares / count - (total / count) ** 2, 0, None)
    return {"mean": centre + total / count, "std": np.sqrt(variance), "low": low, "high": high}


def _check_finite(block: NDArray[np.float32], first: int, path: Path) -> None:
    finite = (np.abs(block) <= LARGEST).all(axis=(1, 2, 3, 4))
    if not finite.all():
        bad = int(finite.argmin())
        worst = float(np.max(np.abs(block[bad])))  # NaN where there is one
        kind = "NaN" if np.isnan(worst) else "infinity" if np.isinf(worst) else f"values up to {worst:.3g}"
        raise BadInput(f"holds {kind} in chunk {first + bad}", source=path, key=EMBEDDINGS,
                       remedy="encode the video again, or take the file out of the data folder")


def _check_values(actions: NDArray[np.integer], info: FileInfo, path: Path) -> None:
    most = len(info.action_names) - 1 if info.action_names else np.iinfo(np.int64).max
    low, high = int(actions.min()), int(actions.max())
    if low < UNKNOWN_ACTION or high > most:
        raise BadInput(f"holds {low if low < UNKNOWN_ACTION else high}, expected {UNKNOWN_ACTION} (unknown) to {most}",
                       source=path, key=ACTIONS, remedy="number the actions from 0, in the order of action_names")


def stored_records(folder: Path) -> dict[str, FileRecord]:
    """The stored index; one that cannot be read counts as empty, because it can be made again."""
    try:
        values = files.parse_json(files.read_record(folder / INDEX))
        if values["version"] != VERSION:
            return {}
        return {name: FileRecord.model_validate(record) for name, record in values["files"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, BadInput) as error:
        log.warning("%s: cannot be used (%s); the files are read again", folder / INDEX, type(error).__name__)
        return {}


def _store(folder: Path, records: dict[str, FileRecord]) -> None:
    values = {name: record.model_dump(mode="json") for name, record in sorted(records.items())}
    files.write_json(folder / INDEX, {"version": VERSION, "files": values})
