"""From folders to records: sweeps and runs as one frozen `Study`; `analysis.judge.frames` makes DataFrames of it.

A path may be a sweep folder, a run folder, or several of either. Nothing here judges; see
`analysis.judge.ranking`. A half-written last line of a record is left out, as docs/records.md says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from analysis.read.sources import STATUS_OF, epoch_records, is_sweep, journal, record_folder
from record import documents, files
from record.bounds import Bound
from record.errors import BadInput
from record.journal import events
from record.journal.events import FINISHED, STATUSES
from record.run import RunFolder
from record.schema import build
from record.text import printable
from record.workload import workload as workloads
from record.workload.metric import is_validated
from record.workload.workload import Workload

# What a sweep sets for its trials and is no part of the model's config.
SET_BY_SWEEP = ("tracking", "threads")
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Trial:
    """What one run left on disk.

    Attributes:
        label: what a report calls it; unique in its study.
        id: its id inside the sweep, or the run's id.
        state: the last of its journal events (`events.STATUSES`); a run of its own is mapped to the same words.
        params: what the sampler chose; for runs of their own the config keys in which they differ.
        config: the complete config, dotted keys; empty before the trial has started.
        records: epoch records in order.
        reason: why it was stopped or failed (rule, sentence, ...), empty otherwise.
        place: its place in its sweep's order of suggestion, from 0; None for a run of its own.
        repeats: label of the trial whose config this one trains again with another seed.
        limits: the constraints of its sweep, by metric.
        scheduler: settings of the rule by which its sweep ends trials early; empty where there is none.
        workload: what was trained.
    """

    label: str
    id: str
    path: Path
    state: str
    params: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)
    records: tuple[dict[str, Any], ...] = ()
    reason: dict[str, Any] = field(default_factory=dict)
    place: int | None = None
    repeats: str | None = None
    limits: dict[str, Bound] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    workload: Workload = field(default_factory=workloads.default)

    @property
    def validated(self) -> tuple[dict[str, Any], ...]:
        """The records that hold a validation."""
        return tuple(record for record in self.records if is_validated(record))

    @property
    def last_epoch(self) -> int:
        """Epochs trained so far."""
        return int(self.records[-1]["epoch"]) if self.records else 0

    @property
    def stopped_early(self) -> str | None:
        """Why its own `early_stopping` ended it before its last epoch; None where it did not."""
        reason = self.identity.get("stopped_early")
        return printable(str(reason)) if reason else None

    @property
    def num_epochs(self) -> int | None:
        """The full budget of epochs."""
        return self.config.get("num_epochs")


@dataclass(frozen=True)
class Study:
    """Trials that are looked at together.

    Attributes:
        objective: key of the metric that ranks them, from the workload's table.
        objectives: every objective that was asked for; the first one ranks.
        knobs: the swept keys in order of appearance.
        sweep: sweep.json where the study is one sweep, else empty.
        stops: the trials that were stopped early, with their reasons.
        confirm: label -> entry of confirm.json (seeds, values, mean, low, high, live).
        differences: paired differences over fresh seeds (a, b, mean, low, high), a and b being labels.
        workload: what was trained, the same in all.
    """

    name: str
    objective: str
    trials: tuple[Trial, ...]
    knobs: tuple[str, ...]
    sources: tuple[Path, ...]
    sweep: dict[str, Any] = field(default_factory=dict)
    confirm: dict[str, dict[str, Any]] = field(default_factory=dict)
    differences: tuple[dict[str, Any], ...] = ()
    objectives: tuple[str, ...] = ()
    workload: Workload = field(default_factory=workloads.default)

    @property
    def maximise(self) -> bool:
        """Whether a higher objective is better."""
        return self.workload.maximises(self.objective)

    @property
    def stops(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state == "stopped")

    @property
    def configs(self) -> tuple[Trial, ...]:
        """The first training of each config."""
        labels = {trial.label for trial in self.trials}
        return tuple(trial for trial in self.trials if trial.repeats not in labels)

    def trainings(self, first: Trial) -> tuple[Trial, ...]:
        """All trainings of a config, the first one first."""
        return first, *(trial for trial in self.trials if trial.repeats == first.label)

    def first(self, trial: Trial) -> Trial:
        """The first training of a trial's config; the trial itself where it is that."""
        return next((other for other in self.trials if other.label == trial.repeats), trial)

    def named(self, name: str) -> tuple[Trial, ...]:
        """The trial with this label, or else every trial with this id: ids name one trial of one sweep only."""
        labelled = tuple(trial for trial in self.trials if trial.label == name)
        return labelled or tuple(trial for trial in self.trials if trial.id == name)

    def trial(self, name: str) -> Trial | None:
        """The trial with this label or id, the first one where several have the id; None where there is none."""
        return next(iter(self.named(name)), None)


def read_study(paths: Paths) -> Study:
    """Read sweeps and runs.

    Raises:
        BadInput: a path is missing or holds neither; a record is damaged; a sweep has no finished trial.
    """
    named = [paths] if isinstance(paths, (str, Path)) else paths
    folders = list(dict.fromkeys(record_folder(path) for path in named))
    if not folders:
        raise BadInput("no path given", remedy="name a sweep folder, a run folder, or several of either")
    if len(folders) == 1 and is_sweep(folders[0]):
        return _read_sweep(folders[0], prefix="")
    names = _short_names([folder for folder in folders if is_sweep(folder)])
    return _merge([_read_sweep(folder, prefix=f"{printable(names[folder])}/") if folder in names else
                   _read_single(folder) for folder in folders])


def _short_names(folders: Sequence[Path]) -> dict[Path, str]:
    """As much of the end of each path as tells the folders apart."""
    depth = next(depth for depth in count(1) if len({folder.parts[-depth:] for folder in folders}) == len(folders))
    return {folder: "/".join(folder.parts[-depth:]) for folder in folders}


def _read_trial(path: Path, label: str, state: str | None = None, **known: Any) -> Trial:
    """A run folder as a trial; `state` where a journal knows better than run.json."""
    run = RunFolder(path)
    known_run = run.document() if run.exists() else None
    config = files.flat(run.config()) if run.config_file.exists() else {}
    reason, trained = known.pop("reason", None), known.pop("workload", None) or workloads.default()
    if not reason and known_run and known_run.reason:
        reason = {"rule": "failed", "sentence": known_run.reason}
    return Trial(
        label=printable(label), id=printable(known.pop("id", label)), path=path,
        state=state or (STATUS_OF[known_run.state] if known_run else "started"), config=config,
        identity=known_run.as_written() if known_run else {}, reason=reason or {}, workload=trained,
        records=epoch_records(run, trained), **known,
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
    states, limits, scheduler = _trial_states(journal(folder)), _limits(sweep, folder), _scheduler(sweep)
    trials = tuple(
        _read_trial(folder / "trials" / name, prefix + name, last.event, id=name, params=first.params,
                    reason=last.reason.as_written() if isinstance(last, events.Cut) else {}, place=place,
                    limits=limits, scheduler=scheduler, workload=trained,
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
    )


def _trial_states(journal: Iterable[events.JournalEvent]) -> dict[str, tuple[events.Suggested, events.Change]]:
    """trial id -> the event that made it and the one that gave it its status, in order of suggestion."""
    states: dict[str, tuple[events.Suggested, events.Change]] = {}
    for event in journal:
        if not isinstance(event, events.Change):
            continue
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
    if not path.exists():
        return {}, ()
    found = documents.load_document(documents.Confirmation, path)
    pairs = ({**pair.as_written(), "a": prefix + printable(pair.a), "b": prefix + printable(pair.b)}
             for pair in found.differences)
    return {prefix + printable(entry.trial): entry.as_written() for entry in found.trials}, tuple(pairs)


def _ordered(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))


def _merge(parts: Sequence[Study]) -> Study:
    """Several studies as one; runs of their own get the config keys in which they differ as params."""
    trials = _unique_labels([trial for part in parts for trial in part.trials])
    trained = workloads.common((part.workload for part in parts), ", ".join(str(part.sources[0]) for part in parts))
    objectives = _ordered(part.objective for part in parts)
    if len(objectives) > 1:
        raise BadInput(f"they were ranked by different metrics ({', '.join(objectives)})",
                       source=", ".join(str(part.sources[0]) for part in parts), remedy="report them one by one")
    knobs = _ordered([knob for part in parts for knob in part.knobs] + _differing(trials))
    return Study(
        name=" and ".join(part.name for part in parts) if len(parts) < 4 else f"{len(parts)} runs and sweeps",
        objective=objectives[0], objectives=objectives, knobs=knobs, workload=trained,
        trials=tuple(_with_params(trial, knobs) for trial in trials),
        sources=tuple(source for part in parts for source in part.sources),
        confirm={label: entry for part in parts for label, entry in part.confirm.items()},
        differences=tuple(pair for part in parts for pair in part.differences),
    )


def _differing(trials: Sequence[Trial]) -> list[str]:
    """Config keys that may change a number and whose values are not the same in every config."""
    firsts = [trial for trial in trials if trial.config and trial.repeats is None]
    keys = _ordered(key for trial in firsts for key in trial.config
                    if key.split(".")[0] not in {*SET_BY_SWEEP, *trial.workload.no_result})
    return [key for key in keys if len({json.dumps(trial.config.get(key)) for trial in firsts}) > 1]


def _with_params(trial: Trial, knobs: Sequence[str]) -> Trial:
    chosen = {knob: trial.config[knob] for knob in knobs if knob in trial.config} | trial.params
    return Trial(**{**vars(trial), "params": chosen})


def _unique_labels(trials: Sequence[Trial]) -> list[Trial]:
    """Trials whose labels name one of them each: where two share a label, its path stands in for a run of its own."""
    labels = Counter(trial.label for trial in trials)
    return [replace(trial, label=printable(str(trial.path))) if trial.place is None and labels[trial.label] > 1
            else trial for trial in trials]
