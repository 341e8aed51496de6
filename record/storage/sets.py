"""Data sets on stores as folders of this machine: fetched once, by whoever asks first, for all who train here.

Each file of the folder has the size and the time of its object, so the folder is the set where they agree with what the
store lists; nothing else says that it is whole, and a fetch that was interrupted goes on. S3's times are whole seconds:
an object that was fetched soon after it was written is told by its entity tag as well, until its time has settled.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from record import files
from record.errors import BadInput, EnvironmentFailed
from record.storage import addresses, copies
from record.storage.store import PATIENCE_SECONDS, Store

log = logging.getLogger(__name__)

TAGS = ".tags.json"
KEY = "data_dir"
TRIES = 3  # listings that may differ from what was fetched before the set counts as being written


class Object(NamedTuple):
    """What a store lists of an object."""

    size: int
    mtime_ns: int


class Tag(NamedTuple):
    """What an object was when it was fetched, and when it was last seen to be still that."""

    tag: str
    seen_ns: int


def brought(where: str | Path) -> Path:
    """A folder of this machine, as it is; of a URI the copy of what lies there now, fetched where it is not here yet.

    Raises:
        BadInput: nothing lies there, or it is an address that may not be asked.
        EnvironmentFailed: the store does not answer, or this machine has no room.
    """
    if not addresses.is_one(where):
        return Path(where)
    uri = copies.named(str(where), "data", KEY)
    folder = copies.local("data", uri)
    with copies.told(uri):
        store = Store(uri, PATIENCE_SECONDS, KEY)
        if not _is_settled(folder, _listed(store)):
            copies.mark(folder, uri)
            with _alone(folder, uri):
                _make_equal(store, folder)
    return folder


def weight(where: str | Path) -> int:
    """Bytes that are fetched before data can be read: of a URI those of its objects, of a folder none."""
    if not addresses.is_one(where):
        return 0
    uri = copies.named(str(where), "data", KEY)
    with copies.told(uri):
        return sum(each.size for each in _listed(Store(uri, PATIENCE_SECONDS, KEY)).values())


def by_address(text: str) -> str:
    """A text in which the folders of sets on stores are named by their addresses."""
    within = re.escape(str(copies.kept_in() / "data")) + r"/[0-9a-f]{16}/[^/\s:;,')]+"
    return re.sub(within, lambda found: copies.where(Path(found[0])), text)


def _listed(store: Store) -> dict[str, Object]:
    """The objects of a set by name; hidden ones at its top are somebody's cache.

    Raises:
        BadInput: there is none.
    """
    found = {name: Object(info.size, info.mtime_ns or 0) for name, info in store.listed().items() if name[0] != "."}
    if not found:
        raise BadInput("holds no object", source=store.uri, key=KEY,
                       remedy="check the address, or copy the data set there")
    return found


def _here(folder: Path) -> set[str]:
    """The names of the files of a copy."""
    return {file.relative_to(folder).as_posix() for top in folder.glob("[!.]*")
            for file in (top.rglob("*") if top.is_dir() else [top]) if file.is_file()}


def _is_same(file: Path, listed: Object) -> bool:
    try:
        stat = file.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == listed


def _is_settled(folder: Path, listed: Mapping[str, Object]) -> bool:
    """Whether the copy is the set for sure, by its files and their times alone."""
    if _here(folder) != listed.keys():
        return False
    tags = _tags(folder)
    return all(_is_same(folder / name, each) and _has_settled(folder / name, each, tags.get(name))
               for name, each in listed.items())


def _has_settled(file: Path, listed: Object, tag: Tag | None) -> bool:
    """Whether what was fetched was written so long before that no other one has the same time."""
    return max(file.stat().st_ctime_ns, tag.seen_ns if tag else 0) - listed.mtime_ns > copies.SETTLED_NS


def _make_equal(store: Store, folder: Path) -> None:
    """Fetch what is missing or another, and delete what the store has not.

    Raises:
        EnvironmentFailed: there is no room, or somebody is writing the set.
    """
    for _ in range(TRIES):
        listed, tags = _listed(store), _tags(folder)
        stale = _stale(store, folder, listed, tags)
        if stale:
            needed, free = sum(listed[name].size for name in stale), shutil.disk_usage(folder).free
            check_room(needed, free, folder, store.uri)
            tags |= _fetched(store, folder, {name: listed[name] for name in stale})
        for name in _here(folder) - listed.keys():
            (folder / name).unlink(missing_ok=True)
        files.write_json(folder / TAGS, {name: tag for name, tag in tags.items() if name in listed})
        if _listed(store) == listed:
            return
    raise EnvironmentFailed(f"{store.uri}: changed {TRIES} times while it was fetched; wait until it is complete, then "
                            "run the same command again")


def _stale(store: Store, folder: Path, listed: Mapping[str, Object], tags: dict[str, Tag]) -> list[str]:
    """Names of objects that are not here as they are there; what is confirmed meanwhile is noted in `tags`."""
    same = [name for name, each in listed.items() if _is_same(folder / name, each)]
    unsure = [name for name in same if not _has_settled(folder / name, listed[name], tags.get(name))]
    now = time.time_ns()
    with ThreadPoolExecutor(copies.WORKERS) as pool:
        for name, tag in zip(unsure, pool.map(store.tag, unsure), strict=True):
            if name in tags and tags[name].tag == tag:
                tags[name] = Tag(tag, now)
            else:
                same.remove(name)
    return [name for name in listed if name not in set(same)]


def _fetched(store: Store, folder: Path, wanted: Mapping[str, Object]) -> dict[str, Tag]:
    """Fetch objects; their tags."""
    from record.progress import track  # rich, which no reader of a folder needs

    with ThreadPoolExecutor(copies.WORKERS) as pool:
        found = pool.map(partial(_fetch, store, folder), wanted, wanted.values())
        return dict(filter(None, track(found, len(wanted), f"fetching {store.uri}")))


def _fetch(store: Store, folder: Path, name: str, wanted: Object) -> tuple[str, Tag] | None:
    file, now = copies.inside(folder, name), time.time_ns()
    try:
        return name, Tag(store.fetch(name, file, wanted.mtime_ns), now)
    except FileNotFoundError:  # deleted since it was listed
        file.unlink(missing_ok=True)
        return None


def check_room(needed: int, free: int, folder: Path, uri: str) -> None:
    """Refuse to fetch so many bytes where no more are free.

    Raises:
        EnvironmentFailed: there is no room for them.
    """
    if free < needed * 1.02:
        raise EnvironmentFailed(f"{folder}: {uri} needs {needed / 1e9:.3g} GB more, and {free / 1e9:.3g} GB are free; "
                                f"make room there, or {copies.ELSEWHERE}")


def _tags(folder: Path) -> dict[str, Tag]:
    """What is noted of objects; notes that cannot be read are none, since all can be fetched again."""
    try:
        known = files.parse_json(files.read_record(folder / TAGS))
        return {str(name): Tag(str(tag), int(seen)) for name, (tag, seen) in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, BadInput):
        return {}


@contextmanager
def _alone(folder: Path, uri: str) -> Iterator[None]:
    """One process of this machine fetches; the others wait, and find it done."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.warning("%s: another process of this machine is fetching it; waiting for that", uri)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
