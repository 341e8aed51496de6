"""Folders that an earlier version wrote are read, reported, promoted and gone on with.

`records_before/` was written by version 0.1.0 as of commit 5f46748: a sweep of six trials with the fake training,
its confirmation on two fresh seeds, its promotion and the production YAML.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from sweep_driver import options, state_of

from analysis.promote import promote
from analysis.report.render import report_dict
from analysis.report.report import build_report
from lam import config
from record.journal.events import FINAL
from sweeps.commands.extending import extend
from sweeps.journal import folders

BEFORE = Path(__file__).parent / "records_before"
# trial -> its last epoch and its best objective, as that version's report told them.
TOLD = {"t0001": (9, 0.0), "t0002": (9, 0.80697), "t0003": (2, 0.49428), "t0004": (2, 0.0092), "t0005": (2, 0.0916),
        "t0006": (2, 0.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE / "before", tmp_path / "before"))


def test_its_report_names_the_same_trials_with_the_same_numbers(folder: Path) -> None:
    rows = report_dict(build_report(str(folder)))["standings"]
    assert [row["label"] for row in rows[:2]] == ["t0002", "t0003"]
    assert {row["label"]: (row["last_epoch"], pytest.approx(row["value"], abs=1e-4)) for row in rows} == TOLD
    assert rows[0]["confirmed"]["seeds"] == [1000, 1001]
    assert [row["state"] for row in rows].count("stopped") == 4


def test_it_is_promoted_with_the_same_evidence(folder: Path, tmp_path: Path) -> None:
    promote(folder, tmp_path / "production.yaml", waivers={"confirmed": "two seeds, as was enough then"})
    fresh, known = config.load(tmp_path / "production.yaml"), config.load(BEFORE / "production.yaml")
    assert fresh.mapping() == known.mapping() | {"health": known.mapping()["health"] | {"abort": True}}
    gates = [json.loads((place / "promotion.json").read_text())["gates"] for place in (folder, BEFORE / "before")]
    fresh_gates, known_gates = ([(gate["name"], gate["passed"]) for gate in each] for each in gates)
    assert dict(known_gates) | {"confirmed": False} == {name: dict(fresh_gates)[name] for name, _ in known_gates}


def test_its_sweep_is_the_one_that_the_folder_says(folder: Path) -> None:
    sweep, state = folders.open_sweep(folder)
    assert sweep.fingerprint() == json.loads((folder / "sweep.json").read_text())["fingerprint"]
    assert all(trial.status in FINAL for trial in state.trials.values())


@pytest.mark.long
def test_it_goes_on_with_more_trials(folder: Path, ray_address: str) -> None:
    extend(folder, {"trials": 1}, options=options(ray_address))
    state = state_of(folder)
    assert list(state.trials) == [*TOLD, "t0007"]
    assert state.trials["t0007"].final
