"""MLflow for one run that belongs to no sweep."""

from __future__ import annotations

import shlex
from typing import Any

from lam.metrics import with_tflops
from record.tracking import mlflow_client
from record.tracking.view import RunView
from record.workload.settings import TrackingConfig

STATUS = {"finished": "FINISHED", "failed": "FAILED"}  # every other ending is KILLED


class MlflowSink:
    """A `record.tracking.feed.Sink` of epoch records."""

    name = "MLflow"

    def __init__(self, tracking: TrackingConfig, view: RunView) -> None:
        self._tracking, self._view = tracking, view
        self._run: mlflow_client.MlflowRun | None = None

    def open(self) -> None:
        """Begin the run, or find it: the same run folder is the same MLflow run."""
        assert self._tracking.mlflow is not None
        experiment = mlflow_client.Experiment(self._tracking.mlflow, self._tracking.mlflow_experiment)
        self._run = experiment.run(self._view.key, self._view.name, self._view.config)
        if self._run.epoch == 0:
            self._run.numbers(self._view.data_stats, step=0)

    def send(self, items: list[Any]) -> None:
        """Log records."""
        assert self._run is not None
        self._run.records(map(with_tflops, items))

    def close(self, ending: str) -> None:
        """Set the run's final state."""
        assert self._run is not None
        self._run.end(STATUS.get(ending, "KILLED"))

    def later(self) -> str:
        """Records are sent again from the run folder."""
        return shlex.join(["lam", "sync", str(self._view.folder), "--mlflow", str(self._tracking.mlflow)])

    def abandon(self) -> None:
        """Nothing of MLflow outlives the thread."""
