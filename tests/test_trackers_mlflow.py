"""What MLflow holds afterwards, in a store and on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow_server
import pytest
from sweep_driver import options, spec
from tracked import config

from lam import config as config_module
from lam import trackers
from lam.config import of_run
from lam.training.loop import train
from record import files
from record.errors import BadInput, EnvironmentFailed
from record.journal import events
from record.run import RunFolder
from sweeps.commands.launching import launch
from sweeps.views import tracking as tracking_view

# mlflow's own dependencies warn about one another
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str, experiment: str = "lam") -> list[Any]:
    found = client(uri)
    return found.search_runs([found.get_experiment_by_name(experiment).experiment_id])


def points(uri: str, run: Any, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(uri).get_metric_history(run.info.run_id, key)]


def check_run(uri: str, run: Any, records: list[dict[str, Any]]) -> None:
    """The MLflow run holds exactly what the records say."""
    for key in ("val/mse_loss", "train/loss", "total_tflops"):
        assert points(uri, run, key) == [(record["epoch"], pytest.approx(record[key])) for record in records]
    assert points(uri, run, "tflops/x_axis") == points(uri, run, "total_tflops")
    assert points(uri, run, "tflops/val_recon_mse") == points(uri, run, "val/mse_loss")
    bins = [points(uri, run, f"val/codebook_histogram/{place:02d}") for place in range(12)]
    assert [[value for _, value in each] for each in bins] == [
        [record["val/codebook_histogram"][place] for record in records] for place in range(12)]
    defined = {key for key, value in records[-1].items() if isinstance(value, (int, float)) and value == value}
    assert defined <= set(run.data.metrics)
    assert points(uri, run, "data_stats/normalized_std")[0][0] == 0
    assert run.data.params["embed_dim"] == "16"
    assert run.data.params["health.patience"] == "2"
    assert run.data.params["num_train_trials"] == "8"
    assert run.data.tags["val/dsnr_status"] == records[-1]["val/dsnr_status"]


def test_mlflow_store_holds_the_run_and_a_resume_adds_only_what_is_missing(
    tiny_data: Path, tmp_path: Path, store: str
) -> None:
    tracked = config(tiny_data, mlflow=store)
    epochs = train(tracked, tmp_path / "run")
    next(epochs)
    epochs.close()
    assert [run.info.status for run in runs(store)] == ["KILLED"]
    list(train(tracked, tmp_path / "run"))
    trackers.sync(RunFolder(tmp_path / "run"), tracked.tracking)
    [run] = runs(store)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    check_run(store, run, RunFolder(tmp_path / "run").metrics())


def test_mlflow_out_of_reach_is_one_warning_and_a_finished_run(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(list(train(config(tiny_data, mlflow="http://127.0.0.1:9"), tmp_path))) == 3
    assert RunFolder(tmp_path).identity()["state"] == "finished"
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("record")]
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow failed (")
    with pytest.raises(EnvironmentFailed, match="MLflow failed"):
        trackers.sync(RunFolder(tmp_path), config_module.TrackingConfig(mlflow="http://127.0.0.1:9"))


def test_sync_without_a_tracker_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    list(train(config(tiny_data), tmp_path))
    with pytest.raises(BadInput, match="no tracker is on; name one with --wandb or --mlflow"):
        trackers.sync(RunFolder(tmp_path), of_run(RunFolder(tmp_path)).tracking)


def sweep_of_two(tiny_data: Path, folder: Path) -> list[events.JournalEvent]:
    """A sweep folder as the driver leaves it, and its journal."""
    files.write_json(folder / "sweep.json", {"name": "vq", "spec": {}, "base": {}, "asked": {}, "fingerprint": "abc",
                                             "data_fingerprint": "def", "created_at": "2026-01-01"})
    told: list[events.JournalEvent] = [events.SweepStarted(name="vq", pid=1, host="here")]
    for trial, width in (("t0001", 16), ("t0002", 24)):
        records = list(train(config(tiny_data).replace(embed_dim=width, head_dim=8), folder / "trials" / trial))
        told += [events.Suggested(trial=trial, params={"embed_dim": width}), events.Started(trial=trial)]
        told += [events.Result(trial=trial, epoch=record["epoch"], objective=0.5, verdict="live", tflops=1.0)
                 for record in records]
    return [*told, events.Completed(trial="t0001", epoch=3, objective=0.5),
            events.Stopped(trial="t0002", epoch=3, reason=events.Reason(rule="asha", sentence="rung 1")),
            events.SweepFinished(reason="budget spent: trials")]


def check_sweep(uri: str, folder: Path) -> None:
    by_name = {run.info.run_name: run for run in runs(uri)}
    assert set(by_name) == {"vq", "t0001", "t0002"}
    parent = by_name["vq"]
    assert parent.info.status == "FINISHED"
    assert points(uri, parent, "objective") == [(1, 0.5)]
    for name, status in (("t0001", "FINISHED"), ("t0002", "KILLED")):
        child = by_name[name]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == status
        assert child.data.params["space.embed_dim"] == child.data.params["embed_dim"]
        assert points(uri, child, "val/mse_loss") == [
            (record["epoch"], pytest.approx(record["val/mse_loss"])) for record in
            RunFolder(folder / "trials" / name).metrics()]
    assert by_name["t0002"].data.tags["lam.reason"] == "rung 1"


def test_a_sweep_that_lost_mlflow_halfway_is_made_whole_from_its_journal(
    tiny_data: Path, tmp_path: Path, store: str
) -> None:
    told = sweep_of_two(tiny_data, tmp_path / "vq")
    tracking = config_module.TrackingConfig(mlflow=store)
    first = tracking_view.SweepTracker(tmp_path / "vq", tracking)
    for event in told[:5]:
        first.event(event)
    first.close()
    second = tracking_view.SweepTracker(tmp_path / "vq", tracking, history=told[:-1])
    second.event(told[-1])
    second.close()
    assert len(tracking_view.latest(told)) == 6
    check_sweep(store, tmp_path / "vq")


def test_a_sweep_without_mlflow_has_nothing_to_do(tmp_path: Path) -> None:
    tracker = tracking_view.SweepTracker(tmp_path, config_module.TrackingConfig())
    tracker.event(events.Started(trial="t0001"))
    tracker.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with mlflow_server.serving(tmp_path) as url:
        yield url


@pytest.mark.nightly
def test_a_real_mlflow_server_holds_a_run_and_a_sweep(tiny_data: Path, tmp_path: Path, server: str) -> None:
    records = list(train(config(tiny_data, mlflow=server, mlflow_experiment="single"), tmp_path / "run"))
    [run] = runs(server, "single")
    assert run.info.status == "FINISHED"
    check_run(server, run, records)
    told = sweep_of_two(tiny_data, tmp_path / "vq")
    tracker = tracking_view.SweepTracker(tmp_path / "vq", config_module.TrackingConfig(mlflow=server))
    for event in told:
        tracker.event(event)
    tracker.close()
    check_sweep(server, tmp_path / "vq")


@pytest.mark.nightly
def test_a_launched_sweep_is_a_parent_with_a_child_for_each_trial(
    tmp_path: Path, store: str, ray_address: str
) -> None:
    path = spec(tmp_path, base={"data_dir": "nowhere", "tracking": {"mlflow": store}},
                space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler={"asha": {"max_epochs": 3}},
                budget={"trials": 3})
    launch(path, options=options(ray_address, quiet=True))
    by_name = {run.info.run_name: run for run in runs(store)}
    assert set(by_name) == {"demo", "t0001", "t0002", "t0003"}
    assert by_name["demo"].info.status == "FINISHED"
    for trial in ("t0001", "t0002", "t0003"):
        child = by_name[trial]
        folder = RunFolder(tmp_path / "runs" / "demo" / "trials" / trial)
        assert child.data.tags["mlflow.parentRunId"] == by_name["demo"].info.run_id
        assert child.info.status in ("FINISHED", "KILLED")
        assert points(store, child, "val/mse_loss") == [
            (record["epoch"], pytest.approx(record["val/mse_loss"])) for record in folder.metrics()]
        assert of_run(folder).tracking.mlflow is None
