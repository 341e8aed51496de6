"""What joining a cluster leaves on the terminal, and how Ray's failures are told."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from ray.tune.error import TuneError

from record.errors import EnvironmentFailed
from sweeps.commands import launching
from sweeps.spec.sections import Resources
from sweeps.workers import ray_session


def test_what_cpp_writes_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "ray.log"
    with contextlib.suppress(ConnectionError), ray_session._stderr_to(log):
        os.write(2, b"gcs_client.cc:210: no answer\n")
        raise ConnectionError
    os.write(2, b"ours\n")
    assert log.read_text() == "gcs_client.cc:210: no answer\n"
    assert capfd.readouterr().err == "ours\n"


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
