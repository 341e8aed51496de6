"""Sweeps on an S3 server, in real processes: their machine goes away with all that is on it, the server is cut off."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loopback_cluster import wait_until
from s3_machine import FAKE, Machine, send, server, told
from sweep_driver import left_over, spec
from test_cluster import TINY, numbers

from record import yamlio
from record.journal import events
from record.storage.store import Store
from sweeps.commands.launching import Options, launch
from sweeps.journal import folders
from sweeps.journal.state import replay

pytestmark = pytest.mark.nightly


def results(uri: str) -> dict[str, list[int]]:
    """Trial -> the epochs that the journal has, in its order."""
    found: dict[str, list[int]] = {}
    for event in told(uri):
        if isinstance(event, events.Result):
            found.setdefault(event.trial, []).append(event.epoch)
    return found


def test_a_sweep_on_s3_outlives_its_machine_and_equals_a_local_one(tmp_path: Path, tiny_data: Path) -> None:
    """The driver is killed and everything on its machine deleted; other machines go on, read, confirm and promote."""
    settings: dict[str, Any] = {"search": "random", "concurrency": 1,
                                "scheduler": {"asha": {"max_epochs": 4, "grace_epochs": 1, "reduction_factor": 2}},
                                "space": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, "budget": {"trials": 4}}
    with server(tmp_path) as store:
        runs, uri = f"{store.bucket}/runs", f"{store.bucket}/runs/demo"
        settings["base"] = {"data_dir": send(tiny_data, f"{store.bucket}/sets/pong"), **TINY}
        path = spec(tmp_path, **settings)
        first, second, third = (Machine(tmp_path / name) for name in ("first", "second", "third"))
        driver = first.start("-m", "lam.cli", "sweep", "launch", str(path), "--storage", runs)
        wait_until(lambda: sum(map(len, results(uri).values())) >= 5, 300, "five results")
        driver.kill()
        driver.communicate()
        wait_until(lambda: left_over(driver.pid) == [], 60, "the end of its workers")
        shutil.rmtree(first.cache)
        said = second.lam("sweep", "launch", str(path), "--storage", runs)
        assert f"sweep folder: {uri}" in said
        shutil.rmtree(second.cache)
        assert [trial["state"] for trial in json.loads(third.lam("sweep", "status", uri, "--json"))["trials"]]
        assert "t0004" in third.lam("sweep", "explain", uri)
        third.lam("report", uri, "-o", "report.json", "-o", "report.html")
        assert uri in (third.folder / "report.html").read_text()
        said = third.lam("sweep", "confirm", uri, "--top", "1", "--seeds", "2")
        assert f"wrote {uri}/confirm.json" in said
        shutil.rmtree(third.cache)
        check_promotion(third, uri)
        assert yamlio.load_mapping(third.folder / "production.yaml")["data_dir"] == settings["base"]["data_dir"]
        shutil.rmtree(third.cache)
        third.lam("train", "production.yaml", "--run-dir", "served", "--set", "num_epochs=1")
        assert "wrote served/evaluation-validation.json" in third.lam("evaluate", "served")
        state = replay(told(uri))
        check_nothing_twice(state, results(uri))
        (tmp_path / "alone").mkdir()
        alone = launch(spec(tmp_path / "alone", **settings), options=Options(quiet=True))
        assert {name: (trial.status, trial.params) for name, trial in state.trials.items()} == {
            name: (trial.status, trial.params) for name, trial in alone.trials.items()}
        copy = tmp_path / "copy"
        kept = Store(uri)
        for name, info in kept.listed().items():
            kept.fetch(name, copy / name, info.mtime_ns or 0)
        local = tmp_path / "alone" / "runs" / "demo"
        for trial in state.trials:
            assert numbers(copy, trial) == numbers(local, trial)
        assert names(copy) == names(local) | {"confirm.json", "promotion.json"}
        assert folders.known(copy).asked == folders.known(local).asked


def names(folder: Path) -> set[str]:
    """What a sweep keeps of its trials and of itself; a journal lies otherwise on a store."""
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return {name for name in found if not name.startswith(("journal-", "lease-", "confirm/", "driver.lock", "ray.log"))
            and "/." not in name}


def check_nothing_twice(state: Any, seen: dict[str, list[int]]) -> None:
    assert len(state.trials) == 4
    assert all(trial.final for trial in state.trials.values())
    for trial, epochs in seen.items():
        assert epochs == list(range(1, len(epochs) + 1)), f"{trial} lost or repeated an epoch"


def check_promotion(machine: Machine, uri: str) -> None:
    """Gates are asked of what the store has; the weights come from there as well."""
    waived: list[str] = []
    for _ in range(3):  # the last gate is asked once the others let it pass
        told = json.loads(machine.lam("promote", uri, "-o", "production.yaml", "--json", *waived, codes=(0, 1)))
        waived += [word for gate in told["gates"] if not (gate["passed"] or gate["name"] in waived)
                   for word in ("--waive", gate["name"], "--because", "a test")]
    assert told["promoted"], told
    assert (machine.folder / "production.yaml").exists()
    assert Store(uri).read("promotion.json") is not None


def test_a_server_that_is_cut_off_for_twenty_seconds_costs_nothing(tmp_path: Path) -> None:
    path = spec(tmp_path, base={"data_dir": "nowhere", "num_epochs": 12}, search="random", scheduler="none",
                space={"weight_decay": {"uniform": [0.0, 0.8]}}, budget={"trials": 2})
    with server(tmp_path) as store:
        runs, uri = f"{store.bucket}/runs", f"{store.bucket}/runs/demo"
        driver = Machine(tmp_path / "first").start("-c", FAKE, str(path), runs, FAKE_EPOCH_SECONDS="1")
        wait_until(lambda: sum(map(len, results(uri).values())) >= 3, 200, "three results")
        store.wire.cut()
        time.sleep(20)
        store.wire.join()
        out, err = driver.communicate(timeout=300)
        assert driver.returncode == 0, (out, err)
        assert results(uri) == {"t0001": list(range(1, 13)), "t0002": list(range(1, 13))}
        assert Counter(event.event for event in told(uri))["interrupted"] == 0
        assert err.count("does not answer") == err.count("answers again after") == 1, err
