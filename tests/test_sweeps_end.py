"""How a sweep ends: signals, the last lines, and the answers of status and explain. No Ray here."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import walks
from rich.console import Console

from record import health, yamlio
from record.errors import AnswerIsNo, BadInput
from record.journal.events import Completed, Failed, Reason, Result, Started, Stopped, Suggested, SweepStarted
from record.run import RunFolder
from sweeps.commands import confirming
from sweeps.commands.launching import Options, conclude, concurrency, run_in
from sweeps.journal import folders
from sweeps.journal.journal import Journal
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep
from sweeps.views import display, summary
from sweeps.workers.driver import SweepDriver


def make_sweep(folder: Path) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere"}, "space": {"weight_decay": {"uniform": [0.0, 1.0]}},
        "scheduler": {"asha": {"max_epochs": 30, "grace_epochs": 1, "reduction_factor": 3}},
        "budget": {"trials": 9, "epochs": 100}}))
    return load(path)


def play(journal: Journal, trial: str, results: list[tuple[int, float, str]], seed: float = 0.5) -> None:
    journal.append(Suggested(trial=trial, params={"weight_decay": seed}))
    for epoch, objective, verdict in results:
        journal.append(Result(trial=trial, epoch=epoch, objective=objective, verdict=verdict, metrics={}, tflops=1.0,
                       step=10 * epoch))


def judge(sweep: Sweep, state: SweepState, trial: str) -> scheduler.Ending | None:
    return scheduler.judge(sweep.spec, state, state.trials[trial], sweep.base)


def test_each_rule_says_why(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    with contextlib.closing(Journal(tmp_path)) as journal:
        play(journal, "t0001", [(1, 0.5, "live")])
        assert judge(sweep, journal.state, "t0001") is None
        play(journal, "t0002", [(1, 0.2, "live")])
        ending = judge(sweep, journal.state, "t0002")
        assert ending == scheduler.Ending(
            "stopped", "asha",
            "val/objective 0.2 at epoch 1 is not among the best 1 of 2 trials at rung 1 (cutoff 0.5)",
            29, rung=1, value=0.2, cutoff=0.5, peers=2)
        play(journal, "t0003", [(1, 0.6, "live"), (2, float("nan"), "nonfinite")])
        ending = judge(sweep, journal.state, "t0003")
        assert ending is not None
        assert (ending.event, ending.rule, ending.sentence, ending.epochs_saved) == (
            "failed", "nonfinite", "the loss was not finite at epoch 2", 28)
        play(journal, "t0004", [(30, 0.9, "live")])
        ending = judge(sweep, journal.state, "t0004")
        assert ending is not None
        assert (ending.event, ending.sentence) == ("completed", "trained all 30 epochs")


def test_an_objective_that_is_not_defined_is_no_failure(tmp_path: Path) -> None:
    """DSNR is undefined while actions are ignored: it ranks below every number, and the trial goes on."""
    sweep = make_sweep(tmp_path)
    with contextlib.closing(Journal(tmp_path)) as journal:
        play(journal, "t0001", [(1, float("nan"), "actions_ignored"), (2, 0.3, "live")])
        assert judge(sweep, journal.state, "t0001") is None
        play(journal, "t0002", [(1, 0.1, "live")])
        assert judge(sweep, journal.state, "t0002") is None, "any number is above none"
        play(journal, "t0003", [(1, float("nan"), "actions_ignored")])
        ending = judge(sweep, journal.state, "t0003")
        assert ending is not None
        assert (ending.event, ending.rule) == ("stopped", "asha")


def test_a_sweep_whose_driver_died_after_its_last_trial_is_closed(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    folder = tmp_path / "runs" / "demo"
    quiet = Console(quiet=True)
    options = Options(train="nowhere:train", prepare=lambda configs: "data")
    folder.mkdir(parents=True)
    folders.write_identity(sweep, folder, "data")
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        for number in range(9):
            play(journal, f"t000{number + 1}", [(30, 0.5, "live")])
            journal.append(Completed(trial=f"t000{number + 1}", epoch=30, objective=0.5))
    state = run_in(sweep, folder, options, quiet)
    assert state.finished == "budget spent: 9 of 9 trials"
    assert run_in(sweep, folder, options, quiet).seq == state.seq, "once"


def test_no_more_trials_than_fit_unless_a_cluster_may_grow(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    wide = replace(sweep, spec=sweep.spec.model_copy(update={"concurrency": 6}))
    assert [concurrency(sweep, 2, None), concurrency(wide, 2, None), concurrency(wide, 2, "auto")] == [2, 2, 6]


def test_collapse_is_judged_after_its_grace_and_patience(tmp_path: Path) -> None:
    """A codebook that is dead early and recovers is not stopped; one that stays dead is, at half the epochs."""
    sweep = make_sweep(tmp_path)
    with contextlib.closing(Journal(tmp_path)) as journal:
        play(journal, "t0001", [(epoch, -0.5, "collapsed") for epoch in range(4, 15)])
        assert judge(sweep, journal.state, "t0001") is None
        journal.append(Result(trial="t0001", epoch=15, objective=-0.5, verdict="collapsed", metrics={},
                       tflops=1.0, step=150))
        ending = judge(sweep, journal.state, "t0001")
        assert ending is not None
        rule = health.load("lam").rule("codebook_collapsed")
        assert (ending.rule, ending.epochs_saved) == (rule.name, 15)
        assert ending.sentence == f"val/collapsed is 1, at least 1 since epoch 4. {rule.meaning} {rule.remedy}"
        play(journal, "t0002", [(14, -0.5, "collapsed"), (15, 0.3, "live"), (16, -0.5, "collapsed")])
        assert judge(sweep, journal.state, "t0002") is None


@pytest.mark.parametrize("rule", sorted(health.COLLAPSE_RULES))
def test_a_trial_that_ended_collapsed_counts_in_the_rungs_whatever_its_journal_calls_that(tmp_path: Path,
                                                                                         rule: str) -> None:
    sweep = make_sweep(tmp_path)
    assert sweep.spec.asha is not None
    with contextlib.closing(Journal(tmp_path)) as journal:
        play(journal, "t0001", [(1, 0.2, "live"), (2, -0.5, "collapsed")])
        journal.append(Stopped(trial="t0001", epoch=2, reason={"rule": rule, "sentence": "gone"}))
        trial = journal.state.trials["t0001"]
    assert walks.rung_value(trial, sweep.spec.asha, 3, 1, maximise=True) == float("-inf")


def test_a_trial_that_a_health_rule_ended_keeps_the_rule_and_its_sentence(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    reason = "health rule weights_exploding: model/weight_max is 12, above 10 since epoch 2. Lower learning_rate."
    with contextlib.closing(Journal(tmp_path)) as journal:
        for trial, known in (("t0001", {"state": "failed", "rule": "weights_exploding", "reason": reason}),
                             ("t0002", {"state": "interrupted"})):
            play(journal, trial, [(1, 0.5, "live")])
            RunFolder(tmp_path / "trials" / trial).start(sweep.base.mapping(), known)
            driver = SweepDriver(sweep, journal, "x:y", 1, lambda event: None, lambda: False)
            driver.exhausted(trial)
        trials = journal.state.trials
    assert (trials["t0001"].status, trials["t0001"].reason) == (
        "failed", Reason(rule="weights_exploding", sentence=reason))
    assert trials["t0002"].reason == Reason(rule="ended_early", sentence="training ended after epoch 1 of 30")


def test_a_spent_budget_stops_what_runs(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    with contextlib.closing(Journal(tmp_path)) as journal:
        for number in range(5):
            play(journal, f"t000{number + 1}", [(20, 0.5, "live")])
        ending = judge(sweep, journal.state, "t0005")
    assert ending is not None
    assert (ending.rule, ending.sentence) == ("budget", "the sweep's budget is spent: 100 of 100 epochs")


def ended(folder: Path) -> tuple[Sweep, Journal]:
    sweep, journal = make_sweep(folder), Journal(folder)
    play(journal, "t0001", [(1, 0.2, "live"), (30, 0.4, "live")], 0.1)
    journal.append(Completed(trial="t0001", epoch=30, objective=0.4))
    play(journal, "t0002", [(9, -0.3, "collapsed")], 0.2)
    journal.append(Stopped(trial="t0002", epoch=9,
                   reason={"rule": "collapse", "sentence": "the codebook was collapsed", "epochs_saved": 21}))
    play(journal, "t0003", [], 0.3)
    journal.append(Failed(trial="t0003", epoch=0, reason={"rule": "raised", "sentence": "training raised Boom: x"}))
    journal.close()
    return sweep, journal


def test_the_last_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, journal = ended(tmp_path)
    conclude(sweep, journal, Console(file=sys.stdout))
    assert capsys.readouterr().out.splitlines()[:3] == [
        "3 trials: 1 completed, 1 stopped early, 1 failed, 1 of them collapsed",
        "spent 39 epochs, 9 on failed or collapsed trials, 21 saved of 60 (35 %), 2 TFLOP (2.333 saved), 0 s",
        "best: t0001 with val/objective 0.4 at epoch 30 (weight_decay=0.1); next is t0002 with -0.3",
    ]


def test_explain_tells_each_story(tmp_path: Path) -> None:
    sweep, journal = ended(tmp_path)
    assert summary.explain(sweep, journal.state)[:3] == [
        "t0001 (weight_decay=0.1) completed: val/objective 0.4 at epoch 30 (live)",
        "t0002 (weight_decay=0.2) stopped at epoch 9: the codebook was collapsed",
        "t0003 (weight_decay=0.3) failed at epoch 0: training raised Boom: x",
    ]
    assert summary.explain(sweep, journal.state, "t0003") == [summary.explain(sweep, journal.state)[2]]
    assert summary.status(sweep, journal.state)["best"] == "t0001"


def test_no_completed_trial_is_an_answer_of_no(tmp_path: Path) -> None:
    sweep, journal = make_sweep(tmp_path), Journal(tmp_path)
    play(journal, "t0001", [])
    journal.append(Failed(trial="t0001", epoch=0, reason={"rule": "raised", "sentence": "training raised Boom: x"}))
    journal.close()
    with pytest.raises(AnswerIsNo, match=r"no trial completed \(training raised Boom: x\); 'lam sweep explain"):
        conclude(sweep, journal, Console(quiet=True))


def test_a_collapsed_trial_never_beats_a_live_one(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    with contextlib.closing(Journal(tmp_path)) as journal:
        for trial, value, verdict in (("t0001", 0.9, "collapsed"), ("t0002", 0.1, "live")):
            play(journal, trial, [(30, value, verdict)])
            journal.append(Completed(trial=trial, epoch=30, objective=value))
    assert summary.best_sentence(sweep, journal.state).startswith("best: t0002")


def test_the_table_shows_hostile_text_as_text(tmp_path: Path) -> None:
    sweep, journal = make_sweep(tmp_path), Journal(tmp_path)
    journal.append(Suggested(trial="t0001", params={"weight_decay": "[red]x[/red]"}))
    journal.append(Started(trial="t0001"))
    journal.close()
    console = Console(width=120, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    with contextlib.closing(console.file):
        console.print(display.table(sweep, journal.state))
        assert "weight_decay=[red]x[/red]" in console.export_text()


@pytest.mark.parametrize(("sent", "code"), [([signal.SIGTERM], 143), ([signal.SIGINT], 130),
                                            ([signal.SIGINT, signal.SIGINT], 130)])
def test_signals(sent: list[signal.Signals], code: int) -> None:
    """One is remembered, the second leaves at once."""
    source = ("import sys, time\nfrom sweeps.workers.signals import Signals\nwith Signals() as signals:\n"
              " print('ready', flush=True)\n"
              f" while {len(sent)} > 1 or signals.received is None: time.sleep(0.05)\n"
              "sys.exit(signals.exit_code)")
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, cwd=Path(__file__).resolve().parent.parent)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(sent[0])
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline() == "stopping the trials; once more leaves at once\n"
    for number in sent[1:]:
        process.send_signal(number)
    process.communicate(timeout=180)
    assert process.returncode == code


def test_confirm_takes_seeds_that_nothing_has_used(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.append(Suggested(trial="t0001", params={"seed": 1001}))
    assert confirming.fresh_seeds(sweep, journal.state, 3) == [1000, 1002, 1003]


def test_confirm_refuses_other_data(tmp_path: Path) -> None:
    sweep, folder = make_sweep(tmp_path), tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    folders.write_identity(sweep, folder, "data")
    with contextlib.closing(Journal(folder)) as journal:
        play(journal, "t0001", [(30, 0.5, "live")])
        journal.append(Completed(trial="t0001", epoch=30, objective=0.5))
    with pytest.raises(BadInput, match="was begun with data data, the data is now other; restore the data"):
        confirming.confirm(folder, 1, 2, Options(prepare=lambda configs: "other"))
