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

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.read import embeddings
from analysis.read.families import guessed_direction
from analysis.read.logs import Record, Recorded, csv_table, json_lines
from analysis.read.sources import ENDED, is_run, is_sweep
from record import documents, files, yamlio
from record.errors import BadInput, check_there
from record.health import production
from record.health.facts import of_config, steps_per_epoch
from record.journal import events, journals
from record.run import RunFolder, check_epoch_record
from record.storage import copies
from record.text import printable
from record.workload import workload
from record.workload.metric import check_values

STEP = "global_step/max_steps"
OUT_OF_MEMORY = "ended/out_of_memory"

# Which profile a history's keys speak for; the first one that fits.
_SIGNS = (
    ("coordexp", (STEP, "rollout/", "eval_rollout_", "coord_softce_w1/", "coord_monitor/")),
    ("jepa-vq", ("vq_usage_ratio", "vq_active_codes", "context.effective_rank")),
    ("gait-diffusion", ("validation/knee_", "validation/grf_", "train/total_loss")),
    ("lam", ("val/mse_loss", "train/mse_loss")),
)


def read(path: str | Path) -> Recorded:
    """Read a run folder or a log.

    Raises:
        BadInput: there is none, it is a sweep, or nothing in it is known.
    """
    path = copies.at_hand(path)
    check_there(path, "name a run folder or a log")
    found = _log(path) if path.is_file() else _folder(path)
    return replace(found, name=printable(found.name))


def _folder(folder: Path) -> Recorded:
    if is_run(folder):
        return _ours(folder)
    if is_sweep(folder):
        raise BadInput("is a sweep, expected one run", source=folder,
                       remedy=f"name one of its trials, for example {folder / 'trials' / 't0001'}")
    if embeddings.is_one(folder):
        return embeddings.read_folder(folder)
    logs = sorted([*folder.glob("*.jsonl"), *folder.glob("*.csv")])
    if len(logs) != 1:
        names = ", ".join(log.name for log in logs[:5]) or "no run.json, no epoch_metrics.jsonl, no log"
        raise BadInput(f"holds no run that is known ({names})", source=folder, remedy="name the run's log itself")
    return _log(logs[0])


def _ours(folder: Path) -> Recorded:
    run = RunFolder(folder)
    known = run.document()
    run.metrics()  # damage before the last line is refused, as by a report
    rows, notes = json_lines(run.metrics_file)
    latest = {check_epoch_record(row, str(run.metrics_file))["epoch"]: row for row in rows}
    records = tuple(latest[epoch] for epoch in sorted(latest))
    config = run.config() if files.stands(run.config_file) else {}
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
    return Recorded(folder.name, "lam", wanted, state, records, facts, tuple(notes),
                    production=production.beside(folder))


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
    told = [event for event in journals.changes(trials.parent)
            if isinstance(event, events.Change) and event.trial == folder.resolve().name]
    return told[-1] if told else None


def _with_ending(records: tuple[Record, ...], out_of_memory: float) -> tuple[Record, ...]:
    """The records, the last of which says whether memory ran out after it; one of its own where it died before any."""
    if not records:
        return ({"epoch": 0, OUT_OF_MEMORY: 1.0},) if out_of_memory else ()
    return *records[:-1], {**records[-1], OUT_OF_MEMORY: out_of_memory}


# ---- logs and histories

def _log(path: Path) -> Recorded:
    rows, notes = csv_table(path) if path.suffix.lower() == ".csv" else json_lines(path)
    records = [files.flat(row) for row in rows]
    if not records:
        raise BadInput("holds no record", source=path, remedy="name a log with one JSON object a line, or a CSV")
    keys = dict.fromkeys(key for record in records for key in record)
    profile = profile_of(keys)
    if profile is None:
        raise BadInput("its keys fit no profile", source=path, remedy="name one with --profile")
    if profile == "coordexp":
        records = [_of_step(record) for record in records]
        return Recorded(_run_name(path), "trainer log", profile, "unknown", tuple(records), {}, tuple(notes),
                        _config(path), source=str(path))
    where = next((key for key in ("epoch", "train/epoch", "_step") if key in keys), None)
    if where is None:
        notes.append("no epoch and no _step: records are numbered from 1")
    placed = [{**record, "epoch": _number(record.get(where)) if where else number}
              for number, record in enumerate(records, 1)]
    return Recorded(_run_name(path), "history", profile, "unknown", tuple(placed), {}, tuple(notes), _config(path),
                    source=str(path))


def _run_name(path: Path) -> str:
    """The log's name; where it is a common one, its folder's."""
    common = path.stem in ("metrics", "history", "log", "logging", "train", "progress", "results")
    return path.absolute().parent.name if common and path.absolute().parent.name else path.name


def _config(path: Path) -> Record:
    """What a config.yaml or .json beside a log says, or one with the log's own name."""
    for name in (f"{path.stem}.yaml", f"{path.stem}.config.json", "config.yaml", "config.yml", "config.json"):
        if (path.parent / name).exists():
            return dict(files.flat(yamlio.load_mapping(path.parent / name)))
    return {}


def profile_of(keys: Iterable[str]) -> str | None:
    """The profile that a history's keys speak for; None where nothing in it has a direction."""
    found = list(keys)
    known = next((name for name, signs in _SIGNS if any(key.startswith(signs) for key in found)), None)
    return known or ("generic" if any(guessed_direction(key) != "none" for key in found) else None)


def _of_step(record: Record) -> Record:
    """A trainer's record with its step as position; words (times, percentages) are left out."""
    step = str(record.get(STEP, "")).partition("/")[0]
    place = int(step) if step.isdigit() else record.get("global_step", record.get("step"))
    return {**{key: value for key, value in record.items() if not isinstance(value, str)}, "epoch": _number(place)}


def _number(place: Any) -> float | None:
    """A position in the run; what is no number is none."""
    return place if isinstance(place, int | float) and not isinstance(place, bool) else None
