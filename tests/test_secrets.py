"""A planted value for every secret, in environment and home: a sweep leaves it nowhere, a foreign folder gets none."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from build_records import Planted, write_run
from small_sweep import make_sweep
from test_hostile_stores import listener  # noqa: F401 - a fixture
from typed import lam

from record import yamlio
from sweeps.journal import folders
from sweeps.workers.reaper import MARK

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN",
         "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN")
CANARIES = {name: f"canary{number}" + "c4f1d0" * 6 for number, name in enumerate(NAMES)}
WORDS = [value.encode() for value in CANARIES.values()] + [b"homecanary"]
TINY = {"sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16,
        "codebook_dim": 8, "num_epochs": 2, "steps_per_epoch": 4, "batch_size": 8, "eval_sequences": 16,
        "sample_count": 0, "threads": 1, "device": "cpu", "warmup_steps": 2}


def home(folder: Path) -> dict[str, str]:
    """An environment whose variables and home hold the planted values."""
    for name, text in ((".netrc", "machine api.wandb.ai\n login user\n password homecanary\n"),
                       (".aws/credentials", "[default]\naws_access_key_id = homecanary\n"),
                       (".mlflow/credentials", "[mlflow]\nmlflow_tracking_password = homecanary\n")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {**os.environ, **CANARIES, "HOME": str(folder), "RAY_AUTH_MODE": "token", "PYTHONPATH": str(ROOT)}


def holding(folder: Path) -> list[str]:
    """Files below a folder that hold a planted value."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode) and any(word in path.read_bytes() for word in WORDS):
                found.append(str(path))
    return found


def family(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        yield from (process, *process.children(recursive=True))


def seen_by_others(pid: int) -> list[str]:
    """What others see of a driver's processes: titles, arguments, ports that another machine reaches; not memory."""
    found = []
    for process in family(pid):
        with contextlib.suppress(OSError):
            arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if any(word in arguments for word in WORDS):
                found.append(str(process))
            if stat.S_IMODE(Path(f"/proc/{process.pid}/environ").stat().st_mode) & 0o077:
                found.append(f"the environment of {process}")
        with contextlib.suppress(psutil.Error):
            found += [f"{process} listens on {socket.laddr}" for socket in process.net_connections("inet")
                      if socket.status == psutil.CONN_LISTEN and not ip_address(
                          socket.laddr.ip.removeprefix("::ffff:")).is_loopback]
    return found


def scratch_of(pid: int) -> Path | None:
    """The driver's temporary folder, once Ray has begun to work there."""
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            if marked := process.environ().get(MARK):
                return Path(marked)
    return None


@pytest.mark.nightly
def test_a_real_sweep_leaves_no_secret_anywhere(tmp_path: Path, tiny_data: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    (box / "s.yaml").write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": str(tiny_data), **TINY, "tracking": {"wandb": "offline"}},
        "space": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, "search": "random", "scheduler": "none",
        "budget": {"trials": 2}, "storage": str(box / "runs"), "concurrency": 1}))
    process = subprocess.Popen([sys.executable, "-m", "lam", "sweep", "launch", "s.yaml"], cwd=box, text=True,
                               env=home(tmp_path / "home"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    looks, modes = 0, set[int]()
    while process.poll() is None:
        scratch = scratch_of(process.pid)
        if scratch is not None and scratch.exists():
            looks += 1
            modes.add(stat.S_IMODE(scratch.stat().st_mode))
            assert holding(scratch) == []
        assert seen_by_others(process.pid) == []
        time.sleep(0.5)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert looks > 3
    assert modes == {0o700}
    assert not [word for word in WORDS if word.decode() in out + err]
    assert holding(box) == []


@pytest.mark.parametrize("words", [
    ("sweep", "status", "demo"), ("sweep", "explain", "demo"), ("report", "demo", "-o", "r.json"),
    ("promote", "demo", "-o", "p.yaml"), ("sweep", "extend", "demo", "--trials", "1"), ("monitor", "demo/trials/t0001"),
    ("sync", "demo/trials/t0001"), ("report", "demo/trials/t0001", "-o", "r.json"),
    ("sweep", "launch", "demo/sweep.yaml")], ids=lambda words: " ".join(words[:2]))
def test_a_foreign_folder_that_plays_s3_mlflow_and_wandb_hears_nothing(
        words: tuple[str, ...], tmp_path: Path, listener: tuple[str, list[bytes]],  # noqa: F811
        monkeypatch: pytest.MonkeyPatch) -> None:
    address, heard = listener
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "demo"
    uri = f"s3://bucket/p?endpoint_override={address}&scheme=http&region=us-east-1"
    sweep = make_sweep(tmp_path / "yaml")
    folders.write_identity(sweep, folder, "data")
    content = json.loads((folder / "sweep.json").read_text())
    content["spec"]["journal"] = uri
    content["base"]["tracking"] = {"mlflow": f"http://{address}", "wandb": "off"}
    (folder / "sweep.json").write_text(json.dumps(content))
    write_run(folder / "trials" / "t0001", Planted(), tracking={"mlflow": f"http://{address}/steal", "wandb": "off"})
    (folder / "sweep.yaml").write_text(f"{sweep.text}journal: {uri}\n")
    found = lam(tmp_path, *words)
    assert heard == []
    assert found.code in (0, 2), found  # a trial's own folder needs no journal
    assert not [word for word in WORDS if word.decode() in found.out + found.err]
