"""Our own sweep and run folders as studies. A half-written last line of a record is left out (docs/records.md)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from analysis.read.epochs.bulk import read_epochs, reading
from analysis.read.sources import STATUS_OF, is_sweep
from analysis.read.study import Study, Trial
from record import documents, files, yamlio
from record.bounds import Bound
from record.errors import BadInput
from record.journal import events, journals, machines
from record.journal.events import FINISHED, STATUSES
from record.run import RunFolder
from record.schema import build
from record.text import printable
from record.workload import workload as workloads
from record.workload.workload import Workload


def read_sweep_or_run(folder: Path, prefix: str) -> Study:
    """One of our folders as a study; `prefix` begins the labels of a sweep's trials.

    Raises:
        BadInput: a record is damaged; a sweep has no finished trial.
    """
    return _read_sweep(folder, prefix) if is_sweep(folder) else _read_single(folder)


class Configs:
    """Reads the configs of a sweep's trials, which differ in a few lines: those alone are parsed after the first."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._first: dict[str, Any] = {}

    def of(self, run: RunFolder) -> dict[str, Any]:
        """The complete config of a run with dotted keys.

        Raises:
            BadInput: it is damaged.
        """
        lines = files.read_record(run.config_file).split(b"\n")
        changed = [(line, first) for line, first in zip(lines, self._lines, strict=False) if line != first]
        if self._lines and len(lines) == len(self._lines):
            with contextlib.suppress(ValueError):
                return {**self._first, **dict(_changed(line, first) for line, first in changed)}
        found = dict(files.flat(run.config()))
        if not self._first:
            self._lines, self._first = lines, found
        return found


def _changed(line: bytes, first: bytes) -> tuple[str, Any]:
    """What stands on a line instead of the first config's.

    Raises:
        ValueError: one of them is more than a key and a plain value, or they have different keys.
    """
    (key, value), (instead, _) = _plain_line(line), _plain_line(first)
    if key != instead:
        raise ValueError(key)
    return key, value


@lru_cache(maxsize=4096)
def _plain_line(line: bytes) -> tuple[str, Any]:
    """A top-level key with a number or a plain word: what stands on the line is all that it is.

    Raises:
        ValueError: it is something else.
    """
    key, colon, value = line.decode("ascii").partition(": ")
    if not colon or not _KEY.fullmatch(key):
        raise ValueError(key)
    return key, yamlio.plain_value(value)


_KEY = re.compile(r"[a-z_]+")


def _read_trial(path: Path, label: str, state: str | None = None, **known: Any) -> Trial:
    """A run folder as a trial; `state` where a journal knows better than run.json."""
    run = RunFolder(path)
    known_run = run.document() if run.exists() else None
    read = known.pop("configs", None) or Configs()
    config = read.of(run) if files.stands(run.config_file) else {}
    reason, trained = known.pop("reason", None), known.pop("workload", None) or workloads.default()
    records = known.pop("records", None)
    records = next(read_epochs([run], trained)) if records is None else records
    if not reason and known_run and known_run.reason:
        reason = {"rule": "failed", "sentence": known_run.reason}
    return Trial(
        label=printable(label), id=printable(known.pop("id", label)), path=path,
        state=state or (STATUS_OF[known_run.state] if known_run else "started"), config=config,
        identity=known_run.as_written() if known_run else {}, reason=reason or {}, workload=trained,
        records=records, **known,
    )


def _read_single(folder: Path) -> Study:
    known = RunFolder(folder).document()
    name = printable(known.run_id or folder.name)
    trained = _workload(known.workload, folder / "run.json")
    trial = _read_trial(folder, name, workload=trained)
    return Study(name=name, objective=trained.objective, trials=(trial,), knobs=(), sources=(folder,),
                 workload=trained)


def _workload(name: str, source: Path) -> Workload:
    try:
        return workloads.find(name)
    except BadInput as error:
        raise BadInput(str(error), source=source) from None


def _read_sweep(folder: Path, prefix: str) -> Study:
    sweep = documents.load_document(documents.Sweep, folder / "sweep.json")
    trained = _workload(sweep.workload, folder / "sweep.json")
    limits, scheduler, configs = _limits(sweep, folder), _scheduler(sweep), Configs()
    with reading(_begun(folder), trained) as read:  # meanwhile the journal
        happened = list(journals.changes(folder))
        states = _trial_states(event for event in happened if isinstance(event, events.Change))
        epochs = read([RunFolder(folder / "trials" / name) for name in states])
        trials = tuple(
            _read_trial(folder / "trials" / name, prefix + name, last.event, id=name, params=first.params,
                        reason=last.reason.as_written() if isinstance(last, events.Cut) else {}, place=place,
                        limits=limits, scheduler=scheduler, workload=trained, configs=configs, records=next(epochs),
                        repeats=prefix + first.repeats if first.repeats else None)
            for place, (name, (first, last)) in enumerate(states.items())
        )
    _need_a_finished_trial(folder, trials)
    objectives = _objectives(sweep, folder, trained)
    confirm, differences = _confirm(folder, prefix)
    return Study(
        name=printable(sweep.name), objective=objectives[0], trials=trials,
        knobs=_ordered(knob for trial in trials for knob in trial.params), sources=(folder,),
        sweep=sweep.as_written(), confirm=confirm, differences=differences, objectives=objectives, workload=trained,
        baseline=next((prefix + name for name, (first, _) in states.items()
                       if first.reason is not None and first.reason.rule == events.BASELINE), None),
        notes=machines.over(event for event in happened if isinstance(event, events.MachineEvent)),
    )


def _begun(folder: Path) -> list[RunFolder]:
    """The trials that have a folder, as a sweep numbers them: mostly in the journal's order."""
    try:
        names = os.listdir(folder / "trials")
    except OSError:
        return []
    return [RunFolder(folder / "trials" / name) for name in sorted(names, key=lambda name: (len(name), name))]


def _trial_states(changes: Iterable[events.Change]) -> dict[str, tuple[events.Suggested, events.Change]]:
    """trial id -> the event that made it and the one that gave it its status, in order of suggestion."""
    states: dict[str, tuple[events.Suggested, events.Change]] = {}
    for event in changes:
        name = event.trial
        if isinstance(event, events.Suggested):
            states[name] = event, event
        else:
            states[name] = states[name][0], event
    return states


def _need_a_finished_trial(folder: Path, trials: Sequence[Trial]) -> None:
    if any(trial.state in FINISHED for trial in trials):
        return
    counts = ", ".join(f"{sum(trial.state == state for trial in trials)} {state}" for state in STATUSES
                       if any(trial.state == state for trial in trials))
    failure = next((trial for trial in trials if trial.state == "failed"), None)
    first = f"; the first failure: {failure.reason.get('sentence', 'no reason recorded')}" if failure else ""
    raise BadInput(f"no trial has finished ({counts or 'none was suggested'}{first})", source=folder,
                   remedy=f"wait, or see 'lam sweep status {folder}'")


def _objectives(sweep: documents.Sweep, folder: Path, trained: Workload) -> tuple[str, ...]:
    asked = sweep.spec.get("objective") or trained.objective
    keys = (asked,) if isinstance(asked, str) else tuple(asked)
    for key in keys:
        if key not in trained.metrics or trained.metrics[key].direction == "none":
            raise BadInput(f"got {key!r}, expected a metric that has a better direction", source=folder / "sweep.json",
                           key="spec.objective", remedy="restore sweep.json from a copy")
    return keys


def _limits(sweep: documents.Sweep, folder: Path) -> dict[str, Bound]:
    """The constraints of a sweep."""
    asked = sweep.spec.get("constraints") or {}
    return {key: build(Bound, bound, f"{folder / 'sweep.json'}:spec.constraints.{key}")
            for key, bound in asked.items()}


def _scheduler(sweep: documents.Sweep) -> dict[str, Any]:
    """Settings of the one rule that the sweep's scheduler has."""
    rules = (sweep.spec.get("scheduler") or {}).values()
    return next((dict(settings) for settings in rules if settings), {})


def _confirm(folder: Path, prefix: str) -> tuple[dict[str, dict[str, Any]], tuple[dict[str, Any], ...]]:
    """confirm.json: its entries by label, and the paired differences between them."""
    path = folder / "confirm.json"
    if not files.stands(path):
        return {}, ()
    found = documents.load_document(documents.Confirmation, path)
    pairs = ({**pair.as_written(), "a": prefix + printable(pair.a), "b": prefix + printable(pair.b)}
             for pair in found.differences)
    return {prefix + printable(entry.trial): entry.as_written() for entry in found.trials}, tuple(pairs)


def _ordered(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))
