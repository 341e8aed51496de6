"""The worker's side: one Ray trainable that steps a training generator, one validated epoch at a time.

The generator has checkpointed each epoch before it yields it, so this class saves nothing; a trial
that comes back opens the same generator, which goes on after its last checkpoint. The actor is
reused for trial after trial (`reset_config`), which spares the imports.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import gc
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

from ray.tune import PlacementGroupFactory, Trainable

from record import files
from record.errors import MEMORY_REMEDY, BadData, EnvironmentFailed, LamError, is_out_of_memory
from record.run import RunFolder
from record.workload import workload
from record.workload.settings import Settings
from sweeps.journal.runs import LOCK, Published
from sweeps.workers import probe

Train = Callable[[Settings, Path], Iterator[dict[str, Any]]]
WRITER_WAIT_SECONDS = 120.0  # a server frees the lock of a machine that is gone after its lease, 90 s with NFS
# What the system says of a disk that is full, read-only, broken or gone.
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN,
               errno.ENOLCK, errno.EOPNOTSUPP}
# What CUDA says of a GPU that is broken, taken or gone.
BROKEN_GPU = ("uncorrectable ECC error", "no CUDA-capable device", "devices are busy or unavailable",
              "driver version is insufficient", "fallen off the bus", "system not yet initialized")


class ProcessSpent(Exception):
    """Ends a worker whose training failed; its trial has been accounted for."""


class TrialTrainable(Trainable):
    """Steps one job after another. ``config["job"]`` is a `sweeps.workers.engine.Job` as JSON.

    A process whose training failed is not used again: on a GPU its memory may stay taken, and an error of CUDA's stays
    for every later call. `sweeps.workers.engine` asks for a step after the failure, which raises and so ends the
    process.

    ``result["message"]`` is JSON too, because Tune flattens nested results: ``["record", {...}]``,
    ``["exhausted", null]`` (no epoch is left) or ``["failure", {"rule", "sentence"}]``.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory | None:
        """What a trial occupies, and where it must not be placed: its own, so that a machine can be left out later."""
        if "place" not in config:
            return None
        place = json.loads(config["place"])
        bundle = {name.upper(): place[name] for name in ("cpu", "gpu") if place[name]}
        elsewhere = {"ray.io/node-id": f"!in({','.join(place['avoid'])})"}
        return PlacementGroupFactory([bundle], **({"bundle_label_selector": [elsewhere]} if place["avoid"] else {}))

    def setup(self, config: dict[str, Any]) -> None:
        """Open the first job."""
        self._failed = self._settled = False
        self._published: Published | None
        self._open(config)

    def _open(self, config: dict[str, Any]) -> None:
        job = json.loads(config["job"])
        if "place" in config:
            claim_gpu(json.loads(config["place"])["gpu"])
        self._silence = job["silence_seconds"]
        self._held, self._published = contextlib.ExitStack(), None
        try:
            _check_machine(job)
            published = _published(job)
            run_dir = _made(published.folder if published else Path(job["run_dir"]))
            self._held.enter_context(_hold(run_dir / LOCK))
            if published:
                published.fetch()
            self._published = published
            _write_output_to(run_dir / "output.log")
            self._records = _records(job, run_dir)
        except (OSError, EnvironmentFailed) as error:
            if not _is_environment(error):
                raise
            self._records = _refused(error)

    def step(self) -> dict[str, Any]:
        """The next message.

        Raises:
            ProcessSpent: the training failed before.
        """
        if self._failed:
            raise ProcessSpent
        with _limited(self._silence):
            return {"message": json.dumps(self._next())}

    def _next(self) -> tuple[str, Any]:
        try:
            message = self._trained()
            if self._published:
                self._published.publish()
            return message
        except Exception as error:
            self._failed = True
            reason = _reason(error)
            if self._published and reason["rule"] != "environment":
                with contextlib.suppress(OSError, LamError):
                    self._published.publish()  # with the traceback in output.log
            return "failure", reason

    def _trained(self) -> tuple[str, Any]:
        try:
            return "record", files.jsonable(next(self._records))
        except StopIteration:
            return "exhausted", None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Close the current job and open another."""
        self._close()
        self._open(new_config)
        return True

    def cleanup(self) -> None:
        """Close the current job."""
        self._close()

    def _close(self) -> None:
        """Close the job; an error in that is its own, told in its output.log, and the next job knows nothing of it."""
        with self._held:
            try:
                self._records.close()
                if self._published:
                    self._published.close()
            except Exception as error:
                sys.excepthook(type(error), error, error.__traceback__)
            gc.collect()  # a model in a reference cycle must not stay beside the next one
            if not self._settled:
                gc.freeze()  # modules stay: looking through torch's again at every trial takes a tenth of a second
                self._settled = True


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, with a traceback of all threads in output.log.

    The clock is a thread of C, so it runs although the block holds the interpreter.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _records(job: dict[str, Any], run_dir: Path) -> Generator[dict[str, Any], None, None]:
    """Records after epoch `job["after"]`: those on disk that the journal has not seen, then new ones."""
    train: Train = resolve(job["train"])
    trained = workload.find(job["workload"])
    config = trained.read(job["config"], source=f"trial {job['id']}")
    _use_threads(config.threads)
    seen = job["after"]
    stream = train(config, run_dir)
    try:
        for record in stream:
            yield from _on_disk(run_dir, seen, record["epoch"])
            if record["epoch"] >= config.num_epochs or trained.verdict(record) == "nonfinite":
                next(stream, None)  # lets the run write how it ended before the trial is closed
            yield record
            seen = record["epoch"]
        yield from _on_disk(run_dir, seen, math.inf)
    finally:
        if hasattr(stream, "close"):
            stream.close()


def _on_disk(run_dir: Path, after: int, before: float) -> Iterator[dict[str, Any]]:
    """Recorded epochs strictly between two epochs; none where the two are neighbours."""
    if before > after + 1:
        yield from (record for record in RunFolder(run_dir).metrics() if after < record["epoch"] < before)


def resolve(dotted: str) -> Any:
    """The object that ``package.module:name`` names."""
    module, _, name = dotted.partition(":")
    return getattr(importlib.import_module(module), name)


def claim_gpu(share: float) -> None:
    """Keep this process to its share of a GPU: with none it sees none, with a part it may use that part of the memory.

    Ray leaves all GPUs visible to a worker that asked for none, and caps nothing.
    """
    if share == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif share < 1:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(share)


def _use_threads(threads: int) -> None:
    if threads and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _refused(error: Exception) -> Generator[dict[str, Any], None, None]:
    """Records of a run whose folder cannot be written."""
    raise error
    yield  # makes it a generator


def _is_environment(error: Exception) -> bool:
    """Whether the machine failed and not the training: what it was doing can go on once that is mended.

    Data is the machine's: the driver has read it before it started a trial.
    """
    if isinstance(error, OSError):
        return error.errno in ENVIRONMENT
    return isinstance(error, EnvironmentFailed | BadData) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in BROKEN_GPU))


def _reason(error: Exception) -> dict[str, str]:
    """Rule and sentence of a training that raised; the traceback goes to the trial's output.log."""
    if _is_environment(error):
        return {"rule": "environment", "sentence": str(error)}
    if not isinstance(error, LamError):
        sys.excepthook(type(error), error, error.__traceback__)
    rule = "out_of_memory" if is_out_of_memory(error) else "raised"
    text = str(error) or "no message"
    remedy = f"; {MEMORY_REMEDY}" if rule == "out_of_memory" else ""
    return {"rule": rule, "sentence": f"training raised {type(error).__name__}: {text.splitlines()[0][:300]}{remedy}"}


def _check_machine(job: dict[str, Any]) -> None:
    """Refuse a machine that has other software, or a tree of its own where the sweep folder should be.

    Raises:
        EnvironmentFailed: with what is wrong.
    """
    wrong = probe.differs(job["versions"]) or (probe.sees(job["home"]) if job["home"] and not job["store"] else "")
    if wrong:
        raise EnvironmentFailed(f"its machine {wrong}")


def _published(job: dict[str, Any]) -> Published | None:
    """The trial's folder on this machine and its store, None where the sweep folder holds it."""
    return Published(job["store"], Path(job["run_dir"]).relative_to(job["home"]).as_posix()) if job["store"] else None


def _made(run_dir: Path) -> Path:
    """The trial's folder, made where it is missing.

    Raises:
        EnvironmentFailed: a link stands in its place: what is written there would land in another folder.
    """
    if run_dir.is_symlink():
        raise EnvironmentFailed(f"{run_dir} is a link, expected the trial's own folder; replace it by what it leads to")
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def _write_output_to(path: Path) -> None:
    """Send everything this process prints, C libraries included, to `path`."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)


def _hold(path: Path, seconds: float = WRITER_WAIT_SECONDS) -> IO[str]:
    """An exclusive lock on a run folder; waits for a worker that is still on its way out.

    Raises:
        EnvironmentFailed: another process has held it for so many seconds.
    """
    handle = open(path, "w", encoding="utf-8")  # noqa: SIM115 - held until the job is closed
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                handle.close()
                raise EnvironmentFailed(f"{path.parent} is still being written by another process after "
                                        f"{seconds:g} s; end that process") from None
            time.sleep(0.1)
