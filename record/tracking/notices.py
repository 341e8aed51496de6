"""Who is told when a rule fires or clears: a file of JSON lines, a command, a webhook; a dead receiver stops nothing.

Addresses are those that the person at work names, on the command line or in their own environment; no file names any.
"""

from __future__ import annotations

import queue
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from record import files
from record.errors import BadInput
from record.text import gist, printable

SECONDS = 10.0  # within which a receiver takes a notice
LAST_SECONDS = 15.0  # for which the end of a run waits for what is still to be sent
WAITING = 1000  # notices that wait for a slow receiver; later ones are dropped, and that is said


@dataclass(frozen=True)
class Receivers:
    """Where notices go.

    Attributes:
        file: gets a JSON line for each.
        command: argument list, started for each with its JSON on standard input; no shell reads it.
        webhook: http or https address that each is posted to as JSON.
    """

    file: Path | None = None
    command: tuple[str, ...] = ()
    webhook: str | None = None


NOBODY = Receivers()


def receivers(file: Path | None, command: str | None, webhook: str | None) -> Receivers:
    """Receivers from a command's words.

    Raises:
        BadInput: the file's folder is missing, no such program, or no such address.
    """
    if file is not None and not file.absolute().parent.is_dir():
        raise BadInput("its folder is missing", source=file, key="--notify-file", remedy="make it first")
    words = tuple(shlex.split(command)) if command else ()
    if words and shutil.which(words[0]) is None:
        raise BadInput(f"got {words[0]!r}, no such program", key="--notify-command",
                       remedy="name one that can be run, with its arguments; no shell reads them")
    address = urlsplit(webhook) if webhook else None
    if address is not None and (address.scheme not in ("http", "https") or not address.hostname):
        raise BadInput(f"got {webhook!r}, expected http://... or https://...", key="--notify-webhook",
                       remedy="name the address that takes a POST of JSON")
    return Receivers(file, words, webhook)


class Notices:
    """Sends notices from a thread of its own, in order; close it at the end."""

    def __init__(self, to: Receivers, run: str, seconds: float = SECONDS) -> None:
        ways: list[tuple[str, Callable[[str], None]]] = []
        if to.file is not None:
            ways.append((str(to.file), lambda line: _append(to.file or Path(), line)))
        if to.command:
            ways.append((to.command[0], lambda line: _run(to.command, line, seconds)))
        if to.webhook:
            ways.append((urlsplit(to.webhook).hostname or "", lambda line: _post(to.webhook or "", line, seconds)))
        self._ways, self._run, self._failed = ways, run, set[str]()
        self._queue: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        if ways:
            self._thread.start()

    def send(self, event: str, **fields: Any) -> None:
        """Hand a notice over; returns at once.

        Args:
            event: fired, cleared, verdict or drift.
        """
        if not self._ways:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._queue.put_nowait(files.json_line({"schema": 1, "time": now, "run": self._run, "event": event,
                                                    **fields}))
        except queue.Full:
            self._say("notices", "its receivers are slow, so some are dropped")

    def close(self, seconds: float = LAST_SECONDS) -> None:
        """Wait a moment for what is still to be sent."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=seconds)
            except queue.Full:
                return
            self._thread.join(seconds)

    def _work(self) -> None:
        while (line := self._queue.get()) is not None:
            for name, way in self._ways:
                try:
                    way(line)
                    self._failed.discard(name)
                except Exception as error:  # whatever a receiver does, the run goes on
                    self._say(name, gist(error) or type(error).__name__)

    def _say(self, name: str, what: str) -> None:
        """Once until it works again."""
        if name not in self._failed:
            self._failed.add(name)
            print(printable(f"warning: {name} did not take a notice ({what}); the run goes on"), file=sys.stderr,
                  flush=True)


def _append(file: Path, line: str) -> None:
    with open(file, "a", encoding="utf-8") as out:
        out.write(line)


def _run(command: tuple[str, ...], line: str, seconds: float) -> None:
    subprocess.run(command, input=line.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=seconds,
                   check=True)


class _Stays(urllib.request.HTTPRedirectHandler):
    """A notice goes to the address that was named and to no other."""

    def redirect_request(self, *asked: Any, **more: Any) -> None:
        return None


def _post(address: str, line: str, seconds: float) -> None:
    request = urllib.request.Request(address, line.encode(), {"Content-Type": "application/json"}, method="POST")
    with urllib.request.build_opener(_Stays).open(request, timeout=seconds):
        pass
