"""W&B: one run, as files in the run folder, online where that is asked for and a key is there.

Nothing but the config, the data's statistics and the records is sent: no environment, no arguments,
no code, no console output.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import psutil

from lam.metrics import TFLOPS_AXIS, with_tflops
from record.tracking.view import RunView, plain
from record.tracking.wandb_client import begin, has_key
from record.workload.settings import TrackingConfig

log = logging.getLogger(__name__)

FINISH_SECONDS = 25.0  # within what the end of a run waits for a tracker
FORGET_SECONDS = 2.0
HISTOGRAMS = ("val/codebook_histogram",)


class WandbSink:
    """A `record.tracking.feed.Sink` of epoch records."""

    name = "W&B"

    def __init__(self, tracking: TrackingConfig, view: RunView) -> None:
        self._tracking, self._view = tracking, view
        self._run: Any = None
        self._files: Path | None = None

    def open(self) -> None:
        """Begin the run, or go on with it: the same run folder is the same W&B run."""
        self._run = begin(
            online=self._tracking.wandb == "online" and has_key(), finish_seconds=FINISH_SECONDS,
            project=self._tracking.wandb_project, entity=self._tracking.wandb_entity, group=self._tracking.group,
            name=self._view.name, id=self._view.key, dir=str(self._view.folder), config=self._view.config,
            resume="allow")
        self._files = Path(self._run.dir).parent
        self._run.define_metric(TFLOPS_AXIS, hidden=True)
        self._run.define_metric("tflops/*", step_metric=TFLOPS_AXIS)
        if self._view.fresh:
            self._run.log(self._view.data_stats, step=0)

    def send(self, items: list[Any]) -> None:
        """Log records, an epoch a step."""
        for record in items:
            self._run.log(_values(record), step=record["epoch"])

    def close(self, ending: str) -> None:
        """End the W&B run; one that neither finished nor was stopped has exit code 1."""
        self._run.finish(exit_code=0 if ending in ("finished", "stopped") else 1)

    def later(self) -> str:
        """`wandb sync` where files were written."""
        return f"wandb sync {self._files}" if self._files else f"lam sync {self._view.folder}"

    def abandon(self) -> None:
        """End W&B's service process, which would be waited for at the exit; the next run starts another."""
        for child in psutil.Process().children():
            if "wandb" in child.name():
                child.kill()
        helper = threading.Thread(target=_forget_service, name="forget W&B", daemon=True)
        helper.start()
        helper.join(FORGET_SECONDS)


def _values(record: dict[str, Any]) -> dict[str, Any]:
    """A record as W&B takes it: with its views against compute, and histograms as such."""
    from wandb import Histogram

    values = plain(with_tflops(record))
    for key in HISTOGRAMS:
        if key in values:
            counts = values[key]
            values[key] = Histogram(np_histogram=(counts, list(range(len(counts) + 1))))
    return values


def _forget_service() -> None:
    import wandb

    try:
        wandb.teardown()
    except Exception as error:  # it finds its service gone, which is what was wanted
        log.debug("wandb.teardown: %s", error)
