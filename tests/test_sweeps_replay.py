"""Replay of stopping policies on a recorded journal, warm start and extension: what is taken, refused and said."""

from __future__ import annotations

import contextlib
from pathlib import Path

import optuna
import pytest
from small_sweep import make_sweep

from record.errors import BadInput
from record.journal.events import Completed, Result, Started, Stopped, Suggested, SweepStarted
from sweeps.commands import extending
from sweeps.journal import folders
from sweeps.journal.journal import Journal, read
from sweeps.scheduling import replaying
from sweeps.search import searcher, warm
from sweeps.spec.spec import Sweep
from sweeps.views import exporting


def recorded(folder: Path, sweep: Sweep, curves: dict[float, list[float]]) -> Path:
    """A sweep without early stopping: knob value -> objective of each epoch; the trials take turns."""
    folders.write_identity(sweep, folder, "data")
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        for number, value in enumerate(curves, 1):
            journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": value}))
        for epoch in range(1, 10):
            for number, curve in enumerate(curves.values(), 1):
                journal.append(Result(trial=f"t{number:04d}", epoch=epoch, objective=curve[epoch - 1],
                               verdict="live", metrics={}, tflops=2.0 * epoch, seconds=epoch, step=10 * epoch))
        for number, curve in enumerate(curves.values(), 1):
            journal.append(Completed(trial=f"t{number:04d}", epoch=9, objective=max(curve)))
    return folder


STEADY = {value: [value * epoch / 9 for epoch in range(1, 10)] for value in (0.9, 0.8, 0.3, 0.2, 0.1, 0.4)}
LATE = {**STEADY, 0.05: [0.01] * 5 + [2.0] * 4}


def test_a_policy_that_keeps_the_winner_says_what_it_saves(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "yaml")
    folder = recorded(tmp_path / "runs", sweep, STEADY)
    outcome = replaying.replay_policy(sweep, replaying.recorded(read(folder)), "asha:grace_epochs=1,reduction_factor=3")
    assert (outcome.winner, outcome.winner_kept, outcome.unknown) == ("t0001", True, 0)
    assert (outcome.recorded_epochs, outcome.epochs, outcome.stopped) == (54, 14, 5)
    assert outcome.tflops == 2.0 * outcome.epochs
    assert "the winner t0001 is kept" in outcome.sentence()


def test_a_policy_that_ends_the_winner_says_what_it_loses(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "yaml")
    folder = recorded(tmp_path / "runs", sweep, LATE)
    outcome = replaying.replay_policy(sweep, replaying.recorded(read(folder)), "asha:grace_epochs=1,reduction_factor=3")
    assert (outcome.winner, outcome.winner_kept, outcome.winner_epoch, outcome.best) == ("t0007", False, 1, "t0001")
    assert outcome.regret == pytest.approx(2.0 - 0.9)
    assert "it ends the winner t0007 at epoch 1 and names t0001 instead (worse by 1.1)" in outcome.sentence()


def test_no_policy_saves_nothing(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "yaml")
    folder = recorded(tmp_path / "runs", sweep, STEADY)
    outcome = replaying.replay_policy(sweep, replaying.recorded(read(folder)), "none")
    assert (outcome.epochs, outcome.stopped, outcome.winner_kept) == (54, 0, True)
    assert replaying.replay_policy(sweep, replaying.recorded(read(folder)), "median:min_trials=3").stopped >= 2


def test_what_a_policy_stops_gets_no_further_seeds(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "yaml", seeds=2)
    folder = recorded(tmp_path / "runs", sweep, STEADY)
    with contextlib.closing(Journal(folder)) as journal:
        for number, first in ((7, "t0001"), (8, "t0004")):
            journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.9}, seed=1, repeats=first))
            journal.append(Started(trial=f"t{number:04d}"))
            for epoch in range(1, 10):
                journal.append(Result(trial=f"t{number:04d}", epoch=epoch, objective=0.1 * epoch, verdict="live",
                               metrics={}, tflops=2.0 * epoch, seconds=epoch, step=10 * epoch))
            journal.append(Completed(trial=f"t{number:04d}", epoch=9, objective=0.9))
    outcome = replaying.replay_policy(sweep, replaying.recorded(read(folder)), "asha:grace_epochs=1,reduction_factor=3")
    assert (outcome.recorded_epochs, outcome.epochs) == (72, 14 + 9)
    assert (outcome.stopped, outcome.skipped, outcome.unknown) == (5, 1, 0)
    assert "5 of 8 trials ended earlier, further seeds of them not begun: 1" in outcome.sentence()


@pytest.mark.parametrize(("policy", "message"), [
    ("hyperband", "hyperband: unknown key; known here: asha, median"), ("asha:eta=3", "asha.eta: unknown key"),
    ("asha:reduction_factor", "got 'reduction_factor', expected key=value"),
    ("asha:reduction_factor=1", "greater than 1"),
    ("none:a=1", "got none with 'a=1', which has no settings; write none alone"),
])
def test_a_policy_that_is_none_is_refused(tmp_path: Path, policy: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replaying.parse(policy, make_sweep(tmp_path))


def test_warm_start_takes_what_this_sweep_could_have_suggested(tmp_path: Path) -> None:
    first = make_sweep(tmp_path / "a")
    folder = recorded(tmp_path / "runs", first, STEADY)
    wider = make_sweep(tmp_path / "b", name="next", space={
        "weight_decay": {"uniform": [0.15, 1.0]}, "ema_decay": {"uniform": [0.9, 0.999], "when": {"quantizer": "ema"}}})
    found = warm.matches(wider, folder)
    assert [params for _, params in found.taken] == [
        {"weight_decay": value, "ema_decay": first.base.ema_decay} for value in STEADY if value >= 0.15]
    assert found.sentence == ("warm start: 5 trials of demo taken over; 1 left out: weight_decay lies outside this "
                              "space")
    assert found.warnings("data") == []
    assert found.warnings("else") == ["--warm-start: demo was trained on data data, this sweep trains on else; "
                                      "its results may not hold here"]
    other = make_sweep(tmp_path / "c", name="next", base={"data_dir": "nowhere", "num_epochs": 9, "embed_dim": 256})
    assert warm.matches(other, folder).sentence.endswith("0 trials of demo taken over; 6 left out: embed_dim is 512 "
                                                         "there, 256 here")
    elsewhere = make_sweep(tmp_path / "d", name="next", objective="val/mse_loss")
    with pytest.raises(BadInput, match="is ranked by val/objective, this sweep by val/mse_loss"):
        warm.matches(elsewhere, folder)
    limited = make_sweep(tmp_path / "e", name="next", constraints={"val/mse_loss": {"most": 0.5}})
    with pytest.raises(BadInput, match=r"has the constraints none, this sweep has val/mse_loss at most 0.5; what its"):
        warm.matches(limited, folder)


def test_what_collapsed_starts_a_sweep_as_its_own_searcher_was_told_of_it(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "a")
    folder = recorded(tmp_path / "runs", sweep, {})
    with contextlib.closing(Journal(folder)) as journal:
        journal.append(Suggested(trial="t0001", params={"weight_decay": 0.5}))
        for epoch, objective, verdict in ((1, 0.9, "live"), (2, -0.4, "collapsed")):
            journal.append(Result(trial="t0001", epoch=epoch, objective=objective, verdict=verdict, metrics={},
                           tflops=epoch, step=epoch))
        journal.append(Stopped(trial="t0001", epoch=2, reason={"rule": "collapse", "sentence": "gone"}))
        own = searcher.tellable(sweep.spec, journal.state)
    started = make_sweep(tmp_path / "b", name="next")
    (tmp_path / "next").mkdir()
    with contextlib.closing(Journal(tmp_path / "next")) as journal:
        warm.record(journal, started, warm.matches(started, folder))
        found = searcher.tellable(started.spec, journal.state)
    assert [trial.values for trial in found] == [trial.values for trial in own] == [[-0.4]]


def test_a_sweep_that_has_begun_is_not_started_from_results(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "runs", make_sweep(tmp_path / "a"), STEADY)
    sweep = make_sweep(tmp_path / "b", name="next")
    found = warm.matches(sweep, folder)
    (tmp_path / "next").mkdir()
    with contextlib.closing(Journal(tmp_path / "next")) as journal:
        journal.append(Suggested(trial="t0001", params={"weight_decay": 0.5}))
        with pytest.raises(BadInput, match="--warm-start: the sweep has begun without demo: it has 1 trials; leave it"):
            warm.check_begun(found, journal.state)
        warm.record(journal, sweep, found)
        warm.check_begun(found, journal.state)  # the command that began it so, again


def test_warm_start_is_written_once(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "runs", make_sweep(tmp_path / "a"), STEADY)
    sweep = make_sweep(tmp_path / "b", name="next")
    (tmp_path / "next").mkdir()
    with contextlib.closing(Journal(tmp_path / "next")) as journal:
        for _ in range(2):
            warm.record(journal, sweep, warm.matches(sweep, folder))
        assert len(journal.state.prior) == 6
        assert journal.state.trials == {}
        assert journal.state.prior[0].best(True).objective == pytest.approx(0.9)


def test_a_budget_is_raised_from_what_is_allowed_or_spent(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "a", budget={"trials": 4, "epochs": 54})
    folder = recorded(tmp_path / "runs", sweep, STEADY)
    _, state = folders.open_sweep(folder)
    assert extending.raised(sweep.spec, state, {"trials": 3, "epochs": 10}) == {"trials": 9, "epochs": 64}
    with pytest.raises(BadInput, match="--hours: got 2, and the sweep's budget has no limit of hours; leave it out; "
                                       "add to what limits the sweep: --trials, --epochs"):
        extending.raised(sweep.spec, state, {"trials": 3, "epochs": 10, "hours": 2})
    with pytest.raises(BadInput, match="its budget of 54 epochs is spent too; add --epochs as well"):
        extending.raised(sweep.spec, state, {"trials": 3})
    with pytest.raises(BadInput, match="--trials: got -1, expected more than 0"):
        extending.raised(sweep.spec, state, {"trials": -1})


def test_the_same_sweep_with_more_budget_is_the_same_sweep(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "a")
    folder = recorded(tmp_path / "runs", sweep, STEADY)
    longer = make_sweep(tmp_path / "b", budget={"trials": 60})
    folders.check_same(longer, folder)
    folders.write_identity(longer, folder, "data")
    assert folders.open_sweep(folder)[0].spec.budget.trials == 60


def test_an_exported_study_is_the_sweep(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "a")
    folder = recorded(tmp_path / "runs", sweep, STEADY)
    storage = f"sqlite:///{tmp_path}/studies.db"
    for _ in range(2):
        name, trials = exporting.export(folder, storage)
    assert (name, trials) == (f"demo-{sweep.fingerprint()}", 6)
    assert optuna.get_all_study_names(storage) == [name]
    study = optuna.load_study(study_name=name, storage=storage)
    assert study.best_value == pytest.approx(0.9)
    with pytest.raises(BadInput, match=r"got 'studies.db', expected an Optuna storage URL"):
        exporting.export(folder, "studies.db")


@pytest.mark.parametrize(("storage", "message"), [
    ("redis://x", r"--to: Optuna cannot open redis:// \(RedisStorage is removed.*for example sqlite:///studies.db$"),
    ("mysql://me:pw@a/b", r"--to: Optuna cannot open mysql:// \(Failed to import DB access module.*install the data"),
    ("foo://x", r"--to: Optuna cannot open foo:// \("), ("://", r"--to: Optuna cannot open :// \("),
])
def test_a_storage_that_optuna_does_not_open_is_refused(tmp_path: Path, storage: str, message: str) -> None:
    folder = recorded(tmp_path / "runs", make_sweep(tmp_path / "a"), STEADY)
    with pytest.raises(BadInput, match=message) as caught:
        exporting.export(folder, storage)
    assert "pw" not in str(caught.value)
