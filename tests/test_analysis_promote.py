"""Gates with evidence, the production YAML, and every way promotion refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from build_records import EPOCHS, PLANTED, config_of, confirmed, write_sweep
from no_room import no_room
from typer.testing import CliRunner

from analysis.commands import register
from analysis.judge.gates import Gate, try_gates
from analysis.judge.outlook import alerts
from analysis.judge.ranking import rank
from analysis.promote import promote, refusal, waivers
from analysis.read.reading import read_study
from lam import config
from lam.config import RunConfig
from record import yamlio
from record.errors import AnswerIsNo, BadInput, EnvironmentFailed
from record.run import RunFolder

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
FRESH = [confirmed("t0005", [0.40, 0.45, 0.44])]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "pong", confirm=FRESH)


def _gates(folder: Path, name: str, waived: dict[str, str] | None = None) -> dict[str, Gate]:
    study = read_study(folder)
    trial = study.trial(name)
    standing = next(item for item in rank(study) if item.label == name)
    assert trial is not None
    return {gate.name: gate for gate in try_gates(study, trial, standing, waived or {})}


def test_the_winner_passes_every_gate_with_evidence(sweep: Path) -> None:
    assert _gates(sweep, "t0005") == {
        "finished": Gate("finished", True, "trained 10 of 10 epochs; completed"),
        "live": Gate("live", True, "live; control 0.470 [0.410, 0.530], DSNR 2.60 (ok); live at the last validation"),
        "dsnr_valid": Gate("dsnr_valid", True, "DSNR is ok at epoch 10"),
        "codebook": Gate("codebook", True, "slot perplexity 5.74 to 8.90 of 12 codes over the last 5 validations, at "
                                           "least 1.50; growing"),
        "beats_copy": Gate("beats_copy", True, "validation MSE 0.0130 at epoch 10, copying the last frame 0.0870"),
        "confirmed": Gate("confirmed", True, "3 fresh seeds, 3 live, mean 0.430 [0.380, 0.480]"),
    }


@pytest.mark.parametrize(("trial", "failed"), [
    ("t0001", ["confirmed"]),
    ("t0002", ["finished", "live", "codebook", "confirmed"]),
    ("t0003", ["finished", "confirmed"]),
    ("t0004", ["finished", "live", "confirmed"]),
    ("t0007", ["finished", "confirmed"]),
    ("t0008", ["live", "dsnr_valid", "confirmed"]),
])
def test_each_planted_fault_fails_its_gates(sweep: Path, trial: str, failed: list[str]) -> None:
    assert [name for name, gate in _gates(sweep, trial).items() if not gate.passed] == failed


@pytest.mark.parametrize(("entry", "evidence"), [
    (confirmed("t0005", [0.4]), "1 fresh seed, 1 live, mean 0.400 [0.350, 0.450]"),
    (confirmed("t0005", [0.4, -0.3], live=1), "2 fresh seeds, 1 live, mean 0.0500 [0, 0.100]"),
    (confirmed("t0005", [0.3, 0.35]), "2 fresh seeds, 2 live, mean 0.325 [0.275, 0.375], asked are 3"),
    (confirmed("t0005", [0.04, 0.05, 0.045]), "3 fresh seeds, 3 live, mean 0.0450 [-0.00500, 0.0950]"),
    ({**FRESH[0], "config_fingerprint": "0ther"}, "confirm.json is about another config (0ther, this trial's is "),
])
def test_confirmation_needs_three_live_seeds_above_zero(tmp_path: Path, entry: dict[str, Any], evidence: str) -> None:
    folder = write_sweep(tmp_path / "s", confirm=[entry])
    gate = _gates(folder, "t0005")["confirmed"]
    assert not gate.passed
    assert gate.evidence.startswith(evidence)
    assert gate.remedy in [f"run 'lam sweep confirm {folder} {which} --seeds 3'"
                           for which in ("--top 1", "--top 0 --trial t0005")]  # by rank, which what it has may cost it


@pytest.mark.parametrize(("objective", "preset", "values", "passes"), [
    ("val/objective", "mse", [-0.2, -0.3, -0.25], True),
    ("val/objective", "mse", [-0.4, -0.5, -0.45], False),
    ("val/mse_loss", "control_health", [0.02, 0.04, 0.03], True),
    ("val/mse_loss", "control_health", [0.06, 0.08, 0.07], False),
])
def test_fresh_seeds_are_held_against_copying_by_the_objectives_own_direction_and_scale(
        tmp_path: Path, objective: str, preset: Any, values: list[float], passes: bool) -> None:
    config = config_of({}, objective_preset=preset)
    entry = {**confirmed("t0001", values), "config_fingerprint": config.fingerprint()}
    trials = {"t0001": replace(PLANTED["t0001"], params={}, preset=preset)}
    folder = write_sweep(tmp_path / "s", trials, confirm=[entry], objective_key=objective)
    gate = _gates(folder, "t0001")["confirmed"]
    assert gate.passed == passes
    assert gate.evidence.endswith(", not clearly better than repeating the last frame") != passes


def test_fresh_seeds_outside_the_constraints_confirm_nothing(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", confirm=[{**FRESH[0], "outside": 1}])
    assert _gates(folder, "t0005")["confirmed"] == Gate(
        "confirmed", False, "3 fresh seeds, 3 live, 1 of them outside the constraints, mean 0.430 [0.380, 0.480]",
        f"run 'lam sweep confirm {folder} --top 0 --trial t0005 --seeds 3'")


def test_a_trial_that_early_stopping_ended_is_finished(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"t0001": replace(PLANTED["t0001"], epochs=4)})
    RunFolder(folder / "trials" / "t0001").update_identity(stopped_early="it got no better in 2 validations")
    assert _gates(folder, "t0001")["finished"] == Gate(
        "finished", True, "trained 4 of 10 epochs; completed, it got no better in 2 validations")


def test_a_model_that_does_not_beat_copying_fails(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"t0001": replace(PLANTED["t0001"], mse=0.2)})
    assert _gates(folder, "t0001")["beats_copy"] == Gate(
        "beats_copy", False, "validation MSE 0.200 at epoch 10, copying the last frame 0.0870",
        "train longer, or with a larger model")


def test_the_production_yaml_is_a_run_config(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "production.yaml"
    result = promote(sweep, target, now=NOW)
    assert (result.promoted, result.trial, result.replaced) == (True, "t0005", None)
    loaded = config.load(target)
    assert (loaded.commitment_weight, loaded.num_epochs, loaded.data_dir) == (0.1, EPOCHS, "/data/pong")
    trial = config.load(sweep / "trials/t0005/config.yaml")
    assert loaded == trial.replace(health={**trial.health.model_dump(), "abort": True})
    assert "  abort: true  # trial: false; an abort ends the run and keeps its checkpoint (promotion)\n" in \
        target.read_text()
    text = target.read_text()
    assert text.splitlines()[:2] == ["# Production config: trial t0005 of the sweep pong; 6 of 6 gates passed.",
                                     "# Train it with:  lam train production.yaml"]
    values = yamlio.load_mapping(target)
    assert list(values)[-6:] == ["provenance", "gates", "alerts", "aborts", "expected", "cost"]
    assert values["provenance"]["promoted_at"] == "2026-01-02T03:04:00+00:00"
    assert values["provenance"]["config_fingerprint"] == loaded.fingerprint()
    assert values["provenance"]["seeds"] == [0, 101, 102, 103]
    assert [gate["passed"] for gate in values["gates"]] == [True] * 6
    assert {"metric": "val/perplexity_slot", "comparison": "below", "threshold": 4.45, "after_epoch": 5,
            "meaning": "half of the 8.90 that the promoted trial had"} in values["alerts"]
    record = json.loads((sweep / "promotion.json").read_text())
    assert (record["schema"], record["trial"], record["target"]) == (1, "t0005", str(target))


def test_what_the_sweep_set_for_its_trials_is_left_out(sweep: Path, tmp_path: Path) -> None:
    """A sweep gives its trials one CPU's threads, its own W&B group, and keeps MLflow for its driver."""
    target, path = tmp_path / "p.yaml", sweep / "trials/t0005/config.yaml"
    trial = config.load(path)
    tracking = trial.tracking.model_copy(update={"wandb": "offline"}).for_trial("pong")
    path.write_text(yamlio.dump_mapping(trial.replace(threads=1, tracking=tracking.model_dump()).mapping()))
    promote(sweep, target)
    values, loaded = yamlio.load_mapping(target), config.load(target)
    assert "tracking" not in values
    assert "threads" not in values
    assert "# Left out, so that the defaults hold: tracking and threads, which the sweep" in target.read_text()
    assert (loaded.tracking, loaded.threads) == (RunConfig().tracking, 0)
    health = {**trial.health.model_dump(), "abort": True}
    assert loaded.replace(threads=1) == trial.replace(threads=1, health=health), "nothing else differs"
    assert values["provenance"]["config_fingerprint"] == loaded.fingerprint()
    assert values["provenance"]["trial_threads"] == 1
    assert promote(sweep, target).replaced, "it is still known as a file that nobody edited"


def test_relative_data_is_made_absolute(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = sweep / "trials/t0005/config.yaml"
    path.write_text(path.read_text().replace("/data/pong", "data/pong"))
    promote(sweep, tmp_path / "p.yaml")
    assert config.load(tmp_path / "p.yaml").data_dir == str(tmp_path / "data/pong")


def test_a_failed_gate_refuses_and_writes_nothing(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    result = promote(sweep, target, trial="t0001")
    assert not result.promoted
    assert not target.exists()
    assert not (sweep / "promotion.json").exists()
    assert refusal(result) == (
        "t0001 is not promoted: 1 of 6 gates failed\n"
        "  confirmed: trained with one seed only, no fresh seeds in confirm.json; run 'lam sweep confirm "
        f"{sweep} --top 0 --trial t0001 --seeds 3'\n"
        'To go on all the same: --waive GATE --because "reason", once for each; it is written into the file.')


def test_a_waiver_is_written_with_its_reason(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    result = promote(sweep, target, "t0001", {"confirmed": "demo only", "live": "not needed"})
    assert result.promoted
    assert result.reason.startswith("t0001 was named by hand, rank 2 of 8. t0005 wins: ")
    gates = {gate["name"]: gate for gate in yamlio.load_mapping(target)["gates"]}
    assert (gates["confirmed"]["passed"], gates["confirmed"]["waived"]) == (False, "demo only")
    assert gates["live"]["waived"] is None
    assert "# Promoted although these gates failed: confirmed." in target.read_text()
    assert "confirmed: WAIVED (demo only)" in result.summary()


def test_promoting_again_keeps_the_one_before(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target, now=NOW)
    before = target.read_text()
    result = promote(sweep, target)
    assert result.replaced == tmp_path / "p.promotions/versions/0001.yaml"
    assert result.replaced.read_text() == before
    assert f"kept as {result.replaced}" in result.summary()


def _link(target: Path) -> None:
    target.with_name("real.yaml").write_text("a: 1")
    target.symlink_to(target.with_name("real.yaml"))


@pytest.mark.parametrize(("name", "prepare", "message"), [
    ("p.yaml", _link, "is a link, expected a plain file or none; name another file with -o"),
    ("p.yaml", lambda path: path.mkdir(), "is a folder, expected a file; for example -o"),
    ("p.json", lambda path: None, "ends in '.json', expected .yaml"),
    ("p.yaml", lambda path: path.write_text("embed_dim: 64"),
     "exists and was not written by 'lam promote'; move it away"),
    ("p.yaml", lambda path: path.write_text("\t:"), "exists and was not written by 'lam promote'"),
    ("file/p.yaml", lambda path: path.parent.write_text("x"), r"cannot be written \("),
])
def test_targets_that_are_refused(sweep: Path, tmp_path: Path, name: str, prepare: Any, message: str) -> None:
    target = tmp_path / name
    prepare(target)
    with pytest.raises(BadInput, match=message):
        promote(sweep, target)
    assert not (sweep / "promotion.json").exists()


def test_an_edited_file_is_not_replaced(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    edited = target.read_text().replace("learning_rate: 0.0001", "learning_rate: 0.0002")
    target.write_text(edited)
    with pytest.raises(BadInput, match="was edited since it was promoted; move it away to keep your changes"):
        promote(sweep, target)
    assert target.read_text() == edited


def test_a_disk_that_takes_no_more_leaves_what_was_there(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    before = target.read_text()
    with (no_room(), pytest.raises(EnvironmentFailed, match=r"File too large.*make room and give the same command")):
        promote(sweep, target)
    assert target.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.promotions", "p.yaml", "pong"]


@pytest.mark.parametrize(("trial", "message"), [
    ("t005", "--trial: got 't005', no such trial in .*; did you mean 't0005'?"),
    ("t0009", "which has no validation to judge it by; name a trial that has trained"),
])
def test_trials_that_cannot_be_promoted(tmp_path: Path, trial: str, message: str) -> None:
    trials = {**PLANTED, "t0009": replace(PLANTED["t0007"], epochs=0)}
    with pytest.raises(BadInput, match=message):
        promote(write_sweep(tmp_path / "s", trials), tmp_path / "p.yaml", trial=trial)


def test_nothing_live_is_an_answer_not_an_error(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"t0002": PLANTED["t0002"]})
    with pytest.raises(AnswerIsNo, match=r"No winner: none of 1 trial is live .* Nothing is promoted; widen the space"):
        promote(folder, tmp_path / "p.yaml")


def test_a_trials_folder_stands_for_the_trial(sweep: Path, tmp_path: Path) -> None:
    result = promote(sweep / "trials/t0003", tmp_path / "p.yaml")
    assert (result.trial, result.promoted) == ("t0003", False)


@pytest.mark.parametrize(("names", "reasons", "message"), [
    (["confirm"], ["x"], "--waive: got 'confirm', no such gate; did you mean 'confirmed'?"),
    (["live"], [], "got 1 --waive and 0 --because; give each"),
    (["live"], [" "], "got 1 --waive and 0 --because"),
    ([], ["x"], "got 0 --waive and 1 --because"),
])
def test_waivers_that_are_refused(names: list[str], reasons: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        waivers(names, reasons)


def test_waivers_are_paired_in_order() -> None:
    assert waivers(["live", "finished"], ["a  b\nc", "d"]) == {"live": "a b c", "finished": "d"}


def test_alerts_start_after_the_grace_that_the_config_states(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s")
    path = folder / "trials/t0005/config.yaml"
    path.write_text(path.read_text().replace("grace_epochs: null", "grace_epochs: 7"))
    study = read_study(folder)
    trial = study.trial("t0005")
    assert trial is not None
    rules = alerts(study, trial, rank(study)[0])
    assert [rule["after_epoch"] for rule in rules] == [0] + [7] * (len(rules) - 1)


@pytest.mark.parametrize(("first_rung", "after"), [(1, 4), (5, 5), (None, 4)])
def test_alerts_start_after_the_grace_that_the_sweep_gave(tmp_path: Path, first_rung: int | None, after: int) -> None:
    rule = {"median": {"max_epochs": EPOCHS, "grace_epochs": first_rung}}
    folder = write_sweep(tmp_path / "s", {"t0001": PLANTED["t0001"]}, scheduler=rule)
    path = folder / "trials/t0001/config.yaml"
    path.write_text(path.read_text().replace("vq_refresh_interval: 100", "vq_refresh_interval: 0"))
    study = read_study(folder)
    assert {rule["after_epoch"] for rule in alerts(study, study.trials[0], rank(study)[0])[1:]} == {after}


def _run(*arguments: object) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, ["promote", *map(str, arguments)])


def test_the_command_prints_the_gates(sweep: Path, tmp_path: Path) -> None:
    result = _run(sweep, "-o", tmp_path / "p.yaml")
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == f"Promoted t0005 to {tmp_path / 'p.yaml'}"
    assert result.output.splitlines()[-1] == f"Train it with: lam train {tmp_path / 'p.yaml'}"


def test_the_command_says_no_with_exit_code_1(sweep: Path, tmp_path: Path) -> None:
    result = _run(sweep, "-o", tmp_path / "p.yaml", "--trial", "t0001", "--json")
    assert isinstance(result.exception, AnswerIsNo)
    assert result.exception.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["promoted"], document["trial"], len(document["gates"])) == (False, "t0001", 6)


def test_json_is_one_document(sweep: Path, tmp_path: Path) -> None:
    result = _run(sweep, "-o", tmp_path / "p.yaml", "--trial", "t0003", "--json", "--waive", "finished", "--because",
                  "a", "--waive", "confirmed", "--because", "b")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["promoted"] is True
