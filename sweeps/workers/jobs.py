"""A sweep as a job of a cluster: submitted once, whoever asks again attaches to it; its log; its end.

A job's id is the sweep's name and fingerprint with the number of the attempt, so that the same sweep is found again.
Ray takes an id once: two who submit in the same moment get one job.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import yamlio
from record.errors import BadInput, EnvironmentFailed
from record.storage import addresses
from sweeps.journal.folders import spec_mapping
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep
from sweeps.workers.ray_session import send_token

OVER = ("SUCCEEDED", "FAILED", "STOPPED")
STOP_SECONDS = 60  # an orderly end takes a few; Ray's own limit is three
LOOK_SECONDS = 2.0
HEAD_SECONDS = 90  # in which a head that has just started takes jobs


class SubmittedJobs:
    """The jobs of a cluster.

    Args:
        address: of the cluster's dashboard, `http://host:8265`.

    Raises:
        EnvironmentFailed: it does not answer, or asks for a token.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise BadInput(f"got {address!r}, expected the address of the cluster's dashboard", source="--address",
                           remedy="for example http://127.0.0.1:8265, after `ray dashboard CLUSTER.yaml`")
        send_token()
        from ray.job_submission import JobSubmissionClient  # reads how to authenticate when it is imported

        self.address = address
        with self._told():
            self._client = JobSubmissionClient(address)

    def submit(self, sweep: Sweep, storage: str, baseline: Path | None = None) -> tuple[str, bool]:
        """The id of the sweep's job, and whether it is new; one that is at work is attached to.

        Args:
            storage: where sweeps are kept, on a path that every machine of the cluster sees.
            baseline: a production YAML, which goes along; its config is the first trial.
        """
        if not (addresses.is_one(storage) or Path(storage).is_absolute()):
            raise BadInput(f"got {storage!r}, which is relative to the cluster's own folders", source="--storage",
                           remedy="give a path that every machine of the cluster sees, for example /shared/runs, or "
                                  "s3://bucket/prefix")
        last = self.last(sweep)
        if last is not None and self.state(last) not in OVER:
            return last, False
        name = _id(sweep, 1 if last is None else _attempt(last) + 1)
        with tempfile.TemporaryDirectory() as folder, self._told():
            command = _packed(Path(folder), sweep, storage, baseline)
            return name, self._taken({"entrypoint": command, "submission_id": name, "entrypoint_num_cpus": 0,
                                      "runtime_env": {"working_dir": folder, "env_vars": {
                                          "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}}})

    def _taken(self, job: dict[str, Any]) -> bool:
        """Whether the cluster took a job as new; a head that has just started is asked again for a while."""
        deadline = time.monotonic() + HEAD_SECONDS
        while True:
            try:
                self._client.submit_job(**job)
            except RuntimeError as error:
                if "already exists" in str(error):
                    return False
                if "try again later" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_SECONDS)
            else:
                return True

    def last(self, sweep: Sweep) -> str | None:
        """The id of the sweep's latest job, None where it was never submitted."""
        with self._told():
            known = [job.submission_id for job in self._client.list_jobs() if job.submission_id]
        return max((name for name in known if name.startswith(_id(sweep, ""))), key=_attempt, default=None)

    def job_of(self, spec: Path) -> str:
        """The id of the latest job of the sweep that a YAML describes.

        Raises:
            BadInput: it was never submitted to this cluster.
        """
        name = self.last(load(spec))
        if name is None:
            raise BadInput(f"was never submitted to {self.address}", source=spec,
                           remedy="name the YAML that was, or submit it with 'lam sweep submit'")
        return name

    def state(self, name: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        with self._told():
            return str(self._client.get_job_status(name).value)

    def stop(self, name: str) -> None:
        """Ask for an orderly end, and wait for it; the sweep is resumable."""
        with self._told():
            self._client.stop_job(name)
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while self.state(name) not in OVER and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 4)

    def log(self, name: str, follow: bool = False) -> Iterator[str]:
        """What a job has printed; with `follow` also what it prints until it is over, in pieces."""
        seen = 0
        while True:
            over = self.state(name) in OVER
            with self._told():
                text = str(self._client.get_job_logs(name))
            if len(text) > seen:
                yield text[seen:]
            seen = len(text)
            if over or not follow:
                return
            time.sleep(LOOK_SECONDS)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the client raises, as one message."""
        try:
            yield
        except Exception as error:  # Ray's, requests' and the system's: only the client runs meanwhile
            raise _in_words(self.address, error) from error


def _in_words(address: str, error: Exception) -> EnvironmentFailed:
    text = str(error)
    if "401" in text or "403" in text or "oken" in text:
        return EnvironmentFailed(f"{address}: the cluster asks for its token; copy its ~/.ray/auth_token to this "
                                 "machine (0600), or set RAY_AUTH_TOKEN_PATH, and set RAY_AUTH_MODE=token")
    first = (text.strip().splitlines() or [type(error).__name__])[0][:300]
    return EnvironmentFailed(f"{address}: the cluster's dashboard does not answer as expected ({first}); check the "
                             "address; the machines need lamsweep[cluster], and this one a tunnel to the head")


def _packed(folder: Path, sweep: Sweep, storage: str, baseline: Path | None) -> str:
    """Put into `folder` what the job needs of this machine; returns the job's command, for a shell in its copy.

    The command leaves the copy at once: Ray deletes it when the job is told to stop, and a driver whose folder is
    gone cannot come to an orderly end.
    """
    (folder / "sweep.yaml").write_text(yamlio.dump_mapping(spec_mapping(sweep)), encoding="utf-8")
    command = ('copy=$PWD && cd / && exec lam sweep launch "$copy"/sweep.yaml '
               f"--address auto --storage {shlex.quote(storage)}")
    if baseline is None:
        return command
    (folder / "baseline").mkdir()
    shutil.copyfile(baseline, folder / "baseline" / baseline.name)
    return f'{command} --baseline "$copy"/baseline/{shlex.quote(baseline.name)}'


def _id(sweep: Sweep, attempt: Any) -> str:
    return f"lam-{sweep.spec.name}-{sweep.fingerprint()}-{attempt}"


def _attempt(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
