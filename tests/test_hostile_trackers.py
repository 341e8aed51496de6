"""A run or a sweep that names a tracker: nothing is sent there, unless the person at work names it too."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_records import Planted, write_run
from small_sweep import make_sweep
from typer.testing import CliRunner

from lam import cli, trackers
from lam.config import from_mapping, of_run
from lam.trackers.mlflow_sink import MlflowSink
from record.errors import BadInput
from record.run import RunFolder
from record.tracking import view
from sweeps.journal import folders
from sweeps.spec.load import load
from sweeps.views.tracking import allowed

FOREIGN = "http://127.0.0.1:9/steal"


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_sync_sends_nothing_to_an_address_that_only_the_run_names(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run", Planted(), tracking={"mlflow": FOREIGN})
    done = CliRunner().invoke(cli.build(), ["sync", str(tmp_path / "run")])
    assert isinstance(done.exception, BadInput)
    assert str(done.exception).endswith(
        f"config.yaml:tracking.mlflow: names '{FOREIGN}', and nothing was sent there; if the records belong there, "
        f"give the same command with --mlflow {FOREIGN}, or set MLFLOW_TRACKING_URI to it")
    folder = RunFolder(tmp_path / "run")
    tracking = of_run(folder).tracking
    trackers.check_address(folder, tracking, FOREIGN)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", FOREIGN)
    trackers.check_address(folder, tracking, None)


def test_the_command_that_sends_later_names_the_address(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Planted())
    config = from_mapping({"data_dir": "x", "tracking": {"mlflow": FOREIGN}}, source="test")
    sink = MlflowSink(config.tracking, view.view_of(config, run, fresh=True))
    assert sink.later() == f"lam sync {tmp_path / 'run'} --mlflow {FOREIGN}"


def test_a_sweep_sends_nothing_to_an_address_that_only_its_folder_names(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"data_dir": "nowhere", "num_epochs": 9, "tracking": {"mlflow": FOREIGN}}
    mine = make_sweep(tmp_path / "yaml", base=base)
    tracking, said = allowed(mine.base.tracking, mine.source)
    assert (tracking.mlflow, said) == (FOREIGN, f"MLflow: {FOREIGN}"), "it is named before anything is sent"
    folders.write_identity(mine, tmp_path / "demo", "data")
    found = load(tmp_path / "demo" / "sweep.yaml")
    tracking, said = allowed(found.base.tracking, found.source)
    assert tracking.mlflow is None
    assert said.endswith(f"sweep.yaml names MLflow at '{FOREIGN}', and nothing is sent there; where the records belong "
                         "there, set MLFLOW_TRACKING_URI to it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", FOREIGN)
    assert allowed(found.base.tracking, found.source)[0].mlflow == FOREIGN
