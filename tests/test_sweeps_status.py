"""What status, explain and the live table say of a sweep: while it runs, when its driver is dead, and afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import signal
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from lam import cli
from record import yamlio
from record.journal.events import (
    KINDS,
    Completed,
    Result,
    Started,
    Suggested,
    SweepFinished,
    SweepStarted,
    TrialInterrupted,
)
from sweeps.commands import register
from sweeps.journal import folders
from sweeps.journal.journal import Journal, Lock
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep
from sweeps.views import display, looking, outlook, summary
from sweeps.workers.signals import STOPPING, Signals


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    folder.mkdir(exist_ok=True)
    path = folder / "asked.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": folder.name, "base": {"data_dir": "/nowhere", "num_epochs": 10}, "budget": {"trials": 4},
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, **changes}))
    return load(path)


def add(journal: Journal, trial: str, results: list[tuple[int, float, str]], end: str = "started", **more: Any) -> None:
    """A trial with results (epoch, objective, verdict), in the state `end`."""
    reason = more.pop("reason", {"rule": "asha", "sentence": "it was cut", "epochs_saved": 7})
    violation = more.pop("violation", 0.0)
    journal.append(Suggested(trial=trial, params={"weight_decay": 0.25}, **more))
    journal.append(Started(trial=trial))
    for epoch, objective, verdict in results:
        journal.append(Result(trial=trial, epoch=epoch, objective=objective, verdict=verdict, metrics={},
                       tflops=float(epoch), step=epoch, violation=violation))
    if end == "completed":
        journal.append(Completed(trial=trial, epoch=results[-1][0], objective=results[-1][1]))
    elif end != "started":
        journal.append(KINDS[end](trial=trial, epoch=results[-1][0], reason=reason))


@contextlib.contextmanager
def begun(folder: Path, sweep: Sweep) -> Any:
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(SweepStarted(name=sweep.spec.name, pid=1, host="here"))
        yield journal


def test_trials_under_way_can_be_the_best_so_far(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo")
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(1, -0.5, "actions_ignored")], "stopped")
        assert summary.best_sentence(sweep, journal.state).startswith("no trial is live; best: t0001")
        add(journal, "t0002", [(1, 0.03, "live"), (2, 0.02, "live")])
        assert summary.best_sentence(sweep, journal.state) == (
            "best: t0002 with val/objective 0.03 at epoch 1 (weight_decay=0.25), still running at epoch 2; "
            "next is t0001 with -0.5")
        journal.append(TrialInterrupted(trial="t0002", epoch=2))
        assert ", to go on at epoch 2;" in summary.best_sentence(sweep, journal.state)
        assert summary.status(sweep, journal.state)["best"] == "t0002"


def test_a_best_value_stands_with_its_own_epoch_and_verdict(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo")
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(3, 0.04, "live"), (10, -0.5, "actions_ignored")], "completed")
    assert summary.explain(sweep, journal.state, "t0001") == [
        "t0001 (weight_decay=0.25) completed: val/objective 0.04 at epoch 3 (live), ended actions ignored"]
    assert summary.best_sentence(sweep, journal.state).endswith("(weight_decay=0.25), ended actions ignored")
    row = summary.status(sweep, journal.state)["trials"][0]
    assert (row["objective"], row["best_epoch"], row["best_verdict"], row["verdict"]) == (
        0.04, 3, "live", "actions_ignored")
    assert "0.04 at 3" in rendered(display.table(sweep, journal.state))


def rendered(view: Any, width: int = 200, height: int = 50) -> str:
    console = Console(width=width, height=height, record=True, file=io.StringIO(), force_terminal=True)
    console.print(view)
    return console.export_text()


def test_further_seeds_are_named_and_the_mean_is_said(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo", seeds=2)
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(10, 0.2, "live")], "completed", seed=0)
        add(journal, "t0002", [(10, 0.4, "live")], "completed", seed=1, repeats="t0001")
    assert summary.best_sentence(sweep, journal.state) == (
        "best: t0001 with val/objective 0.3 (weight_decay=0.25), the mean of 2 seeds (t0001, t0002)")
    first, second = summary.explain(sweep, journal.state)[:2]
    assert first.endswith("0.2 at epoch 10 (live); the mean of 2 seeds (t0001, t0002) is 0.3")
    assert second.startswith("t0002 (weight_decay=0.25; repeats t0001 with seed 1) completed: val/objective 0.4")
    rows = summary.status(sweep, journal.state)["trials"]
    assert [(row["seed"], row["repeats"], row["mean_objective"]) for row in rows] == [
        (0, None, pytest.approx(0.3)), (1, "t0001", None)]
    assert "repeats t0001 with seed 1: weight_decay=0.25" in rendered(display.table(sweep, journal.state))


def test_explain_says_in_json_what_its_lines_say(tmp_path: Path) -> None:
    folder = shutil.copytree(Path(__file__).parent / "records_before" / "before", tmp_path / "before")

    def told(*words: str) -> str:
        result = CliRunner().invoke(cli.build(), ["sweep", "explain", str(folder), *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return str(result.output)

    rows = json.loads(told("--json"))
    assert [row["sentence"] for row in rows] == told().splitlines()[:len(rows)]
    assert [(row["id"], row["state"], row["epoch"], row["rule"]) for row in rows[2:4]] == [
        ("t0003", "stopped", 2, "asha"), ("t0004", "stopped", 2, "asha")]
    assert json.loads(told("t0003", "--json")) == rows[2:3]


def test_what_is_outside_its_constraints_is_said(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo", constraints={"val/mse_loss": {"most": 1e-6}})
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(10, 0.2, "live")], "completed", violation=1.5)
        assert summary.best_sentence(sweep, journal.state) == (
            "no live trial is inside the constraints; best: t0001 with val/objective 0.2 at epoch 10 "
            "(weight_decay=0.25), outside its constraints by 1.5")
        assert summary.explain(sweep, journal.state, "t0001")[0].endswith("(live), outside its constraints by 1.5")
        assert summary.status(sweep, journal.state)["trials"][0]["violation"] == 1.5
    assert summary.outside(math.inf) == ", a constraint could not be measured"


def test_neither_a_failure_nor_a_spent_budget_saves_epochs(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo")
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(3, 0.1, "live")], "stopped")
        add(journal, "t0002", [(3, 0.1, "live")], "stopped",
            reason={"rule": "budget", "sentence": "spent", "epochs_saved": 7})
        add(journal, "t0003", [(3, 0.1, "nonfinite")], "failed",
            reason={"rule": "nonfinite", "sentence": "not finite", "epochs_saved": 7})
    assert summary.totals(journal.state).epochs_saved == 7


def later(state: SweepState, seconds: float) -> SweepState:
    assert state.session_began is not None
    return state.at(state.session_began + timedelta(seconds=seconds))


def test_the_estimate_counts_epochs_and_the_clock_goes_on(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo")
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [])
        assert math.isnan(outlook.outlook(sweep, later(journal.state, 60)).seconds)
        assert outlook.sentence(sweep, later(journal.state, 60)) == "budget left: 3 trials; estimated end not known yet"
        journal.append(Result(trial="t0001", epoch=1, objective=0.1, verdict="live", metrics={}, tflops=1.0, step=1))
        state = later(journal.state, 100)
        assert state.seconds == pytest.approx(100)
        assert summary.totals(state).seconds == pytest.approx(100)
        assert outlook.outlook(sweep, state).seconds == pytest.approx(3900), "a tenth of one trial of four is done"
        assert outlook.sentence(sweep, state).endswith("estimated end in about 65 min")
        assert journal.state.seconds < 50, "the state itself ends with its last event"
        journal.append(SweepFinished(reason="over"))
        assert later(journal.state, 100).seconds == journal.state.seconds


def test_the_estimate_counts_operations_where_they_are_the_budget_of_a_trial(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo", scheduler={"asha": {"max_epochs": 100, "max_tflops": 10.0}})
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(5, 0.1, "live")])
        assert outlook.outlook(sweep, later(journal.state, 100)).seconds == pytest.approx(700), "half of one of four"


def test_a_config_is_done_with_its_last_seed(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo", seeds=2, budget={"trials": 1})
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(10, 0.2, "live")], "completed", seed=0)
        assert outlook.outlook(sweep, later(journal.state, 50)).seconds == pytest.approx(50)
        add(journal, "t0002", [(10, 0.2, "live")], "completed", seed=1, repeats="t0001")
        assert outlook.sentence(sweep, later(journal.state, 50)).endswith("the sweep is over")


def launched(tmp_path: Path, **changes: Any) -> tuple[Sweep, Path]:
    """A sweep folder with one trial under way, and no driver."""
    sweep, folder = make_sweep(tmp_path / "demo", **changes), tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    folders.write_identity(sweep, folder, "data")
    with begun(folder, sweep) as journal:
        add(journal, "t0001", [(1, 0.1, "live")])
    return sweep, folder


def test_a_dead_driver_is_named_and_a_live_one_is_not_disturbed(tmp_path: Path) -> None:
    _, folder = launched(tmp_path)
    assert looking.look(folder).at_work is False, "there has been no lock"
    with Lock(folder):
        seen = looking.look(folder)
        assert (seen.at_work, seen.notes) == (True, [])
        assert json.loads((folder / "driver.lock").read_text())["pid"]
    seen = looking.look(folder)
    assert seen.notes == [f"no driver is at work; resume with: lam sweep launch {folder}/sweep.yaml "
                          f"--storage {folder.parent}"]
    assert outlook.sentence(seen.sweep, seen.state, seen.at_work) == "budget left: 3 trials"
    with Lock(folder):
        pass


def test_a_resume_is_named_only_where_the_folder_holds_the_whole_sweep(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "base.yaml").write_text("data_dir: /nowhere\n")
    _, folder = launched(tmp_path, base="base.yaml")
    assert looking.look(folder).notes == ["no driver is at work; the command that launched it resumes it"]


def test_status_of_a_dead_driver(tmp_path: Path) -> None:
    _, folder = launched(tmp_path)
    app = typer.Typer()
    register(app)
    runner = CliRunner()
    text = runner.invoke(app, ["sweep", "status", str(folder)]).output
    assert "no driver is at work; resume with:" in text
    assert "estimated end" not in text
    assert "running" not in text
    assert "1 to go on" in text
    found = json.loads(runner.invoke(app, ["sweep", "status", str(folder), "--json"]).output)
    assert (found["driver"], found["outlook"]["seconds"]) == (False, None)


def test_following_into_a_pipe_prints_events(tmp_path: Path) -> None:
    _, folder = launched(tmp_path)
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(Completed(trial="t0001", epoch=10, objective=0.1))
        journal.append(SweepFinished(reason="budget spent"))
    out = io.StringIO()
    display.follow(folder, console=Console(file=out))
    lines = out.getvalue().splitlines()
    assert lines[:3] == ["t0001 suggested weight_decay=0.25", "t0001 epoch 1/10 objective 0.1 live",
                         "t0001 completed after 10 epochs, objective 0.1"]
    assert lines[-1].startswith("best: t0001")


def test_the_live_table_keeps_its_sentences_on_a_small_terminal(tmp_path: Path) -> None:
    names = ("commitment_weight", "num_embeddings", "rollout_horizon", "rollout_weight")
    sweep = make_sweep(tmp_path / "demo")
    with begun(tmp_path / "demo", sweep) as journal:
        for number in range(16):
            add(journal, f"t{number:04d}", [(1, -0.5 + number, "live"), (2, -0.6, "actions_ignored")])
            journal.state.trials[f"t{number:04d}"].params.update(dict.fromkeys(names, 0.123456))
    lines = rendered(display.Fitted(sweep, journal.state), 80, 24).splitlines()
    assert len(lines) <= 24
    text = "\n".join(lines)
    for part in ("16 trials:", "spent 32 epochs", "budget left:", "best: t0015", "t0014"):
        assert part in text
    assert "…" not in text
    assert "commitment_weight=0.1235" in rendered(display.table(sweep, journal.state), 80)


def test_ctrl_c_is_said_in_the_live_table_and_not_over_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(tmp_path / "demo")
    console = Console(force_terminal=True, width=100, height=30, file=io.StringIO())
    with begun(tmp_path / "demo", sweep) as journal, Signals() as signals:
        with display.display_for(console, sweep, journal.state, False, signals):
            signals.handle(signal.SIGINT)
        assert STOPPING in console.file.getvalue()  # type: ignore[attr-defined]
        assert STOPPING not in capfd.readouterr().err
        signals.received = None
        signals.handle(signal.SIGINT)
        assert STOPPING in capfd.readouterr().err


def test_numbers_that_look_alike_get_more_digits(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo", scheduler={"asha": {"max_epochs": 10, "grace_epochs": 1}})
    with begun(tmp_path / "demo", sweep) as journal:
        add(journal, "t0001", [(1, -0.49971, "live")])
        add(journal, "t0002", [(1, -0.499713, "live")])
        ending = scheduler.judge(sweep.spec, journal.state, journal.state.trials["t0002"], sweep.base)
    assert ending is not None
    assert ending.sentence.startswith("val/objective -0.499713 at epoch 1 is not")
    assert ending.sentence.endswith("(cutoff -0.49971)")


def test_a_state_read_at_another_time_is_a_copy(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo")
    with begun(tmp_path / "demo", sweep) as journal:
        copy = later(journal.state, 5)
        add(journal, "t0001", [])
        assert copy.trials == {}
        earlier = journal.state.at(datetime.fromisoformat("2000-01-01T00:00:00+00:00"))
        assert earlier.seconds == journal.state.seconds, "a clock that goes back takes nothing away"
        assert replace(journal.state, waiting="").seq == journal.state.seq
