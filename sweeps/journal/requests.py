"""What a person asks of a sweep: end a trial, try a config. The journal has one writer, so asking is a file.

A driver that is at work takes the file up within seconds and writes the event; where none is, whoever asks holds the
sweep for a moment and writes it.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from record import documents, files
from record.errors import BadInput, LamError
from record.journal.events import FINAL, Change, Reason, Stopped, Suggested
from record.journal.trial_id import TrialId
from record.schema import build
from record.storage import copies
from record.storage.store import Store
from sweeps.journal import folders, stores
from sweeps.journal.journal import Journal
from sweeps.journal.state import SweepState
from sweeps.spec import space
from sweeps.spec.space import Knob, Scalar
from sweeps.spec.spec import Sweep

FOLDER = "requests"


class Request(BaseModel):
    """One thing that a person asks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: Literal["stop", "enqueue"]
    trial: TrialId = Field(description="to stop, or whose config the new one starts from")
    because: str = Field("", description="the person's reason")
    change: dict[str, documents.Plain] = Field({}, description="knobs that the new config has otherwise")


def request(what: str, trial: str, because: str, change: dict[str, Any]) -> Request:
    """A request from a command's words.

    Raises:
        BadInput: a word is none.
    """
    return build(Request, {"ask": what, "trial": trial, "because": because, "change": change}, "the request")


def event_of(request: Request, sweep: Sweep, state: SweepState) -> Change:
    """The event that a request comes to.

    Raises:
        BadInput: there is no such trial, it has ended, or the new config is none of the sweep's.
    """
    trial = state.trials.get(request.trial)
    if trial is None:
        raise BadInput(f"got {request.trial!r}, which is no trial of this sweep", source="TRIAL",
                       remedy="'lam sweep status' names its trials")
    if request.ask == "enqueue":
        return _suggested(request, sweep, state)
    if trial.status in FINAL:
        raise BadInput(f"{trial.id} has ended: {trial.status}", source="TRIAL", remedy="name one that has not")
    sentence = "a person stopped it" + (f": {request.because}" if request.because else "")
    saved = max(0, sweep.max_epochs - trial.epoch)
    return Stopped(trial=trial.id, epoch=trial.epoch, reason=Reason(rule="person", sentence=sentence,
                                                                    epochs_saved=saved))


def _suggested(request: Request, sweep: Sweep, state: SweepState) -> Suggested:
    params = _changed(request, sweep, state.trials[request.trial].params)
    changes = ", ".join(f"{name}={json.dumps(value)}" for name, value in request.change.items())
    sentence = f"a person asked for {request.trial} with {changes or 'nothing changed'}"
    reason = Reason(rule="person", sentence=sentence + (f": {request.because}" if request.because else ""))
    seed: dict[str, Any] = {"seed": sweep.base.seed} if sweep.spec.seeds > 1 else {}
    return Suggested(trial=f"t{len(state.trials) + 1:04d}", params=params, reason=reason, **seed)


def _changed(request: Request, sweep: Sweep, params: dict[str, Any]) -> dict[str, Any]:
    """The new config's parameters: those of the trial with the changes, inactive knobs left out."""
    for name, value in request.change.items():
        knob = sweep.spec.space.get(name)
        if knob is None:
            raise BadInput(f"got {name!r}, which is no knob of this sweep", source="--set",
                           remedy=f"its knobs are {', '.join(sweep.spec.space)}")
        if not knob.contains(value):
            raise BadInput(f"got {name}={json.dumps(value)}, which the space does not hold", source="--set",
                           remedy="choose a value inside it, or widen it with 'lam sweep extend --space'")
    given = {**params, **request.change}

    def chosen(name: str, knob: Knob) -> Scalar:
        if name not in given:
            raise BadInput(f"{name} becomes active and has no value", source="--set", remedy=f"add --set {name}=VALUE")
        return given[name]

    found = space.suggest(sweep.spec.space, sweep.base.mapping(), chosen)
    sweep.config(found)
    return found


def hand_in(folder: Path, sweep: Sweep, request: Request) -> Change | None:
    """Have a request done: by the driver that is at work, and then None is known of it, or here; what was written.

    Raises:
        BadInput: it cannot be done.
    """
    state = folders.open_sweep(folder)[1]
    event_of(request, sweep, state)  # refused here where it can be, not in the driver's log
    if stores.at_work(folder, sweep.home(folder)):
        name = f"{FOLDER}/{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        files.write_text(folder / name, request.model_dump_json(exclude_defaults=True) + "\n")
        copies.publish(folder, name)
        return None
    with stores.hold(folder, sweep.home(folder)) as store, contextlib.closing(Journal(folder, store)) as journal:
        event = event_of(request, sweep, journal.state)
        journal.append(event)
        return event


def waiting(folder: Path, store: Store | None = None) -> Iterator[Request]:
    """The requests that nobody has taken up, in their order; each is taken away. One that is none is thrown away.

    Args:
        store: that keeps the sweep.
    """
    if store is not None:
        yield from _waiting_on(store)
    for file in sorted((folder / FOLDER).glob("*.json")):
        with contextlib.suppress(ValidationError, LamError, OSError):
            found = Request.model_validate_json(files.read_record(file))
            file.unlink(missing_ok=True)
            yield found
            continue
        file.unlink(missing_ok=True)


def _waiting_on(store: Store) -> Iterator[Request]:
    with contextlib.suppress(OSError):  # it is looked at again
        for name in sorted(store.listed(FOLDER)):
            content = store.read(name)
            store.delete(name)
            with contextlib.suppress(ValidationError):
                yield Request.model_validate_json(content or b"")
