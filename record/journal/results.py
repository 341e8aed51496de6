"""Results of trials as decisions read them, straight from a journal's lines where that can be.

A sweep of ten thousand trials has a million results. A line that holds what `record.journal.events.Result` holds, and
nothing else, is taken without an event being made of it, which takes a fifth of the time; of any other line nothing is
said here, and its class reads it.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from record import standing
from record.files import NAME
from record.journal import events

_ZONE, _LENGTH = "+00:00", len("2026-01-01T00:00:00.000000+00:00")
_NO_VALUES: dict[str, float] = {}

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Numbers = dict[str, float | None]


class Result(standing.Outcome, gc=False):
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


class Line(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The fields of a `record.journal.events.Result`, as a line has them."""

    seq: Annotated[int, msgspec.Meta(ge=1)]
    time: str
    event: Literal["result"]
    trial: str
    epoch: Whole
    objective: float | None
    verdict: str
    tflops: float | None
    error: float | UnsetType | None = UNSET
    metrics: Numbers = {}
    seconds: float | None = 0.0
    step: Whole = 0
    values: Numbers = {}
    violation: float | None = 0.0


_lines = msgspec.json.Decoder(Line)


def take(line: bytes) -> Told | None:
    """The result on a line; None where its class must be asked."""
    found = skim(line)
    if found is None:
        return None
    return Told(found.seq, datetime.fromisoformat(found.time), _known(found.trial), _result(found))


def skim(line: bytes) -> Line | None:
    """The same, for who wants to know that there is one: nothing is made of its fields, which are sound."""
    try:
        found = _lines.decode(line)
        datetime.fromisoformat(found.time)
    except ValueError:
        return None
    time = found.time
    return found if _known(found.trial) and len(time) == _LENGTH and time[-6:] == _ZONE else None  # as all are written


@lru_cache(100_000)
def _known(trial: str) -> str:
    """One and the same text for all lines of a trial; '' where no trial has such an id."""
    return trial if NAME.fullmatch(trial) else ""


def result_of(event: events.Measured) -> Result:
    """A result from its event."""
    return _result(event, "error" in event.model_fields_set)


def _result(found: events.Measured | Line, given: bool = True) -> Result:
    """A result from the fields of its event.

    Args:
        given: whether the journal has its error.
    """
    error = found.error if given else UNSET
    if error is UNSET:
        error = found.metrics.get(events.OLD_ERROR)
    values = {name: _number(value) for name, value in found.values.items()} if found.values else _NO_VALUES
    return Result(found.epoch, _number(found.objective), found.verdict,
                  math.inf if found.violation is None else found.violation, _number(error), values,
                  _number(found.tflops), _number(found.seconds), found.step)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
