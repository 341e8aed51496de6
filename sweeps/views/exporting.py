"""A sweep as a study in an Optuna storage, which optuna-dashboard opens. A view: the journal stays the truth."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from record.errors import BadInput, EnvironmentFailed
from record.text import gist
from sweeps.journal import folders
from sweeps.journal.state import SweepState
from sweeps.search import searcher
from sweeps.spec.spec import Sweep


def export(folder: str | Path, storage: str) -> tuple[str, int]:
    """Write the sweep's study anew; returns its name and its number of trials.

    The study's name is the sweep's with its fingerprint, so that two sweeps never meet in one study.

    Args:
        storage: an Optuna storage URL such as ``sqlite:///studies.db``.

    Raises:
        BadInput: no sweep, or no storage URL that Optuna can open here.
        EnvironmentFailed: the storage does not answer.
    """
    sweep, state = folders.open_sweep(folder)
    name = f"{sweep.spec.name}-{sweep.fingerprint()}"
    if "://" not in storage:
        raise BadInput(f"got {storage!r}, expected an Optuna storage URL", source="--to",
                       remedy="for example sqlite:///studies.db")
    try:
        return name, _write(sweep, state, name, storage)
    except (ValueError, ImportError, ArgumentError) as error:
        raise BadInput(f"Optuna cannot open {storage.split('://')[0]}:// ({gist(error)})", source="--to",
                       remedy="install the database's driver, or write for example sqlite:///studies.db") from None
    except (SQLAlchemyError, OSError) as error:
        raise EnvironmentFailed(f"{storage} does not take the study ({gist(error)}); check the URL and the disk"
                                ) from error


def _write(sweep: Sweep, state: SweepState, name: str, storage: str) -> int:
    if name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(storage=storage, study_name=name, directions=searcher.directions(sweep.spec))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(sweep.spec.objectives)
        trials = searcher.tellable(sweep.spec, state)
        study.add_trials(trials)
    return len(trials)
