"""`lam train --overfit`: passes on real latents, fails with hints and exit code 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from lam.cli import main
from lam.config import RunConfig
from lam.training import overfit
from lam.training.stepping import MOST_SKIPPED
from record import yamlio

SMALL = {"embed_dim": 64, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64, "codebook_dim": 32,
         "sequence_length": 4, "learning_rate": 3e-3, "warmup_steps": 50, "vq_refresh_interval": 50, "threads": 1}


def config_file(folder: Path, data: Path) -> Path:
    path = folder / "run.yaml"
    path.write_text(yamlio.dump_mapping(SMALL | {"data_dir": str(data)}))
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    return int(end.value.code or 0)


@pytest.mark.nightly
def test_one_batch_of_real_latents_is_learned_by_heart_within_a_minute(tiny_data: Path) -> None:
    found = overfit.overfit(RunConfig(data_dir=str(tiny_data), **SMALL))
    assert found.passed
    assert found.mse < 0.01
    assert found.mae < 0.05
    assert found.seconds < 60


def test_failure_says_what_was_reached_gives_the_hints_and_exits_with_1(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run("train", str(config_file(tmp_path, tiny_data)), "--overfit", "--steps", "3")
    text = capsys.readouterr().err
    assert code == 1
    assert text.startswith("lam: overfit failed: MSE ")
    assert "on 4 sequences after 3 steps" in text
    assert "wanted: MSE below 0.01 and MAE below 0.05. What may help:" in text
    assert "raise learning_rate to 1e-3 or more" in text
    assert {path.name for path in tmp_path.iterdir()} == {"run.yaml"}  # no run folder


def test_a_model_that_diverges_fails_at_once(tiny_data: Path) -> None:
    found = overfit.overfit(RunConfig(data_dir=str(tiny_data), **(SMALL | {"reconstruction_weight": 1e38})))
    assert not found.passed
    assert found.steps <= MOST_SKIPPED  # a loss that is finite still, with a gradient that is not
