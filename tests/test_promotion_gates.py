"""Every gate of a promotion failed once by a constructed study: figure, threshold, what to do, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from build_records import EPOCHS, Planted, confirmed, write_run, write_sweep

from analysis.judge.gates import try_gates
from analysis.judge.outlook import aborts
from analysis.judge.ranking import rank
from analysis.promote import Promotion, Wish, promote, refusal
from analysis.promote.ledger import Ledger
from analysis.read.reading import read_study
from record import files
from record.errors import BadInput

FRESH = [confirmed("t0005", [0.40, 0.45, 0.44])]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "pong", confirm=FRESH)


def _with(folder: Path, trial: str, **changes: Any) -> Path:
    """A trial's last five records with other values."""
    run = folder / "trials" / trial
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files.write_text(run / "metrics.jsonl", "".join(
        files.json_line(row | (changes if row["epoch"] > EPOCHS - 5 else {})) for row in rows))
    return folder


def _fail(folder: Path, target: Path, wish: Wish) -> Promotion:
    result = promote(folder, target, wish=wish)
    assert not result.promoted
    assert not target.exists()
    assert not Ledger(target).folder.exists()
    assert not (folder / "promotion.json").exists()
    return result


@pytest.mark.parametrize(("gate", "trial", "changes", "evidence", "remedy"), [
    ("finished", "t0003", {}, "trained 3 of 10 epochs; stopped by asha", "'lam sweep confirm'"),
    ("live", "t0008", {}, "actions ignored", "choose a live trial"),
    ("dsnr_valid", "t0008", {}, "DSNR is actions ignored at epoch 10", "lam monitor"),
    ("beats_copy", "t0005", {"val/mse_copy": 0.001}, "copying the last frame 0.001", "train longer"),
    ("action_skill", "t0005", {"val/action_skill": 0.02, "val/action_skill_low": -0.01, "val/action_skill_high": 0.05},
     "action skill 0.0200 [-0.0100, 0.0500], asked is a lower bound above 0", "lam label"),
    ("ranks", "t0005", {"val/effective_rank_context": 1.4, "val/effective_rank_target": 2.9},
     "effective rank context 1.40, at least 3", "lower commitment_weight"),
    ("codebook", "t0005", {"val/perplexity_slot": 1.4}, "slot perplexity 1.40 to 1.40 of 12 codes", "vq_refresh"),
    ("codebook", "t0005", {"val/perplexity_slot": None}, "at least 1.50; growing; not finite at epoch 6, 7, 8",
     "vq_refresh"),
    ("ranks", "t0005", {"val/effective_rank_context": None}, "rank context was never finite", "learning_rate"),
    ("confirmed", "t0001", {}, "no fresh seeds in confirm.json", "lam sweep confirm"),
])
def test_every_gate_says_figure_threshold_and_next_command(tmp_path: Path, gate: str, trial: str,
                                                           changes: dict[str, Any], evidence: str, remedy: str) -> None:
    folder = _with(write_sweep(tmp_path / "pong", confirm=FRESH), trial, **changes) if changes else \
        write_sweep(tmp_path / "pong", confirm=FRESH)
    result = _fail(folder, tmp_path / "p.yaml", Wish(trial=trial))
    failed = {each.name: each for each in result.gates if not each.lets_pass}
    assert evidence in failed[gate].evidence
    assert remedy in failed[gate].remedy
    assert f"  {gate}: {failed[gate].evidence}; {failed[gate].remedy}" in refusal(result)


def test_constraints_fail_with_their_figures(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", confirm=FRESH, constraints={"val/mse_loss": {"most": 0.001}})
    result = _fail(folder, tmp_path / "p.yaml", Wish(trial="t0005"))
    gate = next(each for each in result.gates if each.name == "constraints")
    assert "val/mse_loss 0.0130 is outside at most 0.001 by 0.0120" in gate.evidence


def test_two_fresh_seeds_are_too_few(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", confirm=[confirmed("t0005", [0.4, 0.45])])
    result = _fail(folder, tmp_path / "p.yaml", Wish())
    assert result.gates[-1].evidence.startswith("2 fresh seeds, 2 live, mean 0.425 [0.375, 0.475], asked are 3")


@pytest.mark.parametrize(("error", "passes", "evidence"), [
    (0.012, True, "val/mse_loss 0.0130, 8 % over the 0.0120 of no_vq without codes, at most 25 %"),
    (0.009, False, "val/mse_loss 0.0130, 44 % over the 0.00900 of no_vq without codes, at most 25 %")])
def test_the_arm_without_codes_bounds_the_error(sweep: Path, tmp_path: Path, error: float, passes: bool,
                                                evidence: str) -> None:
    arm = tmp_path / "no_vq"
    write_run(arm, Planted(mse=error, params={"quantizer": "none"}), run_id="no_vq")
    result = promote(sweep, tmp_path / "p.yaml", wish=Wish(baseline=arm))
    gate = next(each for each in result.gates if each.name == "near_no_codes")
    assert (gate.passed, result.promoted) == (passes, passes)
    assert gate.evidence == evidence


def test_the_error_is_that_of_the_judged_epoch(sweep: Path, tmp_path: Path) -> None:
    arm, run = write_run(tmp_path / "no_vq", Planted(mse=0.012, params={"quantizer": "none"})), sweep / "trials/t0005"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[4]["val/mse_loss"], rows[-1]["val/mse_loss"] = 0.011, 0.03  # small once, long before what is promoted
    files.write_text(run / "metrics.jsonl", "".join(map(files.json_line, rows)))
    result = promote(sweep, tmp_path / "p.yaml", wish=Wish(trial="t0005", baseline=arm.path))
    gate = next(each for each in result.gates if each.name == "near_no_codes")
    assert (gate.passed, gate.evidence.split(" of ")[0]) == (
        False, "val/mse_loss 0.0300, 150 % over the 0.0120")


def test_a_baseline_with_codes_or_on_other_data_is_refused(sweep: Path, tmp_path: Path) -> None:
    coded = write_run(tmp_path / "coded", Planted(mse=0.02))
    other = write_run(tmp_path / "other", Planted(mse=0.02, params={"quantizer": "none"}))
    other.update_identity(data_fingerprint="0ther0data00")
    for run, said in ((coded, "coded, which was trained with codes"), (other, "other, trained on other data than t0")):
        with pytest.raises(BadInput, match=f"--baseline: got .*{said}"):
            promote(sweep, tmp_path / "p.yaml", wish=Wish(baseline=run.path))
        study = read_study(sweep)
        trial = study.trial("t0005")
        assert trial is not None
        gates = try_gates(study, trial, next(each for each in rank(study) if each.label == "t0005"), {},
                          read_study(run.path).trials[0])
        assert "near_no_codes" not in [gate.name for gate in gates], "a report leaves it out"


def test_a_rank_that_is_no_more_measured_fails(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "pong", confirm=FRESH)
    run = folder / "trials" / "t0005"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    files.write_text(run / "metrics.jsonl", "".join(
        files.json_line(row | {"val/effective_rank_context": 9.0 if row["epoch"] <= 5 else None}) for row in rows))
    result = _fail(folder, tmp_path / "p.yaml", Wish(trial="t0005"))
    gate = next(each for each in result.gates if each.name == "ranks")
    assert gate.evidence == "effective rank context was measured, and not at the last validation"
    study = read_study(folder)
    watched = [each["metric"] for each in aborts(study, study.trials[4], {})]
    assert "val/effective_rank_context" in watched, "a production run is watched for what was once measured"


def test_the_command_for_fresh_seeds_names_a_trial_that_is_not_the_best(sweep: Path, tmp_path: Path) -> None:
    for trial, which in (("t0005", "--top 1"), ("t0001", "--top 0 --trial t0001")):
        (sweep / "confirm.json").unlink(missing_ok=True)
        gate = _fail(sweep, tmp_path / "p.yaml", Wish(trial=trial)).gates[-1]
        assert gate.remedy == f"run 'lam sweep confirm {sweep} {which} --seeds 3'"
