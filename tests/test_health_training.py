"""Health inside training: health.jsonl, an abort with exit 1 and a last checkpoint, the same on a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lam.config import RunConfig, from_mapping
from lam.training import console, loop
from record import yamlio
from record.errors import AnswerIsNo, BadInput
from record.run import RunFolder

TINY: dict[str, Any] = {
    "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16, "codebook_dim": 8,
    "num_codes": 2, "num_embeddings": 4, "sequence_length": 4, "batch_size": 4, "steps_per_epoch": 2, "num_epochs": 4,
    "eval_sequences": 8, "threads": 1, "sample_count": 0,
}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile that wants every run stopped after its second epoch."""
    words = {"metric": "step", "meaning": "Long.", "remedy": "Go."}
    rules = [{"name": "too_long", "threshold": 3, "severity": "abort", **words},
             {"name": "begun", "threshold": 0, "severity": "warn", **words}]
    path = tmp_path / "mine.yaml"
    path.write_text(yamlio.dump_mapping({"name": "mine", "about": "a", "rules": rules}))
    return path


def config_of(data: Path, profile: Path | str, abort: bool) -> RunConfig:
    return from_mapping({**TINY, "data_dir": str(data), "health": {"profile": str(profile), "abort": abort}}, "test")


def test_what_fired_is_recorded_and_ends_nothing_by_itself(tiny_data: Path, profile: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert len(list(loop.train(config_of(tiny_data, profile, abort=False), run.path))) == 4
    assert run.identity()["state"] == "finished"
    assert run.health() == [
        {"epoch": 1, "rule": "begun", "event": "fired", "severity": "warn", "value": 2, "threshold": "0"},
        {"epoch": 2, "rule": "too_long", "event": "fired", "severity": "abort", "value": 4, "threshold": "3"}]


def test_killed_after_the_record_that_aborts_it_a_run_trains_no_further(
    tiny_data: Path, profile: Path, tmp_path: Path
) -> None:
    run, config = RunFolder(tmp_path / "run"), config_of(tiny_data, profile, abort=True)
    epochs = loop.train(config, run.path)
    next(epochs), next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    assert run.identity()["state"] == "interrupted"
    assert list(loop.train(config, run.path)) == []
    assert run.identity()["state"] == "failed"
    assert run.identity()["reason"].startswith("health rule too_long: step is 4")


def test_an_abort_ends_the_run_with_its_last_checkpoint(tiny_data: Path, profile: Path, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    run, config = RunFolder(tmp_path / "run"), config_of(tiny_data, profile, abort=True)
    said = r"health rule too_long: step is 4, above 3 since epoch 2. Go."
    with pytest.raises(AnswerIsNo, match=said) as caught:
        console.show_training(config, run.path)
    assert caught.value.exit_code == 1
    assert "abort: too_long fired (value 4, threshold 3)" in capsys.readouterr().out
    assert [record["epoch"] for record in run.metrics()] == [1, 2]
    assert (run.checkpoints / "last.safetensors").exists()
    assert run.identity()["state"] == "failed"
    assert run.identity()["rule"] == "too_long"
    weights = (run.checkpoints / "last.safetensors").read_bytes()
    with pytest.raises(AnswerIsNo, match=said):  # the same command again says the same and changes nothing
        console.show_training(config, run.path)
    assert (run.checkpoints / "last.safetensors").read_bytes() == weights


def test_a_resumed_run_tells_the_same_story(tiny_data: Path, profile: Path, tmp_path: Path) -> None:
    config = config_of(tiny_data, profile, abort=False)
    whole, halved = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "halved")
    list(loop.train(config, whole.path))
    epochs = loop.train(config, halved.path)
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    halved.health_file.write_text('{"epoch": 9, "rule": "from a lost epoch"}\n')
    list(loop.train(config, halved.path))
    assert halved.health() == whole.health()


@pytest.mark.long
def test_a_finished_run_keeps_its_weights_when_asked_for_again(
    tiny_data: Path, profile: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    config = config_of(tiny_data, profile, abort=False).replace(keep="last")
    list(loop.train(config, run.path))
    weights = (run.checkpoints / "last.safetensors").read_bytes()
    assert list(loop.train(config, run.path)) == []
    assert (run.checkpoints / "last.safetensors").read_bytes() == weights


def test_an_unknown_profile_is_refused_before_anything_is_written(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got 'lamm', no such profile; did you mean 'lam'"):
        next(loop.train(config_of(tiny_data, "lamm", abort=True), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
