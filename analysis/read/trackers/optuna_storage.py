"""Optuna storages: every trial of every study as a run, its params as config, its intermediate values as records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from analysis.read.logs import Recorded
from analysis.read.trackers.points import copied, database_tables, split_name
from record import files
from record.errors import BadInput
from record.text import gist
from record.workload.metric import Metric

STATES = {"COMPLETE": "finished", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "running"}
VALUE = "value"


def fits(place: Path | str) -> bool:
    """Whether it is an sqlite file with Optuna's tables, or a journal that Optuna wrote."""
    return "study_directions" in database_tables(place) or (isinstance(place, Path) and _is_journal(place))


def _is_journal(path: Path) -> bool:
    if not path.is_file() or path.suffix not in (".log", ".journal"):
        return False
    with open(path, "rb") as file:
        line = file.readline(1 << 20)
    try:
        first = json.loads(line)
    except ValueError:
        return False
    return isinstance(first, dict) and {"op_code", "worker_id"} <= set(first)


def read(place: Path | str) -> list[Recorded]:
    """Every trial of every study; `ADDRESS#STUDY` names one of them.

    Raises:
        BadInput: there is no such study, or the installed Optuna cannot read it.
    """
    address, wanted = split_name(place)
    try:
        if not address.startswith("sqlite:") and _is_journal(Path(address)):
            return _trials(_journal(address), wanted, address)
        with copied(address) as copy:
            return _trials(_database(copy), wanted, address)
    except BadInput:
        raise
    except Exception as error:  # sqlite's, SQLAlchemy's and Optuna's own: trials are read when they are asked for
        raise BadInput(f"cannot be read as an Optuna storage ({gist(error)})", source=address,
                       remedy="'optuna storage upgrade' brings one of an older version up to date") from None


def _trials(storage: Any, wanted: str, address: str) -> list[Recorded]:
    import optuna

    names = optuna.get_all_study_names(storage)
    if wanted and wanted not in names:
        raise BadInput(f"holds no study {wanted!r}", source=address, remedy=f"its studies: {', '.join(names[:8])}")
    studies = [optuna.load_study(study_name=name, storage=storage) for name in names if wanted in ("", name)]
    several = len(studies) > 1
    return [_run(trial, study, f"{study.study_name}/" if several else "", address) for study in studies
            for trial in study.get_trials(deepcopy=False)]


def _journal(address: str) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    return optuna.storages.JournalStorage(JournalFileBackend(address))


def _database(address: str) -> Any:
    import optuna

    return optuna.storages.RDBStorage(address)


def _run(trial: Any, study: Any, prefix: str, address: str) -> Recorded:
    objectives = [VALUE] if len(study.directions) == 1 else [f"{VALUE}_{n}" for n in range(len(study.directions))]
    rows: list[dict[str, Any]] = [{"epoch": step, VALUE: value} for step, value in
                                  sorted(trial.intermediate_values.items())] if len(objectives) == 1 else []
    if trial.values is not None:
        last = rows[-1]["epoch"] if rows else 0
        rows.append({"epoch": last + 1 if rows else 1, **dict(zip(objectives, trial.values, strict=True)),
                     **_numbers(trial.user_attrs)})
    seconds = trial.duration.total_seconds() if trial.duration else None
    rows = [*rows[:-1], {**rows[-1], "train_seconds": seconds, "seconds": seconds}] if rows and seconds else rows
    state = STATES[trial.state.name]
    stated = {key: Metric(key, "objective of the Optuna study", "up" if direction.name == "MAXIMIZE" else "down",
                          "last", bounds=(float("-inf"), float("inf")))
              for key, direction in zip(objectives, study.directions, strict=True)}
    return Recorded(f"{prefix}trial-{trial.number}", f"Optuna study {study.study_name}", "generic", state, tuple(rows),
                    config=dict(files.flat(trial.params)), source=address, stated=stated, objective=objectives[0],
                    reason=f"Optuna's pruner ended it after {len(rows)} reports" if state == "stopped" else "")


def _numbers(attrs: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in attrs.items() if isinstance(value, (int, float)) and
            not isinstance(value, bool)}


