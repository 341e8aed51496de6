"""`lam doctor` names what is wrong before a launch meets it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from record import yamlio
from sweeps.commands import doctoring
from sweeps.commands.doctoring import Check, examine

SPACE = {"name": "demo", "budget": {"trials": 2}, "space": {"weight_decay": {"uniform": [0.0, 1.0]}}}


def before_ray(file: Path | None, storage: Path) -> dict[str, Check]:
    """The answers up to where Ray would be started."""
    checks = takewhile(lambda check: check.name != "storage", examine(file, storage, None))
    return {check.name: check for check in checks}


def written(path: Path, **values: object) -> Path:
    path.write_text(yamlio.dump_mapping(values))
    return path


def test_a_sound_run_is_readable(tiny_data: Path, tmp_path: Path) -> None:
    found = before_ray(written(tmp_path / "run.yaml", data_dir=str(tiny_data)), tmp_path)
    assert [found[name].state for name in ("versions", "config", "data")] == ["ok"] * 3
    assert f"torch {version('torch')}" in found["versions"].found


@pytest.mark.parametrize(("values", "name", "words"), [
    ({"data_dri": "x"}, "config", "run.yaml:data_dri: unknown key; did you mean 'data_dir'?"),
    ({"data_dir": "nowhere"}, "data", "no such folder; check the path"),
    ({**SPACE, "base": {"data_dir": "nowhere"}}, "data", "no such folder"),
    ({**SPACE, "base": {"data_dir": "nowhere"}, "budget": {}}, "config", "budget"),
])
def test_what_a_yaml_names_and_is_not_there(
        tmp_path: Path, values: dict[str, object], name: str, words: str) -> None:
    found = before_ray(written(tmp_path / "run.yaml", **values), tmp_path)
    assert found[name].state == "failed"
    assert words in found[name].found


def test_storage_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctoring.answered("storage", lambda: doctoring._storage(tmp_path / "file" / "runs"))
    assert (check.state, check.found) == ("failed", f"{tmp_path / 'file'}: is no folder; name another storage")


def test_storage_is_named_as_asked_and_nothing_stays_in_it(tmp_path: Path) -> None:
    check = doctoring._storage(tmp_path / "new" / "runs")
    assert check.state in ("ok", "warning")
    assert str(tmp_path / "new" / "runs") in check.found
    assert os.listdir(tmp_path) == []


def test_a_package_that_is_too_old_is_named_with_the_command() -> None:
    (check,) = doctoring._mismatch(Requirement("torch>=99"))
    assert check == Check("torch", "failed", f"{version('torch')} is installed, torch>=99 is needed",
                          "pip install 'torch>=99'")
    assert list(doctoring._mismatch(Requirement("torch>=2"))) == []


@pytest.mark.slow
def test_a_tracking_server_that_does_not_answer() -> None:
    check = doctoring.answered("MLflow", lambda: doctoring._mlflow("http://127.0.0.1:9"))
    assert check.state == "failed"
    assert "http://127.0.0.1:9 does not answer" in check.found


def test_a_check_that_fails_itself_is_an_answer() -> None:
    check = doctoring.answered("GPU", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert check.state == "failed"
    assert "the check itself failed (division by zero" in check.found


@pytest.mark.nightly
def test_the_command_starts_ray_prints_no_secret_and_says_no_by_its_exit_code(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("lam")), "doctor", str(tmp_path / "run.yaml"), "--storage",
               str(tmp_path / "runs"), "--json"]
    secrets = dict.fromkeys(("WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"), "canary-7f3a")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **secrets})
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 1
    assert done.stderr.strip() == "lam: 1 check failed; each says what to do"
    assert "no such file" in checks["config"]["found"]
    assert "starts and answers with its token" in checks["Ray"]["found"]
    assert "canary" not in done.stdout + done.stderr
    assert os.listdir(tmp_path) == []
