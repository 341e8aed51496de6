"""The same study in MLflow and in optuna-dashboard, beside `lam report`; see bench_report.py."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

Rows = list[tuple[str, dict[str, Any], list[tuple[int, float]]]]


def others(folder: Path) -> None:
    """What lists and compares the same trials: MLflow's search, optuna-dashboard's API, and `lam report` itself."""
    from bench_report import once

    from analysis.read.reading import read_study

    study = read_study(folder)
    rows: Rows = [(trial.label, trial.params, trial.epochs.points(study.objective)) for trial in study.trials]
    with tempfile.TemporaryDirectory(dir=folder.parent) as there:
        once(folder, "lam report", {"XDG_CACHE_HOME": there})
        in_mlflow(rows, Path(there))
        in_dashboard(rows, Path(there))


def timed(what: str, act: Callable[[], int]) -> None:
    """Say how long an act took and how much it found."""
    before, began = os.times(), time.monotonic()
    found = act()
    after = os.times()
    print(f"{what}: {found:,}, {after.user + after.system - before.user - before.system:.1f} s of the processor "
          f"({time.monotonic() - began:.1f} s in all, load {os.getloadavg()[0]:.0f}), at most "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB up to here", flush=True)


def in_mlflow(rows: Rows, there: Path) -> None:
    """Runs in a sqlite store: all of them found, then the curves of all asked for."""
    import mlflow
    from mlflow.entities import Metric, Param

    mlflow.set_tracking_uri(f"sqlite:///{there}/mlflow.db")
    client = mlflow.tracking.MlflowClient()
    experiment = client.create_experiment("bench")

    def write() -> int:
        for label, params, points in rows:
            run = client.create_run(experiment, run_name=label)
            client.log_batch(run.info.run_id, metrics=[Metric("objective", value, 0, int(at)) for at, value in points],
                             params=[Param(name, str(value)) for name, value in params.items()])
        return len(rows)

    timed("MLflow, runs written", write)
    timed("MLflow, search_runs: runs found", lambda: len(mlflow.search_runs([experiment], max_results=50_000)))
    runs = list(mlflow.search_runs([experiment], max_results=50_000)["run_id"])
    timed("MLflow, get_metric_history of one metric: curves found",
          lambda: sum(bool(client.get_metric_history(run, "objective")) for run in runs))


def in_dashboard(rows: Rows, there: Path) -> None:
    """The trials in a sqlite store: what the page of a study asks for when it opens, and importance."""
    try:
        import optuna_dashboard
    except ImportError:
        print("optuna-dashboard: not installed")
        return
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{there}/optuna.db")
    kept = optuna.create_study(storage=storage, direction="maximize", study_name="bench")
    ranges = {"learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
              "commitment_weight": FloatDistribution(1e-2, 2.0, log=True),
              "embed_dim": CategoricalDistribution([64, 128, 256]), "quantizer": CategoricalDistribution(["ema", "vq"])}

    def write() -> int:
        kept.add_trials(optuna.trial.create_trial(
            params=params, value=points[-1][1], distributions=ranges, intermediate_values=dict(points))
            for _, params, points in rows)
        return len(rows)

    timed("Optuna, trials written", write)
    with serving(optuna_dashboard.wsgi(storage)) as url:
        study = f"{url}/api/studies/{kept._study_id}"
        for turn in ("", ", again"):
            timed(f"optuna-dashboard, GET /api/studies/N{turn}: trials",
                  lambda: len(asked(f"{study}?after=0")["trials"]))
        timed("optuna-dashboard, GET .../param_importances: knobs",
              lambda: len(asked(f"{study}/param_importances")["param_importances"][0]))


def asked(url: str) -> Any:
    """The JSON of an address on this machine."""
    with urllib.request.urlopen(url, timeout=600) as reply:
        return json.load(reply)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(application: Any) -> Iterator[str]:
    """A WSGI application on a free port of this machine alone."""
    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


if __name__ == "__main__":
    sys.exit("see bench_report.py")
