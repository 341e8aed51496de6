"""MLflow, reduced to what is needed here: find or begin a run by a key, log in batches, set its state.

Everything goes through one client of one process: several processes that begin on a cold SQLite store
break it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from record import files
from record.errors import EnvironmentFailed
from record.text import gist
from record.tracking.view import plain

KEY_TAG = "lam.key"
PARENT_TAG = "mlflow.parentRunId"
BATCH = 1000  # metrics in one call, the most that MLflow takes
PARAMS = 100  # params in one call, likewise
PARAM_LENGTH = 6000


def is_named(uri: str, named: str | None = None) -> bool:
    """Whether the person at work has named this tracking store: a folder's records alone send nothing anywhere.

    Args:
        named: what was named on the command line; default: the environment's MLFLOW_TRACKING_URI.
    """
    return uri == (os.environ.get("MLFLOW_TRACKING_URI") if named is None else named)


def client_of(uri: str) -> Any:
    """A client that gives up soon and says little."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def check_answers(uri: str) -> None:
    """Ask a server for one experiment.

    Raises:
        EnvironmentFailed: it does not answer, or refuses.
    """
    client = client_of(uri)
    try:
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow's own, requests' and urllib3's
        raise EnvironmentFailed(f"{uri} does not answer ({gist(error)[:200]}); check the address, the server and "
                                "MLFLOW_TRACKING_TOKEN") from None


class Experiment:
    """One MLflow experiment of a tracking store; made where it is missing."""

    def __init__(self, uri: str, name: str) -> None:
        self._client = client_of(uri)
        found = self._client.get_experiment_by_name(name)
        self._id = found.experiment_id if found else self._client.create_experiment(name)

    def run(self, key: str, name: str, params: Mapping[str, Any], parent: str | None = None) -> MlflowRun:
        """The run with this key, begun where there is none."""
        found = self._client.search_runs([self._id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return MlflowRun(self._client, found[0].info.run_id, int(found[0].data.metrics.get("epoch", 0)))
        tags = {KEY_TAG: key, **({PARENT_TAG: parent} if parent else {})}
        run = MlflowRun(self._client, self._client.create_run(self._id, run_name=name, tags=tags).info.run_id, 0)
        run.params(params)
        return run


class MlflowRun:
    """One MLflow run.

    Attributes:
        id: MLflow's own name of it.
        epoch: the last epoch it holds; records up to there are not sent again.
    """

    def __init__(self, client: Any, run_id: str, epoch: int) -> None:
        self._client, self.id, self.epoch = client, run_id, epoch

    def params(self, values: Mapping[str, Any]) -> None:
        """Log params, groups flattened with dots."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in files.flat(values).items()]
        for begin in range(0, len(entries), PARAMS):
            self._client.log_batch(self.id, params=entries[begin : begin + PARAMS])

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log some numbers at one step."""
        self._log([(key, float(value), step) for key, value in plain(dict(values)).items()])

    def records(self, records: Iterable[dict[str, Any]]) -> None:
        """Log the epoch records that the run does not hold yet; words such as dsnr_status become tags."""
        new = [record for record in records if record["epoch"] > self.epoch]
        if not new:
            return
        self._log([(key, number, record["epoch"]) for record in new for key, number in _numbers(record)])
        for key, value in new[-1].items():
            if isinstance(value, str):
                self._client.set_tag(self.id, key, value)
        self.epoch = new[-1]["epoch"]

    def end(self, status: str, reason: str | None = None) -> None:
        """Set the state: FINISHED, FAILED or KILLED; `reason` becomes a tag."""
        if reason:
            self._client.set_tag(self.id, "lam.reason", reason)
        self._client.set_terminated(self.id, status)

    def _log(self, values: list[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, value, now, step) for key, value, step in values]
        for begin in range(0, len(entries), BATCH):
            self._client.log_batch(self.id, metrics=entries[begin : begin + BATCH])


def _numbers(record: dict[str, Any]) -> Iterable[tuple[str, float]]:
    """The numbers of a record; a histogram becomes one number a bin."""
    for key, value in plain(record).items():
        if isinstance(value, list):
            yield from ((f"{key}/{place:02d}", float(count)) for place, count in enumerate(value))
        elif not isinstance(value, str):
            yield key, float(value)
