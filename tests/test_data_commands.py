"""`lam data`: what it prints and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from lam.data import commands, inspect
from record.errors import AnswerIsNo, BadInput


def lam(*arguments: str) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    commands.register(app)
    return CliRunner().invoke(app, ["data", *arguments])


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_data, tmp_path / "pong", ignore=shutil.ignore_patterns(".cache")))


def test_demo_says_what_it_wrote_and_that_it_is_there(tmp_path: Path) -> None:
    arguments = ("demo", str(tmp_path / "d"), "--episodes", "3", "--length", "8", "--size", "32")
    first = lam(*arguments)
    assert first.exit_code == 0, first.output
    assert "wrote 3 clips of breakout" in first.output
    assert "nothing to do" in lam(*arguments).output


def test_manifest_says_the_split(data: Path) -> None:
    refused = lam("manifest", str(data), "--seed", "1").exception
    assert isinstance(refused, BadInput)
    assert refused.exit_code == 2
    result = lam("manifest", str(data), "--seed", "1", "--replace")
    assert result.exit_code == 0, result.output
    assert "manifest.json: train 8, validation 1, test 1 files" in result.output
    assert isinstance(lam("manifest", str(data), "--val-ratio", "0.5").exception, BadInput)


def test_inspect_prints_tables(data: Path) -> None:
    result = lam("inspect", str(data), "--batches", "2")
    assert result.exit_code == 0, result.output
    assert "10 usable files (train 8, validation 1, test 1)" in result.output
    assert "true actions: NOOP, RIGHT, LEFT" in result.output
    assert "16x2x8x8" in result.output
    assert "2 batches of 32 from the files" in result.output


def test_inspect_as_json_is_one_document(data: Path) -> None:
    found = json.loads(lam("inspect", str(data), "--batches", "2", "--cached", "--json").stdout)
    assert found["schema"] == 1
    assert found["splits"] == {"train": 8, "validation": 1, "test": 1}
    assert len(found["files"]) == 10
    assert found["files"][0]["shape"] == [12, 16, 2, 8, 8]
    assert len(found["channels"]) == 16
    assert found["speed"]["source"] == "cache"
    assert found["speed"]["samples_per_second"] > 0
    assert found["problems"] == {}


def test_inspect_lists_what_cannot_be_used_and_says_no(data: Path) -> None:
    (data / "pong-0003.h5").write_bytes(b"")
    (data / "zzz.h5").write_text("not latents")
    result = lam("inspect", str(data), "--json")
    assert isinstance(result.exception, AnswerIsNo)
    assert "2 of 11 files cannot be used" in str(result.exception)
    found = json.loads(result.stdout)
    assert list(found["problems"]) == ["pong-0003.h5", "zzz.h5"]
    assert "has 0 bytes" in found["problems"]["pong-0003.h5"]
    assert found["speed"] is None
    assert "cannot be used:" in lam("inspect", str(data)).output


def test_inspect_without_a_manifest_says_how_to_write_one(data: Path) -> None:
    (data / "manifest.json").unlink()
    found = inspect.inspect(data, batches=3)
    assert found.speed is None
    assert found.notes == [f"no manifest.json; write one with: lam data manifest {data}",
                           "no batch was timed: that needs a manifest and only usable files"]


def test_channel_statistics_are_those_of_all_files_together(data: Path) -> None:
    import h5py
    import numpy as np

    values = []
    for path in sorted(data.glob("*.h5")):
        with h5py.File(path) as file:
            values.append(file["embeddings"][:].transpose(1, 0, 2, 3, 4).reshape(16, -1))
    flat = np.concatenate(values, axis=1).astype(np.float64)
    channels = inspect.inspect(data).channels
    np.testing.assert_allclose([channel.mean for channel in channels], flat.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose([channel.std for channel in channels], flat.std(axis=1), rtol=1e-5)
    assert [channel.high for channel in channels] == flat.max(axis=1).tolist()


def test_an_empty_or_missing_folder_is_bad_input(tmp_path: Path) -> None:
    assert isinstance(lam("inspect", str(tmp_path)).exception, BadInput)
    assert isinstance(lam("manifest", str(tmp_path / "no")).exception, BadInput)
