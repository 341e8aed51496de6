"""Folders that someone else filled: nothing in them is overwritten, followed or printed as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from lam.config import from_mapping
from lam.training import console
from record.errors import BadInput, EnvironmentFailed
from record.run import RunFolder
from sweeps.workers import trainable

CONFIG = from_mapping({"data_dir": "/nowhere"}, source="test")
OTHERS = {"config.yaml": "mine: 1\n", "metrics.jsonl": '{"epoch":1,"mine":1}\n', "health.jsonl": "",
          "checkpoints/best.safetensors": "weights"}


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("files", [OTHERS, {"thesis.tex": "x"}, {"checkpoints/last.pt": "x"}, {".hidden": "x"},
                                   {"config.yaml": "mine: 1\n"}], ids=lambda files: next(iter(files)))
def test_a_run_begins_in_no_folder_that_holds_something_else(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for begin in (lambda: console.show_training(CONFIG, tmp_path),
                  lambda: RunFolder(tmp_path).start(CONFIG.mapping(), {"state": "running"})):
        with pytest.raises(BadInput, match=r"is no run \(run.json is missing\) and holds .*; name a new or empty"):
            begin()
    assert contents(tmp_path) == files


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("text")
    with pytest.raises(BadInput, match=r"run: is a file, expected the run's folder"):
        RunFolder(tmp_path / "run").check_free(CONFIG.mapping())


def test_a_start_that_was_cut_off_and_a_workers_files_are_no_obstacle(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.start(CONFIG.mapping(), {"state": "running"})
    run.identity_file.unlink()
    for name in ("output.log", ".writer", ".config.yaml.a1b2.tmp", ".run.json.a1b2.tmp"):
        (tmp_path / name).touch()
    run.start(CONFIG.mapping(), {"state": "running"})
    assert run.exists()
    run.identity_file.unlink()
    with pytest.raises(BadInput, match=r"holds .config\.yaml."):
        run.start(CONFIG.replace(seed=1).mapping(), {"state": "running"})


def test_a_trial_whose_folder_is_a_link_is_not_trained_into_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "t0001").symlink_to(tmp_path / "mine")
    with pytest.raises(EnvironmentFailed, match=r"t0001 is a link, expected the trial's own folder; replace it by"):
        trainable._made(tmp_path / "t0001")
    assert trainable._made(tmp_path / "trials" / "t0002").is_dir()
