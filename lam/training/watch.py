"""A run under watch while it trains: each record is judged with all before it, and health.jsonl tells what fired.

The engine is a pure function of the records, so nothing of it needs saving: a resumed run judges what
its metrics.jsonl holds, and health.jsonl is written again from that.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lam.codebook import settling_steps
from lam.config import RunConfig
from record import files
from record.health import columns, engine, facts, production, profile
from record.health.engine import Finding, Judgement
from record.run import RunFolder


class Watch:
    """Judges one run by the profile its config names.

    Raises:
        BadInput: there is no such profile, or it is wrong.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, steps_per_epoch: int) -> None:
        self.config, self.folder = config, folder
        self.production = production.beside(folder.path)
        known = profile.load(config.health.profile)
        self.profile = self.production.added(known) if self.production else known
        values = config.mapping()
        self._facts = facts.of_config(values, steps_per_epoch, settling_steps(values))
        self._records: list[dict[str, Any]] | None = None
        self._written = -1

    def judge(self, record: dict[str, Any]) -> Judgement:
        """What the profile says once this record, already in metrics.jsonl, is known."""
        if self._records is None:
            self._records = self.folder.metrics()
        else:
            self._records.append(files.jsonable(record))
        rows = [self.production.placed(each) for each in self._records] if self.production else self._records
        table = columns.of_records(rows, self._facts)
        events = engine.events(table, self.profile)
        if len(events) != self._written:
            self.folder.write_health([asdict(event) for event in events])
            self._written = len(events)
        return engine.judge(table, self.profile)

    def abort(self, record: dict[str, Any]) -> Finding | None:
        """The finding that ends the run, where the config asks for that; what fired is written either way."""
        aborts = self.judge(record).aborts
        return aborts[0] if aborts and self.config.health.abort else None
