"""MLflow's registry as a mirror of the ledger, on a real server: versions, aliases, kills, one out of reach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typed
from build_records import confirmed, write_sweep
from registry_server import check_agree, serving

from analysis.promote import promote, registry
from analysis.promote.history import as_text, roll_back, served
from analysis.promote.ledger import Ledger
from record.errors import BadInput, EnvironmentFailed
from record.tracking.mlflow_client import client_of

pytestmark = pytest.mark.filterwarnings("ignore")
WAIVED = {"confirmed": "a test"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])


@pytest.mark.long
def test_a_database_holds_versions_tags_and_aliases(
        sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    target = tmp_path / "p.yaml"
    where = registry.Registry(f"sqlite:///{tmp_path}/apart.db", "p", ("live", "old", "new"))
    promote(sweep, target)
    assert registry.sync(target, where).startswith("MLflow has p version 1 as live (sqlite:///")
    check_agree(target, where)
    promote(sweep, target, trial="t0001", waivers=WAIVED)
    registry.sync(target, where)
    check_agree(target, where)
    roll_back(target, None, "")
    registry.sync(target, where)
    check_agree(target, where)
    assert client_of(where.uri).get_model_version_by_alias("p", "new").tags["lam.trial"] == "t0001"
    lines = Ledger(target).file.read_text()
    registry.sync(target, where)
    assert Ledger(target).file.read_text() == lines, "again changes nothing"
    assert "MLFLOW_TRACKING_URI" not in os.environ, "a training would log there"
    assert registry.chosen(target, where.uri, None, None) == where, "as it was told last"
    renamed = registry.chosen(target, where.uri, None, "champion,old,new")
    assert renamed is not None
    registry.sync(target, renamed)
    check_agree(target, renamed)
    assert set(client_of(where.uri).get_registered_model("p").aliases) == {"champion", "old", "new"}
    promote(sweep, target)
    [behind] = as_text(target, served(target))[-1:]
    assert behind.endswith(f"does not know of the last change; tell it with: lam promotions sync {target} --mlflow "
                           f"{where.uri}")


def test_out_of_reach_leaves_the_promotion_done_and_says_how_to_finish(sweep: Path, tmp_path: Path) -> None:
    code, out, err = typed.lam(tmp_path, "promote", "pong", "-o", "p.yaml", "--mlflow", "http://127.0.0.1:9")
    assert code not in (0, 1, 2)
    assert "Promoted t0005 to p.yaml" in out
    assert "p.yaml and its ledger are done; finish with: lam promotions sync p.yaml --mlflow http://127.0.0.1:9" in err
    assert Ledger(tmp_path / "p.yaml").current()
    with pytest.raises(EnvironmentFailed):
        registry.sync(tmp_path / "p.yaml", registry.Registry("http://127.0.0.1:9", "p"))


@pytest.mark.parametrize(("uri", "aliases", "message"), [
    ("http://me:secret@host", None, "--mlflow: holds a password"), ("mlruns", None, "a folder, which newer versions"),
    ("file:mlruns", None, "a folder"), ("http://h", "a,b", "--aliases: got 'a,b', expected three different names")])
def test_addresses_and_names_that_are_refused(uri: str, aliases: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        registry.chosen(Path("p.yaml"), uri, None, aliases)


def test_without_an_address_sync_says_so(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("databricks", "./mlruns", "http://127.0.0.1:9"):  # somebody's training logs there
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert registry.chosen(Path("p.yaml"), None, None, None) is None
    assert registry.chosen(Path("p.yaml"), None, None, None) is None
    code, _, err = typed.lam(tmp_path, "promotions", "sync", "p.yaml")
    assert (code, "no MLflow was named, nor W&B; add --mlflow URI, or --wandb offline" in err) == (2, True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path) as address:
        yield address


KILLER = """
import os, signal, sys
from pathlib import Path
from analysis.promote import registry
import mlflow.tracking  # once, here: each child below is a copy of this process
def dies(event, arguments):
    if event == "http.client.send":
        done[0] += 1
        if done[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)
for line in sys.stdin:
    at, done = int(line), [0]
    child = os.fork()
    if not child:
        sys.addaudithook(dies)
        registry.sync(Path(sys.argv[1]), registry.Registry(sys.argv[2], "p"))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.nightly
def test_ten_promotions_and_rollbacks_and_kills_on_a_real_server(sweep: Path, tmp_path: Path, server: str) -> None:
    target, where = tmp_path / "p.yaml", registry.Registry(server, "p")
    for step in range(6):
        promote(sweep, target, trial="t0001" if step % 2 else "t0005", waivers=WAIVED)
        registry.sync(target, where)
        check_agree(target, where)
        if 0 < step < 5:
            roll_back(target, None, "")
            registry.sync(target, where)
            check_agree(target, where)
    assert len(Ledger(target).changes()) == 10
    promote(sweep, target)
    with _killer(target, server) as killed_at:
        for at in range(1, 40, 3):
            ended = killed_at(at)
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            if at % 2:  # the next command finishes it, then there is something new to mirror
                registry.sync(target, where)
                check_agree(target, where)
                promote(sweep, target)
    registry.sync(target, where)
    check_agree(target, where)


@contextmanager
def _killer(target: Path, server: str) -> Iterator[Callable[[int], int]]:
    """Ends a sync by SIGKILL before its n-th message to the server; says with what the process ended."""
    process = subprocess.Popen([sys.executable, "-c", KILLER, str(target), server], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def killed_at(number: int) -> int:
        print(number, file=stdin, flush=True)
        return int(stdout.readline())

    try:
        yield killed_at
    finally:
        stdin.close()
        process.wait(timeout=60)
