"""Run folders as drivers and workers meet them: in the sweep folder, or on the store that keeps the sweep.

On a store a worker trains in a folder of its own machine and publishes after each epoch, before the driver hears of it:
files in the order in which training wrote them, so that a record is there before the checkpoint that covers it, as on a
disk. Whoever goes on, on whichever machine, begins with what is published; nothing else of a machine is ever needed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from record import documents
from record.run import LAST_STATE, RunFolder
from record.storage import copies
from record.storage.store import PATIENCE_SECONDS, Store

IDENTITY = "run.json"
LOCK = ".writer"
Written = tuple[int, int, int]  # when, how much, which file


class Runs(Protocol):
    """What a driver does with run folders itself."""

    def document(self, name: str) -> documents.Run | None:
        """run.json of the trial `name`; None where it never began."""

    def stop(self, name: str, reason: str, for_good: bool) -> None:
        """Tell a run that it is over, see `record.run.RunFolder.stop`."""


def of_sweep(folder: Path, store: Store | None) -> Runs:
    """The run folders of the sweep in `folder`, or on the store that keeps it."""
    return _Here(folder / "trials") if store is None else _There(store)


class _Here:
    """In the sweep folder."""

    def __init__(self, room: Path) -> None:
        self._room = room

    def document(self, name: str) -> documents.Run | None:
        run = RunFolder(self._room / name)
        return run.document() if run.exists() else None

    def stop(self, name: str, reason: str, for_good: bool) -> None:
        RunFolder(self._room / name).stop(reason, for_good)


class _There:
    """On a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def document(self, name: str) -> documents.Run | None:
        with copies.told(self._store.uri), tempfile.TemporaryDirectory() as scratch:
            run = self._fetched(name, Path(scratch))
            return run.document() if run.exists() else None

    def stop(self, name: str, reason: str, for_good: bool) -> None:
        with copies.told(self._store.uri), tempfile.TemporaryDirectory() as scratch:
            run = self._fetched(name, Path(scratch))
            before = run.document() if run.exists() else None
            run.stop(reason, for_good)
            if before is None or before.state in ("finished", "failed"):
                return
            if run.document() != before:
                self._store.send(run.identity_file, f"trials/{name}/{IDENTITY}")
            if for_good:
                self._store.delete(f"trials/{name}/checkpoints/{LAST_STATE}")

    def _fetched(self, name: str, scratch: Path) -> RunFolder:
        content = self._store.read(f"trials/{name}/{IDENTITY}")
        if content is not None:
            (scratch / IDENTITY).write_bytes(content)
        return RunFolder(scratch)


class Published:
    """A run folder of this machine, and where its store keeps it.

    Args:
        name: the run's folder below the sweep, for example trials/t0001.
    """

    def __init__(self, uri: str, name: str) -> None:
        self.folder = copies.local("trials", uri) / name
        self._store, self._name = Store(uri, PATIENCE_SECONDS), name
        self._seen: dict[str, Written] = {}
        self._identity: bytes | None = None

    def fetch(self) -> None:
        """Make the folder what the store has, whatever was left here."""
        self._clear()
        with copies.told(self._store.uri):
            for name, info in self._store.listed(self._name).items():
                self._store.fetch(name, copies.inside(self.folder, name[len(self._name) + 1:]), info.mtime_ns or 0)
        self._identity = self._own_identity()
        self._seen = self._written()

    def publish(self) -> None:
        """Send what was written since, in that order, and delete what was deleted."""
        now = self._written()
        with copies.told(self._store.uri):
            for name in sorted(now, key=lambda name: (now[name][0], name.endswith(LAST_STATE))):
                if now[name] != self._seen.get(name) and (name != IDENTITY or self._may_identify()):
                    self._store.send(self.folder / name, f"{self._name}/{name}")
            for name in self._seen.keys() - now.keys():
                self._store.delete(f"{self._name}/{name}")
        self._seen = now

    def close(self) -> None:
        """Nothing of the run stays on this machine. What followed its last epoch is not published: somebody else may be
        going on with the run already."""
        self._clear()

    def _may_identify(self) -> bool:
        """Whether run.json on the store is this worker's; what the driver has written there meanwhile stays."""
        if self._store.read(f"{self._name}/{IDENTITY}") not in (None, self._identity):
            return False
        self._identity = self._own_identity()
        return True

    def _own_identity(self) -> bytes | None:
        file = self.folder / IDENTITY
        return file.read_bytes() if file.exists() else None

    def _written(self) -> dict[str, Written]:
        """The files of the run that are whole: their names, and by what a change shows."""
        found = {}
        for file in self.folder.rglob("*"):
            name = file.relative_to(self.folder)
            if file.is_file() and not file.is_symlink() and not any(part.startswith(".") for part in name.parts):
                state = file.stat()
                found[name.as_posix()] = (state.st_mtime_ns, state.st_size, state.st_ino)
        return found

    def _clear(self) -> None:
        """Empty the folder; the lock in it stays, since others may be waiting for it."""
        for path in list(self.folder.iterdir()) if self.folder.exists() else []:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
