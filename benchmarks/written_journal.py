"""A sweep that no driver has run, as it would lie on a disk: for `bench_scale.py`, which times readers on it.

All trials are trained to their end, 200 at a time by turns. An event is made by what the driver makes it with, once of
each kind; the others of its kind are it with other values, since to make a million as objects takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from record.journal import events
from record.journal.events import JournalEvent
from sweeps.journal.stores import SEGMENT_EVENTS
from sweeps.spec.spec import Sweep
from sweeps.workers.entries import result_event, session_event

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
GOLDEN = 0.6180339887498949  # its multiples fill 0 to 1 evenly, in no order
Record = Callable[[float, int], dict[str, Any]]


def write(sweep: Sweep, home: Path, trials: int, results: int, at_a_time: int, record: Record) -> None:
    """Write the segments of a sweep.

    Args:
        record: an epoch's record, of a trial's knob and the epoch.
    """
    lines = _lines(sweep, trials, results, at_a_time, record)
    segment = 0
    while part := b"".join(islice(lines, SEGMENT_EVENTS)):
        segment += 1
        (home / f"journal-{segment:06d}.jsonl").write_bytes(part)


def _lines(sweep: Sweep, trials: int, results: int, at_a_time: int, record: Record) -> Iterator[bytes]:
    for seq, fields in enumerate(_fields(sweep, trials, results, at_a_time, record), 1):
        first = {"version": events.VERSION} if seq == 1 else {}
        when = (BEGAN + timedelta(microseconds=1000 * seq + 1)).isoformat()
        yield orjson.dumps({**fields, **first, "seq": seq, "time": when}, option=orjson.OPT_APPEND_NEWLINE)


def _fields(sweep: Sweep, trials: int, results: int, at_a_time: int, record: Record) -> Iterator[dict[str, Any]]:
    """What each event says beside its number and its time."""
    names = {f"t{number:04d}": number * GOLDEN % 1.0 for number in range(1, trials + 1)}
    pattern = _said(result_event(sweep.spec, "t", record(0.5, 1), "live"))
    yield _said(session_event(sweep, begun=False))
    for begin in range(0, trials, at_a_time):
        running = dict(islice(names.items(), begin, begin + at_a_time))
        for name, decay in running.items():
            yield _said(events.Suggested(trial=name, params={"weight_decay": decay}))
            yield _said(events.Started(trial=name))
        for epoch in range(1, results + 1):
            for name, decay in running.items():
                yield _result(pattern, name, record(decay, epoch))
        for name, decay in running.items():
            best = record(decay, results)["val/objective"]
            yield _said(events.Completed(trial=name, epoch=results, objective=best))
    yield _said(events.SweepFinished(reason="over"))


def _said(event: JournalEvent) -> dict[str, Any]:
    return event.as_written()


def _result(pattern: dict[str, Any], name: str, record: dict[str, Any]) -> dict[str, Any]:
    metrics = {key: record[key] for key in pattern["metrics"]}
    return {**pattern, "trial": name, "epoch": record["epoch"], "objective": record["val/objective"],
            "error": record["val/mse_loss"], "metrics": metrics, "tflops": record["total_tflops"],
            "seconds": record["seconds"], "step": record["step"]}
