"""Ray's own processes die under a sweep: the command ends and says so, the same command goes on."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
from sweep_driver import left_over, run, spec, start, state_of, until, wait_for


@pytest.mark.long
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_ray_that_dies_ends_the_command_resumably(tmp_path: Path, name: str) -> None:
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, scheduler="none",
                base={"data_dir": "nowhere", "num_epochs": 20}, budget={"trials": 4})
    folder = tmp_path / "runs" / "demo"
    process = start(f"launch({str(path)!r}, options=options)", epoch_seconds=0.2)
    wait_for(folder, 6, process)
    (victim,) = [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == name]
    before, begin = state_of(folder), time.monotonic()
    victim.kill()
    out, err = process.communicate(timeout=300)
    print(f"{name}: exit code {process.returncode} after {time.monotonic() - begin:.1f} s: {err[-600:]}")
    assert process.returncode == 3, (out, err)
    assert "Ray failed" in err
    assert "run the same command again" in err
    until(lambda: not left_over(process.pid))
    run(f"launch({str(path)!r}, options=options)")
    after = state_of(folder)
    assert len(after.with_status("completed")) == 4
    assert list(after.trials)[: len(before.trials)] == list(before.trials)
    assert all([result.epoch for result in trial.results] == [*range(1, 21)] for trial in after.trials.values())
