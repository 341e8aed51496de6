"""What joining a cluster leaves on the terminal, and how Ray's failures are told."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from ray.tune.error import TuneError

from record.errors import EnvironmentFailed
from sweeps.commands import launching
from sweeps.spec.sections import Resources
from sweeps.workers import ray_session
from sweeps.workers.signals import Signals, head_watched


def test_what_cpp_writes_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "ray.log"
    with contextlib.suppress(ConnectionError), ray_session._stderr_to(log):
        os.write(2, b"gcs_client.cc:210: no answer\n")
        raise ConnectionError
    os.write(2, b"ours\n")
    assert log.read_text() == "gcs_client.cc:210: no answer\n"
    assert capfd.readouterr().err == "ours\n"


@pytest.mark.parametrize("listens", [True, False])
def test_a_head_that_takes_no_connections_is_noticed(listens: bool) -> None:
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        if not listens:
            server.close()
        with head_watched(place, 0.05, gone.set, every=0.01):
            assert gone.wait(0.3 if listens else 30) != listens


def test_a_cluster_where_nobody_listens_is_said_before_ray_waits_for_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        ray_session.check_answers(place)
    with pytest.raises(EnvironmentFailed, match=f"the Ray cluster at {place} does not answer: nobody listens there"):
        ray_session.check_answers(place, patience=0)
    for other in ("auto", "ray://127.0.0.1:1"):
        ray_session.check_answers(other, patience=0)


class LateRay:
    """A Ray whose node does not come up in its thirty seconds, which it says by a bare Exception."""

    def init(self, **asked: object) -> None:
        raise Exception("The current node timed out during startup.\nSee the logs")


@pytest.mark.parametrize(("address", "what"), [
    (None, "Ray does not start on this machine"),
    ("10.0.0.1:6379", "the Ray cluster at 10.0.0.1:6379 does not answer")])
def test_a_ray_that_is_late_is_the_machines_fault(tmp_path: Path, address: str | None, what: str) -> None:
    with Signals() as signals, pytest.raises(EnvironmentFailed) as caught:
        ray_session._start(LateRay(), address, tmp_path, tmp_path / "ray.log", signals)
    assert str(caught.value) == (f"{what} (The current node timed out during startup.); check the address, the token "
                                 "and free disk space, the same command then resumes")


@pytest.mark.parametrize(("raised", "said"), [
    (OSError(28, "No space left on device"), r"demo: the system refused: \[Errno 28\] No space left on device; mend "
                                             r"that \(Ray's temporary files lie in /tmp\)"),
    (TuneError("it broke\nat line 9"), r"demo: Ray failed \(it broke\); see ray\.log there"),
])
def test_what_ray_and_the_machine_raise_is_one_message(raised: Exception, said: str) -> None:
    def run(*given: object) -> None:
        raise raised

    with pytest.raises(EnvironmentFailed, match=said):
        launching.run_jobs(None, Resources(), Path("demo"), Path("/tmp/scratch"), run)  # type: ignore[arg-type]


def test_a_bare_runtime_error_is_rays_where_ray_raised_it() -> None:
    def run(*given: object) -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):  # a bug of this package keeps its traceback
        launching.run_jobs(None, Resources(), Path("demo"), Path("/tmp/scratch"), run)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert launching.raised_in(caught.value, "json")
    assert not launching.raised_in(caught.value, "ray")
