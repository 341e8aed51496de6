"""One run as its trainer recorded it, and the files that trainers write: JSON lines, tables, a summary."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record import files
from record.errors import BadInput
from record.health.production import Production
from record.workload.metric import Metric

Record = dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """One run as it was recorded.

    Attributes:
        kind: what wrote it.
        profile: the profile that fits it.
        state: running, finished, stopped, failed, interrupted, or unknown where the trainer does not say.
        records: rows with an `epoch` (or the step of a trainer that counts steps), in order.
        facts: numbers that hold for the whole run.
        notes: what was missing or damaged.
        config: what it was trained with, dotted keys; empty where the trainer does not say.
        num_epochs: how many it was to train.
        stopped_early: why it ended before them by its own rule.
        source: the file or store it was read from.
        stated: metrics that its source itself defines, and `objective` the one that ranks.
        reason: why it failed or was stopped.
        data_fingerprint: which data it read.
        production: what the production YAML watches that it was trained by.
    """

    name: str
    kind: str
    profile: str
    state: str
    records: tuple[Record, ...]
    facts: dict[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    num_epochs: int | None = None
    stopped_early: str = ""
    source: str = ""
    stated: dict[str, Metric] = field(default_factory=dict)
    objective: str | None = None
    reason: str = ""
    data_fingerprint: str = ""
    production: Production | None = None


def json_lines(path: Path) -> tuple[list[Record], list[str]]:
    """The JSON objects of a file, and what was wrong with the rest."""
    if not files.stands(path):
        return [], [f"{path.name} is missing: its rules are not judged"]
    rows: list[Record] = []
    notes: list[str] = []
    nans: list[str] = []

    def constant(token: str) -> float:
        nans.append(token)
        return float(token.lower())

    bad = 0
    lines = [line for line in files.read_record(path).split(b"\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            value = files.parse_json(line, parse_constant=constant)
        except ValueError:
            if number == len(lines):
                notes.append(f"{path.name}: the last line is half-written and is left out")
            else:
                bad += 1
            continue
        rows += [value] if isinstance(value, dict) else []
    notes += [f"{path.name}: {bad} lines are not JSON and are left out"] if bad else []
    notes += [f"{path.name}: {len(nans)} values are not finite ({', '.join(sorted(set(nans)))})"] if nans else []
    return rows, notes


def csv_table(path: Path) -> tuple[list[Record], list[str]]:
    """The rows of a CSV; an empty cell is an absent key."""
    try:
        reader = csv.DictReader(io.StringIO(files.read_record(path).decode("utf-8"), newline=""))
        rows = [{key: _cell(value) for key, value in row.items() if key and value not in ("", None)} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"cannot be read as a table ({error})", source=path,
                       remedy="save it as UTF-8 text with commas") from None
    nans = sum(isinstance(value, float) and not math.isfinite(value) for row in rows for value in row.values())
    return rows, [f"{path.name}: {nans} values are not finite"] if nans else []


def _cell(text: str | None) -> float | str | None:
    try:
        return float(text or "")
    except ValueError:
        return text
