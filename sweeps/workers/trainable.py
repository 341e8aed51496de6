"""The worker's side: one Ray trainable that steps a training generator, one validated epoch at a time.

The generator has checkpointed each epoch before it yields it, so this class saves nothing; a trial
that comes back opens the same generator, which goes on after its last checkpoint. The actor is
reused for trial after trial (`reset_config`), which spares the imports.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import json
import math
import os
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

from ray.tune import PlacementGroupFactory, Trainable

from record import files
from record.errors import EnvironmentFailed, LamError
from record.run import RunFolder
from record.workload import workload
from record.workload.together import Gone
from sweeps.journal.runs import LOCK, Published
from sweeps.workers import probe
from sweeps.workers.trial import company, process
from sweeps.workers.trial.peers import Peers

Message = tuple[str, Any]
WRITER_WAIT_SECONDS = 120.0  # a server frees the lock of a machine that is gone after its lease, 90 s with NFS


class ProcessSpent(Exception):
    """Ends a worker whose training failed; its trial has been accounted for."""


class TrialTrainable(Trainable):
    """Steps one job after another. ``config["job"]`` is a `sweeps.workers.engine.Job` as JSON.

    A process whose training failed is not used again: on a GPU its memory may stay taken, and an error of CUDA's stays
    for every later call. `sweeps.workers.engine` asks for a step after the failure, which raises and so ends the
    process.

    ``result["message"]`` is JSON too, because Tune flattens nested results: ``["record", {...}]``,
    ``["exhausted", null]`` (no epoch is left), ``["failure", {"rule", "sentence"}]``, or, of a trial that is several
    processes, first of all ``["placed", [node, ...]]``.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory | None:
        """What a trial occupies, a bundle for each worker, and where it must not be placed.

        The placement group is its own, so that a machine can be left out later.
        """
        if "place" not in config:
            return None
        place = json.loads(config["place"])
        bundles = [{name.upper(): place[name] for name in ("cpu", "gpu") if place[name]}] * place["workers"]
        elsewhere = [{"ray.io/node-id": f"!in({','.join(place['avoid'])})"}] * place["workers"]
        return PlacementGroupFactory(bundles, **({"bundle_label_selector": elsewhere} if place["avoid"] else {}))

    def setup(self, config: dict[str, Any]) -> None:
        """Open the first job."""
        self._failed = self._settled = False
        self._published: Published | None
        self._open(config)

    def _open(self, config: dict[str, Any]) -> None:
        job, place = json.loads(config["job"]), json.loads(config["place"])
        process.claim_gpu(place["gpu"])
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
            self._messages = _messages(job, run_dir, place)
        except (OSError, EnvironmentFailed) as error:
            if not process.is_environment(error):
                raise
            self._messages = _refused(error)

    def step(self) -> dict[str, Any]:
        """The next message.

        Raises:
            ProcessSpent: the training failed before.
            OtherDied: another worker of this trial died, which is what this one's death would be.
        """
        if self._failed:
            raise ProcessSpent
        with _limited(self._silence):
            return {"message": json.dumps(self._next())}

    def _next(self) -> Message:
        try:
            message = self._trained()
            if self._published:
                self._published.publish()
            return message
        except company.OtherDied as error:
            self._failed = True
            print(error, file=sys.stderr, flush=True)
            raise
        except Exception as error:
            self._failed = True
            reason = error.reason if isinstance(error, company.OtherRaised) else process.reason(error)
            if self._published and reason["rule"] != "environment":
                with contextlib.suppress(OSError, LamError):
                    self._published.publish()  # with the traceback in output.log
            return "failure", reason

    def _trained(self) -> Message:
        try:
            kind, value = next(self._messages)
            return kind, files.jsonable(value)
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
                self._messages.close()
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


def _messages(job: dict[str, Any], run_dir: Path, place: dict[str, Any],
              start: company.Start = Peers) -> Generator[Message, None, None]:
    """What a trial says: where its workers are, if there are several, and its records."""
    with contextlib.ExitStack() as held:
        gone = None
        if place["workers"] > 1:
            others = held.enter_context(company.beside(start(job, place)))
            yield "placed", others.nodes
            gone = others.gone
        for record in held.enter_context(contextlib.closing(_records(job, run_dir, gone))):
            yield "record", record


def _records(job: dict[str, Any], run_dir: Path, gone: Gone | None = None) -> Generator[dict[str, Any], None, None]:
    """Records after epoch `job["after"]`: those on disk that the journal has not seen, then new ones.

    Args:
        gone: whether another worker has ended; None where there is no other.
    """
    train = process.resolve(job["train"])
    trained = workload.find(job["workload"])
    config = trained.read(job["config"], source=f"trial {job['id']}")
    process.use_threads(config.threads)
    seen = job["after"]
    stream = train(config, run_dir) if gone is None else train(config, run_dir, gone)
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


def _refused(error: Exception) -> Generator[Message, None, None]:
    """Messages of a run whose folder cannot be written."""
    raise error
    yield  # makes it a generator


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
