"""The folder of a joint-embedding trainer with a VQ codebook.

    epoch_metrics.jsonl      one line an epoch: epoch, loss_mean.total, grad_norm.{count, mean, max}
    embedding_metrics.jsonl  one line every few steps: step, vq_usage_ratio, context.effective_rank, ...
    metrics.json             val_losses by epoch, epochs asked for, the epoch of an early stop
    config.yaml              what it was trained with, where it is there
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from analysis.read.logs import Record, Recorded, json_lines
from record import files, yamlio

EPOCHS, EMBEDDINGS, SUMMARY = "epoch_metrics.jsonl", "embedding_metrics.jsonl", "metrics.json"


def read_folder(folder: Path) -> Recorded:
    epochs, notes = json_lines(folder / EPOCHS)
    embeddings, more = json_lines(folder / EMBEDDINGS)
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
    state, asked, early = _ending(facts, rows)
    return Recorded(folder.name, "joint-embedding trainer", "jepa-vq", state, tuple(rows), dict(facts), tuple(notes),
                    _config(folder, summary), asked, early, str(folder))


def is_one(folder: Path) -> bool:
    """Whether this trainer wrote here."""
    return (folder / EPOCHS).exists() or (folder / EMBEDDINGS).exists()


def _config(folder: Path, summary: Record) -> dict[str, Any]:
    """The run's config: config.yaml or .json beside the records, else `config` of the summary."""
    for name in ("config.yaml", "config.yml", "config.json"):
        if (folder / name).exists():
            return dict(files.flat(yamlio.load_mapping(folder / name)))
    inside = summary.get("config")
    return dict(files.flat(inside)) if isinstance(inside, dict) else {}


def _ending(facts: dict[str, float], rows: Sequence[Record]) -> tuple[str, int | None, str]:
    """State, epochs asked for, and why it stopped early.

    Finished where the summary names the epoch of an early stop or all its epochs are there; else unknown.
    """
    named = {key.rpartition(".")[2]: value for key, value in facts.items()}
    epochs = {row["epoch"] for row in rows if row.get("epoch") is not None and "step" not in row}
    asked = named.get("epochs") or named.get("num_epochs")
    stop = named.get("early_stopping_epoch", 0)
    over = stop > 0 or (asked is not None and len(epochs) >= asked)
    return ("finished" if over else "unknown", int(asked) if asked else None,
            f"early stopping at epoch {stop:g}" if stop > 0 else "")


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
