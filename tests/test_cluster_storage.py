"""Ray nodes that share nothing but an S3 server, no data either: one dies, one drains, then the head with all of it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loopback_cluster import Cluster, cluster, wait_until
from s3_machine import send, server, told
from sweep_driver import spec
from test_cluster import CODE, ROOT, TINY, all_there, ended, numbers

from record.journal import events
from record.storage.store import Store
from sweeps.commands.launching import Options, launch
from sweeps.journal.state import replay

pytestmark = pytest.mark.cluster


def launched(nodes: Cluster, path: Path, cache: Path) -> Any:
    nodes.env["XDG_CACHE_HOME"] = str(cache)
    return nodes.driver(CODE.format(tests=str(ROOT / "tests"), root=str(ROOT), path=str(path), address=nodes.address,
                                    more=""))


def results(uri: str) -> int:
    return sum(event.event == "result" for event in told(uri))


def joined(uri: str) -> list[str]:
    return [event.node for event in told(uri) if isinstance(event, events.MachineJoined)]


def drain(nodes: Cluster, node: str) -> None:
    done = nodes.ray("drain-node", "--address", nodes.address, "--node-id", node, "--reason",
                     "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the spot price rose",
                     "--deadline-remaining-seconds", "60")
    assert done.returncode == 0, done


def test_nodes_that_share_no_file_die_and_a_new_cluster_goes_on_from_the_store(tmp_path: Path, tiny_data: Path) -> None:
    settings: dict[str, Any] = {"search": "random", "scheduler": "none", "budget": {"trials": 12},
                                "space": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}}
    with server(tmp_path) as store:
        uri = f"{store.bucket}/runs/demo"
        data = send(tiny_data, f"{store.bucket}/sets/pong")
        base = {"data_dir": data, **TINY}
        path = spec(tmp_path, **settings, base=base, concurrency=3, storage=f"{store.bucket}/runs")
        caches = tmp_path / "caches"

        def own(name: str) -> dict[str, str]:
            return {"XDG_CACHE_HOME": str(caches / name)}

        (tmp_path / "one").mkdir()
        with cluster(tmp_path / "one") as nodes:
            for name in ("first", "second"):
                nodes.add(name, **own(name))
            driver = launched(nodes, path, caches / "driver")
            wait_until(lambda: nodes.mend() or (len(joined(uri)) == 2 and results(uri) >= 4), 300,
                       "two machines and four results")
            nodes.kill("first")
            nodes.add("third", **own("third"))
            wait_until(lambda: any(event.event == "machine_lost" for event in told(uri)), 60, "the loss of a machine")
            before = results(uri)
            wait_until(lambda: nodes.mend() or results(uri) >= before + 4, 200, "four more results")
            lost = {event.node for event in told(uri) if isinstance(event, events.MachineLost)}
            drain(nodes, next(node for node in joined(uri) if node not in lost))
            before = results(uri)
            wait_until(lambda: results(uri) >= before + 2, 200, "two more results")
            driver.kill()
            driver.communicate()
        machines = {"driver", "first", "second", "third"}
        assert {file.relative_to(caches).parts[0] for file in caches.rglob("pong-0000.h5")} == machines
        shutil.rmtree(caches)  # the head with its driver, and every other machine
        (tmp_path / "two").mkdir()
        with cluster(tmp_path / "two") as nodes:
            nodes.add("fourth", **own("fourth"))
            wait_until(lambda: all_there(nodes, 1), 240, "the new machine")
            ended(launched(nodes, path, caches / "another driver"))
        state = replay(told(uri))
        assert Counter(trial.status for trial in state.trials.values()) == {"completed": 12}
        assert Counter(event.event for event in told(uri))["failed"] == 0
        for trial in state.trials.values():
            assert [result.epoch for result in trial.results] == [1, 2, 3, 4], "no trial lost or run twice"
        kept = Store(uri)
        for name, info in kept.listed("trials").items():
            if name.endswith(".jsonl"):
                kept.fetch(name, tmp_path / "copy" / name, info.mtime_ns or 0)
        (tmp_path / "alone").mkdir()
        alone = spec(tmp_path / "alone", **settings, base={"data_dir": str(tiny_data), **TINY})
        launch(alone, options=Options(quiet=True))
        for trial in state.trials:
            assert numbers(tmp_path / "copy", trial) == numbers(tmp_path / "alone" / "runs" / "demo", trial)
