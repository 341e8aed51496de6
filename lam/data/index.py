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
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from pydantic import ValidationError

from lam.data.h5 import ACTIONS, MOST_KINDS, UNKNOWN_ACTION, FileInfo
from lam.data.readers.decoded import remove_stale, writing
from lam.data.readers.statistics import Running
from lam.data.readers.video import Reader, Signature, Video, signature
from record import files
from record.errors import BadInput, EnvironmentFailed
from record.progress import track
from record.schema import Strict

log = logging.getLogger(__name__)

FOLDER = ".cache"
INDEX = "index.json"
BEAT = "lock.beat"
VERSION = 2
SILENCE_SECONDS = 600.0  # a holder of the lock that finished no file for so long is taken for dead
LARGEST = 1e15  # of a latent; squares of larger ones are beyond a float32, and training ends in NaN


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

    def describes(self, now: Signature) -> bool:
        """Whether the file still is the one that was looked at."""
        return (self.size, self.mtime_ns, self.ctime_ns) == now


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


def scan(reader: Reader, names: Sequence[str], read: Callable[[Reader, str], FileRecord] | None = None,
         keep: Collection[str] = ()) -> Scan:
    """Records of `names`, from the index where it is up to date, else by reading the videos in full (`scan_file`).

    Args:
        keep: of these, where they are read, decoded copies are written, so that nothing has to be read again for them.
    """
    folder = cache_folder(reader.folder)
    known = _current(reader, names, stored_records(folder))
    if len(known) == len(names):
        return _told(reader, Scan(known, {}))
    read = read or (lambda reader, name: scan_file(reader, name, folder if name in keep else None))
    with locked(folder):
        stored = stored_records(folder)  # another process may have scanned them while we waited
        known = _current(reader, names, stored)
        found = Scan(dict(known), {})
        try:
            _scan_all(reader, [name for name in names if name not in known], read, folder, found)
        finally:  # what was read before an interruption is not read again
            if len(found.records) > len(known):
                kept = {name: record for name, record in stored.items() if reader.holds(name)}
                _store(folder, kept | found.records)
                remove_stale(folder, {each.sha256[:32] for each in (kept | found.records).values()})
    return _told(reader, Scan({name: found.records[name] for name in names if name in found.records}, found.problems))


def _told(reader: Reader, found: Scan) -> Scan:
    """The same, once it was said which files have nothing to learn from: at every start, not only at the first."""
    if constant := [name for name, record in found.records.items() if record.constant]:
        log.warning("%s: every channel is constant in %d of %d files (%s); nothing can be learned from them",
                    reader.folder, len(constant), len(found.records), ", ".join(constant[:3]))
    return found


def headers(reader: Reader, names: Sequence[str]) -> tuple[dict[str, Header], dict[str, BadInput]]:
    """(headers, problems) of videos: from the index where it is up to date, else from the files' own headers."""
    found: dict[str, Header] = dict(_current(reader, names, stored_records(reader.folder / FOLDER)))
    problems: dict[str, BadInput] = {}
    missing = [name for name in names if name not in found]
    for name in track(missing, len(missing), f"looking at {reader.folder}"):
        try:
            with _opened(reader, name) as video:
                found[name] = Header(**signature(reader.home(name))._asdict(), info=video.info)
        except BadInput as error:
            problems[name] = error
    return {name: found[name] for name in names if name in found}, problems


def _current(reader: Reader, names: Sequence[str], stored: dict[str, FileRecord]) -> dict[str, FileRecord]:
    return {name: stored[name] for name in names if name in stored and stored[name].info.key == reader.key
            and reader.holds(name) and stored[name].describes(signature(reader.home(name)))}


def _scan_all(reader: Reader, names: list[str], read: Callable[[Reader, str], FileRecord], folder: Path,
              found: Scan) -> None:
    for name in track(names, len(names), f"reading {reader.folder}"):
        beat(folder)
        try:
            found.records[name] = read(reader, name)
        except BadInput as error:
            found.problems[name] = error


@contextmanager
def _opened(reader: Reader, name: str) -> Iterator[Video]:
    video = reader.opened(name)
    try:
        yield video
    finally:
        video.close()


def scan_file(reader: Reader, name: str, keep_in: Path | None = None) -> FileRecord:
    """Read one video in full: its bytes for their hash, and its latents for everything else.

    Args:
        keep_in: where a decoded copy goes.

    Raises:
        BadInput: it cannot be used; for NaN, infinite or unreadable latents the first such chunk is named.
    """
    with _opened(reader, name) as video:
        path, before = reader.home(name), signature(reader.home(name))
        digest, actions = video.digest(), video.actions()
        if video.info.actions:
            _check_values(actions, video.info, path)
        with writing(keep_in, digest, video.info, actions) if keep_in else nullcontext(None) as keep:
            statistics = _statistics(video, keep)
    record = FileRecord(**before._asdict(), sha256=digest, info=video.info, **statistics)
    if not record.describes(signature(path)):
        raise BadInput("changed while it was read", source=path, remedy="wait until it is complete, then try again")
    return record


def _statistics(video: Video, keep: Callable[[NDArray[np.float32]], object] | None) -> dict[str, tuple[float, ...]]:
    running = Running(video.info.channels)
    for first, block in video.blocks():
        _check_finite(block, first, video)
        running.add(block)
        if keep is not None:
            keep(block)
    return running.found()


def _check_finite(block: NDArray[np.float32], first: int, video: Video) -> None:
    finite = (np.abs(block) <= LARGEST).all(axis=(1, 2, 3, 4))
    if not finite.all():
        bad = int(finite.argmin())
        worst = float(np.max(np.abs(block[bad])))  # NaN where there is one
        kind = "NaN" if np.isnan(worst) else "infinity" if np.isinf(worst) else f"values up to {worst:.3g}"
        raise BadInput(f"holds {kind} in chunk {first + bad}", source=video.path, key=video.info.key,
                       remedy="encode the video again, or take the file out of the data folder")


def _check_values(actions: NDArray[np.integer], info: FileInfo, path: Path) -> None:
    most = (len(info.action_names) or MOST_KINDS) - 1
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
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError, BadInput) as error:
        log.warning("%s: cannot be used (%s); the files are read again", folder / INDEX, type(error).__name__)
        return {}


def _store(folder: Path, records: dict[str, FileRecord]) -> None:
    values = {name: record.model_dump(mode="json") for name, record in sorted(records.items())}
    files.write_json(folder / INDEX, {"version": VERSION, "files": values})
