"""`lam monitor`: on runs in progress and finished, on other trainers' records, on damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from build_records import Planted, confirmed, write_run, write_sweep
from test_health_families import GENTLE, embedding, four_runs
from typer.testing import CliRunner

from analysis.commands import register
from analysis.monitor.monitor import examine, follow, lines, status_dict
from analysis.promote import promote
from analysis.read import foreign
from record import files
from record.errors import AnswerIsNo, BadInput
from record.run import RunFolder

HEALTHY, COLLAPSED = Planted(), Planted(control=0.0, perplexity=1.0)


def run_command(*arguments: str) -> tuple[int, str]:
    """(exit code as the command line gives it, output)."""
    app = typer.Typer()
    app.command("other")(lambda: None)
    register(app)
    result = CliRunner().invoke(app, ["monitor", *arguments])
    code = result.exception.exit_code if isinstance(result.exception, (AnswerIsNo, BadInput)) else result.exit_code
    return code, result.output


def test_a_healthy_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", HEALTHY)
    code, output = run_command(str(run.path))
    assert code == 0
    assert output.startswith("run: ok at epoch 10 (finished; lam, profile lam)")
    assert "ABORT" not in output


def test_a_collapsed_run_in_progress_must_be_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", COLLAPSED)
    run.update_identity(state="running")
    code, output = run_command(str(run.path))
    assert code == 1
    assert "ABORT codebook_collapsed: val/collapsed is 1, at least 1 since epoch" in output
    assert "Lower commitment_weight" in output
    assert "most likely cause: The codebook collapsed." in output


def test_json_is_one_document_with_what_the_text_says(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", COLLAPSED)
    code, output = run_command(str(run.path), "--json")
    assert code == 1
    found = json.loads(output)
    assert (found["abort"], found["severity"], found["epoch"]) == (True, "abort", 10)
    first = found["findings"][0]
    assert (first["rule"], first["value"], first["threshold"]) == ("codebook_collapsed", 1.0, "1")
    assert {"since", "meaning", "remedy", "sentence"} <= set(first)


def test_a_warning_alone_is_not_an_exit_code(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Planted(dsnr_status="actions_ignored", control=0.0))
    code, output = run_command(str(run.path))
    assert code == 0
    assert "WARN actions_ignored: val/dsnr_status is actions_ignored, is actions_ignored since epoch" in output


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", HEALTHY)
    run.metrics_file.unlink()
    status = examine(foreign.read(run.path))
    assert status.judgement.severity == "ok"
    assert "metrics.jsonl is missing: its rules are not judged" in status.run.notes
    assert lines(status)[0].startswith("run: no record yet")


def test_a_torn_last_line_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", HEALTHY)
    with open(run.metrics_file, "a") as file:
        file.write('{"epoch": 11, "val/mse')
    status = examine(foreign.read(run.path))
    assert status.last == 10
    assert "metrics.jsonl: the last line is half-written and is left out" in status.run.notes


def test_follow_tells_changes_and_ends_with_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", HEALTHY)
    whole = run.metrics()
    files.write_text(run.metrics_file, "".join(files.json_line(record) for record in whole[:4]))
    run.update_identity(state="running")
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            files.write_text(run.metrics_file, "".join(files.json_line(record) for record in whole))
            run.update_identity(state="finished")

    seen = [(status.last, status.run.state) for status in follow(run.path, None, {}, 0.5, sleep)]
    assert seen == [(4, "running"), (10, "finished")]
    assert naps == [0.5, 0.5]  # nothing had changed after the first


@pytest.mark.parametrize(("trial", "state", "note"), [
    ("t0003", "stopped", "the run was stopped: objective 0.11 at epoch 3 is below the cutoff 0.2 of 3 peers"),
    ("t0001", "finished", None)])
def test_follow_ends_with_a_trial_that_its_sweep_has_ended(tmp_path: Path, trial: str, state: str,
                                                          note: str | None) -> None:
    run = RunFolder(write_sweep(tmp_path / "pong") / "trials" / trial)
    run.update_identity(state="interrupted", reason=None)  # as the worker left it, which a rung had let go
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        assert len(naps) < 5, "it never ends"

    seen = [status.run for status in follow(run.path, None, {}, 0.5, sleep)]
    assert ([item.state for item in seen], naps) == ([state], [])
    assert seen[0].notes == (() if note is None else (note,))


def test_why_a_run_stopped_early_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", HEALTHY)
    run.update_identity(stopped_early="val/objective has not improved on 0.4 by 0 or more in 3 validations")
    assert foreign.read(run.path).notes == (
        "the run stopped early: val/objective has not improved on 0.4 by 0 or more in 3 validations",)


def test_follow_ends_when_the_run_must_abort(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", COLLAPSED)
    run.update_identity(state="running")
    code, output = run_command(str(run.path), "--follow", "--json")
    assert code == 1
    assert len(output.strip().splitlines()) == 1


# ---- the joint-embedding trainer

def test_the_four_runs_by_exit_code(tmp_path: Path) -> None:
    codes = {name: run_command(str(path))[0] for name, path in four_runs(tmp_path).items()}
    assert codes == {"sixth": 1, "no_vq": 0, "no_refresh": 1, "gentle": 0}


@pytest.mark.parametrize(("summary", "state"), [
    ({}, "unknown"), ({"epochs": 31}, "unknown"), ({"epochs": 30}, "finished"),
    ({"config": {"epochs": 90}, "early_stopping_epoch": 30}, "finished"),
    ({"epochs": 90, "early_stopping_epoch": None}, "unknown")])
def test_the_state_follows_from_the_summary(tmp_path: Path, summary: dict[str, Any], state: str) -> None:
    folder = four_runs(tmp_path)["gentle"]  # of 30 epochs
    (folder / "metrics.json").write_text(json.dumps(summary))
    assert foreign.read(folder).state == state


def test_steps_find_their_epoch(tmp_path: Path) -> None:
    records = foreign.read(four_runs(tmp_path)["gentle"]).records
    places = {record["step"]: record["epoch"] for record in records if "vq_usage_ratio" in record}
    assert {step: places[step] for step in (200, 1600, 2850)} == {200: 3, 1600: 17, 2850: 30}
    assert len(places) == len(GENTLE)


def test_missing_and_damaged_files_are_handled_and_said(tmp_path: Path) -> None:
    folder = four_runs(tmp_path)["no_refresh"]
    (folder / "metrics.json").write_text('{"val_losses": [9.1')
    with open(folder / "embedding_metrics.jsonl", "a") as file:
        file.write(json.dumps(embedding(2851, float("nan"), codes=30)) + "\n" + '{"step": 29')
    with open(folder / "epoch_metrics.jsonl", "a") as file:
        file.write('{"epoch": 31, "loss_mean": {"total": NaN}, "grad_norm": {"count": 95}}\n')
    status = examine(foreign.read(folder))
    assert set(status.run.notes) == {
        "metrics.json is half-written: validation losses are not judged",
        "embedding_metrics.jsonl: the last line is half-written and is left out",
        "embedding_metrics.jsonl: 1 values are not finite (NaN)", "epoch_metrics.jsonl: 1 values are not finite (NaN)"}
    assert "loss_nonfinite" in [item.rule for item in status.judgement.aborts]
    assert "usage_collapsed" in [item.rule for item in status.judgement.aborts]
    assert status.judgement.not_judged["val_loss_spike"] == "val_loss is not recorded"


def test_without_epochs_no_rule_that_waits_for_one_is_judged(tmp_path: Path) -> None:
    folder = four_runs(tmp_path)["sixth"]
    (folder / "epoch_metrics.jsonl").unlink()
    (folder / "metrics.json").unlink()
    status = examine(foreign.read(folder))
    rules = [item.rule for item in status.judgement.findings]
    assert "usage_collapsed" not in rules
    assert {"usage_low", "context_rank_collapsed"} <= set(rules)
    assert any(note.startswith("no grad_norm.count") for note in status.run.notes)


def test_a_fact_from_the_command_line(tmp_path: Path) -> None:
    folder = four_runs(tmp_path)["gentle"]
    (folder / "metrics.json").write_text(json.dumps({"val_losses": [8.0] * 30}))
    assert "loss_plateau_beyond_patience" in run_command(str(folder))[1].split("not judged:")[1]
    code, output = run_command(str(folder), "--fact", "early_stopping_patience=5")
    assert code == 1
    assert "ABORT loss_plateau_beyond_patience" in output
    code, _ = run_command(str(folder), "--fact", "patience")
    assert code == 2


# ---- logs and histories

def write_log(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_trainer_log(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"loss": 1.0, "global_step/max_steps": f"{step}/100", "elapsed_time": "1m", "rollout/buffer_reuse": step % 2,
         "rollout/f1": 0.0 if step % 2 else 0.6, "rollout/match_rate": 0.5,
         "time/rollout_generate_s": 0.0 if step % 2 else 9.0,
         "desc_token_acc": 0.0} for step in range(1, 9)]
    rows.append({"eval_rollout_f1": 0.55, "global_step/max_steps": "8/100"})
    found = status_dict(examine(foreign.read(write_log(tmp_path / "logging.jsonl", rows))))
    figures = {item["key"]: item for item in found["figures"]}
    assert (found["profile"], found["step"], found["severity"]) == ("coordexp", 8, "ok")
    assert figures["rollout/f1"]["mean"] == 0.6  # steps that reuse a rollout are left out
    assert figures["time/rollout_generate_s"]["mean"] == 9.0
    assert figures["rollout/f1"]["mark"] == "rank-local"
    assert figures["eval_rollout_f1"]["mark"] == "all-reduced"
    assert figures["desc_token_acc"]["mark"] == "n/a in stage 2"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_flat_history(tmp_path: Path, suffix: str) -> None:
    rows = [{"epoch": epoch, "train/total_loss": 1 / epoch, "train/batch_loss_cv": 0.005, "validation/gen_std": 0.05,
             "validation/knee_healthy": 0, "validation/grf_healthy": 0} for epoch in range(1, 8)]
    path = tmp_path / f"history.{suffix}"
    if suffix == "jsonl":
        write_log(path, [*rows, {"epoch": 8, "train/total_loss": float("nan")}])
    else:
        keys = list(rows[0])
        body = "".join(",".join(str(row[key]) for key in keys) + "\n" for row in rows)
        path.write_text(",".join(keys) + "\n" + body + "8,NaN,,,,\n")
    status = examine(foreign.read(path))
    assert status.profile.name == "gait-diffusion"
    assert {"mode_collapse", "loss_nonfinite"} <= {item.rule for item in status.judgement.aborts}
    assert status.causes[0].name == "mode_collapse_confirmed"
    assert any("not finite" in note for note in status.run.notes)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        foreign.read(tmp_path / "absent")
    with pytest.raises(BadInput, match=r"holds no run that is known"):
        foreign.read(tmp_path)
    with pytest.raises(BadInput, match="its keys fit no profile; name one with --profile"):
        foreign.read(write_log(tmp_path / "x.jsonl", [{"a": 1}]))
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(BadInput, match="is a sweep, expected one run"):
        foreign.read(tmp_path)


def test_names_from_disk_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = write_log(tmp_path / "a\x1b[31m.jsonl", [{"val/mse_loss": 1.0, "epoch": 1}])
    assert "\x1b" not in "\n".join(lines(examine(foreign.read(path))))


def test_the_runs_own_profile_is_used(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", HEALTHY, health={"profile": "gait-diffusion"})
    assert foreign.read(run.path).profile == "gait-diffusion"
    assert RunFolder(run.path).health() == []


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """A production YAML of a trial with 8.9 codes in use, whose grace ends with epoch 5."""
    sweep = write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])
    promote(sweep, tmp_path / "production.yaml")
    return tmp_path / "production.yaml"


def test_the_promoted_trial_itself_raises_no_alert(tmp_path: Path, production: Path) -> None:
    code, output = run_command(str(tmp_path / "pong/trials/t0005"), "--alerts", str(production))
    assert code == 0
    assert "alert_" not in output


def test_a_run_that_falls_short_of_the_promoted_trial_raises_its_alerts(tmp_path: Path, production: Path) -> None:
    run = write_run(tmp_path / "run", Planted(perplexity=3.5, control=0.03, mse=0.1))
    without, _ = run_command(str(run.path), "--json")
    code, output = run_command(str(run.path), "--alerts", str(production), "--json")
    assert code == without == 0, "an alert warns"
    found = {item["condition"]: item for item in json.loads(output)["findings"] if item["rule"].startswith("alert_")}
    assert {key: item["since"] for key, item in found.items()} == {
        "val/control_low": 1, "val/mse_loss": 1, "val/perplexity_slot": 1, "rises in a row of val/mse_loss": 4,
        "rises in a row of train/loss": 4}
    assert found["val/perplexity_slot"]["threshold"] == "4.45"
    assert found["val/mse_loss"]["meaning"] == (
        "Alert of the production YAML: no better than copying the last frame.")


def test_alerts_are_silent_until_the_grace_is_over(tmp_path: Path, production: Path) -> None:
    run = write_run(tmp_path / "run", Planted(perplexity=3.5, control=0.03, mse=0.1, epochs=5))
    assert "alert_" not in run_command(str(run.path), "--alerts", str(production))[1]


def test_a_validation_that_is_not_finite_raises_its_alert(tmp_path: Path, production: Path) -> None:
    run = write_run(tmp_path / "run", Planted(nonfinite_from=3))
    _, output = run_command(str(run.path), "--alerts", str(production))
    assert "Alert of the production YAML: the run diverged." in output


@pytest.mark.parametrize(("text", "message"), [
    ("embed_dim: 64", r"a.yaml:alerts: has no alerts; name a production YAML that 'lam promote' wrote"),
    ("alerts: [{metric: val/control, comparison: over, threshold: 1, meaning: x}]",
     r"a.yaml:alerts.0.comparison: got 'over', it should be 'above', 'below'"),
    ("alerts: [{metric: val/control, comparison: above, threshold: 1, meaning: x, after: 3}]",
     r"a.yaml:alerts.0.after: unknown key; did you mean 'after_epoch'"),
])
def test_alerts_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    run = write_run(tmp_path / "run", HEALTHY)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadInput, match=message):
        examine(foreign.read(run.path), alerts=tmp_path / "a.yaml")
