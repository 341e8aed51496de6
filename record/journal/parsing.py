"""A journal's lines as events: what is read, what is damage, and what a newer version wrote."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from record import files
from record.errors import Damaged, EnvironmentFailed
from record.journal import events, results

T = TypeVar("T")
E = TypeVar("E", bound=results.Event | results.Line)
Lines = Callable[[bytes, "str | Path"], Iterator[E]]


def read_event(line: bytes, where: str = "the event") -> events.JournalEvent:
    """One event.

    Raises:
        ValueError: it is not JSON.
        Damaged: it is no event, or a field of it is wrong.
        EnvironmentFailed: a newer version wrote it.
    """
    try:
        event: events.JournalEvent = events.READER.validator.validate_json(line, strict=True)
    except ValidationError as error:
        event = _otherwise(files.parse_json(line), where, error)
    if event.seq < 1:
        raise _lacks_its_head(where)
    if event.time is events.UNWRITTEN:
        raise Damaged(f"{where}: {event.event}: time is missing; restore the journal from a copy")
    if event.version is not None and event.version > events.VERSION:
        raise _newer(where, event.version)
    return event


def read_lines(data: bytes, source: str | Path) -> Iterator[events.JournalEvent]:
    """The events of a file; a half-written last line is left out.

    Raises:
        ValueError: a line other than the last is not JSON.
        Damaged, EnvironmentFailed: as `read_event`, with file and line.
    """
    return files.parse_lines(data, source, lambda line, number: read_event(line, f"{source}:{number}"))


def skim_lines(data: bytes, source: str | Path) -> Iterator[events.JournalEvent | results.Line]:
    """As `read_lines`, with each result only skimmed: they are twenty of twenty-one lines."""
    return _where_not(results.skim, data, str(source))


def read_told(data: bytes, source: str | Path) -> Iterator[results.Event]:
    """The same, with results as decisions read them wherever nothing else is in their lines; raises as `read_lines`."""
    return _where_not(results.take, data, str(source))


def _where_not(take: Callable[[bytes], T | None], data: bytes, source: str) -> Iterator[events.JournalEvent | T]:
    """What `take` makes of the lines, and of those of which it makes nothing the events."""
    return files.parse_lines(data, source, lambda line, number: take(line) or read_event(line, f"{source}:{number}"))


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Python's search for reference cycles rests for the length of a with-block.

    Events are many, stay, and are in no cycles: looking through them again and again is half of what reading takes.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _otherwise(found: Any, where: str, error: ValidationError) -> events.JournalEvent:
    """What a line is that no class reads: an event of a newer version, or damage."""
    if not isinstance(found, dict) or not isinstance(found.get("seq"), int) or not (
            isinstance(found.get("event"), str) and found["event"]):
        raise _lacks_its_head(where)
    if isinstance(found.get("version"), int) and found["version"] > events.VERSION:
        raise _newer(where, found["version"])
    if found["event"] not in events.KINDS:
        return events.Unknown.model_validate(found)
    raise Damaged(f"{where}: {found['event']}: {_problem(error)}; restore the journal from a copy")


def _problem(error: ValidationError) -> str:
    """The first wrong field, without the event's name that leads its path."""
    item = error.errors()[0]
    field = ".".join(map(str, item["loc"][1:]))
    if item["type"] == "missing":
        return f"{field} is missing"
    said = item["msg"].removeprefix("Value error, ")
    return f"{field}: got {item['input']!r:.80}, {said[0].lower()}{said[1:]}"


def _lacks_its_head(where: str) -> Damaged:
    return Damaged(f"{where}: an event lacks its seq or its name; restore the journal from a copy")


def _newer(where: str, version: int) -> EnvironmentFailed:
    return EnvironmentFailed(f"{where}: was written as version {version}, this one reads {events.VERSION}; "
                             "update lamsweep")
