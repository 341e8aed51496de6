"""The records of sweeps and runs as DataFrames: one row a training, or one row a metric and epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.judge.judging import judge
from analysis.judge.ranking import rank
from analysis.read.reading import Paths, Study, read_study
from record.text import finite
from record.workload.metric import RECORD_KEYS


def load(paths: Paths) -> pd.DataFrame:
    """One row a training: who, how it ended, its knobs, its metrics at the epoch it is ranked by and at the last one.

    Columns: trial, config (the trial that trained the config first), seed, source, state, status, rank (of the
    config), violation (0 inside the sweep's constraints), stop_rule, stop_reason, epochs, num_epochs, best_epoch,
    value, then `params.<knob>`, `best.<metric>` (see `analysis.judge.judging`) and `final.<metric>`.
    """
    return pd.DataFrame(training_rows(read_study(paths)))


def training_rows(study: Study) -> list[dict[str, Any]]:
    """The rows of `load`."""
    places = {standing.label: standing for standing in rank(study)}
    rows = []
    for trial in study.trials:
        judged, config = judge(trial, study.objective), study.first(trial).label
        row: dict[str, Any] = {
            "trial": trial.label, "config": config, "seed": judged.seed, "source": str(trial.path),
            "state": trial.state, "status": judged.status, "rank": places[config].rank, "violation": judged.violation,
            "stop_rule": trial.reason.get("rule"), "stop_reason": trial.reason.get("sentence"),
            "epochs": trial.last_epoch, "num_epochs": trial.num_epochs, "best_epoch": judged.record.get("epoch"),
            "value": judged.value,
        }
        row |= {f"params.{knob}": trial.params.get(knob) for knob in study.knobs}
        row |= _metrics("best", judged.record)
        row |= _metrics("final", trial.validated[-1] if trial.validated else {})
        rows.append(row)
    return rows


def curves(paths: Paths) -> pd.DataFrame:
    """Long form: trial, epoch, step, seconds, metric, value; NaN where a metric is not defined."""
    rows = [
        (trial.label, record["epoch"], record.get("step"), record.get("seconds"), key, finite(record[key]))
        for trial in read_study(paths).trials
        for record in trial.records
        for key in record
        if key not in RECORD_KEYS and not isinstance(record[key], (str, list))
    ]
    frame = pd.DataFrame(rows, columns=["trial", "epoch", "step", "seconds", "metric", "value"])
    return frame.astype({"value": "float64"})


def _metrics(prefix: str, record: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in record.items()
            if key not in RECORD_KEYS and not isinstance(value, list)}
