"""The seam: a training that is no latent action model goes through launch, resume, report and promotion."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typed

from lam.config import RunConfig
from lam.metrics import TABLE
from lam.workload import LAM
from record import yamlio
from record.errors import BadInput
from record.workload import workload
from record.workload.workload import Workload

ROOT = Path(__file__).parent.parent
PLUGIN = Path(__file__).parent / "plugin"
SWEEP = """
name: fits
workload: second
base: {points: points.npy, pause: 0.05}
space:
  rate: {loguniform: [0.01, 0.5]}
  degree: {choice: [1, 2, 3]}
scheduler: {asha: {max_epochs: 8, grace_epochs: 2}}
budget: {trials: 6}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    x = np.random.default_rng(0).uniform(-1, 1, 60)
    np.save(tmp_path / "points.npy", np.stack([x, 1 - 2 * x**2], axis=1))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def lam(folder: Path, *words: str, plugin: bool = True) -> subprocess.Popen[str]:
    """The command line in a process that has the second workload installed, or not."""
    paths = [str(ROOT), *([str(PLUGIN)] if plugin else [])]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, "-c", "from lam.cli import main; main()", *words], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=found)


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_a_training_that_is_one_process_is_refused_several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    (folder / "sweep.yaml").write_text(SWEEP + "resources: {workers: 2}\n")
    code, _, err = typed.lam(folder, "sweep", "launch", "sweep.yaml")
    assert code == 2
    assert "sweep.yaml:resources.workers: got 2, and second trains in one process (the trial " in err


@pytest.mark.slow
@pytest.mark.long
def test_another_training_is_launched_interrupted_resumed_reported_and_promoted(
    folder: Path, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = done(lam(folder, "sweep", "plan", "sweep.yaml"))
    assert plan[0] == 0, plan
    assert "rate: not probed (failed: second names no digest of a short training)" in plan[1]
    first = lam(folder, "sweep", "launch", "sweep.yaml")
    while not any((folder / "runs" / "fits" / "trials").glob("*/metrics.jsonl")):
        assert first.poll() is None, done(first)
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    assert done(first)[0] == 130
    monkeypatch.syspath_prepend(PLUGIN)  # from here on in this process, which has it installed then
    code, out, err = typed.lam(folder, "sweep", "launch", "sweep.yaml", "--address", ray_address)
    assert code == 0, err
    assert "val/error" in out
    status = json.loads(typed.lam(folder, "sweep", "status", "runs/fits", "--json").out)
    rows = status["trials"]
    assert len(rows) == 6
    assert {row["state"] for row in rows} <= {"completed", "stopped"}
    code, _, err = typed.lam(folder, "report", "runs/fits", "-o", "report.md", "-o", "report.html")
    assert code == 0, err
    text = (folder / "report.md").read_text()
    assert "Explained, end" in text
    assert "Slot perplexity" not in text
    best = min((row for row in rows if row["state"] == "completed"), key=lambda row: row["objective"])
    assert best["id"] in text
    code, out, err = typed.lam(folder, "promote", "runs/fits", "-o", "production.yaml", "--waive", "confirmed",
                               "--because", "one seed is enough for a fit")
    assert code == 0, (out, err)
    values = yamlio.load_mapping(folder / "production.yaml")
    assert values["provenance"]["workload"] == "second"
    assert values["degree"] == best["params"]["degree"]
    again = typed.lam(folder, "promote", "runs/fits", "-o", "production.yaml", "--waive", "confirmed", "--because", "x")
    assert again.code == 0, again  # its own file is known again
    missing = done(lam(folder, "report", "runs/fits", plugin=False))
    assert missing[0] == 2
    assert "got 'second', and no installed package offers a workload of that name; known here: lam" in missing[2]


def test_a_workload_that_is_not_installed_is_named(folder: Path) -> None:
    code, _, err = done(lam(folder, "sweep", "plan", "sweep.yaml", plugin=False))
    assert code == 2
    assert "sweep.yaml:workload: got 'second', and no installed package offers a workload of that name" in err
    assert "Traceback" not in err


def test_the_first_workload_is_the_latent_action_model() -> None:
    assert workload.find("lam") is LAM
    assert LAM.config is RunConfig
    assert LAM.metrics is TABLE
    with pytest.raises(BadInput, match=r"workload: got 'lan', .* did you mean 'lam'"):
        workload.find("lan")


def test_what_sweeps_know_of_a_config_every_workload_has() -> None:
    """`Settings` declares these for the type checker alone; a config without one fails in the middle of a sweep."""
    assert {"num_epochs", "seed", "threads", "health", "tracking"} <= set(RunConfig.model_fields)
    assert RunConfig(early_stopping={"patience": 3}).stops_early  # type: ignore[arg-type]
    assert not RunConfig().stops_early


def test_knobs_fixed_keys_and_paths_are_keys_of_the_config() -> None:
    named = {*LAM.knobs, *LAM.fixed, *LAM.no_result, *LAM.aside, *LAM.path_knobs}
    assert named <= set(RunConfig.model_fields)
    assert {*LAM.shown, LAM.objective, LAM.error, *(curve.key for curve in LAM.curves)} <= set(TABLE)


def test_sweeps_name_no_key_and_no_metric_of_the_latent_action_model() -> None:
    """Words of its config and its metric table stand in no string and no attribute of `sweeps`."""
    python = {"cache", "compile", "data"}  # words of the standard library, too, and what a doctor looks at
    common = {"num_epochs", "seed", "threads", "health", "tracking", *dir(Workload), *python}
    words = (set(RunConfig.model_fields) | {key for key in TABLE if "/" in key}) - common
    found = {}
    for file in sorted((ROOT / "sweeps").rglob("*.py")):
        tree = ast.parse(file.read_text())
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        found[file.name] = words & (texts | names)
    assert not any(found.values()), found
