"""W&B: one run, as files in the run folder, online where that is asked for and a key is there.

Nothing but the config, the data's statistics and the records is sent: no environment, no arguments,
no code, no console output.
"""

from __future__ import annotations

import logging
import netrc
import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import psutil

from lam.metrics import TFLOPS_AXIS, with_tflops
from record.tracking.view import RunView, plain
from record.workload.settings import TrackingConfig

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
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
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        online = self._tracking.wandb == "online" and has_key()
        self._run = wandb.init(
            mode="online" if online else "offline", project=self._tracking.wandb_project,
            entity=self._tracking.wandb_entity, group=self._tracking.group, name=self._view.name, id=self._view.key,
            dir=str(self._view.folder), config=self._view.config, resume="allow", reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
                x_disable_meta=True, x_save_requirements=False, x_disable_machine_info=True,
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", CONNECT_SECONDS)),
                finish_timeout=FINISH_SECONDS,
            ),
        )
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


def has_key() -> bool:
    """Whether W&B would find an API key: in the environment, or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


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
