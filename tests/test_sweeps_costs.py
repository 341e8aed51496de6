"""Bounds on what a sweep may cost: none that a sweep can leave."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from record import yamlio
from sweeps.commands import planning
from sweeps.scheduling import costs
from sweeps.spec import rungs
from sweeps.spec.load import load
from sweeps.spec.sections import Asha
from sweeps.spec.spec import Sweep


def make_sweep(folder: Path, **changes: Any) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": "nowhere", "num_epochs": 9}, "budget": {"trials": 6},
        "space": {"weight_decay": {"uniform": [0.0, 1.0]}}, **changes}))
    return load(path)


def asha(**changes: Any) -> dict[str, Any]:
    return {"asha": {"max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3, **changes}}


MEDIAN = {"median": {"max_epochs": 9, "grace_epochs": 2, "min_trials": 2}}
GRID = {"search": "grid", "space": {"weight_decay": {"choice": [0.1, 0.2]}}}


@pytest.mark.parametrize(("changes", "bounds"), [
    ({}, (54, 54)),
    ({"seeds": 2}, (108, 108)),
    ({"scheduler": asha()}, (6 * 1 + 2 + 6, 54)),
    ({"scheduler": asha(), "seeds": 2}, (6 * 1 + 2 + 6 + 9, 108)),
    ({"scheduler": asha(promote=True)}, (6 * 1 + 2 * 2 + 6, 54)),
    ({"scheduler": MEDIAN}, (2 * 9 + 4 * 2, 54)),
    ({**GRID, "budget": {"trials": 50}}, (18, 18)),
    ({**GRID, "budget": {"hours": 1.0}}, (None, 18)),
    ({"budget": {"trials": 6, "epochs": 30}}, (None, 54)),
    ({"scheduler": asha(max_tflops=9.0)}, (None, 54)),
    ({"base": {"data_dir": "nowhere", "num_epochs": 9, "early_stopping": {"metric": "val/objective"}}}, (None, 54)),
    ({"budget": {"hours": 1.0}}, (None, None)),
])
def test_epochs_lie_within_the_bounds(tmp_path: Path, changes: dict[str, Any],
                                      bounds: tuple[int | None, int | None]) -> None:
    found = costs.epochs(make_sweep(tmp_path, **changes))
    assert (found.least, found.most) == bounds


@pytest.mark.parametrize("eta", [1.2, 1.5, 2.0, 3.0, 4.0])
def test_no_order_of_arrivals_lets_fewer_through(eta: float) -> None:
    """Every order of seven values: the bound is met by one and left by none."""
    rule = Asha(max_epochs=9, reduction_factor=eta)
    through = [sum(rungs.decide(value, order[:place], eta).goes_on for place, value in enumerate(order))
               for order in itertools.permutations(range(7))]
    assert min(through) == costs.least_through(7, rule)


def test_brackets_add_up(tmp_path: Path) -> None:
    """Of 4 trials, brackets 1 and 2 take 3 and 1: rungs at 1, 3 and at 3, of 9."""
    dealt = [rungs.bracket_of(number, 2, 3.0) for number in range(4)]
    assert sorted(dealt) == [0, 0, 0, 1]
    found = costs.epochs(make_sweep(tmp_path, scheduler=asha(brackets=2), budget={"trials": 4}))
    assert found.least == (3 + 2 + 6) + 9


def test_the_bounds_in_words() -> None:
    assert costs.Epochs(None, None).sentence() is None
    assert costs.Epochs(None, 9).sentence() == "epochs: at most 9"
    assert costs.Epochs(9, 9).sentence() == "epochs: 9 where no trial fails or collapses"
    assert costs.Epochs(3, 9).sentence() == ("epochs: at least 3 (every trial is stopped as early as the rule may, "
                                             "none fails or collapses) and at most 9")


def test_operations_and_disk_in_words() -> None:
    found = [costs.Size(0.5, 2_000_000), costs.Size(2.0, 3_000_000)]
    lines = costs.size_lines(found, costs.Epochs(None, 10), 1000)
    assert lines[0] == "operations: about 0.5 to 2 TFLOP an epoch; about 20 TFLOP in all at most"
    assert lines[1].startswith("disk: about 3 MB of weights a trial at most, 3 GB in all; a trial under way")
    assert costs.size_lines(found[:1], costs.Epochs(None, None), None)[0] == "operations: about 0.5 TFLOP an epoch"


def test_a_size_is_counted_on_the_data(tmp_path: Path, tiny_data: Path) -> None:
    base = {"data_dir": str(tiny_data), "num_epochs": 9, "steps_per_epoch": 2, "batch_size": 4, "sequence_length": 4}
    sweep = make_sweep(tmp_path, base=base)
    once, often = sweep.workload.size(sweep.base), sweep.workload.size(
        sweep.base.replace(steps_per_epoch=4, keep="all"))
    assert once.tflops_per_epoch > 0
    assert (often.tflops_per_epoch, often.kept_bytes) == (2 * once.tflops_per_epoch, 5 * once.kept_bytes)


def test_what_fits_at_a_time(tmp_path: Path) -> None:
    def said(**resources: Any) -> str:
        return planning._at_a_time(make_sweep(tmp_path, resources=resources, concurrency=8), 2)[0]

    assert said(cpu=0.5) == "4 trials at a time on this machine (2 CPUs)"
    assert said(cpu=64).startswith("no trial fits on this machine: each takes 64 CPUs, here are 2; lower resources.cpu")
    assert said(cpu=0.5, workers=2) == "2 trials at a time on this machine (2 CPUs)"
    assert said(workers=3).startswith("no trial fits on this machine: each takes 3 CPUs, here are 2; lower "
                                      "resources.cpu or workers, or")
    assert said(workers=2, gpu=1).startswith("each trial takes 2 GPU and 2 CPUs;")
    assert said(cpu=1, gpu=1) == ("each trial takes 1 GPU and 1 CPUs; how many at a time, a launch finds out from Ray")
