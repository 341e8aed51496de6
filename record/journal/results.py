"""Results of trials as decisions read them, straight from a journal's lines where that can be.

A sweep of ten thousand trials has a million results. A line with the same fields and the same kinds of values as one
that `record.journal.events` has read is a result, too, where what the kinds leave open holds: its trial is known by a
plain name, its time is written as ours are, its whole numbers fit into 64 bits. It is taken without an event being made
of it; of any other line nothing is said here, and its class reads it.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple

import orjson

from record import standing
from record.journal import events

MOST = 100_000  # trials, and kinds of lines, that are remembered
_TOO_LARGE = 2**63
_ZONE, _LENGTH = "+00:00", len("2026-01-01T00:00:00.000000+00:00")
_NUMBERS = frozenset((float, NoneType))
_NO_VALUES: dict[str, float] = {}


@dataclass(slots=True)
class Result(standing.Outcome):
    """One validated epoch of a trial; `values` are the other metrics that the searcher is told. Never changed.

    Attributes:
        tflops, seconds, step: operations, training time and optimizer steps since the trial began.
    """

    tflops: float = math.nan
    seconds: float = 0.0
    step: int = 0


class Told(NamedTuple):
    """What a `record.journal.events.Result` comes to."""

    seq: int
    time: datetime
    trial: str
    result: Result


Event = events.JournalEvent | Told


def result_of(event: events.Measured) -> Result:
    """A result from its event."""
    return _result(event.__dict__, event.model_fields_set)


def _result(found: Mapping[str, Any], given: Container[str]) -> Result:
    """A result from the fields of its event.

    Args:
        given: names of the fields that the journal has.
    """
    get = found.get
    objective, tflops = found["objective"], found["tflops"]
    seconds, violation = get("seconds", 0.0), get("violation", 0.0)
    error = get("error") if "error" in given else get("metrics", _NO_VALUES).get(events.OLD_ERROR)
    values = get("values")
    return Result(
        found["epoch"], math.nan if objective is None else objective, found["verdict"],
        math.inf if violation is None else violation, math.nan if error is None else error,
        {name: math.nan if value is None else value for name, value in values.items()} if values else _NO_VALUES,
        math.nan if tflops is None else tflops, math.nan if seconds is None else seconds, get("step", 0))


class _Kind(NamedTuple):
    """What lines of a kind have in common.

    Attributes:
        mappings: their fields of mappings.
        plain: whether each field that a result needs is there as a number, and nothing else is to be told.
    """

    mappings: tuple[str, ...]
    plain: bool


_NEEDED = {"objective": float, "error": float, "tflops": float, "seconds": float, "step": int}
_kinds: dict[tuple[Any, ...], _Kind] = {}
_names: dict[str, str] = {}


def take(line: bytes) -> Told | None:
    """A line that is like one before; None where its class must be asked."""
    try:
        found = orjson.loads(line)
        mappings, plain = _kinds[(*found, *map(type, found.values()))]
        seq, time, trial, epoch = found["seq"], found["time"], _names[found["trial"]], found["epoch"]
        if found["event"] != "result" or len(time) != _LENGTH or time[-6:] != _ZONE:
            return None
        when = datetime.fromisoformat(time)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    for name in mappings:
        if not _NUMBERS.issuperset(map(type, found[name].values())):
            return None
    if not (0 < seq < _TOO_LARGE and epoch < _TOO_LARGE and found.get("step", 0) < _TOO_LARGE):
        return None
    return Told(seq, when, trial, _as_numbers(found) if plain else _result(found, found))


def _as_numbers(found: dict[str, Any]) -> Result:
    """`_result` of almost all lines."""
    return Result(found["epoch"], found["objective"], found["verdict"], 0.0, found["error"], _NO_VALUES,
                  found["tflops"], found["seconds"], found["step"])


def learn(line: bytes, event: events.JournalEvent) -> None:
    """Remember of what kind a line was that its class has read, where that says all of it."""
    if type(event) is not events.Result or event.model_extra or event.version is not None or len(_names) > MOST:
        return
    try:
        found = orjson.loads(line)
    except ValueError:
        return
    if all(type(getattr(event, name)) is type(value) for name, value in found.items() if name != "time"):
        _names[event.trial] = event.trial
        if len(_kinds) < MOST:
            plain = not found.keys() & {"values", "violation"} and all(
                type(found.get(name)) is kind for name, kind in _NEEDED.items())
            mappings = tuple(name for name, value in found.items() if isinstance(value, dict))
            _kinds[(*found, *map(type, found.values()))] = _Kind(mappings, plain)
