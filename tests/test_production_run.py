"""The run that follows a promotion: checks before, alerts and aborts during, a verdict after."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typed
from build_records import Planted, config_of, confirmed, write_run, write_sweep

from analysis.monitor.monitor import examine
from analysis.promote import promote
from analysis.read import foreign
from lam import config
from lam.data import demo
from lam.schema import RESUMABLE
from lam.training import loop
from record import files, yamlio
from record.health import engine, production, profile
from record.health.production import of_mapping
from record.run import RunFolder

RANGE = {"better": "down", "epochs": [1, 10], "low": [1.0, 0.1], "expected": [1.1, 0.2], "high": [1.2, 0.3],
         "basis": ["seeds", "extrapolated"]}


def _watch(**sections: Any) -> production.Production:
    return of_mapping(sections, "p.yaml")


def _alert(metric: str, comparison: str, threshold: Any, **more: Any) -> dict[str, Any]:
    return {"metric": metric, "comparison": comparison, "threshold": threshold, "meaning": "a test", **more}


def _judged(watched: production.Production, values: list[float], key: str = "val/loss") -> tuple[str, list[float]]:
    rows = [watched.placed({"epoch": epoch, key: value}) for epoch, value in enumerate(values, 1)]
    known = profile.load("lam").model_copy(update={"rules": watched.rules(), "diagnoses": []})
    found = engine.judge_records(rows, known, {})
    return found.severity, [item.since for item in found.findings]


@pytest.mark.parametrize(("alert", "values", "since"), [
    (_alert("val/loss", "above", 2.0), [1, 1, 3.0], [3]),
    (_alert("val/loss", "changes_by", 2.0), [1, 1.5, 27.2], [3]),
    (_alert("val/loss", "changes_by", 2.0, window=2), [1, 2.5, 3.5], [3]),
    (_alert("val/loss", "z_score_above", 3.0, window=4), [1.0, 1.1, 0.9, 1.0, 1.0, 2.0], [6]),
    (_alert("val/loss", "no_gain_for", 2), [1.0, 0.5, 0.6, 0.6, 0.6], [5]),
    (_alert("val/loss", "rises_in_a_row", 3), [1.0, 1.1, 1.2, 1.3], [4]),
    (_alert("val/loss", "is", "nonfinite"), [1.0, float("nan")], [2]),
    (_alert("val/loss", "above", 2.0, after_epoch=3), [3.0, 1.0, 1.0, 1.0], []),
])
def test_each_form_of_alert_fires_where_it_should(alert: dict[str, Any], values: list[float], since: list[int]) -> None:
    assert _judged(_watch(alerts=[alert]), values) == ("warn" if since else "ok", since)
    assert _judged(_watch(aborts=[alert]), values) == ("abort" if since else "ok", since)
    assert _judged(_watch(alerts=[alert]), [1.0, 0.95, 0.91, 0.87, 0.85, 0.82]) == ("ok", [])


def test_a_curve_outside_its_range_is_told_after_two_validations_and_only_on_the_worse_side() -> None:
    watched = _watch(expected={"coverage": 0.9, "trainings": 5, "ranges": {"val/loss": RANGE}})
    course = watched.expected.ranges["val/loss"] if watched.expected else None
    assert course is not None
    assert (course.at(1), course.at(11)) == ((1.0, 1.2), None)
    low, high = course.at(3) or (0, 0)
    assert 0.1 < low < high < 1.2
    assert course.outside(10, 0.5) == pytest.approx(2.0)
    assert course.outside(10, 0.0) == pytest.approx(-1.0)
    assert _judged(watched, [1.1] * 10)[0] == "warn"
    assert _judged(watched, [1.1, 1.2, 0.6])[0] == "ok", "one validation outside is by chance"
    assert _judged(watched, [0.5] * 5 + [0.01] * 5)[0] == "ok"
    rows = [{"epoch": epoch, "val/loss": 1.1} for epoch in range(1, 11)]
    assert watched.standing(rows) == [
        "val/loss 1.1 at epoch 10 is worse than [0.1, 0.3]; inside in 1 of 10 validations"]
    further = watched.standing([*rows, {"epoch": 12, "val/loss": 0.2}])
    assert further[-1] == "nothing was expected beyond epoch 10, and the run went on to 12"


def _verdict(watched: production.Production, rows: list[dict[str, Any]]) -> str:
    known = profile.load("lam").model_copy(update={"rules": watched.rules(), "diagnoses": []})
    return production.verdict(engine.judge_records([watched.placed(row) for row in rows], known, {}))


def test_each_verdict_is_reached() -> None:
    limit = _alert("val/control", "below", 0.1)
    watched = _watch(alerts=[limit], aborts=[_alert("val/loss", "is", "nonfinite")],
                     expected={"coverage": 0.9, "trainings": 5, "ranges": {"val/loss": RANGE}})
    ended = {"healthy": (0.2, 0.5), "warning": (0.2, 0.0), "outside the expected ranges": (0.5, 0.5),
             "abort": (float("nan"), 0.5)}
    for said, (loss, control) in ended.items():
        assert _verdict(watched, [{"epoch": epoch, "val/loss": loss, "val/control": control} for epoch in (9, 10)]) \
            == said
    last = [{"epoch": 9, "val/loss": 0.2}, {"epoch": 10, "val/loss": 0.5}]
    assert _verdict(watched, last) == "healthy", "one validation outside is by chance"


def test_many_ranges_together_raise_no_more_false_alarms_than_one() -> None:
    """Eight figures of a run that is as it should be: one in 20 is on the worse side, and of eight one in three."""
    rng, eight = np.random.default_rng(0), [f"val/{letter}" for letter in "abcdefgh"]
    course = {"better": "down", "epochs": [1, 2], "low": [-1.645] * 2, "expected": [0] * 2, "high": [1.645] * 2,
              "basis": ["seeds"] * 2}
    watched = _watch(expected={"coverage": 0.9, "trainings": 9, "ranges": dict.fromkeys(eight, course)})
    runs = [{key: rng.normal() for key in eight} for _ in range(400)]
    said = [_verdict(watched, [{"epoch": epoch, **run} for epoch in (1, 2)]) for run in runs]
    assert 4 <= said.count("outside the expected ranges") <= 30, "asked is 1 in 20"


def _promoted(tmp_path: Path) -> Path:
    folder = write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])
    for seed, change in ((101, 0.96), (102, 1.0), (103, 1.05)):
        write_run(folder / "confirm" / "t0005" / f"seed-{seed}", Planted(
            control=0.47 * change, perplexity=8.9 * change, mse=0.013 / change, seed=seed), run_id=f"seed-{seed}")
    promote(folder, tmp_path / "production.yaml")
    return tmp_path / "production.yaml"


def test_monitor_places_a_run_in_the_ranges_that_it_was_trained_by(tmp_path: Path) -> None:
    yaml = _promoted(tmp_path)
    run = write_run(tmp_path / "run", Planted(control=0.47, perplexity=8.9, mse=0.05))
    shutil.copy(yaml, run.path / "production.yaml")
    status = examine(foreign.read(run.path))
    assert any("is worse than" in text for text in status.in_ranges)
    assert "outside_val_mse_loss" in [item.rule for item in status.judgement.findings]
    code, out, _ = typed.lam(tmp_path, "monitor", "run")
    assert code == 0
    assert "expected: val/mse_loss 0.05 at epoch 10 is worse than [" in out


def test_values_that_make_no_other_run_leave_the_comparable_fingerprint() -> None:
    one = config_of({})
    keys = RESUMABLE
    assert one.comparable(keys) == one.replace(num_epochs=99, device="cpu", data_dir="/elsewhere").comparable(keys)
    assert one.comparable(keys) != one.replace(learning_rate=0.5).comparable(keys)


TINY: dict[str, Any] = {
    "sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
    "codebook_dim": 8, "num_codes": 2, "num_embeddings": 4, "batch_size": 8, "num_epochs": 1, "steps_per_epoch": 2,
    "rollout_horizon": 1, "eval_sequences": 20, "sample_count": 0, "threads": 1, "device": "cpu"}


@pytest.mark.long
@pytest.mark.slow
def test_train_checks_the_promotion_and_the_first_epoch_is_the_trials_bit_for_bit(
        latents: Callable[[demo.Demo], Path], tmp_path: Path) -> None:
    shutil.copytree(latents(demo.Demo(game="breakout", episodes=12, length=40, size=64, seed=0)), tmp_path / "data")
    wanted = config.from_mapping(TINY | {"data_dir": str(tmp_path / "data")}, source="test")
    trial = list(loop.train(wanted, tmp_path / "hand"))
    gates = ("live", "dsnr_valid", "beats_copy", "action_skill", "ranks", "codebook", "confirmed", "tested")
    (tmp_path / "wanted.yaml").write_text("num_epochs: 2\n")
    waived = [word for gate in gates for word in ("--waive", gate, "--because", "a test")]
    asked = ("promote", "hand", "--trial", "hand", "-o", "p.yaml", "--production", "wanted.yaml")
    code, out, err = typed.lam(tmp_path, *asked, *waived[:-4])
    assert code == 1
    assert "hand is not promoted: 1 of" in err
    assert "  tested: actions ignored on the test split: mse loss" in err
    assert "add validation videos, then sweep again" in err
    assert not (tmp_path / "p.yaml").exists()
    code, out, err = typed.lam(tmp_path, *asked, *waived)
    assert code == 0, err
    assert "its weights are in" in out
    (tmp_path / "data").rename(tmp_path / "moved")
    settings = ("--set", f"data_dir={tmp_path / 'moved'}", "--set", "threads=1")
    code, out, err = typed.lam(tmp_path, "train", "p.yaml", "--strict", "--run-dir", "final", *settings)
    assert "verdict: " in out, err
    assert "warning" not in err
    first = RunFolder(tmp_path / "final").metrics()[0]
    same = {key for key in trial[0] if key.startswith(("train/", "val/")) and "seconds" not in key
            and "samples_per_second" not in key}
    assert {key: files.jsonable(trial[0][key]) for key in same} == {key: first[key] for key in same}
    edited = tmp_path / "edited.yaml"
    edited.write_text((tmp_path / "p.yaml").read_text().replace("learning_rate: ", "learning_rate: 1"))
    code, _, err = typed.lam(tmp_path, "train", "edited.yaml", "--strict", "--run-dir", "other", *settings)
    assert code == 1
    assert "a value is not as it was promoted" in err
    assert not (tmp_path / "other").exists()
    asked = ("train", "p.yaml", "--strict", "--run-dir", "other", "--set", "seed=7")
    code, _, err = typed.lam(tmp_path, *asked, *settings)
    assert code == 1
    assert "seed is set to 7, and the promoted YAML says 0" in err
    assert "as it was promoted" not in err, "nobody edited the file"
    kept = (tmp_path / "final" / "production.yaml").read_text()
    code, _, err = typed.lam(tmp_path, "train", "edited.yaml", "--run-dir", "final", *settings)
    assert code == 2, err
    assert "holds a run with another config (learning_rate" in err
    assert (tmp_path / "final" / "production.yaml").read_text() == kept, "what refuses a YAML is not judged by it"
    (tmp_path / "moved" / "labels.csv").write_text("file,frame,action\n")
    victim = sorted((tmp_path / "moved").glob("*.h5"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(bytes(data))
    (tmp_path / "moved" / "labels.csv").unlink()
    code, _, err = typed.lam(tmp_path, "train", "p.yaml", "--strict", "--run-dir", "third", *settings)
    assert code == 1
    assert "the data are not those of the promotion" in err
    assert yamlio.load_mapping(tmp_path / "p.yaml")["provenance"]["weights"]["sha256"]
