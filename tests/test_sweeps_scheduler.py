"""Stopping on a TFLOP axis, in brackets, by the median rule, and promotion of what was paused. No Ray here."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import walks

from lam.config import RunConfig
from lam.training import loop
from record import yamlio
from record.errors import BadInput
from record.journal.events import Paused, Result, Stopped, Suggested
from sweeps.commands import confirming
from sweeps.journal.journal import Journal
from sweeps.scheduling import scheduler
from sweeps.spec import rungs
from sweeps.spec.load import load
from sweeps.spec.spec import Sweep


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere"}, "space": {"weight_decay": {"uniform": [0.0, 1.0]}},
        "budget": {"trials": 9}, **changes}))
    return load(path)


def add(journal: Journal, trial: str, results: list[tuple[int, float, float]], **more: Any) -> None:
    """A trial with results (epoch, TFLOPs, objective)."""
    journal.append(Suggested(trial=trial, params={"weight_decay": 0.5}, **more))
    for epoch, tflops, objective in results:
        journal.append(Result(trial=trial, epoch=epoch, objective=objective, verdict="live", metrics={},
                       tflops=tflops, step=10 * epoch))


def judge(sweep: Sweep, journal: Journal, trial: str) -> scheduler.Ending | None:
    return scheduler.judge(sweep.spec, journal.state, journal.state.trials[trial], sweep.base)


RUNGS = {"grace_epochs": 1, "reduction_factor": 3}
TFLOPS = {"asha": {"max_epochs": 100, "max_tflops": 9.0, "grace_tflops": 1.0, "reduction_factor": 3}}


def test_wide_and_narrow_models_meet_at_equal_compute(tmp_path: Path) -> None:
    """The narrow trial has seen ten epochs where the wide one has seen one: both stand at the same rung."""
    sweep = make_sweep(tmp_path, scheduler=TFLOPS)
    assert sweep.base.val_at_tflops == (1.0, 3.0, 9.0)
    with contextlib.closing(Journal(tmp_path)) as journal:
        add(journal, "t0001", [(10, 1.05, 0.5)])
        assert judge(sweep, journal, "t0001") is None
        add(journal, "t0002", [(1, 1.2, 0.4)])
        ending = judge(sweep, journal, "t0002")
        assert ending is not None
        assert (ending.rung, ending.cutoff, ending.peers, ending.epochs_saved) == (1.0, 0.5, 2, 7)
        assert "at rung 1 TFLOP (cutoff 0.5)" in ending.sentence
        add(journal, "t0003", [(80, 9.0, 0.6)])
        ending = judge(sweep, journal, "t0003")
        assert ending is not None
        assert (ending.event, ending.sentence) == ("completed", "trained all 80 epochs")
        assert confirming.full_epochs(sweep, journal.state.trials["t0003"]) == 80


def test_brackets_have_ladders_of_their_own(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, scheduler={"asha": {"max_epochs": 27, **RUNGS, "brackets": 2}})
    assert sweep.spec.asha is not None
    assert [sweep.spec.asha.ladder(bracket) for bracket in (0, 1)] == [[1.0, 3.0, 9.0], [3.0, 9.0]]
    with contextlib.closing(Journal(tmp_path)) as journal:
        for number in range(4):
            add(journal, f"t000{number + 1}", [(1, 1.0, 0.5 - 0.1 * number)])
        stopped = [judge(sweep, journal, f"t000{number + 1}") is not None for number in range(4)]
    other = [number for number in range(4) if sweep.spec.asha.bracket(number) == 1]
    assert other == [3] or other == [2]
    assert not stopped[other[0]], "its first rung is at epoch 3"


def test_all_trainings_of_a_config_are_of_its_bracket(tmp_path: Path) -> None:
    """Brackets are dealt to configs, as the plan counts them: further seeds take nobody's turn."""
    sweep = make_sweep(tmp_path, scheduler={"asha": {"max_epochs": 27, **RUNGS, "brackets": 2}}, seeds=3)
    assert sweep.spec.asha is not None
    with contextlib.closing(Journal(tmp_path)) as journal:
        for config in range(8):
            for again in range(3):
                more = {"repeats": f"t{3 * config + 1:04d}"} if again else {}
                add(journal, f"t{3 * config + again + 1:04d}", [], seed=again, **more)
        found = [trial.number for trial in journal.state.trials.values()]
    assert found == [config for config in range(8) for _ in range(3)]
    assert {sweep.spec.asha.bracket(number) for number in found} == {0, 1}


def test_a_trial_lost_at_a_rung_is_no_arrival_at_the_next(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, scheduler={"asha": {"max_epochs": 27, **RUNGS}})
    asha = sweep.spec.asha
    assert asha is not None
    with contextlib.closing(Journal(tmp_path)) as journal:
        for trial, epochs in (("t0001", (1, 2, 3)), ("t0002", (1, 2, 4)), ("t0003", (1, 3, 4)), ("t0004", (1,))):
            add(journal, trial, [(epoch, 1.0, 0.5) for epoch in epochs])
            journal.append(Stopped(trial=trial, epoch=epochs[-1], reason={"rule": "collapse", "sentence": "gone"}))
        lost = list(journal.state.trials.values())
    assert [walks.rung_value(trial, asha, 9.0, 3.0, True) for trial in lost] == [None, None, rungs.NEVER, None]
    assert walks.rung_value(lost[3], asha, 3.0, 0.0, True) == rungs.NEVER, "lost on the way to the first rung"


def test_on_the_tflop_axis_the_grace_of_collapse_counts_what_can_be_trained(tmp_path: Path) -> None:
    """Of 100 epochs the budget buys ten: a trial that has been collapsed for nine of them ends."""
    sweep = make_sweep(tmp_path, scheduler={"asha": {"max_epochs": 100, "max_tflops": 10.0}})
    with contextlib.closing(Journal(tmp_path)) as journal:
        journal.append(Suggested(trial="t0001", params={"weight_decay": 0.5}))
        ended = []
        for epoch in range(1, 10):
            journal.append(Result(trial="t0001", epoch=epoch, objective=-0.5, verdict="collapsed", metrics={},
                           tflops=float(epoch), step=1000 * epoch))
            ending = judge(sweep, journal, "t0001")
            ended += [(epoch, ending.rule)] if ending else []
    assert ended[0] == (4, "codebook_collapsed")


def test_a_paused_trial_is_promoted_once_it_is_among_the_best(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, scheduler={"asha": {"max_epochs": 9, **RUNGS, "promote": True}})
    with contextlib.closing(Journal(tmp_path)) as journal:
        add(journal, "t0001", [(1, 1.0, 0.5)])
        add(journal, "t0002", [(1, 1.0, 0.4)])
        ending = judge(sweep, journal, "t0002")
        assert ending is not None
        assert ending.event == "paused"
        journal.append(Paused(trial="t0002", epoch=1, reason=ending.reason()))
        assert scheduler.promotable(sweep.spec, journal.state) is None
        for number, value in ((3, 0.1), (4, 0.2)):
            add(journal, f"t000{number}", [(1, 1.0, value)])
        promoted = scheduler.promotable(sweep.spec, journal.state)
    assert promoted is not None
    assert promoted.id == "t0002", "two of four arrivals go on, and it is the second"


def test_the_median_rule_ends_what_stays_below(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, scheduler={"median": {"max_epochs": 9, "grace_epochs": 2, "min_trials": 2}})
    with contextlib.closing(Journal(tmp_path)) as journal:
        add(journal, "t0001", [(1, 1, 0.2), (2, 2, 0.4), (3, 3, 0.3)])
        add(journal, "t0002", [(1, 1, 0.6), (2, 2, 0.8), (3, 3, 0.7)])
        add(journal, "t0003", [(1, 1, 0.1)])
        assert judge(sweep, journal, "t0003") is None, "grace"
        for epoch, value in ((2, 0.3), (3, 0.2)):
            journal.append(Result(trial="t0003", epoch=epoch, objective=value, verdict="live", metrics={},
                           tflops=epoch, step=20))
        ending = judge(sweep, journal, "t0003")
        assert ending is not None
        assert (ending.rule, ending.peers) == ("median", 2)
        assert ending.sentence == ("the best val/objective up to epoch 3, 0.3 at epoch 2, is worse than 0.5, the "
                                   "median of the running means of 2 trials")
        assert ending.value == 0.3, "the one that was judged"


def test_further_seeds_of_a_config_are_not_judged_at_rungs(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, scheduler={"asha": {"max_epochs": 9, **RUNGS}}, seeds=2)
    with contextlib.closing(Journal(tmp_path)) as journal:
        add(journal, "t0001", [(1, 1, 0.5)])
        add(journal, "t0002", [(1, 1, 0.1)], seed=1, repeats="t0001")
        assert judge(sweep, journal, "t0002") is None
        add(journal, "t0003", [(1, 1, 0.3)])
        ending = judge(sweep, journal, "t0003")
    assert ending is not None
    assert ending.peers == 2, "the repeat is no peer"


def test_gpu_hours_are_training_time_times_gpus(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, budget={"gpu_hours": 1.0}, resources={"cpu": 1, "gpu": 2})
    with contextlib.closing(Journal(tmp_path)) as journal:
        add(journal, "t0001", [])
        journal.append(Result(trial="t0001", epoch=1, objective=0.5, verdict="live", metrics={}, tflops=1,
                       seconds=1800.0, step=10))
    assert scheduler.used(sweep.spec, journal.state)["gpu_hours"] == 1.0
    assert scheduler.spent_budget(sweep.spec, journal.state) == "1 of 1 gpu_hours"
    several = make_sweep(tmp_path, budget={"gpu_hours": 1.0}, resources={"cpu": 1, "gpu": 2, "workers": 3})
    assert scheduler.used(several.spec, journal.state)["gpu_hours"] == 3.0


@pytest.mark.parametrize(("changes", "message"), [
    ({"scheduler": {"asha": {"max_epochs": 9, "grace_tflops": 1.0}}}, "grace_tflops means nothing without max_tflops"),
    ({"scheduler": {"asha": {"max_epochs": 9, "max_tflops": 1.0, "grace_tflops": 2.0}}}, "grace_tflops 2.0 is above"),
    ({"scheduler": {"asha": {"max_epochs": 9}, "median": {"max_epochs": 9}}}, "expected exactly one of asha, median"),
    ({"objective": ["val/dsnr", "val/mse_loss"], "search": "cmaes"}, "search cmaes has one objective"),
    ({"objective": ["val/dsnr", "val/mse_loss"], "policy": "pruned"}, "policy pruned means nothing with several"),
    ({"objective": []}, "expected one metric, or several different ones"),
    ({"seeds": 2, "space": {"seed": {"int": [0, 9]}}}, "take seed out of the space"),
    ({"constraints": {"val/dsnrr": {"least": 1}}}, "which is no validation metric; did you mean 'val/dsnr'"),
    ({"constraints": {"val/dsnr": {}}}, "says nothing, expected least or most"),
    ({"constraints": {"val/dsnr": {"least": 2, "most": 1}}}, "least 2.0 is above most 1.0; swap them"),
    ({"search": "grid"}, "space.weight_decay: is a range without a step.*give it a step or choices"),
    ({"search": "grid", "space": {"seed": {"int": [0, 999_999]}}}, "has up to 1,000,000 points, at most 100,000"),
    ({"hang_minutes": 0}, "hang_minutes: got 0.*greater than 0"),
])
def test_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make_sweep(tmp_path, **changes)


def test_training_validates_at_the_rungs(tmp_path: Path, tiny_data: Path) -> None:
    config = RunConfig(data_dir=str(tiny_data), sequence_length=3, embed_dim=16, encoder_depth=1, decoder_depth=1,
                       head_dim=16, patch_dim=16, codebook_dim=8, num_epochs=6, steps_per_epoch=2, batch_size=8,
                       eval_sequences=16, sample_count=0, threads=1, device="cpu", val_every=100)
    plain = list(loop.train(config, tmp_path / "a"))
    assert [("val/mse_loss" in record) for record in plain] == [False] * 5 + [True]
    mark = plain[2]["total_tflops"] - 1e-12
    marked = list(loop.train(config.replace(val_at_tflops=(mark,)), tmp_path / "b"))
    assert [record["epoch"] for record in marked if "val/mse_loss" in record] == [3, 6]
