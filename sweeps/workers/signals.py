"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second leaves at once. Both leave the sweep resumable."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOPPING = "stopping the trials; once more leaves at once"
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
