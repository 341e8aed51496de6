"""A sweep in MLflow: one parent run, one child a trial, written by the driver alone.

Fed with journal events (docs/records.md) after they are on the disk; the numbers of a trial come
from its run folder. Events may be sent again: what MLflow holds is not written twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from record import documents
from record.journal import events
from record.run import RunFolder
from record.storage import copies, trust
from record.text import printable
from record.tracking import feed, mlflow_client, view
from record.tracking.feed import Feed
from record.workload import workload
from record.workload.settings import TrackingConfig

STATUS: dict[type[events.JournalEvent], str] = {
    events.Completed: "FINISHED", events.Stopped: "KILLED", events.Failed: "FAILED"}


def allowed(tracking: TrackingConfig, source: str) -> tuple[TrackingConfig, str]:
    """Where copies of a sweep's records go, and the sentence that says so before anything is sent.

    Nothing is sent to an address that only the sweep's folder names: credentials of whoever works on it would go along.

    Args:
        source: the YAML that the sweep was read from.
    """
    if tracking.mlflow is None:
        return tracking, ""
    if trust.is_a_record(source) and not mlflow_client.is_named(tracking.mlflow):
        return tracking.model_copy(update={"mlflow": None}), (
            f"warning: {source} names MLflow at {tracking.mlflow!r}, and nothing is sent there; where the records "
            "belong there, set MLFLOW_TRACKING_URI to it")
    return tracking, f"MLflow: {printable(tracking.mlflow)}"


class SweepTracker:
    """What a sweep's driver calls: `event` for each journal event, `close` at the end; neither ever raises."""

    def __init__(self, folder: Path, tracking: TrackingConfig, history: Iterable[events.JournalEvent] = ()) -> None:
        """Open the parent run of the sweep in `folder`.

        Args:
            folder: the sweep's folder, whose sweep.json is written.
            history: the journal so far; what MLflow missed of it is filled in.
        """
        self._feeds = [] if tracking.mlflow is None else [
            Feed(MlflowSweepSink(folder, tracking), history=latest(history))]

    def event(self, event: events.JournalEvent) -> None:
        """Hand a journal event over."""
        for each in self._feeds:
            each.put(event)

    def close(self) -> None:
        """Wait for MLflow, 30 s at most."""
        feed.close(self._feeds, "")
        self._feeds = []


class MlflowSweepSink:
    """A `record.tracking.feed.Sink` of journal events."""

    name = "MLflow"

    def __init__(self, folder: Path, tracking: TrackingConfig) -> None:
        self._folder, self._tracking = folder, tracking
        self._trials: dict[str, mlflow_client.MlflowRun] = {}
        self._described: set[str] = set()
        self._running: set[str] = set()

    def open(self) -> None:
        """Begin the parent run, or find it: the same sweep folder is the same parent."""
        assert self._tracking.mlflow is not None
        sweep = documents.load_document(documents.Sweep, self._folder / "sweep.json")
        self._trained = workload.find(sweep.workload)
        self._key = f"{sweep.name}-{view.digest(sweep.name, sweep.created_at, sweep.fingerprint)}"
        self._experiment = mlflow_client.Experiment(self._tracking.mlflow, self._tracking.mlflow_experiment)
        params = {key: getattr(sweep, key) for key in ("fingerprint", "data_fingerprint", "git_commit", "created_at")}
        self._parent = self._experiment.run(self._key, sweep.name, params)

    def send(self, items: list[Any]) -> None:
        """Take journal events."""
        for event in items:
            if isinstance(event, events.TrialEvent):
                self._trial_event(event)
            elif isinstance(event, events.SweepFinished):
                self._parent.end("FINISHED", event.reason)
            elif isinstance(event, events.SweepInterrupted):
                for trial in sorted(self._running):
                    self._trials[trial].end("KILLED", f"the sweep was interrupted ({event.reason})")
                self._running.clear()
                self._parent.end("KILLED", event.reason)

    def _trial_event(self, event: events.TrialEvent) -> None:
        trial, ending = event.trial, STATUS.get(type(event))
        run = self._trial(trial, event.params if isinstance(event, events.Suggested) else {})
        self._describe(trial, run)
        if isinstance(event, events.Started):
            self._running.add(trial)
        elif not isinstance(event, events.Result):
            self._running.discard(trial)
        if ending or isinstance(event, events.Result):
            copies.bring(self._folder, f"trials/{trial}")
            run.records(map(self._trained.views, RunFolder(self._folder / "trials" / trial).metrics()))
        if ending:
            run.end(ending, event.reason.sentence if isinstance(event, events.Cut) else None)
        if isinstance(event, events.Completed) and event.objective is not None:
            self._parent.numbers({"objective": event.objective}, step=int(trial.lstrip("t")))

    def _trial(self, trial: str, chosen: dict[str, Any]) -> mlflow_client.MlflowRun:
        if trial not in self._trials:
            params = {f"space.{key}": value for key, value in chosen.items()}
            self._trials[trial] = self._experiment.run(f"{self._key}-{trial}", trial, params, parent=self._parent.id)
        return self._trials[trial]

    def _describe(self, trial: str, run: mlflow_client.MlflowRun) -> None:
        """The complete config and the data's statistics, once the trial has begun to run."""
        folder = RunFolder(self._folder / "trials" / trial)
        if trial in self._described or not folder.exists():
            return
        self._described.add(trial)
        found = view.view_of(self._trained.of_run(folder), folder, fresh=run.epoch == 0)
        run.params(found.config)
        if found.fresh:
            run.numbers(found.data_stats, step=0)

    def close(self, ending: str) -> None:
        """The events have said how the sweep ended."""

    def later(self) -> str:
        """A sweep that is resumed or launched again sends what is missing."""
        return f"the command that launched the sweep in {self._folder}"

    def abandon(self) -> None:
        """Nothing of MLflow outlives the thread."""


def latest(journal: Iterable[events.JournalEvent]) -> list[events.TrialEvent]:
    """The first `suggested`, the last `result` and the last other event of each trial, in order.

    These make the same runs as the whole journal, because a result sends all epochs up to it.
    """
    kept: dict[tuple[str, str], events.TrialEvent] = {}
    for event in journal:
        if isinstance(event, events.TrialEvent):
            kind = event.event if isinstance(event, (events.Suggested, events.Result)) else "state"
            kept.pop((event.trial, kind), None)
            kept[event.trial, kind] = event
    return list(kept.values())
