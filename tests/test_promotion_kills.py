"""SIGKILL at every write of a promotion and of a rollback of a real model, and at every message to a real server.

Both versions have weights, a figure of the test split and a snapshot. After each kill comes the next command, and then
there is one of the two states, whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from registry_server import check_agree, serving

from analysis.promote import Wish, promote, registry
from analysis.promote.history import roll_back, served
from analysis.promote.ledger import Ledger, digest
from analysis.promote.snapshots import kept
from lam import config
from lam.training import loop
from record import yamlio

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
TINY: dict[str, Any] = {
    "sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
    "codebook_dim": 8, "num_codes": 2, "num_embeddings": 4, "batch_size": 8, "num_epochs": 1, "steps_per_epoch": 5,
    "eval_sequences": 16, "rollout_horizon": 1, "sample_count": 0, "threads": 1, "device": "cpu"}
WAIVED = dict.fromkeys(("live", "dsnr_valid", "beats_copy", "action_skill", "ranks", "codebook", "confirmed", "tested"),
                       "a test")

# One process imports everything once; each line it is sent is the work of a process of its own, which dies.
KILLER = """
import os, signal, sys
from pathlib import Path
import lam.inference.exporting, lam.workload, mlflow.tracking
from analysis.promote import Wish, promote, registry
from analysis.promote.history import roll_back
WAIVED = dict.fromkeys(sys.argv[1].split(","), "a test")
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
def work(at, room, what, uri):
    done = [0]
    def writes(event, given):
        return event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR) \\
            and str(given[0]).startswith(room) or event in CHANGES and room in str(given[0])
    def dies(event, given):
        if event == "http.client.send" if what == "sync" else writes(event, given):
            done[0] += 1
            if done[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(dies)
    target = Path(room) / "p.yaml"
    if what == "promote":
        promote(Path(room).parent / "b", target, wish=Wish(trial="b", waivers=WAIVED))
    elif what == "rollback":
        roll_back(target, None, "")
    else:
        registry.sync(target, registry.Registry(uri, Path(room).name))
for line in sys.stdin:
    at, room, what, uri = line.split()
    child = os.fork()
    if not child:
        work(int(at), room, what, uri)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Ask = Callable[[int, Path, str, str], int]


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs, `a` in production in the folder `first`, and both after each other in `second`."""
    room = tmp_path_factory.mktemp("kills")
    for seed, name in enumerate("ab"):
        list(loop.train(config.from_mapping(TINY | {"data_dir": str(tiny_data), "seed": seed}, source="test"),
                        room / name))
    (room / "first").mkdir()
    promote(room / "a", room / "first" / "p.yaml", wish=Wish(trial="a", waivers=WAIVED))
    shutil.copytree(room / "first", room / "second")
    promote(room / "b", room / "second" / "p.yaml", wish=Wish(trial="b", waivers=WAIVED))
    return room


@contextmanager
def _killer() -> Iterator[Ask]:
    with subprocess.Popen([sys.executable, "-c", KILLER, ",".join(WAIVED)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ask(at: int, room: Path, what: str, uri: str = "-") -> int:
            print(at, room, what, uri, file=stdin, flush=True)
            return int(stdout.readline())

        yield ask
        stdin.close()


def _check_whole(target: Path) -> int:
    """What is served has its YAML, its weights and its snapshot, each as it was written; returns the version."""
    change, ledger = served(target)[-1], Ledger(target)
    assert ledger.pending() is None
    assert digest(target.read_bytes()) == change.begun.sha256
    came_from = yamlio.load_mapping(target)["provenance"]
    folder = ledger.model_folder(change.version)
    assert {name: digest((folder / name).read_bytes()) for name in came_from["weights"]["sha256"]} \
        == came_from["weights"]["sha256"]
    assert "model.safetensors" in came_from["weights"]["sha256"]
    assert kept(ledger, change).videos
    assert came_from["test"]["metrics"]
    return change.version


@pytest.mark.parametrize(("what", "begins", "versions"), [
    pytest.param("promote", "first", {1, 2}, marks=pytest.mark.nightly), ("rollback", "second", {1, 2})])
def test_a_kill_at_any_write_leaves_the_old_state_or_the_new(runs: Path, what: str, begins: str,
                                                             versions: set[int]) -> None:
    found, ended, at = [], -signal.SIGKILL, 0
    with _killer() as ask:
        while ended:
            at, room = at + 1, runs / f"{what}{at}"
            shutil.copytree(runs / begins, room)
            ended = ask(at, room, what, "-")
            assert ended in (0, -signal.SIGKILL), "it failed by itself"
            found.append(_check_whole(room / "p.yaml"))
            if at % 5 == 0:  # and whoever gives the same command again gets what they wanted
                assert ask(0, room, "promote", "-") == 0
                assert yamlio.load_mapping(room / "p.yaml")["provenance"]["trial"] == "b"
                _check_whole(room / "p.yaml")
            shutil.rmtree(room)
    assert len(found) > 8, "it wrote next to nothing"
    assert set(found) == versions
    turn = found.index(found[-1])
    assert all(version == found[-1] for version in found[turn:]), "from the old state to the new, once"


@pytest.mark.nightly
@pytest.mark.parametrize("what", ["promote", "rollback"])
def test_a_kill_at_any_message_to_a_server_is_mended_by_the_next_sync(runs: Path, tmp_path: Path, what: str) -> None:
    target, ended, at = runs / what / "p.yaml", -signal.SIGKILL, 0
    shutil.copytree(runs / "second", target.parent)
    with serving(tmp_path) as uri, _killer() as ask:
        where = registry.Registry(uri, what)
        registry.sync(target, where)
        while ended:
            at += 1
            if what == "promote":
                promote(runs / "ab"[at % 2], target, wish=Wish(trial="ab"[at % 2], waivers=WAIVED))
            else:
                roll_back(target, None, "")
            ended = ask(at, target.parent, "sync", uri)
            assert ended in (0, -signal.SIGKILL), "it failed by itself"
            registry.sync(target, where)
            check_agree(target, where)
            _check_whole(target)
    assert at > {"promote": 10, "rollback": 4}[what], "next to nothing was sent"
