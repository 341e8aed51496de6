"""Commands, options, run and sweep YAML with one mistake each, and paths given from elsewhere: 84 answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from build_records import Planted, write_run, write_sweep
from inputs import Row, answer, nothing, table
from small_sweep import make_sweep

from sweeps.journal import folders

SWEEP = """name: demo
base: {data_dir: nowhere, num_epochs: 9}
space: {weight_decay: {uniform: [0.0, 1.0]}}
budget: {trials: 6}
"""
PLAN = ("sweep", "plan", "s.yaml")
LAUNCH = ("sweep", "launch", "s.yaml")


def run_yaml(text: str) -> Callable[[Path], Any]:
    return lambda box: (box / "run.yaml").write_text(f"data_dir: nowhere\n{text}\n")


def sweep_yaml(old: str, new: str) -> Callable[[Path], Any]:
    assert old in SWEEP
    return lambda box: (box / "s.yaml").write_text(SWEEP.replace(old, new))


def more(text: str) -> Callable[[Path], Any]:
    return lambda box: (box / "s.yaml").write_text(SWEEP + text)


def sweep(box: Path) -> Path:
    return write_sweep(box / "runs" / "pong", {"t0001": Planted(epochs=3), "t0002": Planted(epochs=2, control=0.2)})


def launched(box: Path) -> None:
    folders.write_identity(make_sweep(box / "yaml"), box / "demo", "data")


def typed(name: str, words: str, *says: str, code: int = 2, make: Callable[[Path], Any] = nothing) -> Row:
    return Row(name, make, tuple(words.split()), code, says)


def trained(name: str, text: str, *says: str) -> Row:
    return Row(name, run_yaml(text), ("train", "run.yaml", "--run-dir", "run"), 2, ("run.yaml", *says))


def planned(name: str, old: str, new: str, *says: str) -> Row:
    return Row(name, sweep_yaml(old, new), PLAN, 2, ("s.yaml", *says))


UNIFORM = "{uniform: [0.0, 1.0]}"
COMMANDS = [
    typed("a misspelt command", "trian run.yaml", "train"), typed("a misspelt group", "sweeep status x", "sweep"),
    typed("a misspelt subcommand", "sweep lanch x", "launch"),
    typed("a misspelt option", "sweep status x --folow", "--follow"), typed("train nothing", "train", "CONFIG"),
    typed("train what is not there", "train gone.yaml", "gone.yaml: no such file"),
    typed("report nothing", "report", "no path given"),
    typed("report what is not there", "report gone", "gone: no such"),
    typed("monitor what is not there", "monitor gone", "gone: no such"),
    typed("promote what is not there", "promote gone -o p.yaml", "gone: no such"),
    typed("promote without a target", "promote gone", "--output"),
    typed("evaluate what is not there", "evaluate gone", "gone"), typed("export what is not there", "export gone -o m"),
    typed("label what is not there", "label gone d -o c.h5", "gone"), typed("play what is not there", "play gone"),
    typed("sync what is not there", "sync gone", "gone"),
    typed("status of what is not there", "sweep status gone", "gone"),
    typed("explain what is not there", "sweep explain gone", "gone"),
    typed("replay without a policy", "sweep replay gone", "--policy"),
    typed("an unknown policy", "sweep replay demo --policy ashaa", "asha", make=launched),
    typed("an unknown gate", "promote runs/pong -o p.yaml --waive confrmed --because x", "confirmed", make=sweep),
    typed("waive without because", "promote runs/pong -o p.yaml --waive confirmed", "--because", make=sweep),
    typed("an unknown trial", "promote runs/pong -o p.yaml --trial t0099", "t0099", make=sweep),
    typed("a page that ends in txt", "report runs/pong -o r.txt", "r.txt", make=sweep),
    typed("a page on the screen", "report runs/pong -o -", "-", make=sweep),
    typed("an unknown objective", "report runs/pong --objective val/objetive", "val/obj", make=sweep),
    typed("an unknown profile", "monitor runs/pong/trials/t0001 --profile lm", "lm", make=sweep),
    typed("an unknown baseline", "report runs/pong --baseline t0099", "t0099", make=sweep),
    typed("a fact that is no number", "monitor runs/pong/trials/t0001 --fact a=b", "NAME=NUMBER", make=sweep),
    typed("an unknown split", "evaluate runs/pong/trials/t0001 --split tset", "test", make=sweep),
    typed("a preset that is none", "init --preset lapotp", "laptop"),
    typed("set without a value", "train run.yaml --set seed", "key=value", make=run_yaml("")),
    typed("set an unknown key", "train run.yaml --set sed=1", "seed", make=run_yaml("")),
    typed("a huge seed", "train run.yaml --set seed=99999999999999999999999", "seed", make=run_yaml("")),
    typed("a hexadecimal huge seed", "train run.yaml --set seed=0xffffffffffffffffffff", "seed", make=run_yaml("")),
    typed("rollback nothing", "promotions rollback gone.yaml", "gone.yaml"),
    typed("a date that is none", "promotions show gone.yaml --at yesterday", "gone.yaml"),
    typed("stop nothing", "sweep stop runs/pong", "--address", make=sweep),
    trained("an unknown key", "batchsize: 3", "did you mean", "batch_size"),
    trained("zero", "batch_size: 0", "batch_size: got 0"), trained("a word", "learning_rate: fast", "got 'fast'"),
    trained("true for a number", "num_epochs: true", "num_epochs"), trained("a list for a number", "seed: [1]", "seed"),
    trained("a fraction of an epoch", "num_epochs: 1.5", "num_epochs"),
    trained("an unknown quantizer", "quantizer: emma", "'ema'"), trained("100,000 slots", "num_codes: 100000", "1024"),
    trained("an unknown section", "helth: {grace_epochs: 1}", "health"),
    trained("an unknown key of a section", "health: {grace: 1}", "health.grace"),
    planned("bounds reversed", UNIFORM, "{uniform: [1.0, 0.0]}", "space.weight_decay"),
    planned("a log of zero", UNIFORM, "{loguniform: [0, 1.0]}", "space.weight_decay"),
    planned("no choices", UNIFORM, "{choice: []}", "space.weight_decay"),
    planned("a kind that is none", UNIFORM, "{unifrom: [0.0, 1.0]}", "uniform"),
    planned("a knob that is none", "weight_decay:", "weigth_decay:", "weight_decay"),
    planned("an empty space", "{weight_decay: {uniform: [0.0, 1.0]}}", "{}", "is empty"),
    planned("no trials", "trials: 6", "trials: 0", "budget.trials"),
    planned("trials in words", "trials: 6", "trials: many", "budget.trials"),
    planned("a name with a slash", "name: demo", "name: ../evil", "name"),
    planned("a name that is long", "name: demo", f"name: {'x' * 300}", "name"),
    planned("a name that begins with a dash", "name: demo", "name: -demo", "name"),
    planned("a key that is none", "budget:", "bugdet:", "budget"),
    planned("a knob that the base fixes", "num_epochs: 9", "num_epochs: 9, weight_decay: 0.1", "weight_decay"),
    Row("an objective that is none", more("objective: val/objetive\n"), PLAN, 2, ("val/objective",)),
    Row("an unknown searcher", more("search: {tep: {}}\n"), PLAN, 2, ("tpe",)),
    Row("reduction by one", more("scheduler: {asha: {max_epochs: 9, reduction_factor: 1}}\n"), PLAN, 2,
        ("reduction_factor",)),
    Row("grace above the most", more("scheduler: {asha: {max_epochs: 2, grace_epochs: 5}}\n"), PLAN, 2, ("grace",)),
]


def project(box: Path, data: bool = True) -> None:
    (box / "a").mkdir()
    (box / "a" / "run.yaml").write_text("data_dir: data\n")
    (box / "a" / "s.yaml").write_text(SWEEP.replace("{data_dir: nowhere, num_epochs: 9}", "run.yaml"))
    if data:
        (box / "a" / "data").mkdir()


def two(box: Path) -> None:
    sweep(box)
    write_sweep(box / "runs" / "other", {"t0001": Planted(epochs=3)}, name="other")


def foreign(files: dict[str, str]) -> Callable[[Path], Any]:
    def make(box: Path) -> None:
        project(box)
        for name, text in files.items():
            (box / "X" / name).parent.mkdir(parents=True, exist_ok=True)
            (box / "X" / name).write_text(text)
    return make


PROJECT = [
    typed("data beside the YAML, from above", "train a/run.yaml --run-dir r", "box/a/data", make=project),
    typed("data beside the YAML of a sweep, from above", "sweep plan a/s.yaml", "box/a/data", make=project),
    typed("no data beside the YAML", "train a/run.yaml", "data_dir: no such folder",
          make=lambda box: project(box, data=False)),
    typed("init where files are", "init a", "exists already", make=project),
    typed("init without data", "init b --data nowhere --preset laptop", "nowhere: no such folder yet", code=0),
    typed("init with a space in its name", "init b --preset laptop", code=0),
    typed("a sweep file for train", "train a/s.yaml", "is a sweep file", "lam sweep launch", make=project),
    typed("a run config for launch", "sweep launch a/run.yaml", "is a run config", "lam train", make=project),
    typed("the folder of the sweeps, status", "sweep status runs", "name one of those", "pong", make=sweep),
    typed("the folder of the sweeps, report", "report runs -o r.json", "pong", make=sweep),
    typed("two sweeps", "report runs/pong runs/other -o r.json", "wins", code=0, make=two),
    typed("a sweep twice", "report runs/pong runs/../runs/pong -o r.json", "wins", code=0, make=sweep),
    typed("a trial of a sweep", "report runs/pong/trials/t0001 -o r.json", "t0001", code=0, make=sweep),
    typed("an unknown trial of a sweep", "sweep explain runs/pong t0099", make=sweep),
    Row("another program's folder", foreign({"config.yaml": "a: 1\n", "metrics.jsonl": '{"epoch": 1}\n'}),
        ("train", "a/run.yaml", "--run-dir", "X"), 2, ("X", "config.yaml")),
    Row("a folder with a thesis", foreign({"thesis.tex": "x"}), ("train", "a/run.yaml", "--run-dir", "X"), 2,
        ("thesis.tex",)),
    Row("a run folder that is a file", lambda box: (project(box), (box / "X").write_text("x")),
        ("train", "a/run.yaml", "--run-dir", "X"), 2, ("X",)),
    Row("a run that is a link to itself", lambda box: (project(box), os.symlink("X", box / "X")),
        ("monitor", "X"), 2, ("X",)),
    Row("a run given to status", lambda box: write_run(box / "run", Planted()), ("sweep", "status", "run"), 2,
        ("sweep.json",)),
]


@table(COMMANDS)
def test_one_mistake_is_one_message(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


@table(PROJECT)
def test_a_project_of_ones_own(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


def test_so_many_were_tried() -> None:
    assert (len(COMMANDS), len(PROJECT)) == (65, 19)
