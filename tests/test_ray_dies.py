"""Ray's own processes die under a sweep: it goes on without, or the command ends; the same command makes it whole."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from sweep_driver import left_over, run, spec, start, state_of, until, wait_for


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "code"), [("raylet", 0), ("gcs_server", 3)])
def test_a_ray_that_dies_loses_nothing(tmp_path: Path, name: str, code: int) -> None:
    """Workers that run need no raylet. Without its head nothing of Ray goes on: the driver says so and leaves."""
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler="none",
                base={"data_dir": "nowhere", "num_epochs": 20}, budget={"trials": 4})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=0.2)
    wait_for(folder, 6, process)
    (victim,) = [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == name]
    victim.kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (out, err)
    assert ("Ray's head does not answer any more" in err) == (code == 3), err
    before = state_of(folder)
    until(lambda: not left_over(process.pid))
    run(f"launch({str(path)!r}, options=options)")
    after = state_of(folder)
    assert len(after.with_status("completed")) == 4
    assert list(after.trials)[: len(before.trials)] == list(before.trials)
    assert all([result.epoch for result in trial.results] == [*range(1, 21)] for trial in after.trials.values())
