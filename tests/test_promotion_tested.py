"""The gate that reads the test split: once for each model, with its figure, its threshold and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from build_records import Planted, write_run

from analysis.promote.ledger import Ledger
from analysis.promote.tested import ask_test
from analysis.read.reading import read_study
from analysis.read.study import Trial
from lam.workload import LatentActions
from record.errors import BadData
from record.run import RunFolder

LIVE = {"val/mse_loss": 0.02, "val/mse_copy": 0.087, "val/objective": 0.4, "val/collapsed": 0, "val/control_low": 0.3,
        "val/control": 0.4}


class Read(LatentActions):
    """A workload whose test split says what a test wants it to."""

    def __init__(self, metrics: dict[str, Any]) -> None:
        self.metrics_of_test, self.read = metrics, 0

    def tested(self, run: RunFolder, checkpoint: str) -> dict[str, Any]:
        self.read += 1
        if not self.metrics_of_test:
            raise BadData("names no file", source="manifest.json", key="splits.test")
        return self.metrics_of_test


def _trial(folder: Path, metrics: dict[str, Any], weights: bytes = b"weights") -> Trial:
    run = write_run(folder, Planted(control=0.4))
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / "best.safetensors").write_bytes(weights)
    return replace(read_study(run.path).trials[0], workload=Read(metrics))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    with Ledger(tmp_path / "p.yaml").held() as found:
        return found


@pytest.mark.parametrize(("changes", "evidence"), [
    ({"val/mse_loss": 0.09},
     "live on the test split: mse loss 0.0900, copying 0.0870, objective 0.400; read before for 0 other models"),
    ({"val/control_low": -0.1}, "actions ignored on the test split: mse loss 0.0200, copying 0.0870"),
    ({"val/collapsed": 1}, "collapsed on the test split"),
    ({"val/mse_loss": None}, "nonfinite on the test split: mse loss")])
def test_a_model_that_does_not_hold_on_the_test_split_fails(tmp_path: Path, ledger: Ledger, changes: dict[str, Any],
                                                            evidence: str) -> None:
    found = ask_test(ledger, _trial(tmp_path / "run", LIVE | changes), {})
    assert found is not None
    assert (found.gate.passed, found.gate.lets_pass) == (False, False)
    assert found.gate.evidence.startswith(evidence), found.gate.evidence
    assert found.gate.remedy.endswith("no choice was made by: add validation videos, then sweep again")
    waived = ask_test(ledger, _trial(tmp_path / "run", LIVE | changes), {"tested": "a try"})
    assert waived is not None
    assert (waived.gate.lets_pass, waived.gate.waived) == (True, "a try")


def test_the_split_is_read_once_for_each_model_and_how_often_is_said(tmp_path: Path, ledger: Ledger) -> None:
    first, second = _trial(tmp_path / "a", LIVE), _trial(tmp_path / "b", LIVE, b"other weights")
    for trial, others in ((first, "0 other models"), (first, "0 other models"), (second, "1 other model")):
        found = ask_test(ledger, trial, {})
        assert found is not None
        assert found.gate.passed
        assert found.gate.evidence.endswith(f"read before for {others}")
    assert isinstance(first.workload, Read)
    assert first.workload.read == 1, "the same weights are not measured a second time"


def test_a_split_that_cannot_be_read_fails_and_says_what_to_ask(tmp_path: Path, ledger: Ledger) -> None:
    found = ask_test(ledger, _trial(tmp_path / "run", {}), {})
    assert found is not None
    assert not found.gate.passed
    assert "the test split could not be read (manifest.json:splits.test: names no file" in found.gate.evidence
    assert "--split test' says what is missing" in found.gate.remedy
