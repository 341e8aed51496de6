"""Faults planted in real training on real latents: each is named by its rule; healthy runs raise no abort.

The epochs within which each must be named stand in FAULTS. A healthy run is one whose config and data are
in order; it may be warned about, it must not be told to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lam.config import RunConfig, from_mapping
from lam.data import demo
from lam.data.windows import Batch, Windows
from lam.metrics import TABLE
from lam.training import loop
from record.health import columns, facts
from record.health.engine import Judgement, judge_records
from record.health.profile import load
from record.run import RunFolder

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "embed_dim": 32, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64, "codebook_dim": 32,
    "sequence_length": 3, "rollout_horizon": 1, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 50,
    "vq_refresh_interval": 50, "steps_per_epoch": 20, "num_epochs": 8, "threads": 1, "sample_count": 0,
    "eval_sequences": 128,
}
Plant = Callable[[loop.Run], None]


@pytest.fixture(scope="module")
def data(latents: Callable[[demo.Demo], Path]) -> Path:
    return latents(demo.Demo(game="breakout", episodes=10, length=60, size=128, seed=0))


@pytest.fixture(scope="module")
def coarse(latents: Callable[[demo.Demo], Path]) -> Path:
    """A quarter of the cells: what a fault does, it does to them as well."""
    return latents(demo.Demo(game="breakout", episodes=10, length=60, size=64, seed=0))


def config_of(data: Path, **changes: Any) -> RunConfig:
    return from_mapping({**SMALL, "data_dir": str(data), **changes}, source="test")


def watched(config: RunConfig, folder: Path, plant: Plant | None = None) -> Iterator[tuple[int, Judgement]]:
    """(epoch, judgement) of each epoch of a run, with something of it changed first."""
    run = loop.Run(config, RunFolder(folder))
    if plant is not None:
        plant(run)
    records: list[dict[str, Any]] = []
    for record in loop.epochs(run):
        records.append(record)
        known = facts.of_config(config.mapping(), config.steps_per_epoch or 1, 2 * config.vq_refresh_interval)
        yield record["epoch"], judge_records(records, load("lam"), known)


class WithNan(Windows):
    """The windows of another, with NaN in one batch."""

    def __init__(self, inner: Windows, at: int) -> None:
        self.__dict__.update(inner.__dict__)
        self._left = at

    def batch(self, index: NDArray[np.integer]) -> Batch:
        found = super().batch(index)
        self._left -= 1
        return found._replace(latents=torch.full_like(found.latents, float("nan"))) if self._left == 0 else found


def freeze_encoder(run: loop.Run) -> None:
    for module in (run.model.encoder, run.model.adapter_in):
        module.requires_grad_(False)


def nan_in_one_batch(run: loop.Run) -> None:
    run.train_set = WithNan(run.train_set, at=25)


# fault: config, hook, the rule that must name it, epochs within which it must.
FAULTS: dict[str, tuple[dict[str, Any], Plant | None, str, int]] = {
    "learning rate x100": ({"learning_rate": 0.3, "batch_size": 16}, None, "loss_exploding", 6),
    # The smallest that moves nothing in float32.
    "learning rate 0": ({"learning_rate": 1e-30, "batch_size": 8}, None, "stalled", 4),
    "commitment kills the codebook": ({"commitment_weight": 1e4, "vq_refresh_interval": 0}, None,
                                      "codebook_collapsed", 4),
    "one code only": ({"num_embeddings": 1, "vq_refresh_interval": 0}, None, "single_code", 4),
    "frozen encoder": ({}, freeze_encoder, "encoder_frozen", 2),
    "NaN in one batch": ({}, nan_in_one_batch, "loss_nonfinite", 2),
    "dead EMA codes": ({"codebook_init": "uniform", "batch_size": 8, "vq_refresh_interval": 0, "num_embeddings": 32},
                       None, "dead_codes", 4),
}
WHEN = {"frozen encoder": "long", "NaN in one batch": "slow"}
NEEDS_ALL_CELLS = ("learning rate x100", "commitment kills the codebook")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=getattr(pytest.mark, WHEN.get(name, "nightly"))) for name in FAULTS])
def test_a_planted_fault_is_named(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    changes, plant, rule, within = FAULTS[name]
    data = request.getfixturevalue("data" if name in NEEDS_ALL_CELLS else "coarse")
    if name == "frozen encoder" and "train/update_ratio_encoder" not in TABLE:
        pytest.skip("this version does not record how far the encoder moves")
    seen: dict[str, int] = {}
    for epoch, judged in watched(config_of(data, num_epochs=8, **changes), tmp_path / "run", plant):
        for finding in judged.findings:
            seen.setdefault(finding.rule, epoch)
        if epoch >= within or rule in seen:
            break
    assert rule in seen, f"only {seen} fired within {within} epochs"


HEALTHY = {"single steps": {},
           "few codes, rollouts": {"num_embeddings": 8, "sequence_length": 4, "rollout_horizon": 2}}


@pytest.mark.nightly
def test_healthy_runs_raise_no_abort(data: Path, tmp_path: Path) -> None:
    """6 runs, two configs over 3 seeds: the false alarms are counted, and there are none."""
    alarms = []
    for name, changes in HEALTHY.items():
        for seed in range(3):
            folder = tmp_path / f"{len(changes)}-{seed}"
            last = None
            config = config_of(data, seed=seed, num_epochs=10, val_every=2, eval_sequences=64, **changes)
            for _, last in watched(config, folder):
                alarms += [(name, seed, finding.rule) for finding in last.aborts]
            assert last is not None
    assert alarms == []


def test_a_healthy_run_is_told_from_the_faults_by_its_columns(coarse: Path, tmp_path: Path) -> None:
    """The records that training writes are what the rules read: none of the gravest lacks its metric."""
    run = loop.Run(config_of(coarse, num_epochs=2), RunFolder(tmp_path / "run"))
    known = facts.of_config(run.config.mapping(), 20, 2 * run.config.vq_refresh_interval)
    table = columns.of_records(list(loop.epochs(run)), known)
    for rule in load("lam").rules:
        if rule.severity == "abort" and rule.metric is not None:
            assert table.missing(rule.metric) == [], rule.name
