"""Tables of recorded training curves: which spaces they sample, and how they are read.

A table is a set of configs drawn from a space, each one trained for real by `lam.train` with its full
budget (benchmarks/record_curves.py). It is kept as ``data/NAME.json.gz``:

    game, space, base, epochs, columns,
    rows: [{params, seed, cpu_seconds, probe, probe_last, curve: [[...columns], ...]}]

`probe` and `probe_last` say what the weights of the best and of the last epoch tell of the actions of the test videos,
which took no part in the search (`tuple_probe`).

A table stands for the surface it was drawn from: the config that a searcher asks for is answered by the
nearest recorded one that this search has not met yet, whoever searches: a config is never trained twice, as a real
search would never get the same curve twice, and every method that is compared draws from the same set.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lam import codebook
from sweeps.spec import space as space_module
from sweeps.spec.space import Knob, Scalar

DATA = Path(__file__).resolve().parent / "data"
EPOCHS = 16
COLUMNS = (
    "epoch", "step", "total_tflops", "train/loss", "val/mse_loss", "val/mse_copy", "val/objective", "val/control",
    "val/control_low", "val/codebook_health", "val/perplexity_slot", "val/collapsed", "val/dsnr", "val/dsnr_status",
    "val/d_action_l2", "val/d_rand_l2", "val/d_action_eps_l2", "val/action_skill", "val/action_skill_low",
    "val/action_skill_high", "val/action_log_skill", "val/action_skill_embedding", "val/action_nmi", "val/joint_bits",
    "val/slot_redundancy", "val/objective_preset", "val/labelled_transitions",
)

# What all recorded runs share: small enough for some seconds on one core, large enough to live or to collapse.
BASE: dict[str, Any] = {
    "sequence_length": 3, "embed_dim": 32, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 32,
    "codebook_dim": 16, "num_codes": 3, "num_embeddings": 12, "batch_size": 32, "warmup_steps": 20,
    "num_epochs": EPOCHS, "steps_per_epoch": 20, "rollout_horizon": 1, "eval_sequences": 300, "sample_count": 0,
    "cache": True, "threads": 1, "device": "cpu", "seed": 0,
}

SEARCH_SPACE: dict[str, Any] = {
    "slots": {"choice": ["residual", "parallel"]},
    "quantizer": {"choice": ["ema", "vq"]},
    "learning_rate": {"loguniform": [3e-4, 3e-2]},
    "commitment_weight": {"loguniform": [0.02, 20.0]},
    "num_codes": {"int": [1, 6]},
    "embed_dim": {"choice": [16, 32, 64]},
    "vq_refresh_interval": {"choice": [0, 50]},
    "ema_decay": {"uniform": [0.8, 0.999], "when": {"quantizer": "ema"}},
}

# A space in which the gradient codebook mostly collapses, with codes so close together that DSNR divides by next to
# nothing: the raw number is then far above what a live codebook shows.
DECEPTIVE_SPACE: dict[str, Any] = {
    "slots": {"choice": ["residual", "parallel"]},
    "quantizer": {"choice": ["ema", "vq"]},
    "learning_rate": {"loguniform": [4e-3, 2e-2]},
    "commitment_weight": {"loguniform": [0.1, 20.0]},
    "embed_dim": {"choice": [16, 32, 64]},
    "ema_decay": {"uniform": [0.8, 0.99], "when": {"quantizer": "ema"}},
    "vq_refresh_interval": {"choice": [0, 50], "when": {"quantizer": "ema"}},
}


@dataclass(frozen=True)
class Recipe:
    """What a table is recorded from."""

    game: str
    space: dict[str, Any]
    configs: int
    seeds_of_best: int
    base: dict[str, Any]

    @property
    def knobs(self) -> dict[str, Knob]:
        """The space, validated."""
        return {name: Knob.model_validate(knob) for name, knob in self.space.items()}

    def draws(self) -> list[dict[str, Scalar]]:
        """The configs, the same ones each time."""
        return list(space_module.draws(self.knobs, self.base, self.configs))


RECIPES = {
    "deception": Recipe("panning", DECEPTIVE_SPACE, 120, 1,
                        {**BASE, "codebook_init": "uniform", "vq_refresh_interval": 0, "steps_per_epoch": 40}),
    "breakout": Recipe("breakout", SEARCH_SPACE, 120, 3, BASE),
    "pong": Recipe("pong", SEARCH_SPACE, 120, 3, BASE),
    "haunted_house": Recipe("haunted_house", SEARCH_SPACE, 120, 3, BASE),  # nothing was chosen on it
}


class Table:
    """A recorded table, read back.

    Attributes:
        rows: one a config, trained with the base's seed.
        repeats: for each row, its curves with all seeds, the row's own first.
    """

    def __init__(self, name: str, path: Path | None = None) -> None:
        with gzip.open(path or DATA / f"{name}.json.gz", "rt", encoding="utf-8") as file:
            content = json.load(file)
        self.base: dict[str, Any] = content["base"]
        self.space = {knob: Knob.model_validate(value) for knob, value in content["space"].items()}
        self.space_mapping: dict[str, Any] = content["space"]
        self.columns: list[str] = content["columns"]
        self.epochs: int = content["epochs"]
        for row in content["rows"]:
            row["curve"] = [self._judged(epoch) for epoch in row["curve"]]
        self.rows = [row for row in content["rows"] if row["seed"] == self.base["seed"]]
        by_params: dict[str, list[Any]] = {}
        for row in content["rows"]:
            by_params.setdefault(json.dumps(row["params"], sort_keys=True), []).append(row["curve"])
        self.repeats = [by_params[json.dumps(row["params"], sort_keys=True)] for row in self.rows]

    def _judged(self, epoch: list[Any]) -> list[Any]:
        """An epoch with the objective as it is computed now, from the metrics as they were recorded."""
        record = dict(zip(self.columns, epoch, strict=True))
        preset = record.get("val/objective_preset")
        if preset:
            value = codebook.objective(record, preset)
            record["val/objective"] = value if math.isfinite(value) else None
        return list(record.values())

    def record(self, row: int, epoch: int) -> dict[str, Any]:
        """The epoch record of a row, as `lam.train` yielded it; the last one it has where it diverged earlier."""
        curve = self.rows[row]["curve"]
        return dict(zip(self.columns, curve[min(epoch, len(curve)) - 1], strict=True))

    def epochs_of(self, row: int) -> int:
        """Epochs that a row has; fewer than the budget where it diverged."""
        return len(self.rows[row]["curve"])

    def nearest(self, params: dict[str, Scalar], met: Container[int] = ()) -> int:
        """The row whose config is nearest of those not in `met`; of all, once every one is.

        Choices count 1 where they differ, numbers their difference in quantiles.
        """
        order = np.argsort(np.abs(self._points - self._coordinates(params)).sum(axis=1), kind="stable")
        return next((int(row) for row in order if row not in met), int(order[0]))

    @cached_property
    def _points(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([self._coordinates(row["params"]) for row in self.rows])

    def _coordinates(self, params: dict[str, Scalar]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Choices as one-hot halves (so that two that differ are 1 apart), numbers as quantiles; inactive knobs 0.5."""
        found: list[float] = []
        for name, knob in self.space.items():
            if knob.choice is not None:
                found += [0.5 * (params.get(name) == choice) for choice in knob.choice]
            else:
                found.append(knob.quantile(float(params[name])) if name in params else 0.5)  # type: ignore[arg-type]
        return np.array(found)

    def final(self, row: int, column: str = "val/objective") -> float:
        """Mean over the seeds of a metric at the last epoch; NaN where a seed diverged."""
        place = self.columns.index(column)
        values = [curve[-1][place] for curve in self.repeats[row]]
        return math.nan if any(value is None for value in values) else float(np.mean(values))

    def raw_dsnr(self, record: dict[str, Any]) -> float:
        """DSNR as the plain ratio of the recorded distances, whatever its status; NaN where nothing moved."""
        action, rand, eps = (record[f"val/d_{name}_l2"] for name in ("action", "rand", "action_eps"))
        if None in (action, rand, eps) or eps == action:
            return math.nan
        return float((rand - action) / (eps - action))
