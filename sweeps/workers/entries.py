"""What the driver writes into the journal: events from epoch records, reasons from how trials ended. Pure."""

from __future__ import annotations

import os
import socket
from typing import Any

from record.bounds import total_violation
from record.journal import events
from record.journal.events import Reason
from record.workload.metric import is_validated
from record.workload.workload import find
from sweeps.journal.state import TrialState
from sweeps.spec.spec import Sweep, SweepSpec

NEVER_PROMOTED = "; it was paused and never promoted"  # what journals say that have no field `paused`


def is_judged(record: dict[str, Any], verdict: str) -> bool:
    """Whether an epoch record is a result: it holds a validation, or the loss was not finite."""
    return verdict == "nonfinite" or is_validated(record)


def why(trial: TrialState) -> Reason:
    """Why a trial ended or paused."""
    return trial.reason or Reason(rule="full_budget", sentence="it has had its full budget")


def was_paused(reason: Reason) -> bool:
    """Whether a trial that ended as stopped was paused and never promoted."""
    return reason.paused or reason.sentence.endswith(NEVER_PROMOTED)


def promotable_again(reason: Reason) -> Reason:
    """Why a trial was paused, from why it was stopped at the end."""
    sentence = reason.sentence.removesuffix(NEVER_PROMOTED)
    kept = {key: value for key, value in reason.as_written().items() if key != "paused"}
    return Reason.model_validate({**kept, "sentence": sentence})


def result_event(spec: SweepSpec, trial: str, record: dict[str, Any], verdict: str) -> events.Result:
    """What the journal says of an epoch record."""
    more: dict[str, Any] = {"values": {key: record.get(key) for key in spec.told}} if spec.told else {}
    if spec.constraints:
        more["violation"] = total_violation(spec.constraints, record)
    trained = find(spec.workload)
    return events.Result(
        trial=trial, epoch=record["epoch"], objective=record.get(spec.primary), verdict=verdict,
        error=record.get(trained.error), metrics={key: record[key] for key in trained.shown if key in record},
        tflops=record.get("total_tflops"),
        seconds=record.get("seconds", 0.0), step=record["step"], **more)


def session_event(sweep: Sweep, begun: bool) -> events.Session:
    """The event that opens a session, of a sweep that has `begun` or is new."""
    kind = events.SweepResumed if begun else events.SweepStarted
    return kind(name=sweep.spec.name, pid=os.getpid(), host=socket.gethostname(),
                budget=sweep.spec.budget.model_dump(exclude_none=True))
