"""Tells sweeps from runs, reads epoch records, and writes analysis's own files whole (`save`)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import files
from record.documents import RunState
from record.errors import BadInput, EnvironmentFailed
from record.journal.events import FINAL, Status
from record.run import RunFolder
from record.storage import copies
from record.workload.metric import check_values
from record.workload.workload import Workload

# The state of a run as the status that a trial would have.
STATUS_OF: dict[RunState, Status] = {"running": "started", "finished": "completed", "failed": "failed",
                                     "interrupted": "interrupted", "stopped": "stopped"}
# A sweep's final word on a trial, as the state of a run; what its run.json says may be older.
ENDED: dict[str, RunState] = {status: state for state, status in STATUS_OF.items() if status in FINAL}


def is_sweep(folder: Path) -> bool:
    """Whether a sweep was written here."""
    return files.stands(folder / "sweep.json")


def is_run(folder: Path) -> bool:
    """Whether a run was written here."""
    return files.stands(folder / "run.json")


def record_folder(path: str | Path) -> Path:
    """The folder itself, absolute, once it is known to hold a sweep or a run; of one on a store a copy of its records.

    Raises:
        BadInput: it is missing, a file, or holds neither.
    """
    folder = copies.at_hand(path)
    if not folder.exists():
        raise BadInput("no such folder", source=folder, remedy="name a folder that 'lam train' or a sweep wrote")
    if not folder.is_dir():
        raise BadInput("is a file, expected a sweep or run folder", source=folder, remedy="name the folder it is in")
    folder = folder.resolve()
    if is_sweep(folder) or is_run(folder):
        return folder
    inside = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and (is_sweep(child) or is_run(child))]
    remedy = f"name one of those inside it: {', '.join(inside[:5])}" if inside else "check the path"
    raise BadInput("is neither a sweep (no sweep.json) nor a run (no run.json)", source=folder, remedy=remedy)


def epoch_records(run: RunFolder, trained: Workload) -> tuple[dict[str, Any], ...]:
    """The epoch records of a run, in order.

    Raises:
        BadInput: a line before the last is damaged, or a value is not of its metric's kind.
    """
    records = tuple(run.metrics())
    for record in records:
        check_values(record, trained.metrics, f"{run.metrics_file}:epoch {record['epoch']}")
    return records


def save(path: Path, text: str, write: Callable[[Path, str], Path] = files.write_text) -> Path:
    """Replace `path` atomically, by `write`.

    Raises:
        BadInput: the place cannot be written to.
        EnvironmentFailed: the disk failed or is full; what was there is untouched.
    """
    try:
        return write(path, text)
    except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
        raise BadInput(f"cannot be written ({error.strerror})", source=path,
                       remedy="check its permissions, or choose another place") from None
    except OSError as error:
        if error.errno == errno.EROFS:
            raise BadInput(f"cannot be written ({error.strerror})", source=path,
                           remedy="choose another place with -o") from None
        raise EnvironmentFailed(f"{path}: cannot be written ({error.strerror}); make room and give the same command "
                                "again") from None
