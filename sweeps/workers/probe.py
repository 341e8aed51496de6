"""What a machine of a cluster must see before it takes a trial: versions, the storage, its locks, room, the data.

`answer` runs on the machine and answers in words; `differs` and `sees` are asked again by every trial as it opens.
"""

from __future__ import annotations

import fcntl
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from record import provenance
from record.errors import LamError
from record.storage import copies
from record.storage.store import Store
from record.workload.settings import Settings
from record.workload.workload import find

LOCK = ".machines.lock"
LEAST_FREE = 64 * 1024**2  # bytes; a run that is nearly out of them fails in its first epoch
COMPARED = ("lamsweep", "python", "torch", "ray", "numpy")


@dataclass(frozen=True)
class Asked:
    """What a machine is asked.

    Attributes:
        folder: the sweep's, whose driver holds a lock in it.
        versions: of the driver's software.
        configs: complete configs, one for each reading of the data.
        fingerprint: what `prepare` says of the data on the driver's machine.
        store: URI of the sweep, where a store keeps it; the machine then needs room for its own trials alone.
        fetched: bytes of data that it fetches before it can answer.
    """

    folder: str
    versions: Mapping[str, str]
    workload: str
    configs: list[dict[str, Any]] = field(default_factory=list)
    prepare: Callable[[list[Settings]], str] | None = None
    fingerprint: str = ""
    store: str = ""
    fetched: int = 0


@cache
def versions() -> dict[str, str]:
    """Of the software that must be the same on all machines; of Python the first two numbers."""
    found = provenance.versions()
    return {name: ".".join(found[name].split(".")[:2]) if name == "python" else found[name] for name in COMPARED}


def differs(asked: Mapping[str, str]) -> str:
    """Which versions here are others than the driver's, '' where none is."""
    here = versions()
    other = [f"{name} {here[name]} (the driver has {asked[name]})" for name in asked if here[name] != asked[name]]
    return f"has {', '.join(other)}; install the driver's versions there" if other else ""


def sees(folder: str) -> str:
    """What is wrong with a sweep folder as it is seen from here, '' where nothing is."""
    if not (Path(folder) / "sweep.json").is_file():
        return f"does not see {folder}; mount the storage there at the same path"
    return ""


def answer(asked: Asked) -> str:
    """What this machine lacks, '' where it may take trials."""
    try:
        return differs(asked.versions) or _storage(asked) or _data(asked)
    except (LamError, OSError) as error:
        return str(error)


def _storage(asked: Asked) -> str:
    if asked.store:
        return _reaches(asked.store)
    return sees(asked.folder) or _writes(Path(asked.folder)) or _locks(Path(asked.folder) / LOCK)


def _reaches(uri: str) -> str:
    """Whether the sweep can be read and written on its store from here, and there is room to train."""
    room = copies.local("trials", uri)
    room.mkdir(parents=True, exist_ok=True)
    with copies.told(uri):
        store = Store(uri)
        if store.read("sweep.json") is None:
            return f"finds no sweep.json in {uri}; give it the driver's AWS_ENDPOINT_URL and credentials"
        store.check_writable()
    return _writes(room)


def _writes(folder: Path) -> str:
    mark = folder / f".machine-{uuid.uuid4().hex}"
    try:
        mark.write_bytes(b"x" * 4096)
    finally:
        mark.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    return f"has {free // 1024**2} MiB free in {folder}; make room" if free < LEAST_FREE else ""


def _locks(file: Path) -> str:
    """Whether a lock that the driver holds is seen here: two trainings would write into one run folder otherwise."""
    with open(file, "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
    return (f"does not see the driver's lock on {file}: file locks do not work between machines on this storage; "
            "mount it with locking (NFS: without nolock and local_lock)")


def _data(asked: Asked) -> str:
    trained = find(asked.workload)
    configs = [trained.read(config, "the probe") for config in asked.configs]
    found = (asked.prepare or trained.prepare)(configs) if configs else asked.fingerprint
    return "" if found == asked.fingerprint else (
        f"has other data at the same path ({found}, the driver {asked.fingerprint}); copy the driver's there")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The driver's lock that probes look for, for the length of a with-block."""
    with open(folder / LOCK, "a", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
