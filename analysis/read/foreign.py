"""What a run left on disk, whoever trained it: our run folders, and the records of three other trainers.

    run.json + metrics.jsonl                            one of ours
    epoch_metrics.jsonl, embedding_metrics.jsonl,       joint-embedding models with VQ; metrics.json holds
    metrics.json                                        `val_losses`
    a log of one JSON object a line, with               detection trainer
    `global_step/max_steps`
    a flat history, JSONL or CSV                        anything exported from a tracker

What is missing, half-written or not a number is read around and said in `notes`.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from analysis.read.sources import ENDED, is_run, is_sweep, journal
from record import documents, files
from record.errors import BadInput
from record.health.facts import of_config, steps_per_epoch
from record.journal import events
from record.run import RunFolder, check_epoch_record
from record.text import printable
from record.workload import workload
from record.workload.metric import check_values

Record = dict[str, Any]
EPOCHS, EMBEDDINGS, SUMMARY = "epoch_metrics.jsonl", "embedding_metrics.jsonl", "metrics.json"
STEP = "global_step/max_steps"
OUT_OF_MEMORY = "ended/out_of_memory"

# Which profile a history's keys speak for; the first one that fits.
_SIGNS = (
    ("coordexp", (STEP, "rollout/", "eval_rollout_", "coord_softce_w1/", "coord_monitor/")),
    ("jepa-vq", ("vq_usage_ratio", "vq_active_codes", "context.effective_rank")),
    ("gait-diffusion", ("validation/knee_", "validation/grf_", "train/total_loss")),
    ("lam", ("val/mse_loss", "train/mse_loss")),
)


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
    """

    name: str
    kind: str
    profile: str
    state: str
    records: tuple[Record, ...]
    facts: dict[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(path: str | Path) -> Recorded:
    """Read a run folder or a log.

    Raises:
        BadInput: there is none, it is a sweep, or nothing in it is known.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput("no such file or folder", source=path, remedy="name a run folder or a log")
    found = _log(path) if path.is_file() else _folder(path)
    return replace(found, name=printable(found.name))


def _folder(folder: Path) -> Recorded:
    if is_run(folder):
        return _ours(folder)
    if is_sweep(folder):
        raise BadInput("is a sweep, expected one run", source=folder,
                       remedy=f"name one of its trials, for example {folder / 'trials' / 't0001'}")
    if (folder / EPOCHS).exists() or (folder / EMBEDDINGS).exists():
        return _joint_embedding(folder)
    logs = sorted([*folder.glob("*.jsonl"), *folder.glob("*.csv")])
    if len(logs) != 1:
        names = ", ".join(log.name for log in logs[:5]) or "no run.json, no epoch_metrics.jsonl, no log"
        raise BadInput(f"holds no run that is known ({names})", source=folder, remedy="name the run's log itself")
    return _log(logs[0])


def _ours(folder: Path) -> Recorded:
    run = RunFolder(folder)
    known = run.document()
    rows, notes = _lines(run.metrics_file)
    latest = {row["epoch"]: check_epoch_record(row, str(run.metrics_file)) for row in rows if "epoch" in row}
    records = tuple(latest[epoch] for epoch in sorted(latest))
    config = run.config() if run.config_file.exists() else {}
    if not config:
        notes.append("config.yaml is missing: rules that need K or the grace are not judged")
    trained = workload.find(known.workload)
    for record in records:
        check_values(record, trained.metrics, f"{run.metrics_file}:epoch {record['epoch']}")
    facts = of_config(config, steps_per_epoch(records), trained.settling_steps(config)) if config else {}
    told = _told_by_the_sweep(folder)
    state = ENDED.get(told.event, known.state) if told else known.state
    cut = told if isinstance(told, events.Cut) else None
    notes += _why_it_ended(state, known, cut.reason.sentence if cut and cut.event == state else known.reason)
    records = _with_ending(records, float(cut is not None and cut.reason.rule == "out_of_memory"))
    wanted = str((config.get("health") or {}).get("profile", "lam"))
    return Recorded(folder.name, "lam", wanted, state, records, facts, tuple(notes))


def _why_it_ended(state: str, known: documents.Run, reason: str | None) -> list[str]:
    """A note on an ending before the last epoch: the sweep's reason, else the run's own."""
    if state in ("failed", "stopped"):
        return [f"the run {'was ' if state == 'stopped' else ''}{state}: {reason}"] if reason else []
    return [f"the run stopped early: {known.stopped_early}"] if known.stopped_early and state == "finished" else []


def _told_by_the_sweep(folder: Path) -> events.Change | None:
    """The last event of a sweep's trial, whose process may have died without a word; None for a run of its own."""
    trials = folder.resolve().parent
    if trials.name != "trials" or not is_sweep(trials.parent):
        return None
    told = [event for event in journal(trials.parent)
            if isinstance(event, events.Change) and event.trial == folder.resolve().name]
    return told[-1] if told else None


def _with_ending(records: tuple[Record, ...], out_of_memory: float) -> tuple[Record, ...]:
    """The records, the last of which says whether memory ran out after it; one of its own where it died before any."""
    if not records:
        return ({"epoch": 0, OUT_OF_MEMORY: 1.0},) if out_of_memory else ()
    return *records[:-1], {**records[-1], OUT_OF_MEMORY: out_of_memory}


# ---- joint-embedding trainer

def _joint_embedding(folder: Path) -> Recorded:
    epochs, notes = _lines(folder / EPOCHS)
    embeddings, more = _lines(folder / EMBEDDINGS)
    notes += more
    summary = _summary(folder / SUMMARY, notes)
    by_epoch = [files.flat(row) for row in epochs]
    _add_validation(by_epoch, summary.get("val_losses"), notes)
    rows = [*_placed([files.flat(row) for row in embeddings], by_epoch, notes), *by_epoch]
    rows.sort(key=lambda row: (math.inf if row.get("epoch") is None else row["epoch"], "step" not in row))
    facts = {key: float(value) for key, value in files.flat(summary).items()
             if isinstance(value, (int, float)) and not isinstance(value, bool)}
    patience = next((value for key, value in facts.items() if key.endswith("early_stopping.patience")), None)
    facts |= {"early_stopping_patience": patience} if patience is not None else {}
    return Recorded(folder.name, "joint-embedding trainer", "jepa-vq", _state_by(facts, rows), tuple(rows),
                    dict(facts), tuple(notes))


def _state_by(facts: dict[str, float], rows: Sequence[Record]) -> str:
    """Finished where the summary names the epoch of an early stop or all its epochs are there; else unknown."""
    named = {key.rpartition(".")[2]: value for key, value in facts.items()}
    epochs = {row["epoch"] for row in rows if row.get("epoch") is not None and "step" not in row}
    asked = named.get("epochs") or named.get("num_epochs")
    over = named.get("early_stopping_epoch", 0) > 0 or (asked is not None and len(epochs) >= asked)
    return "finished" if over else "unknown"


def _summary(path: Path, notes: list[str]) -> Record:
    if not path.exists():
        notes.append(f"{path.name} is missing: validation losses are not judged")
        return {}
    try:
        value = files.parse_json(files.read_record(path))
    except ValueError:
        notes.append(f"{path.name} is half-written: validation losses are not judged")
        return {}
    return value if isinstance(value, dict) else {}


def _add_validation(by_epoch: list[Record], losses: Any, notes: list[str]) -> None:
    """Put the n-th validation loss beside the n-th epoch."""
    values = losses if isinstance(losses, list) else []
    first = by_epoch[0].get("epoch", 1) if by_epoch else 1
    known = {row.get("epoch"): row for row in by_epoch}
    for number, value in enumerate(values):
        row = known.get(first + number)
        if row is None:
            by_epoch.append(row := {"epoch": first + number})
        row["val_loss"] = value
    if values and len(values) != len(known):
        notes.append(f"{len(values)} validation losses for {len(known)} epochs: taken as the first ones")


def _placed(embeddings: list[Record], by_epoch: Sequence[Record], notes: list[str]) -> list[Record]:
    """Embedding records with the epoch their step lies in, from the steps that each epoch counted."""
    trained = [row for row in by_epoch if "loss_mean.total" in row or "grad_norm.count" in row]
    counts = [float(row.get("grad_norm.count") or 0) for row in trained]
    if not embeddings:
        return []
    if not counts or not all(counts):
        notes.append("no grad_norm.count: the epoch of embedding records is not known, so rules that wait for an "
                     "epoch are not judged on them")
        return [{**row, "epoch": None} for row in embeddings]
    ends = list(accumulate(counts))
    epochs = [float(row["epoch"]) for row in trained]

    def place(step: float) -> float:
        return next((epoch for epoch, end in zip(epochs, ends, strict=True) if step <= end), epochs[-1] + 1)

    return [{**row, "epoch": place(row.get("step", 0))} for row in embeddings]


# ---- logs and histories

def _log(path: Path) -> Recorded:
    rows, notes = _table(path) if path.suffix.lower() == ".csv" else _lines(path)
    records = [files.flat(row) for row in rows]
    if not records:
        raise BadInput("holds no record", source=path, remedy="name a log with one JSON object a line, or a CSV")
    keys = dict.fromkeys(key for record in records for key in record)
    profile = _profile_of(keys)
    if profile is None:
        raise BadInput("its keys fit no profile", source=path, remedy="name one with --profile")
    if profile == "coordexp":
        records = [_of_step(record) for record in records]
        return Recorded(path.name, "trainer log", profile, "unknown", tuple(records), {}, tuple(notes))
    where = next((key for key in ("epoch", "train/epoch", "_step") if key in keys), None)
    if where is None:
        notes.append("no epoch and no _step: records are numbered from 1")
    placed = [{**record, "epoch": _number(record.get(where)) if where else number}
              for number, record in enumerate(records, 1)]
    return Recorded(path.name, "history", profile, "unknown", tuple(placed), {}, tuple(notes))


def _profile_of(keys: Iterable[str]) -> str | None:
    return next((name for name, signs in _SIGNS if any(key.startswith(signs) for key in keys)), None)


def _of_step(record: Record) -> Record:
    """A trainer's record with its step as position; words (times, percentages) are left out."""
    step = str(record.get(STEP, "")).partition("/")[0]
    place = int(step) if step.isdigit() else record.get("global_step", record.get("step"))
    return {**{key: value for key, value in record.items() if not isinstance(value, str)}, "epoch": _number(place)}


def _number(place: Any) -> float | None:
    """A position in the run; what is no number is none."""
    return place if isinstance(place, int | float) and not isinstance(place, bool) else None


def _lines(path: Path) -> tuple[list[Record], list[str]]:
    """The JSON objects of a file, and what was wrong with the rest."""
    if not path.exists():
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


def _table(path: Path) -> tuple[list[Record], list[str]]:
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
