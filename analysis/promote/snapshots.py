"""The snapshot of a promotion: what its model sees in videos that it was not trained on, for new data to be held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from analysis.promote.ledger import Ledger, Served, digest, ledger_of
from analysis.read.sources import save
from analysis.read.study import Trial
from record import files, yamlio
from record.errors import BadData, BadInput
from record.run import RunFolder
from record.schema import build
from record.text import count
from record.workload import workload
from record.workload.observation import Observation
from record.workload.workload import Workload


def take_snapshot(trial: Trial, ledger: Ledger, version: int) -> tuple[dict[str, Any] | None, str]:
    """Write the snapshot of a version whose weights lie staged; its place and hash, and what to say of it."""
    try:
        found = trial.workload.reference(RunFolder(trial.path), ledger.model_folder(version))
    except (BadData, BadInput) as error:
        return None, f"no snapshot for 'lam monitor --data' goes along ({error})"
    if found is None or not found.videos:
        return None, "no snapshot for 'lam monitor --data' goes along: the workload takes none"
    return _written(ledger, version, found), f"{count(len(found.videos), 'video')} are kept to hold new data to"


def _written(ledger: Ledger, version: int, found: Observation) -> dict[str, Any]:
    """Beside any that was there: what the ledger names is whole until it names another."""
    text = json.dumps(found.model_dump(mode="json"), separators=(",", ":"), allow_nan=False) + "\n"
    known = digest(text.encode())
    file = save(_file(ledger, version, known), text)
    return {"file": file.relative_to(ledger.folder).as_posix(), "sha256": known}


def _file(ledger: Ledger, version: int, known: str) -> Path:
    return ledger.folder / "snapshots" / f"{version:04d}-{Path(known).name[:8]}.json"


def model_of(ledger: Ledger, change: Served) -> tuple[Workload, Path]:
    """What a version is a model of, and where its weights are.

    Raises:
        BadInput: no weights went along, or they are no more what was promoted.
    """
    folder = ledger.model_folder(change.version)
    if not folder.is_dir():
        raise BadInput(f"version {change.version} was promoted without weights, so nothing can be looked at with it",
                       source=ledger.target, remedy="promote a run that keeps its weights")
    ledger.check_weights(change.begun)
    return workload.find(_provenance(ledger, change).get("workload", workload.DEFAULT)), folder


def _provenance(ledger: Ledger, change: Served) -> dict[str, Any]:
    found = yamlio.parse_mapping(ledger.checked(change.begun)).get("provenance")
    return found if isinstance(found, dict) else {}


def kept(ledger: Ledger, change: Served) -> Observation:
    """The snapshot of a version.

    Raises:
        BadInput: none was taken, or it is not what was written.
    """
    later = [entry.snapshot for entry in ledger.entries() if entry.event == "kept" and entry.version == change.version]
    known = later[-1] if later else _provenance(ledger, change).get("snapshot")
    remedy = f"take one: lam promotions snapshot {ledger.target}"
    if not known:
        raise BadInput(f"version {change.version} was promoted without a snapshot to hold new data to",
                       source=ledger.target, remedy=remedy)
    file = _file(ledger, change.version, str(known.get("sha256")))
    data = files.read_record(file) if file.exists() else b""
    if digest(data) != known.get("sha256"):
        raise BadInput("is not what was written" if data else "is gone", source=file,
                       remedy=f"restore it from a copy, or {remedy}")
    return build(Observation, files.parse_json(data), file)


def take_again(file: Path, data: Path | None) -> str:
    """Take the snapshot of the version in production; returns what to say.

    Args:
        data: a folder of videos that are as they should be; default: those the promoted run was not trained on.

    Raises:
        BadInput: nothing was promoted, the run is gone, or nothing can be read.
    """
    with ledger_of(file).held() as ledger:
        change = ledger.changes()[-1]
        trained, model = model_of(ledger, change)
        found = trained.observe(model, data) if data else _of_its_run(trained, change, model)
        if found is None or not found.videos:
            raise BadInput(f"{trained.name} takes no snapshot of it", source=file)
        known = _written(ledger, change.version, found)
        ledger.append("kept", version=change.version, snapshot=known)
    place = ledger.folder / known["file"]
    return f"{count(len(found.videos), 'video')} are kept with version {change.version} ({place})"


def _of_its_run(trained: Workload, change: Served, model: Path) -> Observation | None:
    run = RunFolder(change.begun.source or "")
    try:
        run.document()
        return trained.reference(run, model)
    except (BadData, BadInput) as error:
        raise BadInput(f"its run cannot be asked ({error})", source=change.begun.source or "promotion",
                       remedy="name a folder of videos that are as they should be: --data DIR") from None
