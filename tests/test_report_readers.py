"""Other trainers' records in a report: files that the real libraries write, beside one of our sweeps."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import mlflow_server
import pytest
from build_records import write_sweep

from analysis.read.families import guessed_direction
from analysis.read.reading import read_study
from analysis.read.trackers import mlflow_store, optuna_storage
from analysis.report.render import render_html, render_markdown
from analysis.report.report import build_report
from record.errors import BadInput

# the trackers' own dependencies warn about one another
pytestmark = pytest.mark.filterwarnings("ignore")


def optuna_file(path: Path) -> Path:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="tuned", storage=f"sqlite:///{path}", direction="maximize",
                                pruner=optuna.pruners.ThresholdPruner(lower=0.1))

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        for step in (1, 2, 3):
            trial.report(0.0 if trial.number == 1 else step * rate, step)
            if trial.number == 1 and trial.should_prune():
                raise optuna.TrialPruned
        return 3.5 * rate

    for rate in (0.05, 0.02, 0.08):
        study.enqueue_trial({"lr": rate})
    study.optimize(objective, n_trials=3)
    return path


def tensorboard_folder(folder: Path) -> Path:
    from tensorboardX import SummaryWriter

    for name, end in (("small", 0.4), ("large", 0.2)):
        with SummaryWriter(str(folder / name)) as writer:
            for step in range(1, 6):
                writer.add_scalar("train/loss", end + 1 / step, step)
                writer.add_scalar("eval/loss", end + 1.1 / step, step)
    return folder


def mlflow_runs(uri: str) -> None:
    """Two finished runs of one config in the experiment `mine`."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("mine")
    for seed in (1, 2):
        run = client.create_run(experiment, run_name=f"seed-{seed}")
        for key, value in (("lr", "0.01"), ("seed", str(seed))):
            client.log_param(run.info.run_id, key, value)
        for step in range(1, 4):
            client.log_metric(run.info.run_id, "val_loss", seed * 0.1 + 1 / step, step=step)
        client.set_terminated(run.info.run_id, "FINISHED")


def mlflow_file(path: Path) -> Path:
    mlflow_runs(f"sqlite:///{path}")
    return path


def wandb_folder(folder: Path) -> Path:
    program = ("import wandb\nrun = wandb.init(project='p', name='offline one', config={'lr': 0.1, 'seed': 3})\n"
               "for epoch in range(1, 5):\n"
               "    run.log({'epoch': epoch, 'val/acc': 0.2 * epoch, 'val/loss': 1 / epoch})\nrun.finish()\n")
    folder.mkdir()
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=180, capture_output=True,
                   env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(folder)})
    return folder


def test_an_optuna_storage(tmp_path: Path) -> None:
    study = read_study(optuna_file(tmp_path / "study.db"))
    assert [(trial.label, trial.state) for trial in study.trials] == [
        ("trial-0", "completed"), ("trial-1", "stopped"), ("trial-2", "completed")]
    assert (study.objective, study.maximise, study.knobs) == ("value", True, ("lr",))
    report = build_report(tmp_path / "study.db")
    assert report.verdict.winner == "trial-2"
    assert report.standings[0].value == pytest.approx(3.5 * 0.08)


def test_an_address_names_one_study_of_a_storage(tmp_path: Path) -> None:
    file = optuna_file(tmp_path / "study.db")
    assert len(read_study(f"sqlite:///{file}#tuned").trials) == 3
    with pytest.raises(BadInput, match="holds no study 'tunde'; its studies: tuned"):
        read_study(f"sqlite:///{file}#tunde")


@pytest.mark.parametrize("tables", [("study_directions",), ("experiments", "latest_metrics")])
def test_reading_changes_no_database(tables: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries create the tables that these lack, and bring those of an older version up to date."""
    file = tmp_path / "store.db"
    with sqlite3.connect(file) as database:
        for table in tables:
            database.execute(f"create table {table} (id integer)")
    database.close()
    before = file.read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput):
        read_study(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


def test_a_path_may_have_what_else_begins_a_studys_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in" / "exp#1"
    folder.mkdir(parents=True)
    file = optuna_file(tmp_path / "study.db").rename(folder / "study.db")
    monkeypatch.chdir(tmp_path)
    for place in (file, file.relative_to(tmp_path), str(file), f"sqlite:///{file}", f"sqlite:///{file}#tuned"):
        assert len(read_study(place).trials) == 3
    assert [path.name for path in (*tmp_path.iterdir(), *(tmp_path / "in").iterdir())] == ["in", "exp#1"]


@pytest.mark.parametrize("reader", [optuna_storage, mlflow_store])
def test_a_database_that_is_not_there_is_not_made(reader: ModuleType, tmp_path: Path) -> None:
    for place in (tmp_path / "absent.db", f"sqlite:///{tmp_path}/absent.db#tuned"):
        with pytest.raises(BadInput, match=r"absent\.db: no such file; check the path"):
            reader.read(place)
    assert not any(tmp_path.iterdir())


def wandb_file(path: Path, *records: object) -> Path:
    """As wandb frames records in a file that fits into one block."""
    payloads = [record.SerializeToString() for record in records]  # type: ignore[attr-defined]
    path.write_bytes(b":W&B" + bytes(3) + b"".join(
        struct.pack("<IHB", 0, len(payload), 1) + payload for payload in payloads))
    return path


def test_names_of_runs_steer_no_terminal(tmp_path: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    run, row = Record(), Record()
    run.run.display_name = "good\x1b[31m\nred"
    for key, value in (("epoch", "1"), ("val/loss", "0.5")):
        row.history.item.add(key=key, value_json=value)
    file = wandb_file(tmp_path / "run-1.wandb", run, row)
    assert [trial.label for trial in read_study(file).trials] == ["good\ufffd[31m\ufffdred"]
    assert "\x1b" not in render_markdown(build_report(file))


def test_a_value_of_wandb_that_is_no_json_is_told(tmp_path: Path) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    row = Record()
    row.history.item.add(key="val/loss", value_json="0.5x")
    with pytest.raises(BadInput, match=r"run-1\.wandb: is no file of the installed wandb \(Extra data"):
        read_study(wandb_file(tmp_path / "run-1.wandb", row))


def test_tensorboard_events(tmp_path: Path) -> None:
    study = read_study(tensorboard_folder(tmp_path / "runs"))
    assert [trial.label for trial in study.trials] == ["large", "small"]
    assert (study.objective, study.maximise) == ("eval/loss", False)
    assert build_report(tmp_path / "runs").verdict.winner == "large"


@pytest.mark.slow
def test_mlflow_runs_whose_seeds_are_one_arm(tmp_path: Path) -> None:
    report = build_report(mlflow_file(tmp_path / "mlflow.db"))
    (only,) = report.standings
    assert only.seeds is not None
    assert only.seeds.labels == ("seed-1", "seed-2")
    assert only.value == pytest.approx((0.1 + 0.2) / 2 + 1 / 3)


@pytest.mark.nightly
def test_every_tracker_beside_one_of_our_sweeps(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "pong")
    paths = [sweep, optuna_file(tmp_path / "study.db"), tensorboard_folder(tmp_path / "tb"),
             wandb_folder(tmp_path / "wandb-runs")]
    with mlflow_server.serving(tmp_path) as url:
        mlflow_runs(url)
        report = build_report([*map(str, paths), f"{url}#mine"])
    assert report.verdict.winner == "pong/t0005"
    labels = {item.label for item in report.standings}
    assert {"pong/t0005", "trial-2", "large", "offline one", "seed-1"} <= labels
    (served,) = [item for item in report.standings if item.label == "seed-1"]
    assert served.seeds is not None
    assert served.seeds.labels == ("seed-1", "seed-2")
    assert any("did not log val/objective" in note for note in report.notes)
    assert any(note.startswith("val/loss is shown apart for lam and W&B") for note in report.notes)
    page, kinds = render_html(report), dict(report.provenance)["Read from"]
    assert all(label in page for label in labels)
    assert kinds.count(",") == 4
    assert f"{url}#mine" in kinds
    ranked = build_report([str(path) for path in paths[2:]], objective="-eval/loss")
    assert ranked.verdict.winner == "large"


def test_any_log_of_json_lines_or_a_table(tmp_path: Path) -> None:
    for name, end in (("one", 0.3), ("two", 0.2)):
        lines = [{"epoch": epoch, "loss": end + 1 / epoch, "val_loss": end + 1.1 / epoch} for epoch in range(1, 8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "three.csv").write_text("epoch,loss,val_loss\n1,1.0,1.2\n2,0.5,0.1\n")
    report = build_report([str(path) for path in tmp_path.iterdir()])
    assert [item.label for item in report.standings] == ["three.csv", "two.jsonl", "one.jsonl"]
    assert any("is not recorded; taken as finished" in note for note in report.notes)


def test_nan_never_wins_and_a_half_written_line_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"epoch": 1, "val_loss": 0.5}\n{"epoch": 2, "val_loss": NaN}\n')
    (tmp_path / "b.jsonl").write_text('{"epoch": 1, "val_loss": 0.9}\n{"epoch": 2, "val_l')
    report = build_report([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert report.verdict.winner == "b.jsonl"
    assert {item.label: item.status for item in report.standings}["a.jsonl"] == "nonfinite"
    assert any("half-written" in note for note in report.notes)


def test_what_nothing_ranks_is_told_how_to_rank(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"epoch": 1, "temperature": 0.5, "loss_like": 1}\n')
    with pytest.raises(BadInput, match="its keys fit no profile"):
        read_study(tmp_path / "a.jsonl")
    lines = ('{"epoch": 1, "val_loss": 0.5, "speed": 4}', '{"epoch": 2, "val_loss": 0.4, "speed": 3}')
    (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n")
    assert read_study(tmp_path / "b.jsonl", "speed").maximise
    with pytest.raises(BadInput, match="which no run here logged; did you mean 'speed'"):
        read_study(tmp_path / "b.jsonl", "sped")


@pytest.mark.parametrize(("key", "better"), [
    ("val/loss", "down"), ("eval/accuracy", "up"), ("train.rmse", "down"), ("f1", "up"), ("acc_top5", "up"),
    ("lr", "none"), ("lossless", "none"), ("mean_reward", "up")])
def test_directions_are_guessed_from_names(key: str, better: str) -> None:
    assert guessed_direction(key) == better
