"""Folders to studies and DataFrames: what is read, what is refused and in which words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from build_records import EPOCHS, PLANTED, Planted, confirmed, write_run, write_sweep

import analysis
from analysis.judge.frames import curves, load
from analysis.judge.ranking import rank
from analysis.read.reading import read_study
from record.errors import BadInput


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("read") / "pong")


def test_a_sweep_is_one_row_a_trial(sweep: Path) -> None:
    frame = load(sweep).set_index("trial")
    assert list(frame.index) == list(PLANTED)
    best = frame.loc["t0005"]
    assert (best["state"], best["status"], best["rank"]) == ("completed", "live", 1)
    assert (best["epochs"], best["best_epoch"], best["num_epochs"]) == (EPOCHS, EPOCHS, EPOCHS)
    assert best["value"] == pytest.approx(0.47)
    assert best["params.commitment_weight"] == 0.1
    assert frame.loc["t0003", "stop_rule"] == "asha"
    assert frame.loc["t0002", "stop_reason"] == PLANTED["t0002"].reason["sentence"]  # type: ignore[index]
    assert frame.loc["t0004", "best.val/mse_loss"] > 0
    assert math.isnan(frame.loc["t0004", "final.val/mse_loss"])


def test_curves_are_long_and_undefined_is_nan(sweep: Path) -> None:
    frame = curves(sweep)
    assert list(frame.columns) == ["trial", "epoch", "step", "seconds", "metric", "value"]
    control = frame[(frame.trial == "t0005") & (frame.metric == "val/control")]
    assert list(control.epoch) == list(range(1, EPOCHS + 1))
    lost = frame[(frame.trial == "t0004") & (frame.metric == "val/mse_loss")]
    assert list(lost.value.isna()) == [False, True]
    assert "val/codebook_histogram" not in set(frame.metric)


def test_the_package_offers_the_same_functions(sweep: Path) -> None:
    assert analysis.load(sweep).equals(load(sweep))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing


def test_a_run_of_its_own_and_several(tmp_path: Path) -> None:
    write_run(tmp_path / "a", Planted(control=0.3), run_id="a")
    write_run(tmp_path / "b", Planted(control=0.4), run_id="b", embed_dim=128)
    one = read_study(tmp_path / "a")
    assert (one.name, one.knobs, one.trials[0].state) == ("a", (), "completed")
    both = read_study([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    assert [trial.label for trial in both.trials] == ["a", "b"]
    assert both.knobs == ("embed_dim",)
    assert [trial.params for trial in both.trials] == [{"embed_dim": 64}, {"embed_dim": 128}]


def test_two_sweeps_keep_their_trials_apart(tmp_path: Path) -> None:
    first = write_sweep(tmp_path / "x", {"t0005": PLANTED["t0005"]}, confirm=[confirmed("t0005", [0.4, 0.5])])
    second = write_sweep(tmp_path / "y", {"t0005": PLANTED["t0001"]})
    study = read_study([first, second])
    assert [trial.label for trial in study.trials] == ["x/t0005", "y/t0005"]
    assert rank(study)[0].label == "x/t0005"
    assert study.confirm["x/t0005"]["live"] == 2


def _twins(folder: Path) -> list[Path]:
    """Two sweeps in folders of one name; in each t0002 trains the config of t0001 again, and t0003 is confirmed."""
    trials = {"t0001": Planted(control=0.3, seed=0), "t0002": Planted(control=0.5, seed=1, repeats="t0001"),
              "t0003": Planted(control=0.35)}
    entry = {"trial": "t0003", "seeds": [101, 102], "values": [0.4, 0.4], "mean": 0.4, "low": 0.3, "high": 0.5,
             "live": 2}
    sweeps = [write_sweep(folder / parent / "pong", trials, confirm=[entry]) for parent in ("a", "b")]
    for sweep in sweeps:
        path = sweep / "confirm.json"
        found = json.loads(path.read_text()) | {"differences": [{"a": "t0003", "b": "t0001", "mean": 0.1}]}
        path.write_text(json.dumps(found))
    return sweeps


def test_two_sweeps_of_one_folder_name_keep_what_belongs_to_their_trials(tmp_path: Path) -> None:
    study = read_study(_twins(tmp_path))
    assert [trial.label for trial in study.trials] == [f"{name}/pong/t000{n}" for name in "ab" for n in (1, 2, 3)]
    assert [trial.repeats for trial in study.trials if trial.repeats] == ["a/pong/t0001", "b/pong/t0001"]
    assert set(study.confirm) == {"a/pong/t0003", "b/pong/t0003"}
    assert [(pair["a"], pair["b"]) for pair in study.differences] == [
        ("a/pong/t0003", "a/pong/t0001"), ("b/pong/t0003", "b/pong/t0001")]
    assert [(item.label, item.tier) for item in rank(study)][:2] == [("a/pong/t0003", 0), ("b/pong/t0003", 0)]
    assert [item.seeds.labels for item in rank(study) if item.seeds] == [
        ("a/pong/t0001", "a/pong/t0002"), ("b/pong/t0001", "b/pong/t0002")]


def test_what_changes_no_number_is_no_knob(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", {"t0001": Planted(params={"embed_dim": 64})})
    path = sweep / "trials/t0001/config.yaml"
    path.write_text(path.read_text().replace("threads: 0", "threads: 1").replace("group: null", "group: s"))
    write_run(tmp_path / "r", Planted(params={"embed_dim": 128}), eval_batch_size=8, learning_rate=0.001)
    assert set(read_study([sweep, tmp_path / "r"]).knobs) == {"embed_dim", "learning_rate"}


def test_runs_that_share_an_id_are_told_apart_by_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, Planted(), run_id="same")
    labels = [trial.label for trial in read_study([tmp_path / "a", tmp_path / "b"]).trials]
    assert labels == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_torn_last_lines_are_left_out(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s")
    for path in (folder / "journal-000002.jsonl", folder / "trials/t0005/metrics.jsonl"):
        with open(path, "a") as file:
            file.write('{"epoch": 11, "seq": 9')
    study = read_study(folder)
    trial = study.trial("t0005")
    assert trial is not None
    assert trial.last_epoch == EPOCHS


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", Planted())
    lines = run.metrics_file.read_text().splitlines()
    run.metrics_file.write_text("\n".join([lines[0], "{broken", *lines[1:]]))
    with pytest.raises(BadInput, match=r"metrics.jsonl: is damaged .*:2: not JSON"):
        read_study(tmp_path / "r")


def test_a_damaged_journal_and_confirmation_are_named(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", confirm=[{"trial": "t0005", "seeds": [1]}])
    with pytest.raises(BadInput, match=r"confirm.json:trials.0: lacks its values; restore it from a copy"):
        read_study(folder)
    journal = folder / "journal-000001.jsonl"
    journal.write_text(journal.read_text().replace('"seq": 2,', ""))
    with pytest.raises(BadInput, match="an event lacks its seq or its name; restore the journal from a copy"):
        read_study(folder)


def test_a_trial_outside_its_sweep_is_refused(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s")
    journal = folder / "journal-000001.jsonl"
    journal.write_text(journal.read_text().replace('"t0001"', '"../../etc"'))
    with pytest.raises(BadInput, match=r"trial: got '../../etc', expected a plain name"):
        read_study(folder)


@pytest.mark.parametrize(("make", "message"), [
    (lambda path: None, "no such folder; name a folder"),
    (lambda path: path.write_text("x"), "is a file, expected a sweep or run folder"),
    (lambda path: path.mkdir(), r"is neither a sweep \(no sweep.json\) nor a run \(no run.json\); check the path"),
    (lambda path: write_run(path / "inner", Planted()), "name one of those inside it: inner"),
    (lambda path: (path.mkdir(), (path / "run.json").write_text("{")), "run.json: is not JSON"),
    (lambda path: (path.mkdir(), (path / "run.json").write_text("[]")), "holds a list, expected an object"),
    (lambda path: (path.mkdir(), (path / "run.json").write_text('{"schema": 9}')),
     "has schema 9, this version reads 1"),
    (lambda path: write_sweep(path, {"t0001": PLANTED["t0004"], "t0002": PLANTED["t0007"]}),
     r"no trial has finished \(1 started, 1 failed; the first failure: validation loss is not finite at epoch 2\)"),
    (lambda path: write_sweep(path, {}), r"no trial has finished \(none was suggested\)"),
    (lambda path: write_sweep(path, objective_key="val/nothing"), "spec.objective: got 'val/nothing'"),
])
def test_what_is_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "p")  # type: ignore[operator]
    with pytest.raises(BadInput, match=message):
        read_study(tmp_path / "p")


def test_no_path_is_refused() -> None:
    with pytest.raises(BadInput, match="no path given"):
        read_study([])
