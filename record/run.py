"""A run folder on disk: the contract between training, sweeps and analysis (docs/records.md).

    run.json config.yaml metrics.jsonl health.jsonl samples/epoch-N.npz checkpoints/

Reading and writing need neither torch nor ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from record import documents, files, yamlio
from record.errors import BadInput

LAST_STATE = "last.pt"
_WORKERS_OWN = (documents.PRODUCTION_FILE, ".production.yaml.*.tmp", "output.log", ".writer",
                ".config.yaml.*.tmp", ".run.json.*.tmp")
ELSEWHERE = "name a new or empty folder"


def check_epoch_record(record: Any, where: str) -> dict[str, Any]:
    """The record, once it is known to be one.

    Raises:
        BadInput: it is no mapping, or a value is wrong.
    """
    if not isinstance(record, dict):
        raise BadInput(f"got {record!r:.80}, expected an epoch record", source=where, remedy="restore it from a copy")
    documents.checked_part(documents.EpochRecord, record, where)
    return record


class RunFolder:
    """Paths and records of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def identity_file(self) -> Path:
        return self.path / "run.json"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def steps_file(self) -> Path:
        return self.path / "steps.jsonl"

    @property
    def health_file(self) -> Path:
        return self.path / "health.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def exists(self) -> bool:
        """Whether a run was started here."""
        return files.stands(self.identity_file)

    def document(self) -> documents.Run:
        """run.json: who, when, from which data.

        Raises:
            BadInput: it is missing or damaged.
        """
        if not self.exists():
            found = "holds no run (run.json is missing)" if self.path.exists() else "no such folder"
            raise BadInput(found, source=self.path,
                           remedy="name the folder that 'lam train' or a sweep wrote")
        return documents.load_document(documents.Run, self.identity_file)

    def identity(self) -> dict[str, Any]:
        """The fields of run.json that are there."""
        return self.document().as_written()

    def config(self) -> dict[str, Any]:
        """The complete config of the run as it is written; its workload's `of_run` checks all of it.

        Raises:
            BadInput: it is missing or damaged, or a key that every reader asks for is wrong.
        """
        found = yamlio.load_mapping(self.config_file)
        documents.checked_part(documents.ConfigAsked, found, self.config_file)
        return found

    def start(self, config: Mapping[str, Any], identity: dict[str, Any]) -> None:
        """Write config.yaml and run.json; the run exists from here on.

        Raises:
            BadInput: something lies there that no run wrote, see `check_free`.
        """
        self.check_free(config)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        files.write_text(self.config_file, yamlio.dump_mapping(dict(config)))
        self._identify(identity)

    def check_free(self, config: Mapping[str, Any]) -> None:
        """Refuse a folder that holds no run and yet something else: a run would overwrite its files, or mix with them.

        What a start of this config left when it was cut off, and a worker's own files, are no obstacle.

        Raises:
            BadInput: with the first names found.
        """
        if self.exists() or not self.path.exists():
            return
        if not self.path.is_dir():
            raise BadInput("is a file, expected the run's folder", source=self.path, remedy=ELSEWHERE)
        foreign = sorted(path.name for path in self.path.iterdir() if not self._is_a_beginning(path, config))
        if foreign:
            raise BadInput(f"is no run (run.json is missing) and holds {', '.join(map(repr, foreign[:3]))}",
                           source=self.path, remedy=ELSEWHERE)

    def _is_a_beginning(self, path: Path, config: Mapping[str, Any]) -> bool:
        if path == self.checkpoints:
            return not any(path.iterdir()) if path.is_dir() else False
        if path == self.config_file:
            return path.read_bytes() == yamlio.dump_mapping(dict(config)).encode()
        return any(path.match(pattern) for pattern in _WORKERS_OWN)

    def metrics(self) -> list[dict[str, Any]]:
        """Epoch records in order; where an epoch stands twice (a resume), the later line counts.

        Raises:
            BadInput: a line before the last is not JSON, or a record is not what it should be.
        """
        records = {record["epoch"]: record for record in self._lines()}
        return [records[epoch] for epoch in sorted(records)]

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            for number, record in enumerate(files.read_json_lines(self.metrics_file), 1):
                yield check_epoch_record(record, f"{self.metrics_file}:{number}")
        except ValueError as error:
            raise BadInput(f"is damaged ({error})", source=self.metrics_file,
                           remedy="restore it from a copy, or take the run out") from None

    def append(self, record: dict[str, Any]) -> None:
        """Add one epoch record and force it to the disk."""
        with files.naming(self.metrics_file), open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(files.json_line(record))
            file.flush()
            os.fsync(file.fileno())

    def keep_until(self, epoch: int) -> None:
        """Drop the records beyond `epoch`, the last one that a checkpoint covers, and any torn line."""
        self._rewrite(record for record in self.metrics() if record["epoch"] <= epoch)

    def _rewrite(self, records: Iterable[dict[str, Any]]) -> None:
        files.write_text(self.metrics_file, "".join(files.json_line(record) for record in records))

    def append_step(self, record: dict[str, Any]) -> None:
        """Add a line about one step; it is on the disk when the system gets to it, since nothing goes on from it."""
        with open(self.steps_file, "a", encoding="utf-8") as file:
            file.write(files.json_line(record))

    def keep_steps_until(self, step: int) -> None:
        """Drop the lines about steps beyond `step`, which are done again, and any torn line."""
        if files.stands(self.steps_file):
            kept = [record for record in files.read_json_lines(self.steps_file) if record["step"] <= step]
            files.write_text(self.steps_file, "".join(files.json_line(record) for record in kept))

    def health(self) -> list[dict[str, Any]]:
        """Each time a health rule fired or cleared, in order."""
        return list(files.read_json_lines(self.health_file))

    def write_health(self, events: Iterable[dict[str, Any]]) -> None:
        """Replace health.jsonl."""
        files.write_text(self.health_file, "".join(files.json_line(event) for event in events))

    @property
    def can_resume(self) -> bool:
        """Whether the state that a resume continues from is there."""
        return (self.checkpoints / LAST_STATE).exists()

    def stop(self, reason: str, for_good: bool) -> None:
        """Mark a run that was ended from outside as stopped; one that ended by itself, or never began, stays as it is.

        Args:
            for_good: nothing will go on with it, so what a resume needs is deleted.
        """
        state = self.document().state if self.exists() else "finished"
        if state in ("finished", "failed"):
            return
        if state != "stopped":
            self.update_identity(state="stopped", reason=reason)
        if for_good:
            (self.checkpoints / LAST_STATE).unlink(missing_ok=True)

    def update_identity(self, **changes: Any) -> None:
        """Change fields of run.json, for example its state."""
        self._identify({**self.identity(), **changes})

    def _identify(self, fields: Mapping[str, Any]) -> None:
        known = documents.checked(documents.Run, files.jsonable(dict(fields)), self.identity_file)
        documents.write(self.identity_file, known)
