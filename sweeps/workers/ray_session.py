"""A Ray for one command: embedded on this machine or a cluster's, quiet, with token authentication, gone afterwards."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import stat
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record.errors import EnvironmentFailed
from record.text import gist
from sweeps.workers import reaper
from sweeps.workers.signals import Signals, head_watched, takes_connections

# A worker between two epochs stops in milliseconds; one inside an epoch is killed after this many
# seconds, which loses nothing, since a trial goes on after its last checkpoint.
STOP_SECONDS = 5
JOIN_PATIENCE = 10.0  # seconds until a cluster where nobody listens is given up
STORE_BYTES = 100 * 1024**2  # trials exchange messages of a few kB
LONGEST_SOCKET_FOLDER = 28  # our folder takes 15 characters, Ray's below it 64; the kernel takes 107
# Where Tune names the variables that it copies from the driver into the environment of its workers.
COPIED = ("ray.tune.execution.class_cache", "ENV_VARS_TO_PROPAGATE")
# What makes a Ray look for an address that other machines reach; off, it is on loopback, as on macOS and Windows.
REACHABLE = ("ray._private.ray_constants", "ENABLE_RAY_CLUSTER")
OWN_PATIENCE, CLUSTER_PATIENCE = 5.0, 45.0  # seconds without a head: one of ours does not come back, a cluster's may
ENDED_KEPT = 100  # trials that have ended and of which Tune may still hear
# Where Tune keeps what has ended, for a resume that is not used here: a trial is 40 KiB, and each step asks them all.
ENDED_PLACES = ("_trials", "_stopped_trials", "_failed_trials", "_trials_to_cache", "_trial_metadata")

# Read when ray.tune is imported or started, so they are set before either.
_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_FORCE_TRIAL_CLEANUP_S": str(STOP_SECONDS),
    # Tune's own limit is one waiting trial: workers then start one after the other, and of several trials that end
    # together all but one lose their worker. How many wait is the driver's to say (its concurrency).
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Tune gives its workers an environment of their own, so those that Ray starts ahead, one a CPU, are never used.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # Each call of a worker stays in the memory of Ray's head, up to 100,000, for a dashboard that is not there.
    "RAY_task_events_report_interval_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TQDM_PATCH_PRINT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@contextlib.contextmanager
def session(address: str | None, log: Path, signals: Signals) -> Iterator[Path]:
    """Start (or join) Ray for the length of a with-block; yields a folder for what is temporary.

    A signal that comes meanwhile is only remembered, and Ray may then not have started: ask `signals`.

    Args:
        address: a cluster's address, None for an embedded Ray.
        log: file that takes what Ray would print.
        signals: what handles signals, entered before.

    Raises:
        EnvironmentFailed: Ray does not start, or the cluster does not answer.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address:
        check_answers(address)
        send_token()
    scratch = Path(tempfile.mkdtemp(prefix="lam-", dir=_short_folder()))  # 0700: Ray opens its own folder to everyone
    alone = contextlib.nullcontext() if address else on_loopback()
    with reaper.guarded(scratch), _quiet(log), without_secrets(), alone:
        import ray

        _start(ray, address, scratch / "r", log, signals)
        try:
            head = ray.get_runtime_context().gcs_address if ray.is_initialized() else ""
            with head_watched(head, CLUSTER_PATIENCE if address else OWN_PATIENCE):
                yield scratch
        finally:
            ray.shutdown()


def check_answers(address: str, patience: float = JOIN_PATIENCE) -> None:
    """Ask a cluster's port before Ray does, which waits for many minutes where nobody listens.

    Raises:
        EnvironmentFailed: nobody has listened for so many seconds; an address that is no HOST:PORT is Ray's to judge.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        return
    until = time.monotonic() + patience
    while not takes_connections(address):
        if time.monotonic() > until:
            raise EnvironmentFailed(f"the Ray cluster at {address} does not answer: nobody listens there; check the "
                                    "address and that Ray runs, the same command then resumes")
        time.sleep(0.5)


def send_token() -> None:
    """Have Ray, once it is imported, send the token it finds: `ray start` asks for one, who joins must be told so."""
    if _token().exists() or "RAY_AUTH_TOKEN" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def without_secrets(place: tuple[str, str] = COPIED) -> Iterator[None]:
    """Keep credentials out of the workers' runtime environments, which Ray writes into its logs in clear.

    Tune copies AWS_* there for workers that save to S3; ours use their machine's own, and those of an embedded Ray
    inherit them anyway.

    Raises:
        EnvironmentFailed: this Ray keeps the list elsewhere.
    """
    module, name = place
    copied = getattr(importlib.import_module(module), name, None)
    if not isinstance(copied, set):
        raise EnvironmentFailed(f"this Ray has no {module}.{name}, so it would log credentials; install "
                                "a Ray that pyproject.toml allows")
    secrets = {variable for variable in copied if variable.startswith("AWS_")}
    copied -= secrets
    try:
        yield
    finally:
        copied |= secrets


@contextlib.contextmanager
def on_loopback(place: tuple[str, str] = REACHABLE) -> Iterator[None]:
    """Have the Ray that starts meanwhile listen where only this machine reaches it.

    Raises:
        EnvironmentFailed: this Ray keeps the switch elsewhere.
    """
    module, name = importlib.import_module(place[0]), place[1]
    before = getattr(module, name, None)
    if not isinstance(before, bool):
        raise EnvironmentFailed(f"this Ray has no {'.'.join(place)}, so it would listen on all addresses; install "
                                "a Ray that pyproject.toml allows")
    setattr(module, name, False)
    try:
        yield
    finally:
        setattr(module, name, before)


def forget_ended(controller: Any, ended: list[str]) -> None:
    """Have Tune let go of all but the latest of the trials that have ended, where this Ray keeps them as known.

    Args:
        ended: Tune's ids in order of their ends; those that are let go are taken out.
    """
    if not all(hasattr(controller, place) for place in ENDED_PLACES) or len(ended) < 2 * ENDED_KEPT:
        return
    ids = {*ended[:-ENDED_KEPT]}
    gone = {trial for trial in controller._trials if trial.trial_id in ids and trial.is_finished()}
    controller._trials[:] = [trial for trial in controller._trials if trial not in gone]
    for place in ENDED_PLACES[1:4]:
        getattr(controller, place).difference_update(gone)
    for trial in gone:
        controller._trial_metadata.pop(trial.trial_id, None)
    forgotten = {trial.trial_id for trial in gone}
    ended[:] = [trial_id for trial_id in ended if trial_id not in forgotten]


def _short_folder() -> str | None:
    """The temporary folder, or /tmp where its path is too long for Ray's sockets."""
    return "/tmp" if len(tempfile.gettempdir()) > LONGEST_SOCKET_FOLDER else None


def _start(ray: Any, address: str | None, scratch: Path, log: Path, signals: Signals) -> None:
    local: dict[str, Any] = {"num_cpus": cpus(), "object_store_memory": STORE_BYTES, "include_dashboard": False,
                             "_temp_dir": str(scratch)}
    try:
        with _stderr_to(log) if address else contextlib.nullcontext():
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False,
                     runtime_env=_worker_environment(), **({} if address else local))
    except SystemExit:  # Ray's own answer to SIGTERM while it starts
        signals.handle(signal.SIGTERM)
    except Exception as error:  # only Ray runs above, and a node that is late raises a bare Exception
        if signals.received is not None:
            return
        what = f"the Ray cluster at {address} does not answer" if address else "Ray does not start on this machine"
        raise EnvironmentFailed(f"{what} ({gist(error)}); check the address, the token and free disk space, "
                                "the same command then resumes") from error
    finally:
        signals.install()
    _protect_token()


@contextlib.contextmanager
def _stderr_to(log: Path) -> Iterator[None]:
    """Send what C++ writes to this process's standard error to a file: a cluster that does not answer is one message.

    Only while a cluster is joined: an embedded Ray starts processes, which would keep the file.
    """
    before = os.dup(2)
    try:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _worker_environment() -> dict[str, Any]:
    """Workers find the modules that this process was pointed to; what is installed is each machine's own."""
    own = [entry or os.getcwd() for entry in sys.path if not _is_installed(entry)]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join([*own, "${PYTHONPATH}"]), "PYTHONUNBUFFERED": "1"}}


def _is_installed(entry: str) -> bool:
    """Whether an interpreter has an entry of its path by itself: its library, and what was installed into it."""
    parts = Path(entry).parts
    return "site-packages" in parts or "dist-packages" in parts or any(
        entry.startswith(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")) or entry.endswith(".zip")


def _token() -> Path:
    """Where Ray keeps its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _protect_token() -> None:
    """Ray writes its token file readable by everyone; make it the owner's alone."""
    token = _token()
    if token.exists() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        with contextlib.suppress(OSError):  # a mounted secret, which is not ours to change
            token.chmod(0o600)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send what Ray logs and prints to a file, and its Python warnings nowhere.

    Ray's threads print to whatever `sys.stdout` is, so both streams are replaced for the length of
    the block; what is ours to say goes through a console that holds the real one.
    """
    with open(log, "a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        importlib.import_module("ray.tune")  # its import sets up loggers, which are then replaced
        handler = logging.StreamHandler(file)
        handler.setLevel(logging.ERROR)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.split(".")[0] == "ray"]
        before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.handlers, logger.propagate = ([handler], False) if logger.name == "ray" else ([], True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            finally:
                for logger, handlers, propagate in before:
                    logger.handlers, logger.propagate = handlers, propagate


def cpus() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
