"""Several real Ray nodes with tokens: machines that go away, that are drained, that join late, that lack something.

`make test-cluster` runs these; each takes a minute or two.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback_cluster import ROOT, Cluster, cluster, free_port, wait_until
from sweep_driver import spec

from record import yamlio
from record.journal import events
from sweeps.commands.launching import Options, launch
from sweeps.journal.journal import read
from sweeps.journal.state import SweepState, replay

pytestmark = pytest.mark.cluster

PLAIN = {"weight_decay": {"uniform": [0.0, 0.8]}}
TINY = {"sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16,
        "codebook_dim": 8, "num_epochs": 4, "steps_per_epoch": 30, "batch_size": 8, "eval_sequences": 16,
        "sample_count": 0, "threads": 1, "device": "cpu", "warmup_steps": 2}
CODE = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import fake_training
from record.errors import LamError
from sweeps.commands.launching import Options, launch
try:
    launch({path!r}, options=Options(address={address!r}, {more}))
except LamError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
MAIN = "from lam.cli import main; main()"
FAKE = "train='fake_training:train', prepare=fake_training.prepare"


def launched(nodes: Cluster, path: Path, more: str = "") -> subprocess.Popen[str]:
    return nodes.driver(CODE.format(tests=str(ROOT / "tests"), root=str(ROOT), path=str(path), address=nodes.address,
                                    more=more))


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (out, err)
    return out, err


def told(folder: Path) -> list[events.JournalEvent]:
    return list(read(folder)) if folder.exists() else []


def state_of(folder: Path) -> SweepState:
    return replay(told(folder))


def results(folder: Path) -> int:
    return sum(event.event == "result" for event in told(folder))


def joined(folder: Path) -> int:
    return sum(isinstance(event, events.MachineJoined) for event in told(folder))


def until(driver: subprocess.Popen[str], so: Callable[[], object], what: str) -> None:
    """Wait while the driver is at work, on a busy machine for long."""
    wait_until(lambda: driver.poll() is not None or so(), 300, what)
    assert driver.poll() is None, driver.communicate()


def numbers(folder: Path, trial: str) -> list[dict[str, Any]]:
    """Epoch records without what a clock says."""
    lines = [json.loads(line) for line in (folder / "trials" / trial / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds", "train_seconds", "train/samples_per_second")
    return [{key: value for key, value in line.items() if key not in clocks} for line in lines]


CPUS = """
import sys, ray
ray.init({address!r}, log_to_driver=False)
print(sum(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]))
"""


def cpus(nodes: Cluster) -> float:
    return float(ended(nodes.driver(CPUS.format(address=nodes.address)))[0].splitlines()[-1])


def all_there(nodes: Cluster, count: int) -> bool:
    """Whether so many nodes have joined; one that gave up is started again."""
    nodes.mend()
    return cpus(nodes) >= count


def test_machines_die_drain_and_join_and_no_trial_pays(tmp_path: Path, tiny_data: Path) -> None:
    settings: dict[str, Any] = {"base": {"data_dir": str(tiny_data), **TINY}, "search": "random", "scheduler": "none",
                                "space": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, "budget": {"trials": 12},
                                "concurrency": 3}
    path = spec(tmp_path, **settings)
    folder = tmp_path / "runs" / "demo"
    with cluster(tmp_path) as nodes:
        for name in ("first", "second"):
            nodes.add(name)
        driver = launched(nodes, path)
        until(driver, lambda: nodes.mend() or (joined(folder) >= 2 and results(folder) >= 3), "three results")
        nodes.kill("first")
        nodes.add("third")
        until(driver, lambda: any(event.event == "machine_lost" for event in told(folder)), "the loss of a machine")
        until(driver, lambda: nodes.mend() or (joined(folder) >= 3 and results(folder) >= 12), "twelve results")
        second = [event for event in told(folder) if isinstance(event, events.MachineJoined)]
        alive = {event.node for event in second} - {event.node for event in told(folder)
                                                    if isinstance(event, events.MachineLost)}
        drained = sorted(alive)[0]
        done = nodes.ray("drain-node", "--address", nodes.address, "--node-id", drained, "--reason",
                         "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the spot price rose",
                         "--deadline-remaining-seconds", "60")
        assert done.returncode == 0, done
        ended(driver)
    state = state_of(folder)
    assert Counter(trial.status for trial in state.trials.values()) == {"completed": 12}
    kinds = Counter(event.event for event in told(folder))
    assert (kinds["machine_joined"], kinds["machine_lost"] >= 1, kinds["machine_draining"]) == (3, True, 1)
    assert kinds["failed"] == 0
    because = [event.because for event in told(folder) if isinstance(event, events.TrialInterrupted)]
    assert any("went away" in text for text in because)
    assert all(because), "nobody but the machines interrupted a trial"
    for trial in state.trials.values():
        assert [result.epoch for result in trial.results] == [1, 2, 3, 4]
    alone = tmp_path / "alone"
    alone.mkdir()
    launch(spec(alone, **{**settings, "concurrency": 2}), options=Options(quiet=True))
    for trial in state.trials:
        assert numbers(folder, trial) == numbers(alone / "runs" / "demo", trial)


def test_a_trial_over_two_machines_survives_the_loss_of_one(tmp_path: Path) -> None:
    """Its two workers are on one machine each; what is left of it ends, and both begin again once there is room."""
    path = spec(tmp_path, base={"data_dir": "nowhere", "num_epochs": 12}, search="random", scheduler="none",
                space=PLAIN, budget={"trials": 2}, concurrency=1, resources={"cpu": 1, "gpu": 0, "workers": 2})
    folder = tmp_path / "runs" / "demo"
    with cluster(tmp_path) as nodes:
        for name in ("first", "second"):
            nodes.add(name, FAKE_EPOCH_SECONDS="1")
        driver = launched(nodes, path, "train='fake_training:together', prepare=fake_training.prepare")
        until(driver, lambda: nodes.mend() or (joined(folder) >= 2 and results(folder) >= 2), "two results")
        nodes.kill("second")
        until(driver, lambda: any(event.event == "interrupted" for event in told(folder)), "the end of the trial")
        nodes.add("third", FAKE_EPOCH_SECONDS="0.1")
        ended(driver)
    state = state_of(folder)
    assert Counter(trial.status for trial in state.trials.values()) == {"completed": 2}
    found = [event for event in told(folder) if isinstance(event, events.TrialInterrupted)]
    assert {event.trial for event in found} == {"t0001"}
    assert all("went away" in event.because for event in found), "nothing is held against the trial"
    for trial in state.trials.values():
        assert [result.epoch for result in trial.results] == list(range(1, 13))


def test_machines_that_lack_something_are_named_and_left_out(tmp_path: Path, tiny_data: Path) -> None:
    """One has no data, one another version, one a full disk: nothing of it is a trial's fault."""
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs mount namespaces, to hide files from one node")
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    path = spec(tmp_path, base={"data_dir": str(data), "num_epochs": 4, "sequence_length": 3}, search="random",
                scheduler="none", space=PLAIN, budget={"trials": 8})
    folder = tmp_path / "runs" / "demo"
    (folder.parent).mkdir()
    other = tmp_path / "other" / "lamsweep-0.0.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: lamsweep\nVersion: 0.0.9\n")
    full = tmp_path / "full"
    full.mkdir()
    with cluster(tmp_path) as nodes:
        slow = {"FAKE_EPOCH_SECONDS": "0.5"}
        nodes.add("good", **slow)
        nodes.add("bare", mounted=f"mount -t tmpfs none {data}", **slow)
        nodes.add("old", PYTHONPATH=str(other.parent), **slow)
        nodes.add("full", mounted=f"mount -t tmpfs -o size=4k none {full}", FAKE_FULL=str(full), **slow)
        wait_until(lambda: all_there(nodes, 4), 240, "the nodes")  # of those that are there none but the good one stays
        driver = launched(nodes, path, "train='fake_training:reading'")
        _, _ = ended(driver)
    state = state_of(folder)
    assert Counter(trial.status for trial in state.trials.values()) == {"completed": 8}
    reasons = [event.reason for event in told(folder) if isinstance(event, events.MachineLeftOut)]
    assert len(reasons) == 3, reasons
    assert any("no such folder" in text or "holds no" in text or str(data) in text for text in reasons)
    assert any(text.startswith("has lamsweep 0.0.9 (the driver has 0.1.0)") for text in reasons)
    assert any("No space left on device" in text for text in reasons)
    assert len(state.machines) == 3


def test_a_cluster_without_a_machine_waits_for_one_where_it_may_grow(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"space": PLAIN, "search": "random", "scheduler": "none", "budget": {"trials": 3}}
    folder = tmp_path / "runs" / "demo"
    old = tmp_path / "other" / "lamsweep-0.0.9.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: lamsweep\nVersion: 0.0.9\n")
    with cluster(tmp_path) as nodes:
        _, err = ended(launched(nodes, spec(tmp_path, **settings, concurrency=None), FAKE), 2)
        assert "the largest node has 0 CPUs and 0 GPUs; set 'concurrency', for which the cluster's" in err
        path = spec(tmp_path, **settings)
        driver = launched(nodes, path, FAKE)
        wait_until(lambda: len(told(folder)) > 2, 240, "the first suggestion")
        nodes.add("old", PYTHONPATH=str(old.parent))
        _, err = ended(driver, 3)
        assert "has lamsweep 0.0.9 (the driver has 0.1.0); install the driver's versions there" in err
        probed, tried = "no machine of the cluster may take a trial: machine ", ": its machine has lamsweep"
        assert (probed in err) != (tried in err), "its probe or the trial that waited for it, whichever was there first"
        assert err.partition("has lamsweep 0.0.9")[2][:20] in state_of(folder).halted
        nodes.kill("old")
        driver = launched(nodes, path, FAKE)
        wait_until(lambda: sum(event.event == "sweep_resumed" for event in told(folder)) == 1, 240, "the resumption")
        nodes.add("good")
        ended(driver)
    assert Counter(trial.status for trial in state_of(folder).trials.values()) == {"completed": 3}


def test_an_autoscaler_starts_machines_for_a_sweep_and_takes_them_away(tmp_path: Path) -> None:
    """Ray's own autoscaler, over machines that are processes here; as many as `concurrency` asks for, then none."""
    from ray.util import get_node_ip_address

    port = free_port()
    empty: list[str] = []
    kinds = {"head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
             "worker": {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {},
                        "min_workers": 0, "max_workers": 4}}
    file = tmp_path / "autoscaling.yaml"
    file.write_text(yamlio.dump_mapping({
        "cluster_name": "loopback", "max_workers": 4, "upscaling_speed": 10.0, "idle_timeout_minutes": 0.1,
        "provider": {"type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True,
                     "disable_launch_config_check": True, "gcs_address": f"{get_node_ip_address()}:{port}"},
        "available_node_types": {"ray.head.default": kinds["head"], "ray.worker.cpu": kinds["worker"]},
        "head_node_type": "ray.head.default", "auth": {}, "docker": {}, "file_mounts": {},
        **dict.fromkeys(("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
                         "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
                         "rsync_exclude", "rsync_filter"), empty), "file_mounts_sync_continuously": False}))
    folder = tmp_path / "runs" / "demo"
    with cluster(tmp_path, f"--port={port}", f"--autoscaling-config={file}", RAY_FAKE_CLUSTER="1",
                 AUTOSCALER_UPDATE_INTERVAL_S="1", FAKE_EPOCH_SECONDS="0.5") as nodes:
        assert cpus(nodes) == 0
        ended(launched(nodes, spec(tmp_path, space=PLAIN, search="random", scheduler="none", budget={"trials": 4},
                                   base={"data_dir": "nowhere", "num_epochs": 6}), FAKE))
        joined = {event.node for event in told(folder) if isinstance(event, events.MachineJoined)}
        assert len(joined) == 2, "as many as hold the two trials that may run at a time"
        wait_until(lambda: cpus(nodes) == 0, 120, "the end of idle machines")
    state = state_of(folder)
    assert Counter(trial.status for trial in state.trials.values()) == {"completed": 4}
    assert Counter(event.event for event in told(folder))["failed"] == 0


def test_a_sweep_is_submitted_once_logs_and_stops_resumably(tmp_path: Path, tiny_data: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path = spec(tmp_path, base={"data_dir": str(tiny_data), **TINY, "num_epochs": 40}, search="random",
                scheduler="none", space={"learning_rate": {"loguniform": [1e-4, 1e-2]}}, budget={"trials": 2},
                concurrency=1)
    folder = tmp_path / "runs" / "demo"
    with cluster(tmp_path, "--include-dashboard=true", f"--dashboard-port={free_port()}") as nodes:
        nodes.add("worker")
        dashboard = nodes.dashboard()

        def lam(*words: str, token: bool = True) -> subprocess.CompletedProcess[str]:
            env = {key: value for key, value in nodes.env.items() if token or not key.startswith("RAY_AUTH")}
            return subprocess.run([sys.executable, "-c", MAIN, "sweep", *words, "--address", dashboard], text=True,
                                  env={**env, "HOME": str(tmp_path)}, capture_output=True, timeout=200, check=False)

        said = lam("submit", str(path), token=False)
        assert said.returncode == 3, said
        assert "the cluster asks for its token; copy its ~/.ray/auth_token to this machine" in said.stderr
        served = tmp_path / "production.yaml"
        served.write_text(yamlio.dump_mapping({
            "data_dir": str(tiny_data), **TINY, "learning_rate": 0.003, "provenance": {"trial": "t0002"}}))
        said = lam("submit", str(path), "--baseline", str(served))
        assert said.returncode == 0, said
        first = said.stdout.splitlines()[0]
        assert first.startswith("submitted as lam-demo-")
        name = first.split()[-1]
        assert lam("submit", str(path)).stdout.splitlines()[0] == f"is at work already as {name}"
        wait_until(lambda: results(folder) >= 2, 300, "two results")
        assert "t0001 epoch 1/40 objective" in lam("logs", str(path)).stdout
        said = lam("stop", str(path))
        assert f"{name} is stopped; resume with: lam sweep submit" in said.stdout, said
        wait_until(lambda: told(folder)[-1].event == "sweep_interrupted", 60, "an orderly end")
        before = results(folder)
        again = lam("submit", str(path)).stdout.splitlines()[0]
        assert again == f"submitted as {name[:-1]}2"
        wait_until(lambda: results(folder) > before, 300, "a further result")
        lam("stop", str(path))
    state = state_of(folder)
    assert Counter(event.event for event in told(folder))["sweep_resumed"] == 1
    assert (state.trials["t0001"].asked, state.trials["t0001"].params["learning_rate"]) == (events.BASELINE, 0.003)
    for trial in state.trials.values():
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))
