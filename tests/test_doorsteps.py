"""Where rooms meet: every shape of study through report and promotion, every objective through every gate.

Trials are planted so that a raw number misleads: the collapsed one predicts best and has the largest DSNR, the
unfinished one has the largest control.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from build_records import EPOCHS, Planted, write_run, write_sweep
from typer.testing import CliRunner

from analysis.commands import register
from analysis.judge.gates import GATES, try_gates
from analysis.judge.ranking import rank
from analysis.judge.verdict import decide
from analysis.promote import promote, refusal
from analysis.read.reading import read_study
from analysis.report.report import build_report
from lam import config
from lam.codebook import Preset
from lam.metrics import TABLE

TRIALS = {
    "t0001": Planted(control=0.5, mse=0.05, perplexity=6.0, dsnr=2.0, params={"embed_dim": 64}),
    "t0002": Planted(control=0.3, mse=0.012, perplexity=5.0, dsnr=2.2, params={"embed_dim": 128}),
    "t0003": Planted(control=0.35, mse=0.03, perplexity=7.0, dsnr=3.4, params={"embed_dim": 192}),
    "t0004": Planted(control=0.2, mse=0.04, perplexity=11.0, dsnr=1.5, params={"embed_dim": 256}),
    "t0005": Planted(control=0.0, mse=0.001, perplexity=1.2, dsnr=9.0, params={"embed_dim": 320}),
    "t0006": Planted(nonfinite_from=2, epochs=2, end="failed", reason={"rule": "nonfinite", "sentence": "diverged"}),
    "t0007": Planted(control=0.9, mse=0.001, perplexity=12.0, dsnr=9.0, epochs=4, end="started"),
}
# (what ranks, preset of val/objective, the winner among TRIALS)
RANKED: list[tuple[str, Preset, str]] = [
    ("val/objective", "control_health", "t0001"), ("val/objective", "dsnr_health", "t0003"),
    ("val/objective", "mse", "t0002"), ("val/mse_loss", "control_health", "t0002"),
    ("val/loss", "control_health", "t0002"), ("val/mae_loss", "mse", "t0002"),
    ("val/control", "control_health", "t0001"), ("val/delta_psnr", "dsnr_health", "t0001"),
    ("val/dsnr", "control_health", "t0003"), ("val/action_nmi", "mse", "t0001"),
    ("val/perplexity_slot", "control_health", "t0004"), ("val/codebook_usage", "control_health", "t0004"),
]
ASHA = {"rule": "asha", "sentence": "not among the best", "rung": 3, "value": 0.1, "cutoff": 0.2, "peers": 3,
        "epochs_saved": 7}
RANKABLE = sorted(key for key, metric in TABLE.items() if key.startswith("val/") and metric.direction != "none")


def _fresh(trial: str, objective: str) -> dict[str, Any]:
    """An entry of confirm.json about three live seeds that did as well as the planted trial."""
    value = {"t0001": 0.5, "t0002": 0.012, "t0003": 3.4, "t0004": 11.0}[trial] if objective != "val/objective" else 0.4
    values = [0.9 * value, value, 1.1 * value]
    return {"trial": trial, "seeds": [101, 102, 103], "values": values, "mean": value, "low": 0.8 * value,
            "high": 1.2 * value, "live": 3}


def _answers(folders: list[Path], target: Path) -> str | None:
    """The winner that the command `report` names in its three formats and on the terminal, which must agree."""
    app = typer.Typer()
    register(app)
    files = [target / f"report.{kind}" for kind in ("html", "md", "json")]
    done = CliRunner().invoke(app, ["report", *map(str, folders), *(f"-o{file}" for file in files)])
    assert done.exit_code == 0, done.exception
    html, markdown, text = (file.read_text() for file in files)
    verdict = json.loads(text)["verdict"]
    assert done.output.splitlines()[0] == verdict["sentence"]
    assert verdict["headline"] in html
    if verdict["winner"] is not None:
        assert markdown.splitlines()[2].startswith(f"**{verdict['winner']} wins: ")
    return verdict["winner"]  # type: ignore[no-any-return]


def _promoted(folder: Path, target: Path) -> str:
    """The trial that is promoted with every gate waived; the YAML is a run config and carries that trial's params."""
    done = promote(folder, target, waivers=dict.fromkeys(GATES, "a test"))
    assert done.promoted
    params = config.load(folder / "trials" / done.trial / "config.yaml")
    loaded = config.load(target).replace(tracking=params.tracking.model_dump(), threads=params.threads)
    assert loaded.replace(health=params.health.model_dump()) == params
    assert loaded.health.abort
    return done.trial


def _sweep(folder: Path, **changes: Any) -> Path:
    return write_sweep(folder, TRIALS, **changes)


def test_two_sweeps(tmp_path: Path) -> None:
    better = {"t0001": Planted(control=0.6), "t0002": Planted(control=0.1)}
    folders = [_sweep(tmp_path / "x"), write_sweep(tmp_path / "y", better)]
    assert _answers(folders, tmp_path) == "y/t0001"
    assert [_promoted(folder, tmp_path / f"{folder.name}.yaml") for folder in folders] == ["t0001", "t0001"]


def test_two_sweeps_of_one_name(tmp_path: Path) -> None:
    """Fresh seeds outrank a sweep's own number, whichever of the two sweeps they belong to."""
    folders = [_sweep(tmp_path / "a" / "s"),
               _sweep(tmp_path / "b" / "s", confirm=[_fresh("t0003", "val/objective")])]
    assert _answers(folders, tmp_path) == "b/s/t0003"
    assert [_promoted(folder, tmp_path / f"{folder.parent.name}.yaml") for folder in folders] == ["t0001", "t0003"]


@pytest.mark.parametrize(("control", "winner"), [(0.6, "alone"), (0.3, "s/t0001")])
def test_a_sweep_and_a_run(tmp_path: Path, control: float, winner: str) -> None:
    sweep = _sweep(tmp_path / "s")
    run = write_run(tmp_path / "r", Planted(control=control), run_id="alone", val_at_tflops=[1.0, 2.0]).path
    assert _answers([sweep, run], tmp_path) == winner
    assert _promoted(sweep, tmp_path / "p.yaml") == "t0001"
    assert promote(run, tmp_path / "q.yaml", waivers={"confirmed": "a test"}).trial == "alone"


@pytest.mark.parametrize(("objective", "preset", "winner"), RANKED)
def test_every_objective_has_its_winner(tmp_path: Path, objective: str, preset: Preset, winner: str) -> None:
    trials = {name: replace(planted, preset=preset) for name, planted in TRIALS.items()}
    folder = write_sweep(tmp_path / "s", trials, objective_key=objective)
    study = read_study(folder)
    verdict = decide(study, rank(study))
    assert verdict.winner == winner
    assert verdict.sentence.startswith(f"{winner} wins: ")
    assert _promoted(folder, tmp_path / "p.yaml") == winner


def _faulty(gate: str, planted: Planted) -> Planted:
    """The trial with what that gate is there to find; constraints and fresh seeds are the sweep's."""
    return {
        "finished": replace(planted, epochs=5, end="stopped", reason=ASHA),
        "live": replace(planted, control=0.0, dsnr_status="actions_ignored"),
        "beats_copy": replace(planted, mse=0.2),
    }.get(gate, planted)


@pytest.mark.parametrize("gate", ["finished", "live", "constraints", "beats_copy", "confirmed"])
@pytest.mark.parametrize(("objective", "preset", "winner"), RANKED)
def test_every_gate_finds_its_fault_under_every_objective(
        tmp_path: Path, objective: str, preset: Preset, winner: str, gate: str) -> None:
    planted = {name: replace(TRIALS[name], preset=preset) for name in (winner, "t0006")}
    folder = write_sweep(
        tmp_path / "s", planted | {winner: _faulty(gate, planted[winner])}, objective_key=objective,
        confirm=None if gate == "confirmed" else [_fresh(winner, objective)],
        constraints={"val/perplexity_slot": {"least": 99.0 if gate == "constraints" else 1.0}})
    result = promote(folder, tmp_path / "p.yaml", trial=winner)
    failed = {found.name for found in result.gates if not found.passed}
    assert not result.promoted
    assert f"  {gate}: " in refusal(result)
    assert failed - {"confirmed", "dsnr_valid"} == {gate} - {"confirmed"}, "DSNR is not ok where actions are ignored"
    assert not (tmp_path / "p.yaml").exists()
    assert promote(folder, tmp_path / "p.yaml", winner, dict.fromkeys(failed, "a test")).promoted


def test_no_rankable_metric_is_an_obstacle(tmp_path: Path) -> None:
    """A metric that nobody measured has no winner; none ends in an error, and none lets a collapsed trial win."""
    study = read_study(_sweep(tmp_path / "s"))
    for key in RANKABLE:
        asked = replace(study, objective=key)
        standings = rank(asked)
        winner = decide(asked, standings).winner
        assert winner in ("t0001", "t0002", "t0003", "t0004", None), key
        trials = {trial.label: trial for trial in asked.trials}
        assert {len(try_gates(asked, trials[item.label], item, {})) for item in standings} == {6}


def _stopped(control: float, epochs: int, **reason: Any) -> Planted:
    return Planted(control=control, epochs=epochs, end="stopped", reason=ASHA | reason)


TFLOP_AXIS = {"asha": {"max_epochs": EPOCHS, "grace_epochs": 2, "max_tflops": 4.0, "reduction_factor": 3.0}}
BRACKETS = {"asha": {"max_epochs": EPOCHS, "grace_epochs": 1, "reduction_factor": 3.0, "brackets": 2}}
PAUSING = {"asha": {"max_epochs": EPOCHS, "grace_epochs": 1, "reduction_factor": 3.0, "promote": True}}
# (trials, further arguments of write_sweep, the winner)
FEATURES: dict[str, tuple[dict[str, Planted], dict[str, Any], str]] = {
    "early stopping": ({"t0001": Planted(control=0.3), "t0002": Planted(control=0.5, epochs=6, params={
        "embed_dim": 64, "early_stopping": {"patience": 2}})}, {}, "t0002"),
    "rungs in TFLOP": ({"t0001": Planted(control=0.4, epochs=8), "t0002": _stopped(0.3, 3, rung=4 / 3)},
                       {"scheduler": TFLOP_AXIS}, "t0001"),
    "several seeds": ({
        "t0001": Planted(control=0.45, seed=0), "t0002": Planted(control=0.1, seed=1, repeats="t0001"),
        "t0003": Planted(control=0.4, seed=0), "t0004": Planted(control=0.38, seed=1, repeats="t0003")}, {}, "t0003"),
    "constraints": ({"t0001": Planted(control=0.5, mse=0.05), "t0002": Planted(control=0.4, mse=0.02)},
                    {"constraints": {"val/mse_loss": {"most": 0.04}}}, "t0002"),
    "seeds and constraints": ({
        "t0001": Planted(control=0.5, seed=0), "t0002": Planted(control=0.5, mse=0.05, seed=1, repeats="t0001"),
        "t0003": Planted(control=0.3, seed=0), "t0004": Planted(control=0.3, seed=1, repeats="t0003")},
        {"constraints": {"val/mse_loss": {"most": 0.04}}}, "t0003"),
    "paused trials": ({"t0001": Planted(control=0.3), "t0002": Planted(control=0.8, epochs=3, end="paused",
                                                                       reason=ASHA)}, {"scheduler": PAUSING}, "t0001"),
    "brackets": ({"t0001": Planted(control=0.3), "t0002": _stopped(0.2, 1, rung=1), "t0003": _stopped(0.1, 3)},
                 {"scheduler": BRACKETS}, "t0001"),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_of_a_sweep_reaches_report_and_promotion(tmp_path: Path, feature: str) -> None:
    trials, changes, winner = FEATURES[feature]
    folder = write_sweep(tmp_path / "s", trials, **changes)
    assert _answers([folder], tmp_path) == winner
    assert _promoted(folder, tmp_path / "p.yaml") == winner
    stopped = [name for name, planted in trials.items() if planted.end == "stopped"]
    assert [stop.label for stop in build_report(folder).stops] == stopped
