"""What other users of a machine can see of a sweep that runs: nothing of its folder, and no credential anywhere."""

from __future__ import annotations

import importlib
import json
import stat
from pathlib import Path
from typing import Any, Literal

import pytest

from lam.config import from_mapping
from record.errors import EnvironmentFailed
from sweeps.spec.sections import Resources
from sweeps.workers import ray_session
from sweeps.workers.signals import Signals

CANARY = "canary-0d9f6c"


def test_credentials_are_taken_from_tunes_list_and_put_back() -> None:
    module, name = ray_session.COPIED
    before = set(getattr(importlib.import_module(module), name))
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= before
    with ray_session.without_secrets():
        assert not [word for word in getattr(importlib.import_module(module), name) if word.startswith("AWS_")]
    assert getattr(importlib.import_module(module), name) == before


def test_a_ray_that_keeps_the_list_elsewhere_is_not_used() -> None:
    with pytest.raises(EnvironmentFailed, match=r"this Ray has no json\.SECRETS, so it would log credentials"), \
            ray_session.without_secrets(("json", "SECRETS")):
        raise AssertionError("it was used")


def test_a_ray_that_keeps_its_switch_elsewhere_is_not_used() -> None:
    with pytest.raises(EnvironmentFailed, match=r"this Ray has no json\.SWITCH, so it would listen on all addresses"), \
            ray_session.on_loopback(("json", "SWITCH")):
        raise AssertionError("it was used")


class OneJob:
    """A single training of one epoch."""

    def __init__(self, job: Any) -> None:
        self._jobs = [job]
        self.records = 0

    def next(self) -> Any | Literal["finished"]:
        return self._jobs.pop() if self._jobs else "finished"

    def started(self, job_id: str, node: str = "") -> None: ...

    def record(self, job_id: str, record: dict[str, Any]) -> bool:
        self.records += 1
        return False

    def exhausted(self, job_id: str) -> None: ...

    def failed(self, job_id: str, reason: dict[str, str]) -> None:
        raise AssertionError(json.dumps(reason))

    def left(self, job_id: str, lost: bool, error: str = "") -> None: ...

    def stopping(self) -> bool:
        return False


@pytest.mark.nightly
def test_rays_folder_is_the_owners_alone_and_holds_no_credential(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    with Signals() as signals, ray_session.session(None, tmp_path / "ray.log", signals) as scratch:
        from sweeps.workers import engine

        config = from_mapping({"data_dir": "/nowhere", "num_epochs": 1}, source="test").mapping()
        jobs = OneJob(engine.Job("t0001", "fake_training:train", config, str(tmp_path / "t0001")))
        engine.run(jobs, Resources(), scratch)
        assert jobs.records == 1
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
        told = [path for path in scratch.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
        assert told == []
    assert CANARY not in (tmp_path / "ray.log").read_text()
