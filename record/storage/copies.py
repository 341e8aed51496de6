"""Copies on this machine of what is kept on a store, so that every reader reads a folder.

A copy lies in the user's cache folder and says in `.store` where it comes from. Its files have the times of their
objects: one is fetched again only where size or time differ, or where it was fetched so soon after the object was
written that a second one of the same size may have come in the same tick of the store's clock. Nothing of a copy is
ever the only one: it may be deleted at any time.

Readers and drivers have copies of their own, so that a report never meets what a driver is about to publish.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from record import files
from record.errors import BadInput, EnvironmentFailed
from record.storage import addresses, refusals, trust
from record.storage.store import PATIENCE_SECONDS, Store, first_line

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

ORIGIN = ".store"
WORKERS = 16
SETTLED_NS = 900 * 10**9  # clocks of a store and its clients differ by less: beyond it, stores refuse signatures
DOCUMENTS = (".json", ".yaml")
RECORDS = (*DOCUMENTS, ".jsonl", ".npz")
WEIGHTS = (".safetensors",)
# What this machine says where it has no place for a copy, and what helps then.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
ELSEWHERE = "let XDG_CACHE_HOME name a larger disk"
_JOURNAL = ("journal-", "lease-", "probe-")


def local(kind: Literal["readers", "drivers", "trials", "data"], uri: str) -> Path:
    """The folder of this machine, readable by its user alone, for what lies at a URI."""
    kept_in().mkdir(mode=0o700, parents=True, exist_ok=True)
    return kept_in() / kind / hashlib.sha256(uri.encode()).hexdigest()[:16] / addresses.above(uri)[1]


def kept_in() -> Path:
    """Where the copies of this user on this machine are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lamsweep" / "stores"


def named(uri: str, source: str | Path, key: str | None = None) -> str:
    """A URI that a person or a YAML names, once it may be connected to.

    Raises:
        BadInput: it holds a credential, is none, or names a server itself.
    """
    if wrong := addresses.problem(uri):
        raise BadInput(wrong, source=source, key=key, remedy="name a place such as s3://bucket/prefix")
    if not (trust.is_plain(uri) or trust.is_allowed(uri, os.environ.get(trust.ALLOWED, ""))):
        raise BadInput(f"got {uri[:200]!r}, which names a server", source=source, key=key,
                       remedy=f"name the bucket alone and the server in AWS_ENDPOINT_URL, or {trust.words(uri)}")
    parts = urlsplit(uri)
    if ".." in parts.path.split("/"):
        raise BadInput(f"got {uri[:200]!r}", source=source, key=key, remedy="leave '..' out")
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def at_hand(where: str | Path, deep: bool = True) -> Path:
    """A folder of this machine with what a command reads; of a store its records are copied, weights are not.

    Args:
        where: a folder, which is returned as it is, or the URI of a sweep or a run.
        deep: also the records of a sweep's trials and confirmations.

    Raises:
        BadInput: there is neither a sweep nor a run there.
        EnvironmentFailed: the store does not answer.
    """
    if not addresses.is_one(where):
        return Path(where)
    uri = named(str(where), "PATH")
    folder = local("readers", uri)
    with told(uri):
        store = Store(uri)
        if not store.has("sweep.json", "run.json"):
            raise _nothing(store)
        found = store.listed(deep=deep)
        mark(folder, uri)
        _bring(store, folder, {name: info for name, info in found.items() if _is_record(name)})
        _forget(folder, found, deep)
    return folder


def _nothing(store: Store) -> BadInput:
    inside = [name for name in store.folders()[:20] if store.has(f"{name}/sweep.json", f"{name}/run.json")]
    return BadInput("holds neither a sweep (no sweep.json) nor a run (no run.json)", source=store.uri,
                    remedy=f"name one of those inside it: {', '.join(inside[:5])}" if inside else "check the address")


def driven(where: str | Path) -> Path:
    """As `at_hand`, for commands that write: the driver's own copy, of the sweep's documents alone."""
    if not addresses.is_one(where):
        return Path(where)
    folder = begun(named(str(where), "DIR"))
    if not (folder / "sweep.json").exists():
        at_hand(where, deep=False)  # which says what is there instead
    return folder


def begun(uri: str) -> Path:
    """The driver's own copy of a sweep that is on a store, or will be."""
    folder = local("drivers", uri)
    mark(folder, uri)
    refresh(folder)
    return folder


def address(folder: str | Path) -> str | None:
    """The URI that a folder is a copy of; None for a folder that is none.

    Only what lies in this user's own cache folder is one: elsewhere `.store` may be anybody's, and nothing is sent
    where a folder alone says so.

    Raises:
        BadInput: `.store` names a server that this reader has not allowed.
    """
    file = Path(folder) / ORIGIN
    if not (files.stands(file) and file.resolve().is_relative_to(kept_in().resolve())):
        return None
    return named(files.read_record(file, 10_000).decode(errors="replace").strip(), file)


def of(folder: str | Path, patience: float = 0.0) -> Store | None:
    """The store that a folder is a copy of, None for a folder that is none."""
    uri = address(folder)
    return None if uri is None else Store(uri, patience)


def where(path: Path) -> str:
    """A path as people should know it: what is in a copy by its URI."""
    for folder in (path, *path.parents[:4]):
        if (uri := address(folder)) is not None:
            below = path.relative_to(folder).as_posix()
            return uri if below == "." else addresses.below(uri, below)
    return str(path)


def refresh(folder: Path) -> None:
    """Make a driver's copy say what the store does of the sweep itself; nothing for a folder that is no copy."""
    store = of(folder)
    if store is None:
        return
    with told(store.uri):
        found = {name: info for name, info in store.listed(deep=False).items() if _is_document(name)}
        for file in folder.iterdir():
            if _is_document(file.name) and file.name not in found:
                file.unlink()
        _bring(store, folder, found, again=True)


def bring(folder: Path, room: str, suffixes: tuple[str, ...] = RECORDS) -> None:
    """Copy what lies in a folder below a copy; nothing for a folder that is no copy."""
    store = of(folder)
    if store is not None:
        with told(store.uri):
            _bring(store, folder, {name: info for name, info in store.listed(room).items()
                                   if name.endswith(suffixes)})


def bring_weights(run: Path) -> None:
    """Copy the weights of a run that is in a copy."""
    for folder in (run, *run.parents[:3]):
        if address(folder) is not None:
            bring(folder, "" if run == folder else run.relative_to(folder).as_posix(), WEIGHTS)
            return


def publish(folder: Path, *names: str) -> None:
    """Send files of a copy to their store, in this order; nothing for a folder that is no copy.

    Raises:
        EnvironmentFailed: the store refuses, or does not answer.
    """
    store = of(folder, PATIENCE_SECONDS)
    if store is not None:
        with told(store.uri):
            for name in names:
                store.send(folder / name, name)


@contextlib.contextmanager
def told(uri: str) -> Iterator[None]:
    """What a store refuses in the with-block as the error that commands end with."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # a file of this machine
            raise
        if error.errno in FULL:
            raise EnvironmentFailed(f"{kept_in()}: {os.strerror(error.errno)} (copying {uri}); make room there, or "
                                    f"{ELSEWHERE}") from error
        what, remedy = refusals.meaning(str(error), uri) or (
            "the store refused", "check the network and what the credentials in the environment may do there")
        raise EnvironmentFailed(f"{uri}: {what} ({first_line(error)}); {remedy}") from error


def mark(folder: Path, uri: str) -> None:
    """Make the folder of a copy, which says where it comes from."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / ORIGIN).exists():
        files.write_text(folder / ORIGIN, f"{uri}\n")


def _is_document(name: str) -> bool:
    return "/" not in name and name.endswith(DOCUMENTS) and not name.startswith((*_JOURNAL, "."))


def _is_record(name: str) -> bool:
    return name.endswith(RECORDS) and not name.startswith((*_JOURNAL, "requests/"))


def _bring(store: Store, folder: Path, found: dict[str, FileInfo], again: bool = False) -> None:
    """Fetch what is not here as it is there."""
    from record.progress import track  # rich, which no reader of a folder needs

    stale = {name: info for name, info in found.items() if again or not _is_current(inside(folder, name), info)}
    with ThreadPoolExecutor(WORKERS) as pool:
        fetched = pool.map(partial(_fetch, store, folder), stale, (info.mtime_ns or 0 for info in stale.values()))
        list(track(fetched, len(stale), f"copying from {store.uri}"))


def _fetch(store: Store, folder: Path, name: str, mtime_ns: int) -> None:
    try:
        store.fetch(name, folder / name, mtime_ns)
    except FileNotFoundError:  # deleted since it was listed
        (folder / name).unlink(missing_ok=True)


def _is_current(file: Path, info: FileInfo) -> bool:
    try:
        here = file.stat()
    except OSError:
        return False
    return (here.st_size, here.st_mtime_ns) == (info.size, info.mtime_ns) and (
        here.st_ctime_ns - here.st_mtime_ns > SETTLED_NS)


def inside(folder: Path, name: str) -> Path:
    """Where an object's copy lies.

    Raises:
        BadInput: outside of the copy.
    """
    if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
        raise BadInput(f"holds an object named {name!r}, which would lie outside of its copy", source=folder,
                       remedy="copy the sweep to a prefix of its own without it")
    return folder / name


def _forget(folder: Path, found: dict[str, FileInfo], deep: bool) -> None:
    """Delete records from a copy that are not on the store any more."""
    for file in folder.rglob("*") if deep else folder.iterdir():
        name = file.relative_to(folder).as_posix()
        if name not in found and file.is_file() and _is_record(name):
            file.unlink(missing_ok=True)
