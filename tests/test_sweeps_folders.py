"""The sweep folder: first launches that were cut off, damaged records, budgets that shrink, extensions."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from small_sweep import make_sweep

from record.errors import BadInput
from sweeps.commands import extending
from sweeps.commands.launching import Options
from sweeps.journal import folders


def test_a_first_launch_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    sweep, folder = make_sweep(tmp_path / "yaml"), tmp_path / "demo"
    folder.mkdir()
    for name in ("driver.lock", "ray.log", ".sweep.json.a1b2.tmp"):
        (folder / name).touch()
    folders.check_same(sweep, folder)
    folders.write_identity(sweep, folder, "data")
    (folder / "sweep.yaml").unlink()  # it is written last
    folders.check_same(sweep, folder)
    folders.write_identity(sweep, folder, "data")
    assert (folder / "sweep.yaml").read_text() == sweep.text


def test_a_sweep_yaml_that_a_person_keeps_there_is_not_overwritten(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "demo")
    with pytest.raises(BadInput, match=r"is no sweep \(sweep.json is missing\) and holds sweep.yaml; give this sweep"):
        folders.check_same(sweep, tmp_path / "demo")


@pytest.mark.parametrize(("content", "message"), [
    (b'{"name": "de', r"sweep.json: is not JSON \(Unterminated string.*restore it from a copy"),
    (b"", r"sweep.json: is not JSON \(Expecting value"), (b"\xff\xfe\x00", r"sweep.json: is not JSON \("),
    (b"[]", r"sweep.json: holds a list, expected an object"), (b"{}", r"sweep.json: lacks its name; restore it"),
])
def test_a_damaged_sweep_json_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    sweep, folder = make_sweep(tmp_path / "yaml"), tmp_path / "demo"
    folders.write_identity(sweep, folder, "data")
    (folder / "sweep.json").write_bytes(content)
    for read in (lambda: folders.open_sweep(folder), lambda: folders.check_same(sweep, folder),
                 lambda: folders.write_identity(sweep, folder, "data")):
        with pytest.raises(BadInput, match=message):
            read()


def test_a_budget_that_shrinks_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    sweep = make_sweep(tmp_path / "yaml", budget={"trials": 15})
    assert folders.shrunk(sweep, folder) == []
    folders.write_identity(sweep, folder, "data")
    assert folders.shrunk(make_sweep(tmp_path / "yaml", budget={"trials": 20}), folder) == []
    less = make_sweep(tmp_path / "yaml", budget={"trials": 5, "hours": 2})
    assert folders.shrunk(less, folder) == [
        f"{folder}: its budget is lowered (trials: 15 -> 5, hours: absent -> 2.0); 'lam sweep extend' raises it again"]


def test_another_optuna_is_said(tmp_path: Path) -> None:
    folder, began = tmp_path / "demo", metadata.version("optuna")
    assert folders.another_optuna(folder) == [], "nothing has begun"
    folders.write_identity(make_sweep(tmp_path / "yaml"), folder, "data")
    assert folders.another_optuna(folder) == []
    assert folders.another_optuna(folder, "9.9") == [
        f"{folder}: was begun with optuna {began}, here is 9.9; it may suggest other configs than it would have: "
        f"install optuna {began} to go on as it began"]


def test_what_goes_on_with_an_extended_sweep_is_named(tmp_path: Path) -> None:
    sweep, folder = make_sweep(tmp_path / "yaml"), tmp_path / "demo"
    wide = make_sweep(tmp_path / "wide", space={"weight_decay": {"uniform": [0.0, 2.0]}})
    folders.write_identity(wide, folder, "data")
    with pytest.raises(BadInput, match="give this sweep another name"):
        folders.check_same(sweep, folder)
    (folder / "sweep.yaml").write_text(f"{folders.EXTENDED}\n{wide.text}")
    with pytest.raises(BadInput) as caught:
        folders.check_same(sweep, folder)
    assert (f"it was extended, so go on with 'lam sweep launch {folder}/sweep.yaml --storage {tmp_path}', or give"
            in str(caught.value))
    assert json.loads((folder / "sweep.json").read_text())["asked"]["space"]["weight_decay"]["uniform"] == [0.0, 2.0]


def test_an_extension_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folders.write_identity(make_sweep(tmp_path / "yaml"), folder, "data")
    before = [(folder / name).read_bytes() for name in ("sweep.json", "sweep.yaml")]
    for prepare, message in ((lambda configs: "other", "was begun with data data, the data is now other"),
                             (None, "nowhere")):
        with pytest.raises(BadInput, match=message):
            extending.extend(folder, {"trials": 5}, options=Options(prepare=prepare))
        assert [(folder / name).read_bytes() for name in ("sweep.json", "sweep.yaml")] == before


def test_an_extension_that_fails_later_names_the_command_that_adds_nothing_again(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folders.write_identity(make_sweep(tmp_path / "yaml"), folder, "data")
    answers = iter(["data", "other"])  # the data changes between the check and the launch
    with pytest.raises(BadInput) as caught:
        extending.extend(folder, {"trials": 5}, options=Options(prepare=lambda configs: next(answers)))
    assert str(caught.value).splitlines()[-1] == ("the sweep is extended already; go on with: "
                                                  f"lam sweep launch {folder}/sweep.yaml --storage {tmp_path}")
    assert folders.open_sweep(folder)[0].spec.budget.trials == 11
    assert folders.is_extended(folder)
