"""Other trainers' records as a study: which reader fits a path or an address, and its runs as trials.

    a log (JSONL, CSV) or a folder of one        analysis.read.foreign, by its health profile
    a folder of such                             each of them
    offline W&B, TensorBoard, MLflow, Optuna     analysis.read.trackers
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.read import embeddings, foreign
from analysis.read.families import Family, family_of, what_counts
from analysis.read.logs import Recorded
from analysis.read.merging import merge, seeds_as_arms, with_knobs
from analysis.read.sources import STATUS_OF, is_run, is_sweep
from analysis.read.study import Study, Trial
from analysis.read.trackers import mlflow_store, optuna_storage, tensorboard_events, wandb_offline
from record.errors import BadInput
from record.storage import addresses
from record.text import printable

LOGS = (".jsonl", ".csv")
_ADDRESS = re.compile(r"^[a-z][a-z0-9+]+:/")
READERS = (wandb_offline, tensorboard_events, optuna_storage, mlflow_store)


def is_known(path: str | Path) -> bool:
    """Whether a reader of other trainers' records fits; folders of ours, and those on stores, are not theirs."""
    if isinstance(path, str) and _ADDRESS.match(path):
        return not addresses.is_one(path) or path.startswith("file:")
    place = Path(path)
    if not place.exists() or is_sweep(place) or is_run(place):
        return False
    if any(reader.fits(place) for reader in READERS):
        return True
    if place.is_file():
        return place.suffix.lower() in LOGS
    return embeddings.is_one(place) or bool(_logs(place)) or bool(_inside(place))


def absolute(path: str | Path) -> Path | str:
    """A path made absolute; an address as it is."""
    return path if isinstance(path, str) and _ADDRESS.match(path) else Path(path).resolve()


def _logs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in LOGS)


def _inside(folder: Path) -> list[Path]:
    """Run folders of a joint-embedding trainer inside a folder, none of ours."""
    children = [child for child in sorted(folder.iterdir()) if child.is_dir()]
    return [] if any(is_run(child) or is_sweep(child) for child in children) else \
        [child for child in children if embeddings.is_one(child)]


def read(place: Path | str, profile: str | None = None, objective: str | None = None) -> Study:
    """The runs of a path or an address.

    Raises:
        BadInput: no reader fits, it is damaged, or nothing says what ranks its runs.
    """
    return study_of(str(place), _recorded(place), profile, objective)


def _recorded(place: Path | str) -> list[Recorded]:
    reader = next((reader for reader in READERS if reader.fits(place)), None)
    if reader is not None:
        return reader.read(place)
    if isinstance(place, str):
        raise BadInput(f"got {place!r}, an address of nothing that can be read", source="PATH",
                       remedy="name http(s)://HOST of an MLflow server, or sqlite:///FILE of MLflow or Optuna")
    if place.is_file() or embeddings.is_one(place):
        return [foreign.read(place)]
    return [foreign.read(path) for path in _logs(place) or _inside(place)]


def study_of(name: str, runs: Sequence[Recorded], profile: str | None = None, objective: str | None = None) -> Study:
    """Runs as one study; runs of several families side by side.

    Raises:
        BadInput: there is none, or nothing says what ranks them.
    """
    if not runs:
        raise BadInput("holds no run", source=name, remedy="check the path")
    families: dict[tuple[str, str], list[Recorded]] = {}
    for run in runs:
        families.setdefault((profile or run.profile, run.kind), []).append(run)
    parts = [_part(name, used, members, objective) for (used, _), members in families.items()]
    return parts[0] if len(parts) == 1 else merge(parts, objective)


def _part(name: str, profile: str, runs: Sequence[Recorded], objective: str | None) -> Study:
    runs = [replace(run, records=what_counts(run.records, profile)) for run in runs]
    stated = {key: metric for run in runs for key, metric in run.stated.items()}
    named = objective.removeprefix("-") if objective else runs[0].objective
    family = family_of(profile, printable(runs[0].kind) if profile == "generic" else profile,
                       [run.records for run in runs], stated, None if objective else named)
    trials = with_knobs(seeds_as_arms([_trial(run, family) for run in runs]))
    notes = tuple(printable(f"{run.name}: {note}") for run in runs for note in run.notes)[:12]
    unsaid = [printable(run.name) for run in runs if run.state == "unknown" and run.num_epochs is None]
    if unsaid:
        notes = (f"Whether {', '.join(unsaid[:6])} finished is not recorded; taken as finished.", *notes)
    knobs = tuple(dict.fromkeys(knob for trial in trials for knob in trial.params))
    title = Path(name).name if len(runs) > 1 else runs[0].name
    return Study(name=printable(title), objective=family.objective, objectives=(family.objective,), knobs=knobs,
                 trials=tuple(trials), sources=(Path(name) if Path(name).exists() else name,), workload=family,
                 notes=notes)


def _trial(run: Recorded, family: Family) -> Trial:
    """A recorded run as a trial. What its trainer does not say counts as finished, unless epochs are missing."""
    state = run.state
    if state == "unknown":
        state = "running" if run.num_epochs else "finished"
    identity = {"num_epochs": run.num_epochs, "stopped_early": run.stopped_early or None,
                "data_fingerprint": run.data_fingerprint or None}
    reason = {"rule": state, "sentence": run.reason} if run.reason and state in ("failed", "stopped") else {}
    return Trial(
        label=(name := printable(run.name)), id=name, path=Path(run.source or "."), state=STATUS_OF[state],  # type: ignore[index]
        config=run.config, params={}, identity=identity, records=run.records, reason=reason, workload=family,
        facts=run.facts)


