"""What ends a driver from outside; all of it leaves the sweep resumable.

Ctrl-C and SIGTERM: the first asks for an orderly end, the second leaves at once. Without Ray's head nothing goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from record.errors import EnvironmentFailed

STOPPING = "stopping the trials; once more leaves at once"
HEAD_IS_GONE = ("Ray's head does not answer any more: it died, or the network to it is gone; what was recorded stays, "
                "the same command resumes")
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Signals:
    """While entered, remembers the first signal; `received` is its number.

    Ray replaces the handlers when it starts, so they are installed again then.

    Attributes:
        announced: whether somebody else says on the terminal that one has been heard.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.announced = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in EXIT_CODES}
            self.install()
        return self

    def install(self) -> None:
        """Handle the signals here, whoever handled them before."""
        for number in self._before:
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal in."""
        if self.received is not None:
            os._exit(EXIT_CODES[signal.Signals(number)])
        self.received = number
        if not self.announced:
            os.write(2, f"\n{STOPPING}\n".encode())

    @property
    def exit_code(self) -> int:
        """Exit code of the signal that came."""
        return EXIT_CODES[signal.Signals(self.received)] if self.received is not None else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def takes_connections(place: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError):  # of a port above 65535
        return False
    return True


@contextlib.contextmanager
def head_watched(place: str, seconds: float, gone: Callable[[], object] | None = None, every: float = 1.0
                 ) -> Iterator[None]:
    """While entered, see whether Ray's head takes connections; where it has not for so long, call `gone`.

    Ray ends a driver a minute after its head, with exit code 1 and no word, and until then whatever asks Ray waits.

    Args:
        place: HOST:PORT, '' where there is none to watch.
        gone: default: say so and leave with exit code 3.
    """
    over = threading.Event()

    def watch() -> None:
        heard = time.monotonic()
        while not over.wait(every):
            if takes_connections(place):
                heard = time.monotonic()
            elif time.monotonic() - heard > seconds:
                (gone or _leave)()
                return

    if place:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _leave() -> None:
    """End this process as a kill does, which loses nothing; its reaper ends what is left of Ray."""
    os.write(2, f"\nlam: {HEAD_IS_GONE}\n".encode())
    os._exit(EnvironmentFailed.exit_code)
