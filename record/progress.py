"""Progress on standard error: a bar on a terminal, plain lines elsewhere, nothing for what is over at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

QUIET_SECONDS = 2.0  # work that is done within this long prints no plain line
LINE_SECONDS = 10.0  # between two plain lines


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done; `what` says what is being done."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description=what, total=total, console=Console(stderr=True), transient=True)
        return
    begin = time.monotonic()
    next_line = begin + QUIET_SECONDS
    for number, item in enumerate(items):
        if time.monotonic() >= next_line:
            print(f"{what}: {number} of {total}", file=sys.stderr, flush=True)
            next_line = time.monotonic() + LINE_SECONDS
        yield item
    if time.monotonic() >= begin + QUIET_SECONDS:
        print(f"{what}: {total} of {total} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
