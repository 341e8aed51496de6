"""The trackers of one run: fed by training as it goes, or from the run folder afterwards."""

from __future__ import annotations

import logging
import shlex
from typing import Any

from lam.config import RunConfig, of_run
from lam.trackers.mlflow_sink import MlflowSink
from lam.trackers.wandb_sink import WandbSink
from record.errors import BadInput, EnvironmentFailed
from record.run import RunFolder
from record.tracking import feed, view
from record.tracking.feed import Feed, Sink
from record.tracking.mlflow_client import is_named
from record.tracking.view import RunView
from record.tracking.wandb_client import has_key
from record.workload.settings import TrackingConfig

log = logging.getLogger(__name__)


class RunTrackers:
    """W&B and MLflow where the config asks for them; handing a record over never waits and never raises."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        """Open the trackers of a run that has begun; what is already recorded is handed to MLflow first.

        MLflow says what it holds, so that a resume fills what is missing; W&B goes on where it was.
        """
        self._feeds: list[Feed] = []
        if config.tracking.on:
            known = folder.metrics()
            for sink in sinks(config.tracking, view.view_of(config, folder, fresh=not known)):
                self._feeds.append(Feed(sink))
                if isinstance(sink, MlflowSink):
                    for record in known:
                        self._feeds[-1].put(record)

    def log(self, record: dict[str, Any]) -> None:
        """Hand an epoch record over."""
        for each in self._feeds:
            each.put(record)

    def close(self, ending: str) -> None:
        """Wait for the trackers, 30 s at most; `ending` is the run's state."""
        feed.close(self._feeds, ending)
        self._feeds = []


def sinks(tracking: TrackingConfig, run: RunView) -> list[Sink]:
    """The sinks that are asked for."""
    found: list[Sink] = []
    if tracking.wandb != "off":
        if tracking.wandb == "online" and not has_key():
            log.warning("W&B writes files only: there is no API key; run 'wandb login', then 'wandb sync %s'",
                        run.folder / "wandb" / "offline-run-*")
        found.append(WandbSink(tracking, run))
    if tracking.mlflow is not None:
        found.append(MlflowSink(tracking, run))
    return found


def check_address(folder: RunFolder, tracking: TrackingConfig, named: str | None) -> None:
    """Refuse to send records, and the sender's credentials, to an address that only the run's config names.

    Args:
        named: what was named on the command line.

    Raises:
        BadInput: nobody but the config names the address.
    """
    if tracking.mlflow is not None and not is_named(tracking.mlflow, named):
        raise BadInput(f"names {tracking.mlflow!r}, and nothing was sent there", source=folder.config_file,
                       key="tracking.mlflow", remedy="if the records belong there, give the same command with "
                       f"--mlflow {shlex.quote(tracking.mlflow)}, or set MLFLOW_TRACKING_URI to it")


def sync(folder: RunFolder, tracking: TrackingConfig) -> list[str]:
    """Send all records of a run to the trackers again, waiting as long as it takes; returns their names.

    Raises:
        BadInput: the folder holds no run, or no tracker is on.
        EnvironmentFailed: a tracker refused.
    """
    folder.identity()
    if not tracking.on:
        raise BadInput("no tracker is on", source=folder.config_file, key="tracking",
                       remedy="name one with --wandb or --mlflow")
    config = of_run(folder).replace(tracking=tracking.model_dump())
    opened = sinks(tracking, view.view_of(config, folder, fresh=True))
    for sink in opened:
        try:
            sink.open()
            sink.send(folder.metrics())
            sink.close(folder.identity()["state"])
        except Exception as error:
            raise EnvironmentFailed(f"{sink.name} failed ({type(error).__name__}: {error}); the records in "
                                    f"{folder.path} are complete, try again later") from error
    return [sink.name for sink in opened]

