"""W&B artifacts as a mirror of the ledger, in real offline files: each version once, then aliases, champion last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typed
from build_records import confirmed, write_sweep
from wandb.proto.wandb_internal_pb2 import Record
from wandb_listener import listening

from analysis.promote import artifacts, promote
from analysis.promote.history import roll_back
from analysis.promote.ledger import Ledger
from analysis.read.trackers.wandb_offline import _payloads
from record.errors import BadInput, EnvironmentFailed
from record.tracking import wandb_client

pytestmark = pytest.mark.filterwarnings("ignore")
WANTED = artifacts.Artifacts("offline", "vvae-lam", "p")


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    promote(write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])]), tmp_path / "p.yaml")
    return tmp_path / "p.yaml"


def _logged(target: Path) -> list[list[tuple[str, int, list[str]]]]:
    """Of each offline run, in order, what was logged: the alias, the version, the files."""
    found = []
    files = (Ledger(target).folder / "wandb").glob("offline-run-*/*.wandb")
    for file in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        records = _records(file)
        found.append([(next(alias for alias in record.artifact.aliases if alias != "latest"),
                       int(json.loads(record.artifact.metadata)["lam.promotion"]),
                       sorted(each.path for each in record.artifact.manifest.contents))
                      for record in records if record.HasField("artifact")])
    return found


def _records(file: Path) -> list[Any]:
    """Of a run that has ended; W&B's process writes the end of its file a moment later."""
    deadline = time.monotonic() + 60
    while True:
        records = [Record.FromString(payload) for payload in _payloads(file, [])]
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_each_version_is_logged_once_and_aliases_follow_the_champions_last(target: Path, tmp_path: Path) -> None:
    said = artifacts.log(target, WANTED)
    assert said.startswith("W&B has p version 1 as champion (offline); send it with: wandb sync ")
    promote(tmp_path / "pong", target, trial="t0001", waivers={"confirmed": "a test"})
    artifacts.log(target, WANTED)
    roll_back(target, None, "")
    artifacts.log(target, WANTED)
    lines = Ledger(target).file.read_text()
    artifacts.log(target, WANTED)
    assert Ledger(target).file.read_text() == lines, "again changes nothing"
    runs = [[(alias, version) for alias, version, _ in run] for run in _logged(target)]
    assert runs == [
        [("version-1", 1), ("candidate", 1), ("champion", 1)],
        [("version-2", 2), ("candidate", 2), ("previous", 1), ("champion", 2)],
        [("candidate", 2), ("previous", 2), ("champion", 1)]]
    artifacts.log(target, replace(WANTED, aliases=("live", "old", "new")))
    assert [alias for alias, _, _ in _logged(target)[-1]] == ["new", "old", "live"], "a renamed alias is set"
    again = artifacts.wandb_of(target, WANTED.mode, WANTED.project, None, None)
    assert again is not None
    assert again.aliases == ("live", "old", "new")
    assert all("production.yaml" in files for run in _logged(target) for _, _, files in run)
    assert Ledger(target).changes()[-1].mirrors["wandb"]["champion"] == 1


def test_what_was_cut_off_is_logged_by_the_next_sync(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = artifacts._log, [0]

    def fails(*asked: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise OSError("the network is gone")
        real(*asked)

    monkeypatch.setattr(artifacts, "_log", fails)
    with pytest.raises(EnvironmentFailed, match="its ledger are done; finish with: lam promotions sync"):
        artifacts.log(target, WANTED)
    assert not Ledger(target).changes()[-1].mirrors
    monkeypatch.undo()
    artifacts.log(target, WANTED)
    assert [alias for alias, _, _ in _logged(target)[-1]] == ["version-1", "candidate", "champion"]


def test_commands_and_refusals(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = typed.lam(tmp_path, "promotions", "sync", "p.yaml", "--wandb", "offline", "--wandb-project", "my")
    assert code == 0, err
    assert "W&B has p version 1 as champion" in out
    monkeypatch.setattr(wandb_client, "has_key", lambda: False)
    for mode, said in (("on", "--wandb: got 'on'; take offline or online"), ("online", "there is no API key; run 'w")):
        code, _, err = typed.lam(tmp_path, "promotions", "sync", "p.yaml", "--wandb", mode)
        assert (code, said in err) == (2, True), err
    with pytest.raises(BadInput, match="expected three different names"):
        artifacts.wandb_of(target, "offline", "x", None, "a,b")
    assert artifacts.wandb_of(target, None, "x", None, None) is None


ONLINE = """
import sys
from pathlib import Path
from analysis.promote import artifacts, promote
from analysis.promote.history import roll_back
room, wanted = Path(sys.argv[1]), artifacts.Artifacts("online", "vvae-lam", "p")
artifacts.log(room / "p.yaml", wanted)
promote(room / "pong", room / "p.yaml", trial="t0001", waivers={"confirmed": "a test"})
artifacts.log(room / "p.yaml", wanted)
roll_back(room / "p.yaml", None, "")
print(artifacts.log(room / "p.yaml", wanted))
"""


@pytest.mark.slow
def test_online_the_library_uploads_each_version_once_and_moves_the_aliases(target: Path, tmp_path: Path) -> None:
    with listening() as wandb:
        done = subprocess.run([sys.executable, "-c", ONLINE, str(tmp_path)], text=True, capture_output=True, env={
            **os.environ, "PYTHONPATH": os.getcwd(), "WANDB_BASE_URL": wandb.address, "WANDB_API_KEY": "k" * 40},
            timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("W&B has p version 1 as champion (online)\n")
    first, second = wandb.artifacts.values()
    assert [first["state"], second["state"]] == ["COMMITTED"] * 2
    assert wandb.aliases == {"version-1": first["id"], "version-2": second["id"], "candidate": second["id"],
                             "previous": second["id"], "champion": first["id"], "latest": first["id"]}
    given = [(alias, artifact) for alias, artifact in wandb.named if alias != "latest"]
    assert [alias for alias, _ in given] == ["version-1", "candidate", "champion",
                                             "version-2", "candidate", "previous", "champion",
                                             "candidate", "previous", "champion"], "the champion's last each time"
    for version, made in enumerate((first, second), 1):
        uploaded = wandb.files[f"artifacts/{made['id']}/production.yaml"]
        assert uploaded == Ledger(target).version_file(version).read_bytes()
