"""One writer at a time on a store that has no locks: claims in a total order, renewed while their holder lives.

A driver that wants the journal writes a claim with a number above all it sees. The highest (generation, token)
holds, so two that write at once agree on who it is. A holder renews its claim's object and looks for higher ones.
A claim is dead when its process on this machine is gone, or when it has not been renewed for `LEASE_SECONDS`; both
ends of that span are the store's own times, so no host's clock matters. What a holder wrote after it lost the
claim does not count (`record.journal.journal_objects`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from record.errors import BadInput, EnvironmentFailed
from record.journal import journal_objects
from record.journal.journal_objects import Key
from record.storage import refusals
from record.storage.store import Patience, first_line

LEASE_SECONDS = 60.0
BEAT_SECONDS = 10.0
SETTLE_SECONDS = 0.3


@dataclass(frozen=True)
class Claim:
    """What a claim's object says, and how long ago the store last saw it renewed (None: the store does not tell)."""

    key: Key
    told: dict[str, Any]
    age: float | None = None

    @property
    def holder(self) -> str:
        """Who it is, for messages."""
        if "pid" not in self.told:
            return "it has not said which"
        return f"process {self.told['pid']} on {self.told['host']} since {self.told['since']}"

    def alive(self, lease_seconds: float) -> bool:
        """Whether its holder must be taken to be at work."""
        if self.told.get("machine") and self.told["machine"] == machine():
            return process_began(int(self.told["pid"])) == self.told["began"]
        return self.age is None or self.age <= lease_seconds


def own_claim() -> dict[str, Any]:
    """What this process writes into its claim."""
    pid, where = os.getpid(), machine()
    return {"pid": pid, "host": socket.gethostname(), "machine": where, "began": process_began(pid) if where else None,
            "since": datetime.now(UTC).isoformat(timespec="seconds")}


def machine() -> str:
    """Names this machine since it was started, and the space in which its process numbers mean something."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not (boot.exists() and space.exists()):
        return ""
    return f"{socket.gethostname()} {boot.read_text().strip()} {os.readlink(space)}"


def process_began(pid: int) -> str | None:
    """When a process of this machine began, in ticks since the machine did; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def claims_on(filesystem: Any, root: str, now: float | None) -> list[Claim]:
    """All claims; their ages where the store's present time is given."""
    found = []
    for info in journal_objects.listing(filesystem, root):
        key = _key(info.base_name)
        if key is None:
            continue
        age = None if now is None or info.mtime_ns is None else now - info.mtime_ns / 1e9
        with contextlib.suppress(FileNotFoundError):  # given back between the listing and now
            found.append(Claim(key, _read(filesystem, info.path), age))
    return found


def is_held(filesystem: Any, root: str) -> bool:
    """Whether a holder must be taken to be at work; for readers, who write nothing and so go by their own clock."""
    return any(claim.alive(LEASE_SECONDS) for claim in claims_on(filesystem, root, time.time()))


def _read(filesystem: Any, path: str) -> dict[str, Any]:
    with filesystem.open_input_stream(path) as stream:
        text = stream.read()
    try:
        told = json.loads(text)
    except ValueError:
        return {}  # being written at this moment
    return told if isinstance(told, dict) else {}


class Lease:
    """Holds the journal under `root` for the length of a with-block.

    Raises:
        BadInput: another driver holds it.
        EnvironmentFailed: the store does not answer, or lets nothing be written or deleted.
    """

    def __init__(self, filesystem: Any, root: str, where: str, lease_seconds: float = LEASE_SECONDS,
                 beat_seconds: float = BEAT_SECONDS, settle_seconds: float = SETTLE_SECONDS,
                 patience: Patience | None = None) -> None:
        self._filesystem, self._root, self._where = filesystem, root, where
        self._lease_seconds, self._beat_seconds, self._settle_seconds = lease_seconds, beat_seconds, settle_seconds
        self._guard, self._stop = threading.Lock(), threading.Event()
        self._patience = patience or Patience(where)
        self._lost = self._trouble = ""
        self.key: Key = (0, "")

    def __enter__(self) -> Lease:
        try:
            self._take()
        except OSError as error:
            raise EnvironmentFailed(refused(self._where, error)) from error
        self._thread = threading.Thread(target=self._keep, name="journal lease", daemon=True)
        self._thread.start()
        return self

    def _take(self) -> None:
        now = probe(self._filesystem, self._root)
        claims = claims_on(self._filesystem, self._root, now)
        for claim in claims:
            if claim.alive(self._lease_seconds):
                raise self._refusal(claim)
        written = [part.generation for part in journal_objects.parts(self._filesystem, self._root)]
        self.key = (1 + max([*written, *(claim.key[0] for claim in claims)], default=0), secrets.token_hex(4))
        self._told = own_claim()
        self._write()
        time.sleep(self._settle_seconds)
        higher = self._higher()
        if higher is not None:
            self._delete(self.key)
            raise self._refusal(higher)
        for claim in claims:
            self._delete(claim.key)

    def _refusal(self, claim: Claim) -> BadInput:
        return BadInput(f"another driver is at work here ({claim.holder})", source=self._where,
                        remedy="wait for it, or stop it; or give this sweep another name; one that died on another "
                               f"machine is given up after {self._lease_seconds:g} seconds")

    def check(self) -> None:
        """To be called before each write.

        Raises:
            EnvironmentFailed: another driver has taken the journal, or the claim could not be renewed in time.
        """
        if not self._lost and time.monotonic() - self._renewed > self._lease_seconds / 2:
            try:
                self._beat()
            except OSError as error:
                self._trouble = first_line(error)
                raise EnvironmentFailed(f"{self._where}: the claim on the journal could not be renewed for "
                                        f"{time.monotonic() - self._renewed:.0f} seconds ({self._trouble}); check the "
                                        "network, the same command then resumes") from error
        if self._lost:
            raise EnvironmentFailed(f"{self._where}: {self._lost} has taken over the journal, since this driver was "
                                    "not heard for too long; nothing more is written from here")

    def _keep(self) -> None:
        while not self._lost and not self._stop.wait(self._beat_seconds):
            try:
                self._beat()
            except OSError as error:  # tried again at the next beat; `check` ends the sweep once it lasts too long
                self._trouble = first_line(error)
                self._patience.trouble(error)
            else:
                self._patience.over()

    def _beat(self) -> None:
        with self._guard:
            if self._lost:
                return
            higher = self._higher()
            if higher is not None:
                self._lost = f"another driver ({higher.holder})"
                return
            self._write()

    def _higher(self) -> Claim | None:
        claims = claims_on(self._filesystem, self._root, None)
        return max((claim for claim in claims if claim.key > self.key), key=lambda claim: claim.key, default=None)

    def _write(self) -> None:
        begun = time.monotonic()
        with self._filesystem.open_output_stream(f"{self._root}/{_name(self.key)}") as stream:
            stream.write(json.dumps(self._told).encode())
        self._renewed = begun

    def _delete(self, key: Key) -> None:
        with contextlib.suppress(FileNotFoundError):  # whoever held it has given it back
            self._filesystem.delete_file(f"{self._root}/{_name(key)}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a claim that cannot be given back runs out
            self._delete(self.key)


def _name(key: Key) -> str:
    return f"lease-{key[0]:06d}-{key[1]}.json"


def _key(name: str) -> Key | None:
    words = name.removesuffix(".json").split("-")
    if not name.endswith(".json") or len(words) != 3 or words[0] != "lease" or not words[1].isdigit():
        return None
    return int(words[1]), words[2]


def probe(filesystem: Any, root: str) -> float | None:
    """Write and delete a small object; returns the store's time in seconds, None where it does not tell.

    Raises:
        OSError: the store refuses one of them.
    """
    path = f"{root}/probe-{secrets.token_hex(4)}"
    filesystem.create_dir(root, recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"can this be written\n")
    written = filesystem.get_file_info(path).mtime_ns
    filesystem.delete_file(path)
    return None if written is None else float(written) / 1e9


def refused(where: str, error: OSError) -> str:
    """The message of a store that does not take what is written."""
    why = refusals.meaning(str(error), where)
    if why is not None:
        return f"{where}: the journal cannot be written: {why[0]} ({first_line(error)}); {why[1]}"
    return (f"{where}: the journal cannot be written ({first_line(error)}); check the network and that "
            "the credentials may write and delete there, the same command then resumes")
