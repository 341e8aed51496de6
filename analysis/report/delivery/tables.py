"""The records of a study as Parquet: one row a training and epoch, and one row a training (docs/reports.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.judge.frames import training_rows
from analysis.read.epochs.columns import Block, Epochs
from analysis.read.sources import save
from analysis.read.study import Study
from record import files


def places(target: Path) -> tuple[Path, Path]:
    """Where the epochs are written, and where the trainings: records.parquet and records.trials.parquet."""
    return target, target.with_name(f"{target.stem}.trials.parquet")


def write_tables(study: Study, target: Path) -> None:
    """Write both tables, each whole or not at all.

    Raises:
        BadInput, EnvironmentFailed: see `analysis.read.sources.save`.
    """
    for place, table in zip(places(target), (records_table(study), trials_table(study)), strict=True):
        save(place, "", lambda path, _, table=table: files.write_atomic(  # type: ignore[misc]
            path, lambda file: pq.write_table(table, file)))


def records_table(study: Study) -> pa.Table:
    """One row a training and epoch: trial, then every key of the records.

    Null where an epoch did not measure it, NaN where it did and the value is not finite; a whole number is null then.
    """
    trials = [trial for trial in study.trials if len(trial.records)]
    parts = [trial.epochs for trial in trials]
    names = dict.fromkeys(["epoch", *(key for epochs in parts for key in epochs.names())])
    labels = pa.array([trial.label for trial in trials]).dictionary_encode()
    which = np.repeat(np.arange(len(trials), dtype=np.int32), [len(epochs) for epochs in parts])
    trial = pa.DictionaryArray.from_arrays(pa.array(which), labels.dictionary if trials else pa.array([], pa.string()))
    return pa.table({"trial": trial, **{key: _column(parts, key) for key in names if key != "trial"}})


def trials_table(study: Study) -> pa.Table:
    """One row a training: what `analysis.load` says of it, and its config."""
    rows = training_rows(study)
    for row, trial in zip(rows, study.trials, strict=True):
        row |= {f"config.{key}": value for key, value in trial.config.items()}
    names = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: _values([row.get(key) for row in rows]) for key in names})


def _column(parts: Sequence[Epochs], key: str) -> pa.Array:
    kinds = {epochs.block.kinds.get(key) for epochs in parts if key in epochs.names()}
    if None in kinds or bool in kinds or not kinds:
        return _values([value for epochs in parts for value in epochs.values(key)])
    found = [_numbers(epochs.block, epochs.rows, key) for epochs in parts]
    values, measured = (np.concatenate(part) for part in zip(*found, strict=True))
    if kinds == {int}:
        known = measured & ~np.isnan(values)
        return pa.array(np.where(known, values, 0).astype(np.int64), mask=~known)
    return pa.array(values, mask=~measured)


def _numbers(block: Block, rows: Any, key: str) -> tuple[Any, Any]:
    """The values of a key at some rows, and whether each of them has it."""
    has = np.array([key in shape for shape in block.shapes], dtype=bool)[block.shape[rows]]
    return (block.numbers[key][rows] if key in block.numbers else np.full(len(rows), np.nan)), has


def _values(values: Sequence[Any]) -> pa.Array:
    """Values of one kind as they are, of several as JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else json.dumps(files.jsonable(value)) for value in values])
