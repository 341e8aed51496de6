"""The searcher: what is suggested, what Optuna is told, and that a resumed sweep asks the same questions."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from record import yamlio
from record.journal.events import Completed, Failed, JournalEvent, Result, Stopped, Suggested
from record.journal.parsing import read_event
from sweeps.commands import launching
from sweeps.journal.journal import Journal, read
from sweeps.journal.state import SweepState, pareto, ranking, replay
from sweeps.search import points, searcher
from sweeps.spec import grid
from sweeps.spec.load import load
from sweeps.spec.sections import Search
from sweeps.spec.spec import Sweep
from sweeps.workers.entries import result_event


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere"}, "budget": {"trials": 40},
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}, "quantizer": {"choice": ["ema", "vq"]},
                  "ema_decay": {"uniform": [0.9, 0.99], "when": {"quantizer": "ema"}}},
        "scheduler": {"asha": {"max_epochs": 9}}, **changes}))
    return load(path)


def play(sweep: Sweep, journal: Journal, trials: int, lag: int = 1) -> None:
    """Ask, run and tell without Ray: trial n ends when trial n + lag has been asked; every third one is stopped."""
    state = journal.state
    while True:
        open_trials = state.unfinished
        if open_trials and (len(open_trials) > lag or len(state.trials) >= trials):
            finish(journal, open_trials[0].id)
        elif len(state.trials) < trials:
            params, attrs = asked(sweep, state)
            journal.append(Suggested(trial=f"t{len(state.trials) + 1:04d}", params=params, attrs=attrs))
        else:
            return


def asked(sweep: Sweep, state: SweepState) -> tuple[dict[str, Any], dict[str, Any]]:
    found = searcher.ask(sweep.spec, sweep.base.mapping(), state)
    assert found is not None
    return found


def finish(journal: Journal, trial_id: str) -> None:
    trial = journal.state.trials[trial_id]
    value = 1 - (trial.params["weight_decay"] - 0.3) ** 2
    epochs = 3 if trial.number % 3 == 2 else 9
    for epoch in range(1, epochs + 1):
        objective = math.nan if trial.number % 7 == 6 and epoch == 2 else value * epoch / 9
        if epoch > trial.epoch:
            journal.append(Result(trial=trial_id, epoch=epoch, objective=objective, verdict="live", metrics={},
                           tflops=1))
        if math.isnan(objective):
            journal.append(Failed(trial=trial_id, epoch=epoch, reason={"rule": "nonfinite", "sentence": "nan"}))
            return
    if epochs == 9:
        journal.append(Completed(trial=trial_id, epoch=9, objective=value))
    else:
        journal.append(Stopped(trial=trial_id, epoch=epochs, reason={"rule": "asha", "sentence": "cut"}))


SMALL = {"cmaes": {"cmaes": {"population": 4}}, "nsga2": {"nsga2": {"population": 4}},
         "gp": {"gp": {"n_startup_trials": 18}}, "joint tpe": {"tpe": {"multivariate": True}}}
STEPPED = {"weight_decay": {"uniform": [0.0, 1.0], "step": 0.1}, "quantizer": {"choice": ["ema", "vq"]},
           "ema_decay": {"uniform": [0.9, 0.99], "step": 0.03, "when": {"quantizer": "ema"}}}
NUMERIC = {"weight_decay": {"uniform": [0.0, 1.0]}, "learning_rate": {"loguniform": [1e-5, 1e-2]},
           "num_codes": {"int": [1, 5]}, "quantizer": {"choice": ["ema", "vq"]}}


@pytest.mark.parametrize(("search", "policy"), [
    ("grid", "complete"), ("qmc", "complete"), ("cmaes", "complete"), ("gp", "complete"), ("nsga2", "complete"),
    ("random", "complete"), ("tpe", "complete"), ("tpe", "pruned"), ("tpe", "infeasible"), ("tpe", "full_budget_only"),
    ("joint tpe", "complete")])
def test_a_resumed_sweep_asks_what_the_uninterrupted_one_asks(tmp_path: Path, search: str, policy: str) -> None:
    """Killed after each of several events and rebuilt from its journal, the sweep makes the same suggestions."""
    spaces = {"grid": STEPPED, "cmaes": NUMERIC}
    sweep = make_sweep(tmp_path, search=SMALL.get(search, search), policy=policy,
                       **({"space": spaces[search]} if search in spaces else {}))
    whole = Journal(new(tmp_path / "whole"))
    play(sweep, whole, 24)
    whole.close()
    events = list(read(tmp_path / "whole"))
    for number, cut in enumerate(range(30, len(events), 70)):
        folder = new(tmp_path / f"cut{number}")
        (folder / "journal-000001.jsonl").write_text("".join(lines(events[:cut])))
        again = Journal(folder)
        play(sweep, again, 24)
        again.close()
        assert [trial.params for trial in again.state.trials.values()] == [
            trial.params for trial in whole.state.trials.values()]


def test_one_density_for_all_knobs_asks_other_configs_than_one_a_knob(tmp_path: Path) -> None:
    asked = []
    for number, search in enumerate(("tpe", "joint tpe")):
        sweep = make_sweep(tmp_path, search=SMALL.get(search, search))
        journal = Journal(new(tmp_path / str(number)))
        play(sweep, journal, 24)
        asked.append([trial.params for trial in journal.state.trials.values()])
        journal.close()
    apart, joint = asked
    assert apart[:10] == joint[:10]  # random
    assert apart[10:] != joint[10:]


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def lines(events: list[JournalEvent]) -> list[str]:
    return [event.line().decode() for event in events]


def test_suggestions_differ_from_trial_to_trial_and_seed_to_seed(tmp_path: Path) -> None:
    first = make_sweep(tmp_path, search="random")
    journal = Journal(new(tmp_path / "a"))
    play(first, journal, 20)
    journal.close()
    values = [trial.params["weight_decay"] for trial in journal.state.trials.values()]
    assert len(set(values)) == 20
    other = make_sweep(tmp_path, search="random", seed=1)
    assert asked(other, SweepState())[0]["weight_decay"] != values[0]


def played(events: list[dict[str, Any]]) -> SweepState:
    """The state after events as a journal holds them."""
    return replay(read_event(json.dumps({"seq": seq, "time": "2030-01-01T00:00:00+00:00", **event}).encode())
                  for seq, event in enumerate(events, 1))


EVENTS = [
    {"event": "suggested", "trial": "t0001", "params": {"weight_decay": 0.1, "quantizer": "vq"}},
    {"event": "result", "trial": "t0001", "epoch": 1, "objective": 0.5, "verdict": "live", "tflops": 1},
    {"event": "completed", "trial": "t0001", "epoch": 1, "objective": 0.5},
    {"event": "suggested", "trial": "t0002", "params": {"weight_decay": 0.2, "quantizer": "vq"}},
    {"event": "result", "trial": "t0002", "epoch": 1, "objective": 0.2, "verdict": "live", "tflops": 1},
    {"event": "stopped", "trial": "t0002", "epoch": 1, "reason": {"rule": "asha", "sentence": "cut"}},
    {"event": "suggested", "trial": "t0003", "params": {"weight_decay": 0.3, "quantizer": "vq"}},
    {"event": "result", "trial": "t0003", "epoch": 1, "objective": None, "verdict": "nonfinite", "tflops": 1},
    {"event": "failed", "trial": "t0003", "epoch": 1, "reason": {"rule": "nonfinite", "sentence": "nan"}},
    {"event": "suggested", "trial": "t0004", "params": {"weight_decay": 0.4, "quantizer": "vq"}},
    {"event": "failed", "trial": "t0004", "epoch": 0, "reason": {"rule": "raised", "sentence": "boom"}},
    {"event": "suggested", "trial": "t0005", "params": {"weight_decay": 0.5, "quantizer": "vq"}},
    {"event": "interrupted", "trial": "t0005", "epoch": 0},
]


@pytest.mark.parametrize(("policy", "stopped", "value"), [
    ("complete", "COMPLETE", 0.2), ("pruned", "PRUNED", 0.2), ("infeasible", "COMPLETE", 0.2),
    ("full_budget_only", "FAIL", None),
])
def test_what_the_study_is_told(tmp_path: Path, policy: str, stopped: str, value: float | None) -> None:
    sweep = make_sweep(tmp_path, policy=policy)
    state = played(EVENTS)
    told = searcher.study_of(sweep.spec, state).trials
    assert [trial.state.name for trial in told] == ["COMPLETE", stopped, "FAIL", "FAIL", "RUNNING"]
    assert [trial.number for trial in told] == [0, 1, 2, 3, 4]
    assert told[1].value == (value if stopped == "COMPLETE" else told[1].value)
    assert told[1].intermediate_values == {1: 0.2}
    if policy == "infeasible":
        assert [told[0].constraints, told[1].constraints] == [{"stopped": 0}, {"stopped": 1}]


@pytest.mark.parametrize(("policy", "told"), [
    ("complete", "COMPLETE"), ("pruned", "PRUNED"), ("infeasible", "COMPLETE"), ("full_budget_only", "FAIL")])
def test_a_paused_trial_is_told_as_a_stopped_one_until_it_runs_again(tmp_path: Path, policy: str, told: str) -> None:
    """Told as running, most trials of a sweep that promotes would count for nothing, and the search stay random."""
    sweep = make_sweep(tmp_path, policy=policy)
    reason = {"rule": "asha", "sentence": "cut"}
    events = [*EVENTS[:2], {"event": "paused", "trial": "t0001", "epoch": 1, "reason": reason},
              {"event": "interrupted", "trial": "t0001", "epoch": 1}]
    paused, again = (played(events[:count]) for count in (3, 4))
    assert [trial.state.name for trial in searcher.tellable(sweep.spec, paused)] == [told]
    assert [trial.state.name for trial in searcher.tellable(sweep.spec, again)] == ["RUNNING"]


def test_further_seeds_change_what_a_config_violates(tmp_path: Path) -> None:
    """Optuna writes a trial's constraints among its attributes: they must not be the journal's."""
    sweep = make_sweep(tmp_path, seeds=2, constraints={"val/mse_loss": {"most": 0.1}})
    with contextlib.closing(Journal(new(tmp_path / "a"))) as journal:
        for number, violation in ((1, 0.0), (2, 0.7)):
            journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.5, "quantizer": "vq"},
                           seed=number, attrs={"kept": 1}, **({"repeats": "t0001"} if number > 1 else {})))
            journal.append(Result(trial=f"t{number:04d}", epoch=9, objective=0.5, verdict="live", metrics={},
                           tflops=1, violation=violation))
            journal.append(Completed(trial=f"t{number:04d}", epoch=9, objective=0.5))
            assert searcher.tellable(sweep.spec, journal.state)[0].constraints == {"outside": violation}
            assert journal.state.trials["t0001"].attrs == {"kept": 1}


def test_a_slow_trial_shifts_no_generation_that_was_full(tmp_path: Path) -> None:
    """CMA-ES learns in the order of ending: what ends late comes last, whenever it was suggested."""
    sweep = make_sweep(tmp_path, search=SMALL["cmaes"], space=NUMERIC)
    with contextlib.closing(Journal(new(tmp_path / "a"))) as journal:
        for number in range(1, 7):
            params, _ = asked(sweep, journal.state)
            journal.append(Suggested(trial=f"t{number:04d}", params=params))
        for number in (2, 3, 4, 5, 6):
            finish(journal, f"t{number:04d}")
        before = searcher._losses(sweep.spec, journal.state)
        finish(journal, "t0001")
        after = searcher._losses(sweep.spec, journal.state)
    assert (len(before), after[:5]) == (5, before)


def test_what_is_told_is_made_once_and_copied_shallowly(tmp_path: Path) -> None:
    """Deep copies of all that was told would make a question of a long sweep five times as slow."""
    sweep = make_sweep(tmp_path)
    state = played(EVENTS)
    first, again = searcher.tellable(sweep.spec, state), searcher.tellable(sweep.spec, state)
    final = [number for number, trial in enumerate(state.trials.values()) if trial.final]
    assert final
    assert all(first[number] is again[number] for number in final)
    study = searcher.study_of(sweep.spec, state)
    asked = study.ask()
    copies = study.get_trials(deepcopy=False)
    assert all(copies[number].params is first[number].params for number in final)
    assert all(copies[number] is not first[number] for number in final)
    assert [trial.number for trial in copies] == list(range(len(first) + 1))
    assert asked.number == len(first)


def test_a_grid_is_every_combination_once_and_then_done(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, search="grid", space=STEPPED)
    journal = Journal(new(tmp_path / "a"))
    while (found := searcher.ask(sweep.spec, sweep.base.mapping(), journal.state)) is not None:
        journal.append(Suggested(trial=f"t{len(journal.state.trials) + 1:04d}", params=found[0]))
    journal.close()
    seen = {tuple(trial.params.items()) for trial in journal.state.trials.values()}
    assert len(seen) == len(journal.state.trials) == 11 * 4 + 11, "four decays where ema, one point where not"


def test_a_grid_that_grew_asks_for_what_is_new(tmp_path: Path) -> None:
    first = make_sweep(tmp_path, search="grid", space={"quantizer": {"choice": ["ema", "vq"]}})
    wider = make_sweep(tmp_path, search="grid", space={"quantizer": {"choice": ["ema", "vq", "fsq"]}})
    journal = Journal(new(tmp_path / "a"))
    for sweep in (first, wider):
        while (found := searcher.ask(sweep.spec, sweep.base.mapping(), journal.state)) is not None:
            journal.append(Suggested(trial=f"t{len(journal.state.trials) + 1:04d}", params=found[0]))
        assert launching.searcher_done(sweep, journal.state)
    journal.close()
    assert sorted(trial.params["quantizer"] for trial in journal.state.trials.values()) == ["ema", "fsq", "vq"]


def test_the_order_of_the_knobs_is_not_what_makes_a_point() -> None:
    assert grid.unused([{"a": 1, "b": 2}, {"a": 1, "b": 3}], [{"b": 2, "a": 1}]) == {"a": 1, "b": 3}


def test_what_collapsed_is_told_as_it_ended(tmp_path: Path) -> None:
    """Its best value was from before; told that, the search would be drawn to where codebooks die."""
    sweep = make_sweep(tmp_path)
    events = [{"event": "suggested", "trial": "t0001", "params": {"weight_decay": 0.1, "quantizer": "vq"}},
              {"event": "result", "trial": "t0001", "epoch": 1, "objective": 0.5, "verdict": "live", "tflops": 1},
              {"event": "result", "trial": "t0001", "epoch": 2, "objective": -0.9, "verdict": "collapsed", "tflops": 2},
              {"event": "stopped", "trial": "t0001", "epoch": 2, "reason": {"rule": "collapse", "sentence": "gone"}}]
    state = played(events)
    assert searcher.tellable(sweep.spec, state)[0].values == [-0.9]


def test_a_warm_start_does_not_draw_what_the_other_sweep_drew(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    base = sweep.base.mapping()
    alone = searcher.ask(sweep.spec, base, SweepState())
    state = played([{"event": "warm_started", "source": "other/t0001",
                     "params": {"weight_decay": 0.1, "quantizer": "vq"}, "state": "completed", "epoch": 9,
                     "objective": 0.4, "verdict": "live", "tflops": 1.0}])
    assert searcher.ask(sweep.spec, base, state) != alone


def test_cmaes_goes_on_when_a_knob_is_added(tmp_path: Path) -> None:
    numeric = {"learning_rate": {"loguniform": [1e-5, 1e-2]}, "num_codes": {"int": [1, 5]}}
    later = {"weight_decay": {"loguniform": [1e-4, 1.0]}, "grad_clip": {"uniform": [0.5, 2]}}
    wider = make_sweep(tmp_path, search={"cmaes": {"population": 4}}, space={**numeric, **later})
    told = [({"learning_rate": 1e-3, "num_codes": count}, float(count)) for count in (1, 2, 3, 4)]
    search = wider.spec.search.cmaes
    assert search is not None
    base = {**wider.base.mapping(), "weight_decay": 0.0, "grad_clip": None}
    found = points.cmaes(wider.spec.space, base, search, 0, told)
    assert set(found) == {"learning_rate", "num_codes", "weight_decay", "grad_clip"}


def test_qmc_fills_the_space_evenly(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, space=NUMERIC)
    values = [points.sobol(sweep.spec.space, sweep.base.mapping(), 3, number) for number in range(16)]
    eighths = [int(value["weight_decay"] * 8) for value in values]
    assert sorted(eighths) == sorted([*range(8)] * 2)
    assert {value["quantizer"] for value in values} == {"ema", "vq"}


def test_several_objectives_and_constraints_reach_the_study(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, objective=["val/dsnr", "val/mse_loss"], search="nsga2",
                       constraints={"val/perplexity_slot": {"least": 2}, "total_tflops": {"most": 5}})
    record = {"epoch": 3, "step": 30, "total_tflops": 4.0, "val/dsnr": 2.0, "val/mse_loss": 0.1,
              "val/perplexity_slot": 1.5}
    event = result_event(sweep.spec, "t0001", record, "live")
    assert event.values == {"val/mse_loss": 0.1, "val/perplexity_slot": 1.5}
    assert event.violation == 0.5
    journal = Journal(new(tmp_path / "a"))
    for number, (mse, slot) in enumerate([(0.1, 3.0), (0.2, 4.0), (0.05, 1.5)], 1):
        journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.1 * number, "quantizer": "vq"}))
        journal.append(result_event(
            sweep.spec, f"t{number:04d}", {**record, "val/mse_loss": mse, "val/perplexity_slot": slot}, "live"))
        journal.append(Completed(trial=f"t{number:04d}", epoch=3, objective=2.0))
    journal.close()
    study = searcher.study_of(sweep.spec, journal.state)
    assert [trial.values for trial in study.trials] == [[2.0, 0.1], [2.0, 0.2], [2.0, 0.05]]
    assert [trial.constraints["outside"] for trial in study.trials] == [0.0, 0.0, 0.5]
    assert [trial.id for trial, _ in ranking(journal.state, True)] == ["t0001", "t0002", "t0003"]
    front = pareto(journal.state, {"val/dsnr": 1, "val/mse_loss": -1}, "val/dsnr")
    assert [trial.id for trial, _ in front] == ["t0001"]


def test_seeds_of_a_config_are_one_trial_of_the_study(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, seeds=3)
    journal = Journal(new(tmp_path / "a"))
    for number, value in enumerate([0.3, 0.5, 0.1], 1):
        repeats = {"repeats": "t0001"} if number > 1 else {}
        journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.5, "quantizer": "vq"},
                       seed=number - 1, **repeats))
        if number == 3:
            assert [trial.state.name for trial in searcher.study_of(sweep.spec, journal.state).trials] == ["RUNNING"]
        journal.append(Result(trial=f"t{number:04d}", epoch=9, objective=value, verdict="live", metrics={}, tflops=1))
        journal.append(Completed(trial=f"t{number:04d}", epoch=9, objective=value))
    journal.close()
    told = searcher.study_of(sweep.spec, journal.state).trials
    assert [(trial.state.name, round(trial.value, 9)) for trial in told] == [("COMPLETE", 0.3)]
    rows = ranking(journal.state, True)
    assert [(trial.id, round(result.objective, 9)) for trial, result in rows] == [("t0001", 0.3)]


def seeded(folder: Path, last: list[tuple[float, str]], rule: str) -> tuple[Any, SweepState]:
    """A config whose first training ended at 0.6, and whose further ones failed after 0.6 with these results."""
    sweep, journal = make_sweep(folder, seeds=3), Journal(new(folder / "a"))
    for number, results in enumerate([[(0.6, "live")], *([(0.6, "live"), one] for one in last)], 1):
        journal.append(Suggested(trial=f"t{number:04d}", params={"weight_decay": 0.5, "quantizer": "vq"},
                       seed=number - 1, **({"repeats": "t0001"} if number > 1 else {})))
        for epoch, (value, verdict) in enumerate(results, 1):
            journal.append(Result(trial=f"t{number:04d}", epoch=epoch, objective=value, verdict=verdict, metrics={},
                           tflops=1))
        failed = Failed(trial=f"t{number:04d}", epoch=1, reason={"rule": rule, "sentence": "x"})
        journal.append(failed if number > 1 else Completed(trial=f"t{number:04d}", epoch=1, objective=0.6))
    journal.close()
    return sweep, journal.state


def test_a_config_that_diverges_on_a_further_seed_does_not_attract_the_search(tmp_path: Path) -> None:
    sweep, state = seeded(tmp_path, [(float("nan"), "nonfinite")] * 2, "nonfinite")
    assert [trial.state.name for trial in searcher.study_of(sweep.spec, state).trials] == ["FAIL"]


def test_the_study_is_told_the_mean_that_ranks(tmp_path: Path) -> None:
    """A further seed whose process was lost counts with what it reached, there and here."""
    sweep, state = seeded(tmp_path, [(0.9, "live"), (0.3, "actions_ignored")], "process_lost")
    (told,), ((_, result),) = searcher.study_of(sweep.spec, state).trials, ranking(state, True)
    assert told.value == result.objective == pytest.approx((0.6 + 0.9 + 0.6) / 3)


def test_every_sampler_can_be_built() -> None:
    assert isinstance(searcher.sampler(Search.model_validate({"random": {}}), 1), optuna.samplers.RandomSampler)
    assert isinstance(searcher.sampler(Search.model_validate({"tpe": {}}), 1), optuna.samplers.TPESampler)
