"""Space and searcher: what is suggested, what Optuna is told, and that a resumed sweep asks the same questions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lam import yamlio
from sweeps import searcher, space, spec
from sweeps.journal import Journal, read
from sweeps.space import Knob
from sweeps.spec import Search, Sweep
from sweeps.state import SweepState, replay

BASE = {"quantizer": "ema", "weight_decay": 0.01}


def knobs(**values: Any) -> dict[str, Knob]:
    return {name: Knob.model_validate(value) for name, value in values.items()}


SPACE = knobs(
    quantizer={"choice": ["ema", "vq"]},
    ema_decay={"uniform": [0.9, 0.99], "when": {"quantizer": "ema"}},
    num_codes={"int": [1, 7], "step": 2},
    weight_decay={"loguniform": [1e-4, 1.0]},
    embed_dim={"logint": [8, 64]},
    grad_clip={"uniform": [0.0, 1.0], "step": 0.25},
)


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere"}, "budget": {"trials": 40},
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}, "quantizer": {"choice": ["ema", "vq"]},
                  "ema_decay": {"uniform": [0.9, 0.99], "when": {"quantizer": "ema"}}},
        "scheduler": {"asha": {"max_epochs": 9}}, **changes}))
    return spec.load(path)


def test_distributions() -> None:
    found = {name: knob.distribution() for name, knob in SPACE.items()}
    assert found["num_codes"] == optuna.distributions.IntDistribution(1, 7, step=2)
    assert found["weight_decay"] == optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
    assert found["embed_dim"] == optuna.distributions.IntDistribution(8, 64, log=True)
    assert found["grad_clip"] == optuna.distributions.FloatDistribution(0.0, 1.0, step=0.25)


def test_a_conditional_knob_exists_only_where_its_condition_holds() -> None:
    for params in space.draws(SPACE, BASE, 50):
        assert ("ema_decay" in params) == (params["quantizer"] == "ema")


def test_a_condition_may_name_several_values_or_a_key_of_the_base() -> None:
    knob = Knob.model_validate({"uniform": [0, 1], "when": {"quantizer": ["ema", "vq"]}})
    assert space.is_active(knob, {"quantizer": "vq"})
    assert not space.is_active(knob, {"quantizer": "none"})


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_draws_lie_in_the_distribution(count: int) -> None:
    for name, value in list(space.draws(SPACE, BASE, count % 20 + 1))[-1].items():
        assert SPACE[name].distribution()._contains(SPACE[name].distribution().to_internal_repr(value))


def test_corners_are_all_combinations_where_they_are_few() -> None:
    few = knobs(quantizer={"choice": ["ema", "vq"]}, weight_decay={"uniform": [0, 1]})
    assert list(space.corners(few, BASE)) == [
        {"quantizer": a, "weight_decay": b} for a in ("ema", "vq") for b in (0.0, 1.0)]
    many = knobs(**{f"k{number}": {"uniform": [0, 1]} for number in range(30)})
    assert len(list(space.corners(many, BASE))) == space.CORNER_LIMIT


def play(sweep: Sweep, journal: Journal, trials: int, lag: int = 1) -> None:
    """Ask, run and tell without Ray: trial n ends when trial n + lag has been asked; every third one is stopped."""
    state = journal.state
    while True:
        open_trials = state.unfinished
        if open_trials and (len(open_trials) > lag or len(state.trials) >= trials):
            finish(journal, open_trials[0].id)
        elif len(state.trials) < trials:
            params = searcher.ask(sweep.spec, sweep.base.mapping(), state)
            journal.append("suggested", trial=f"t{len(state.trials) + 1:04d}", params=params)
        else:
            return


def finish(journal: Journal, trial_id: str) -> None:
    trial = journal.state.trials[trial_id]
    value = 1 - (trial.params["weight_decay"] - 0.3) ** 2
    epochs = 3 if trial.number % 3 == 2 else 9
    for epoch in range(1, epochs + 1):
        objective = math.nan if trial.number % 7 == 6 and epoch == 2 else value * epoch / 9
        if epoch > trial.epoch:
            journal.append("result", trial=trial_id, epoch=epoch, objective=objective, verdict="live", metrics={},
                           tflops=1)
        if math.isnan(objective):
            journal.append("failed", trial=trial_id, epoch=epoch, reason={"rule": "nonfinite", "sentence": "nan"})
            return
    if epochs == 9:
        journal.append("completed", trial=trial_id, epoch=9, objective=value)
    else:
        journal.append("stopped", trial=trial_id, epoch=epochs, reason={"rule": "asha", "sentence": "cut"})


@pytest.mark.parametrize(("search", "policy"), [
    ("random", "complete"), ("tpe", "complete"), ("tpe", "pruned"), ("tpe", "infeasible"), ("tpe", "full_budget_only")])
def test_a_resumed_sweep_asks_what_the_uninterrupted_one_asks(tmp_path: Path, search: str, policy: str) -> None:
    """Killed after each of several events and rebuilt from its journal, the sweep makes the same suggestions."""
    sweep = make_sweep(tmp_path, search=search, policy=policy)
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


def new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def lines(events: list[dict[str, Any]]) -> list[str]:
    from lam import files

    return [files.json_line(event) for event in events]


def test_suggestions_differ_from_trial_to_trial_and_seed_to_seed(tmp_path: Path) -> None:
    first = make_sweep(tmp_path, search="random")
    journal = Journal(new(tmp_path / "a"))
    play(first, journal, 20)
    journal.close()
    values = [trial.params["weight_decay"] for trial in journal.state.trials.values()]
    assert len(set(values)) == 20
    other = make_sweep(tmp_path, search="random", seed=1)
    assert searcher.ask(other.spec, other.base.mapping(), SweepState())["weight_decay"] != values[0]


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
    state = replay({"seq": number, "time": "2030-01-01T00:00:00", **event} for number, event in enumerate(EVENTS, 1))
    told = searcher.study_of(sweep.spec, state).trials
    assert [trial.state.name for trial in told] == ["COMPLETE", stopped, "FAIL", "FAIL", "RUNNING"]
    assert [trial.number for trial in told] == [0, 1, 2, 3, 4]
    assert told[1].value == (value if stopped == "COMPLETE" else told[1].value)
    assert told[1].intermediate_values == {1: 0.2}
    if policy == "infeasible":
        assert [told[0].constraints, told[1].constraints] == [{"stopped": 0}, {"stopped": 1}]


def test_asking_does_not_grow_slow(tmp_path: Path) -> None:
    """A suggestion at 300 trials stays well under what an epoch takes."""
    import time

    sweep = make_sweep(tmp_path)
    events: list[dict[str, Any]] = []
    for number in range(300):
        events += [{**event, "trial": f"t{number + 1:04d}"} for event in EVENTS[:3]]
    state = replay({"seq": number, "time": "2030-01-01T00:00:00", **event} for number, event in enumerate(events, 1))
    begin = time.perf_counter()
    searcher.ask(sweep.spec, sweep.base.mapping(), state)
    assert time.perf_counter() - begin < 2
    assert len(state.trials) == 300


def test_every_sampler_can_be_built() -> None:
    assert isinstance(searcher.sampler(Search.model_validate({"random": {}}), 1), optuna.samplers.RandomSampler)
    assert isinstance(searcher.sampler(Search.model_validate({"tpe": {}}), 1), optuna.samplers.TPESampler)
