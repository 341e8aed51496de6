"""What joining a cluster leaves on the terminal."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from sweeps.workers import ray_session


def test_what_cpp_writes_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "ray.log"
    with contextlib.suppress(ConnectionError), ray_session._stderr_to(log):
        os.write(2, b"gcs_client.cc:210: no answer\n")
        raise ConnectionError
    os.write(2, b"ours\n")
    assert log.read_text() == "gcs_client.cc:210: no answer\n"
    assert capfd.readouterr().err == "ours\n"
