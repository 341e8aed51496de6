"""What is shown on a terminal: progress on standard error, and a console that no text from a file can steer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from record.text import shown

Item = TypeVar("Item")

QUIET_SECONDS = 2.0  # work that is done within this long prints no plain line
LINE_SECONDS = 10.0  # between two plain lines


class Screen(Console):
    """A rich console whose own codes steer the terminal, and no text: that may come from anybody's file."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments of a renderable, their text printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done: a bar on a terminal, plain lines elsewhere.

    What is over at once shows nothing. `what` says what is being done.
    """
    if sys.stderr.isatty():
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
