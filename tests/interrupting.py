"""Processes that tests start and then interrupt."""

from __future__ import annotations

import signal


def answer_ctrl_c() -> None:
    """Run in the child first: a shell that runs the tests in the background makes its children deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
