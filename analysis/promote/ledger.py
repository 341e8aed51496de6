"""The ledger of a production YAML: every promotion and rollback of it, append-only, and the files they served.

Beside `production.yaml` lies the folder `production.promotions`:

    ledger.jsonl       one event a line, each on disk before the next step; what counts
    versions/0001.yaml what was served, whole; models/0001/ the weights that go with it
    snapshots/          what each version sees in videos it was not trained on: what new data are compared with
    lock               held for as long as a promotion, a rollback or a sync takes

A change is `begun` (everything it needs is staged by then), the YAML is replaced, and it is `done`. What was begun and
never done is finished by the next command, unless somebody edited the YAML in between: then it is `abandoned`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from analysis.read.sources import save
from record import files
from record.documents import Section
from record.errors import BadInput
from record.storage import copies

SUFFIX = ".yaml"  # of a file that is promoted to: production.yml beside it would share its ledger
WAIT_SECONDS = 10.0
Event = Literal["begun", "done", "abandoned", "tested", "mirrored", "looked", "kept"]


class Entry(Section):
    """One line of ledger.jsonl."""

    seq: int = Field(ge=1)
    time: str
    event: Event
    kind: Literal["promotion", "rollback", "adoption"] | None = None
    of: int | None = None  # the `begun` that a later line is about
    version: int | None = None
    sha256: str | None = None
    before: int | None = None  # the version that was served
    before_sha256: str | None = None
    because: str = ""
    trial: str | None = None
    source: str | None = None
    weights: dict[str, Any] | None = None
    data_fingerprint: str | None = None
    record: dict[str, Any] | None = None  # promotion.json of the sweep's folder, and where it belongs
    test: dict[str, Any] | None = None
    mirror: dict[str, Any] | None = None
    look: dict[str, Any] | None = None  # what new data were compared with, and what came of it
    snapshot: dict[str, Any] | None = None


@dataclass(frozen=True)
class Served:
    """One finished promotion or rollback: what was begun, when it was done, and its mirrors (mlflow, wandb)."""

    number: int
    begun: Entry
    done_at: str
    mirrors: dict[str, dict[str, Any]]

    @property
    def version(self) -> int:
        """What is served since."""
        return self.begun.version or 0


def digest(data: bytes) -> str:
    """The hash that the ledger knows a file by."""
    return hashlib.sha256(data).hexdigest()


def ledger_of(file: str | Path) -> Ledger:
    """The ledger of a file that something was promoted to.

    Raises:
        BadInput: nothing ever was.
    """
    ledger = Ledger(file)
    if ledger.target.suffix != SUFFIX or not any(entry.event == "begun" for entry in ledger.entries()):
        raise BadInput("nothing was promoted to it", source=file,
                       remedy="name the YAML that 'lam promote' wrote: lam promotions list production.yaml")
    return ledger


class Ledger:
    """The ledger beside a production YAML; reading needs no lock, writing does (`held`)."""

    def __init__(self, target: str | Path) -> None:
        self.target = files.plain(target)
        self.folder = self.target.with_suffix(".promotions")
        self.file = self.folder / "ledger.jsonl"

    def version_file(self, version: int) -> Path:
        """Where a version's YAML is kept."""
        return self.folder / "versions" / f"{version:04d}.yaml"

    def model_folder(self, version: int) -> Path:
        """Where a version's weights are kept, if some went along."""
        return self.folder / "models" / f"{version:04d}"

    def text_of(self, entry: Entry) -> str | None:
        """The YAML that a change served; None where its copy is gone or is not what was served."""
        file = self.version_file(entry.version or 0)
        data = files.read_record(file) if file.exists() else None
        return data.decode() if data is not None and entry.sha256 in (None, digest(data)) else None

    def checked(self, entry: Entry) -> str:
        """The same.

        Raises:
            BadInput: its copy is gone or is not what was served.
        """
        text, file = self.text_of(entry), self.version_file(entry.version or 0)
        if text is None:
            raise BadInput("is not what was served" if file.exists() else "is gone", source=file, remedy="restore it "
                           f"from a copy (sha256 {entry.sha256}), name another version with --to, or promote again")
        return text

    def altered(self, entry: Entry) -> list[str]:
        """The files of a version's weights that are gone or are not what was promoted."""
        folder = self.model_folder(entry.version or 0)
        files_there = {name: folder / name for name in (entry.weights or {}).get("sha256") or {}}
        return [name for name, file in files_there.items()
                if not file.exists() or digest(file.read_bytes()) != (entry.weights or {})["sha256"][name]]

    def check_weights(self, entry: Entry) -> None:
        """Refuse a version whose weights are no more what was promoted.

        Raises:
            BadInput: naming the files.
        """
        names = self.altered(entry)
        if names:
            raise BadInput(f"{', '.join(names)}: gone or not what was promoted",
                           source=self.model_folder(entry.version or 0),
                           remedy="restore it from a copy, or name another version")

    @contextmanager
    def held(self, wait: float = WAIT_SECONDS) -> Iterator[Ledger]:
        """Hold the lock; what was begun before and never done is finished first.

        Raises:
            BadInput: another command holds it for longer than `wait` seconds, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock", timeout=wait)
            lock.acquire()
        except Timeout:
            raise BadInput("another promotion or rollback of it is at work", source=self.target,
                           remedy="wait until it has ended, then give the same command again") from None
        except OSError as error:
            raise BadInput(f"cannot be written ({error.strerror})", source=self.folder,
                           remedy="check its permissions, or choose another place with -o") from None
        try:
            self._drop_torn_line()
            self.recover()
            yield self
        finally:
            lock.release()

    # ---- reading

    def entries(self) -> list[Entry]:
        """Every line, in order.

        Raises:
            BadInput: a line before the last is damaged.
        """
        try:
            return [Entry.model_validate(line) for line in files.read_json_lines(self.file)]
        except (ValueError, ValidationError) as error:
            raise BadInput(f"is damaged ({str(error).splitlines()[0]})", source=self.file,
                           remedy="restore it from a copy") from None

    def changes(self) -> list[Served]:
        """Every promotion and rollback that was done, in order."""
        entries = self.entries()
        begun = {entry.seq: entry for entry in entries if entry.event == "begun"}
        mirrors: dict[int, dict[str, dict[str, Any]]] = {}
        for entry in entries:
            if entry.event == "mirrored" and entry.mirror:
                mirrors.setdefault(entry.of or 0, {})["wandb" if "wandb" in entry.mirror else "mlflow"] = entry.mirror
        done = [entry for entry in entries if entry.event == "done" and entry.of in begun]
        return [Served(number, begun[entry.of or 0], entry.time, mirrors.get(entry.of or 0, {}))
                for number, entry in enumerate(done, 1)]

    def mirrored(self, kind: Literal["mlflow", "wandb"]) -> dict[str, Any]:
        """What a mirror was told last; empty where there is none."""
        return next((change.mirrors[kind] for change in reversed(self.changes()) if kind in change.mirrors), {})

    def current(self) -> Served | None:
        """What is served."""
        return next(reversed(self.changes()), None)

    def pending(self) -> Entry | None:
        """What was begun and neither done nor abandoned."""
        entries = self.entries()
        over = {entry.of for entry in entries if entry.event in ("done", "abandoned")}
        return next((entry for entry in reversed(entries) if entry.event == "begun" and entry.seq not in over), None)

    def hash_on_disk(self) -> str | None:
        """Of the YAML as it lies there; None where there is none."""
        return digest(files.read_record(self.target)) if self.target.exists() else None

    def is_edited(self) -> bool:
        """Whether the YAML is not what was served last, and nothing is under way."""
        now, change = self.hash_on_disk(), self.current()
        return change is not None and self.pending() is None and now != change.begun.sha256

    def at(self, moment: datetime) -> Served | None:
        """What was served at a moment; one without a time zone is in UTC, one without a fraction the whole second."""
        when = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        when = when if when.microsecond else when.replace(microsecond=999_999)
        return next((change for change in reversed(self.changes()) if datetime.fromisoformat(change.done_at) <= when),
                    None)

    # ---- writing, with the lock held

    def append(self, event: Event, **fields: Any) -> Entry:
        """Add a line; it is on disk when this returns."""
        entries = self.entries()
        entry = Entry(seq=len(entries) + 1, time=datetime.now(UTC).isoformat(timespec="microseconds"), event=event,
                      **fields)
        with files.naming(self.file), open(self.file, "ab") as file:
            file.write(files.json_line(entry.as_written()).encode())
            file.flush()
            os.fsync(file.fileno())
        files.sync_folder(self.folder)
        return entry

    def next_version(self) -> int:
        """A number that no version has."""
        return max((entry.version or 0 for entry in self.entries()), default=0) + 1

    def serve(self, **fields: Any) -> Served:
        """Begin a change, replace the YAML by its staged version, and end it.

        Raises:
            BadInput: the version's copy, or its weights, are gone or not what is to be served; nothing was begun.
        """
        before, wanted = self.current(), Entry(seq=1, time="", event="begun", **fields)
        self.checked(wanted)
        self.check_weights(wanted)
        self._finish(self.append("begun", **fields, before=before.version if before else None,
                                 before_sha256=self.hash_on_disk()))
        return self.changes()[-1]

    def recover(self) -> None:
        """Finish what was begun, or say that it was abandoned, and why: the YAML or its new version was edited."""
        entry = self.pending()
        if entry is None:
            return
        if self.hash_on_disk() not in (entry.before_sha256, entry.sha256):
            self.append("abandoned", of=entry.seq, because="the YAML was edited before it could be replaced")
        elif self.text_of(entry) is None or self.altered(entry):
            self.append("abandoned", of=entry.seq, because=f"the copy of version {entry.version} is gone or altered")
        else:
            self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        save(self.target, self.checked(entry))
        if entry.record:
            place = Path(entry.record["folder"])
            if place.is_dir() and os.access(place, os.W_OK):
                save(place / "promotion.json", json.dumps(entry.record["document"], indent=2, allow_nan=False) + "\n")
                copies.publish(place, "promotion.json")
        self.append("done", of=entry.seq)

    def _drop_torn_line(self) -> None:
        """Cut off a last line that a kill left half-written, so that the next one begins a line of its own."""
        if not self.file.exists():
            return
        data = self.file.read_bytes()
        if data and not data.endswith(b"\n"):
            with open(self.file, "r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
