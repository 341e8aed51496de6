"""Four runs of a joint-embedding trainer in its own log format: two that collapse, one without codes, one that is well.

The figures at the ends, the lowest use of codes, the spike and the configs are those of the published four-way
comparison; between them every run has a value at each epoch, which the comparison does not print.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

STEPS, CODES = 95, 768  # steps an epoch: 2,850 in 30; codes of the book
GENTLE = {200: 136, 400: 120, 600: 131, 800: 88, 1000: 95, 1200: 84, 1400: 88, 1600: 75, 1800: 83, 2000: 78, 2850: 84}
_VQ = {"commitment_cost": 0.3, "ema_decay": 0.99, "vq_refresh_interval": 500, "temperature_min": 0.07,
       "temperature_max": 0.15, "relational_loss": {"weight": 0.05}}
CONFIGS: dict[str, dict[str, Any]] = {
    "vq_refresh": _VQ, "vq_no_refresh": {**_VQ, "vq_refresh_interval": 0},
    "no_vq": {"temperature_min": 0.07, "temperature_max": 0.15, "relational_loss": {"weight": 0.05}},
    "vq_gentle": {"commitment_cost": 0.15, "ema_decay": 0.95, "vq_refresh_interval": 3000, "temperature_min": 0.05,
                  "temperature_max": 0.20, "relational_loss": {"weight": 0.025}},
}


def between(first: float, last: float, epoch: int, epochs: int, pace: float = 3.0) -> float:
    """A curve that leaves `first` fast and reaches `last` at the last epoch."""
    done = (epoch - 1) / (epochs - 1)
    return last + (first - last) * (math.exp(-pace * done) - math.exp(-pace)) / (1 - math.exp(-pace))


def _validation(name: str, epoch: int) -> float:
    if name == "vq_gentle":
        return 8.37 if epoch == 29 else between(9.39, 8.39, epoch, 30)
    if name == "no_vq":
        return between(9.20, 7.75, epoch, 30)
    if name == "vq_refresh":
        return {12: 8.66, 13: 27.2, 18: 8.90, 19: 8.97, 20: 9.04, 21: 9.11, 22: 9.18}.get(
            epoch, between(9.6, 8.8, epoch, 22))
    return {26: 8.80, 27: 9.30, 28: 8.72, 29: 8.68, 30: 8.99}.get(epoch, between(9.5, 8.9, epoch, 30))


# name: epochs, training loss, context rank, target rank, usage, mean and largest gradient: first and last of each
ENDS: dict[str, tuple[Any, ...]] = {
    "vq_refresh": (22, (9.6, 9.26), (6.4, 1.4), (8.0, 2.9), (0.243, 0.017), (40, 90), (100, 200)),
    "no_vq": (30, (9.3, 7.74), (12.7, 33.2), (20.0, 43.1), None, (8, 5), (20, 9)),
    "vq_no_refresh": (30, (9.5, 9.07), (3.3, 1.5), (5.5, 2.9), (0.177, 0.044), (50, 121), (115, 252)),
    "vq_gentle": (30, (9.45, 8.38), (2.3, 7.5), (5.6, 10.0), None, (15, 6), (31, 9)),
}


def write_arm(folder: Path, name: str, seed: int | None = None, shift: float = 0.0) -> Path:
    """One run; `shift` is added to its losses, as another seed would."""
    folder.mkdir(parents=True, exist_ok=True)
    epochs, train, context, target, usage, mean, largest = ENDS[name]
    rows, points = [], []
    for epoch in range(1, epochs + 1):
        rows.append({"epoch": epoch, "loss_mean": {"total": between(*train, epoch, epochs) + shift}, "temperature":
                     between(0.070, 0.068, epoch, epochs), "seconds": 12.0 * epoch, "grad_norm": {
                         "count": STEPS, "mean": between(*mean, epoch, epochs),
                         "max": between(*largest, epoch, epochs)}})
        ranks = {side: {"effective_rank": between(*ends, epoch, epochs, 1.0)} for side, ends in
                 (("context", context), ("target", target))}
        share = {"vq_usage_ratio": (used := between(*usage, epoch, epochs)), "vq_active_codes": round(used * CODES)} \
            if usage else {}
        points.append({"step": epoch * STEPS, **ranks, **share})
    if name == "vq_gentle":
        points += [{"step": step, "vq_usage_ratio": codes / CODES, "vq_active_codes": codes}
                   for step, codes in GENTLE.items()]
        points.sort(key=lambda point: point["step"])
    _lines(folder / "epoch_metrics.jsonl", rows)
    _lines(folder / "embedding_metrics.jsonl", points)
    asked = 80 if name == "vq_refresh" else 30
    (folder / "metrics.json").write_text(json.dumps({
        "val_losses": [_validation(name, epoch) + shift for epoch in range(1, epochs + 1)], "epochs": asked,
        **({"early_stopping_epoch": epochs} if epochs < asked else {})}))
    config = {**CONFIGS[name], "epochs": asked, **({} if seed is None else {"seed": seed})}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def write_four(folder: Path) -> list[Path]:
    """The four runs, in the order of the published table."""
    return [write_arm(folder / name, name) for name in ("vq_refresh", "no_vq", "vq_no_refresh", "vq_gentle")]


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
