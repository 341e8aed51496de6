"""MLflow: the runs of a tracking server, of a database, or of one experiment of them (`ADDRESS#EXPERIMENT`)."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from analysis.read.foreign import profile_of
from analysis.read.logs import Recorded
from analysis.read.trackers.points import copied, database_tables, records, split_name
from record.errors import BadInput
from record.text import gist

STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted", "RUNNING": "running",
          "SCHEDULED": "running"}
PAGE = 1000


def fits(place: Path | str) -> bool:
    """Whether it is the address of a server, or an sqlite file with MLflow's tables."""
    return (str(place).startswith(("http://", "https://")) and isinstance(place, str)) or \
        {"experiments", "latest_metrics"} <= database_tables(place)


def read(place: Path | str) -> list[Recorded]:
    """Every run that is not deleted.

    Raises:
        BadInput: there is no such experiment, or the store does not answer.
    """
    address, wanted = split_name(place)
    try:
        if address.startswith(("http://", "https://")):
            return _runs(address, wanted, address)
        with copied(address) as copy:
            return _runs(copy, wanted, address)
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"MLflow does not read it ({gist(error)[:200]})", source=address,
                       remedy="check that the server runs, or 'mlflow db upgrade' for a database") from None


def _runs(uri: str, wanted: str, source: str) -> list[Recorded]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow.tracking import MlflowClient

    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=uri)
    experiments = [item for item in client.search_experiments() if wanted in ("", item.name)]
    if not experiments:
        names = ", ".join(item.name for item in client.search_experiments())
        raise BadInput(f"holds no experiment {wanted!r}", source=source, remedy=f"its experiments: {names}")
    found, token = [], None
    while True:
        page = client.search_runs([item.experiment_id for item in experiments], max_results=PAGE, page_token=token)
        found += [run for run in page if run.data.metrics]
        token = page.token
        if not token:
            return [_run(client, run, source) for run in reversed(found)]


def _run(client: Any, run: Any, source: str) -> Recorded:
    points = [(key, point.step, point.value) for key in run.data.metrics
              for point in client.get_metric_history(run.info.run_id, key)]
    rows = records(points)
    return Recorded(run.info.run_name or run.info.run_id, "MLflow", profile_of(run.data.metrics) or "generic",
                    STATES.get(run.info.status, "unknown"), rows, config={key: _plain(value) for key, value in
                                                                          run.data.params.items()}, source=source)


def _plain(text: str) -> Any:
    """A param as what it was before MLflow made text of it, where that is a number or a truth value."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"True": True, "False": False, "None": None, "true": True, "false": False}.get(text, text)
