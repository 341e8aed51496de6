"""Writes sweep and run folders as docs/records.md describes them, with facts planted for the tests of `analysis`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lam.codebook import Preset, health_of, is_collapsed, objective, verdict
from lam.config import RunConfig, from_mapping
from record import files
from record.bounds import Bound, total_violation
from record.run import RunFolder

EPOCHS = 10
K = 12
COPY = 0.087
DATA = "d4ta0123cafe"
ASHA = {"asha": {"max_epochs": EPOCHS, "grace_epochs": 1, "reduction_factor": 3}}


@dataclass(frozen=True)
class Planted:
    """One trial: how its numbers end and what happened to it."""

    control: float = 0.4
    perplexity: float = 8.0
    mse: float = 0.02
    dsnr: float = 2.6
    dsnr_status: str = "ok"
    epochs: int = EPOCHS
    nonfinite_from: int | None = None
    collapsed_from: int | None = None
    seed: int | None = None
    repeats: str | None = None
    end: str = "completed"
    reason: dict[str, Any] | None = None
    preset: Preset = "control_health"
    params: dict[str, Any] = field(default_factory=lambda: {"embed_dim": 64, "commitment_weight": 0.25})


PLANTED = {
    "t0001": Planted(control=0.40, params={"embed_dim": 64, "commitment_weight": 0.25}),
    "t0002": Planted(control=0.0, perplexity=1.0, dsnr=7.7, mse=0.05, epochs=5, end="stopped", params={
        "embed_dim": 128, "commitment_weight": 2.0}, reason={
        "rule": "collapse", "sentence": "1 code in use at epochs 4 and 5: slot perplexity 1 is below 1.5",
        "rung": None, "value": 1.0, "cutoff": 1.5, "peers": None, "epochs_saved": 5}),
    "t0003": Planted(control=0.2, mse=0.04, epochs=3, end="stopped", params={
        "embed_dim": 64, "commitment_weight": 0.02}, reason={
        "rule": "asha", "sentence": "objective 0.11 at epoch 3 is below the cutoff 0.2 of 3 peers",
        "rung": 3, "value": 0.11, "cutoff": 0.2, "peers": 3, "epochs_saved": 7}),
    "t0004": Planted(nonfinite_from=2, epochs=2, end="failed", params={"embed_dim": 256, "commitment_weight": 0.5},
                     reason={"rule": "nonfinite", "sentence": "validation loss is not finite at epoch 2"}),
    "t0005": Planted(control=0.47, perplexity=8.9, mse=0.013, params={"embed_dim": 64, "commitment_weight": 0.1}),
    "t0006": Planted(control=0.0, perplexity=1.2, dsnr=5.1, mse=0.06,
                     params={"embed_dim": 128, "commitment_weight": 1.5}),
    "t0007": Planted(control=0.9, perplexity=11.0, mse=0.001, epochs=4, end="started",
                     params={"embed_dim": 256, "commitment_weight": 0.1}),
    "t0008": Planted(control=0.0, dsnr_status="actions_ignored", mse=0.03,
                     params={"embed_dim": 128, "commitment_weight": 0.3}),
}


def record(planted: Planted, epoch: int) -> dict[str, Any]:
    """The epoch record of a planted trial; its numbers approach the planted ones over the epochs."""
    done = epoch / planted.epochs
    perplexity = 1 + (planted.perplexity - 1) * done if planted.perplexity >= 1.5 else \
        planted.perplexity + 2 * (1 - done)
    control = planted.control * done
    mse = planted.mse + (0.09 - planted.mse) * (1 - done)
    used = max(1, min(K, round(perplexity * 1.2)))
    histogram = [round(1000 / used) if code < used else 0 for code in range(K)]
    health = health_of(perplexity, 3.0)
    values: dict[str, Any] = {
        "train/loss": mse * 1.3, "train/mse_loss": mse * 0.95, "train/lr": 1e-3, "train/grad_norm": 0.7,
        "train/samples_per_second": 900.0, "total_tflops": 0.5 * epoch,
        "val/loss": mse * 1.4, "val/mse_loss": mse, "val/mae_loss": mse * 3, "val/mse_copy": COPY,
        "val/dsnr": planted.dsnr if planted.dsnr_status == "ok" else None, "val/dsnr_se": 0.04,
        "val/dsnr_valid": int(planted.dsnr_status == "ok"), "val/dsnr_status": planted.dsnr_status,
        "val/control": control, "val/control_low": control - 0.06, "val/control_high": control + 0.06,
        "val/control_within": control + 0.02, "val/control_across": control - 0.02, "val/delta_psnr": 4 * control,
        "val/scored_transitions": 3000, "val/scored_files": 8, "val/action_nmi": control / 2,
        "val/codebook_usage": used, "val/codebook_unique_total": used, "val/codebook_usage_ratio": used / K,
        "val/codebook_histogram": histogram, "val/perplexity_slot": perplexity,
        "val/perplexity_joint": perplexity * 1.5, "val/code_entropy_ratio": float(np.log(perplexity) / np.log(K)),
        "val/dead_codes": K - used, "val/quantization_error": 0.05, "val/codebook_health": health,
        "val/collapsed": int(is_collapsed(perplexity, perplexity * 1.5)),
    }
    if planted.nonfinite_from is not None and epoch >= planted.nonfinite_from:
        values |= {"train/loss": None, "val/loss": None, "val/mse_loss": None, "val/control": None, "val/dsnr": None}
    if planted.collapsed_from is not None and epoch >= planted.collapsed_from:
        values |= {"val/perplexity_slot": 1.0, "val/perplexity_joint": 1.0, "val/collapsed": 1}
    values["val/objective"] = objective(values, planted.preset)
    return {"epoch": epoch, "step": epoch * 30, "seconds": 1.5 * epoch, "train_seconds": 1.2, **values}


def config_of(params: dict[str, Any], **changes: Any) -> RunConfig:
    values = {"data_dir": "/data/pong", "num_epochs": EPOCHS, "num_embeddings": K,
              "objective_preset": "control_health"}
    return from_mapping(values | params | changes, source="planted")


def write_run(folder: Path, planted: Planted, run_id: str = "run", samples: bool = False, **changes: Any) -> RunFolder:
    """A run folder of its own."""
    run = RunFolder(folder)
    seed = {} if planted.seed is None else {"seed": planted.seed}
    config = config_of(planted.params, objective_preset=planted.preset, **seed, **changes)
    states = {"completed": "finished", "stopped": "interrupted", "paused": "interrupted", "started": "running"}
    run.start(config.mapping(), {
        "run_id": run_id, "state": states.get(planted.end, planted.end), "config_fingerprint": config.fingerprint(),
        "data_fingerprint": DATA, "data": {"files": 40, "channels": 16, "grid": [16, 16], "latent_frames": 4800},
        "versions": {"lamsweep": "0.1.0", "torch": "2.13.0", "python": "3.11.9"}, "git_commit": "abc1234",
        "started_at": "2026-01-01T00:00:00+00:00", "num_params": 1_234_567, "num_train_trials": None,
        "reason": planted.reason and planted.reason["sentence"],
    })
    lines = "".join(files.json_line(record(planted, epoch)) for epoch in range(1, planted.epochs + 1))
    files.write_text(run.metrics_file, lines)
    if samples:
        write_samples(run.samples / f"epoch-{planted.epochs}.npz")
    return run


def write_samples(path: Path, count: int = 3, side: int = 32) -> None:
    """Picture strips: a ball that moves where the action says."""
    pictures = np.full((count, 4, side, side, 3), 24, dtype=np.uint8)
    for strip in range(count):
        for panel, shift in enumerate((0, 4, 4, -4)):
            row, column = side // 2, side // 2 + shift + 2 * strip
            pictures[strip, panel, row - 3:row + 3, column - 3:column + 3] = (236, 180, 60)
            pictures[strip, panel, 2:5, :] = (90, 120, 160)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, pictures=pictures, codes=np.tile(np.array([[[1, 5, 9], [2, 5, 3]]]), (count, 1, 1)),
             actions=np.array([1, 2, -1][:count]), other_actions=np.array([2, 0, -1][:count]),
             action_names=np.array(["NOOP", "RIGHT", "LEFT"]),
             files=np.array([f"pong-{strip:03d}.h5" for strip in range(count)]), frames=np.arange(count) * 17)


def write_sweep(folder: Path, trials: dict[str, Planted] = PLANTED, confirm: list[dict[str, Any]] | None = None,
                name: str = "pong", objective_key: Any = "val/objective",
                constraints: dict[str, dict[str, float]] | None = None,
                scheduler: dict[str, Any] | None = None) -> Path:
    """A sweep folder with a journal in two segments."""
    limits = {key: Bound(**limit) for key, limit in (constraints or {}).items()}
    folder.mkdir(parents=True, exist_ok=True)
    events: list[dict[str, Any]] = [{"event": "sweep_started", "name": name, "pid": 1, "host": "here"}]
    for trial, planted in trials.items():
        write_run(folder / "trials" / trial, planted, run_id=trial, samples=planted.end == "completed")
        events.extend(_events(trial, planted, objective_key, limits))
    events = [{"seq": number, "time": "2026-01-01T00:00:00+00:00", **event} for number, event in enumerate(events, 1)]
    middle = len(events) // 2
    for segment, part in enumerate((events[:middle], events[middle:]), 1):
        (folder / f"journal-{segment:06d}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in part))
    files.write_json(folder / "sweep.json", {
        "schema": 1, "name": name, "base": config_of({}).mapping(), "data_fingerprint": DATA, "asked": {},
        "spec": {"objective": objective_key, "seed": 0, "search": {"tpe": {}}, "constraints": constraints or {},
                 "scheduler": scheduler or ASHA},
        "versions": {"lamsweep": "0.1.0", "ray": "2.60.0", "optuna": "5.0.0", "python": "3.11.9"},
        "git_commit": "abc1234", "created_at": "2026-01-01T00:00:00+00:00", "fingerprint": "feedbead0123",
    })
    if confirm is not None:
        primary = objective_key if isinstance(objective_key, str) else objective_key[0]
        files.write_json(folder / "confirm.json", {"schema": 1, "objective": primary, "trials": confirm})
    return folder


def _events(trial: str, planted: Planted, objective_key: Any, limits: dict[str, Bound]) -> list[dict[str, Any]]:
    again = {key: value for key, value in (("seed", planted.seed), ("repeats", planted.repeats)) if value is not None}
    events: list[dict[str, Any]] = [{"event": "suggested", "trial": trial, "params": planted.params, **again},
                                    {"event": "started", "trial": trial}]
    primary = objective_key if isinstance(objective_key, str) else objective_key[0]
    for epoch in range(1, planted.epochs + 1):
        line = files.jsonable(record(planted, epoch))
        violation = {"violation": files.jsonable(total_violation(limits, line))} if limits else {}
        events.append({"event": "result", "trial": trial, "epoch": epoch, "objective": line.get(primary),
                       "verdict": verdict(line), "metrics": {"val/mse_loss": line["val/mse_loss"]},
                       "tflops": line["total_tflops"], **violation})
    if planted.end != "started":
        end = {"event": planted.end, "trial": trial, "epoch": planted.epochs}
        events.append(end | ({"reason": planted.reason} if planted.reason else {"objective": None}))
    return events


def confirmed(trial: str, values: list[float], live: int | None = None) -> dict[str, Any]:
    """An entry of confirm.json; the interval is planted as the mean ± 0.05."""
    mean = float(np.mean(values))
    return {"trial": trial, "config_fingerprint": config_of(PLANTED[trial].params).fingerprint(),
            "seeds": list(range(101, 101 + len(values))), "values": values, "mean": mean, "low": mean - 0.05,
            "high": mean + 0.05, "live": len(values) if live is None else live}
