"""Games that no setting was tuned on: does one small sweep, ranked by action skill, find codes that mean the action?

    python benchmarks/bench_games.py [GAME ...] [--data FOLDER] [--seed 0] [--store FILE]

The sweep is the same for every game: all eight combinations of `change_weight`, `frame_difference` and labels in
training (a tenth of the training videos' true actions), 400 steps each, in one process. Configs are ranked by the
best val/objective, the skill on the validation videos (at most 300 labels). What the rank is worth is told by the
tuple probe on the test videos, which no config has seen: that of the pick beside that of the best of the eight. With
`--unlabelled` only the four configs that train without labels are there, and control x health ranks them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import tuple_probe

GAMES = ("freeway", "boxing", "haunted_house", "space_invaders")
SPACE: dict[str, Any] = {"change_weight": {"choice": [0.0, 1.0]}, "frame_difference": {"choice": [False, True]},
                         "action_weight": {"choice": [0.0, 0.2]}}
BASE: dict[str, Any] = {
    "sequence_length": 4, "embed_dim": 32, "encoder_depth": 2, "decoder_depth": 2, "head_dim": 32, "patch_dim": 64,
    "codebook_dim": 32, "quantizer": "vq", "batch_size": 32, "num_epochs": 8, "steps_per_epoch": 50,
    "val_every": 4, "learning_rate": 3e-3, "lr_decay_epochs": 8, "warmup_steps": 30, "vq_refresh_interval": 50,
    "rollout_horizon": 1, "eval_sequences": 300, "sample_count": 0, "threads": 1, "device": "cpu",
    "labels": {"share": 0.1}, "health": {"grace_epochs": 3},
}
FINDINGS = ("actions_ignored", "control_not_shown", "actions_hardly_heeded", "quantizer_loses_the_action")


def points(seed: int) -> list[dict[str, Any]]:
    """The configs of the sweep."""
    from sweeps.spec.grid import grid
    from sweeps.spec.space import Knob

    space = {name: Knob.model_validate(knob) for name, knob in SPACE.items()}
    return [dict(params) for params in grid(space, BASE, seed)]


def measured(folder: Path, params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train one config: what ranks it, what its records say, and its probe on the test videos."""
    from lam.config import RunConfig
    from lam.data.windows import open_split
    from lam.model.lam import LatentActionModel
    from lam.training import checkpoints, loop
    from record.run import RunFolder

    config = RunConfig(**{**BASE, **params, "seed": seed, "data_dir": str(folder)})
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder(Path(place) / "run")
        records = [record for record in loop.train(config, run.path) if record.get("val/objective") is not None]
        found = sorted({event["rule"] for event in run.health() if event.get("rule") in FINDINGS})
        train, held = open_split(config, "train", stride=1), open_split(config, "test", stride=1)
        model = LatentActionModel(config, train.latent_shape)
        checkpoints.load_weights(run.checkpoints, "best", model)
    best = max(records, key=lambda record: record["val/objective"])
    right, commonest, _ = tuple_probe.ask(model, train, held, config)
    return {"params": params, "seed": seed, "objective": best["val/objective"], "skill": best["val/action_skill"],
            "unlabelled": max(record["val/control"] * record["val/codebook_health"] for record in records),
            "control": best["val/control"], "mse": best["val/mse_loss"] / best["val/mse_copy"], "findings": found,
            "probe": float(right.mean()), "commonest": float(commonest.mean()), "transitions": len(right)}


def key_of(game: str, params: dict[str, Any], seed: int) -> str:
    """What tells a run from the others."""
    return json.dumps([game, params, seed], sort_keys=True)


def told(params: dict[str, Any]) -> str:
    """A config in words."""
    words = {"change_weight": "change", "frame_difference": "difference", "action_weight": "labels"}
    return " + ".join(word for key, word in words.items() if params[key]) or "plain"


def compare(game: str, runs: list[dict[str, Any]], unlabelled: bool) -> str:
    """One row of the table; every config is printed before it."""
    rank = "unlabelled" if unlabelled else "objective"
    for run in sorted(runs, key=lambda run: -run[rank]):
        print(f"{game}, {told(run['params'])}: {rank} {run[rank]:.3f}, skill {run['skill']:.3f}, probe "
              f"{run['probe']:.3f}, control {run['control']:.3f}, MSE {run['mse']:.2f} of copying; "
              f"{', '.join(run['findings']) or 'no finding'}")
    pick, best = max(runs, key=lambda run: run[rank]), max(runs, key=lambda run: run["probe"])
    plain = next(run for run in runs if told(run["params"]) == "plain")
    return (f"| {game} | {pick['commonest']:.3f} | {plain['probe']:.3f} | {told(pick['params'])} | {pick['probe']:.3f} "
            f"| {told(best['params'])} | {best['probe']:.3f} | {best['probe'] - pick['probe']:.3f} |")


def main() -> None:
    """Train what is not stored yet, and compare."""
    from lam.data import demo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", nargs="*", default=list(GAMES))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "lam-bench-games")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unlabelled", action="store_true")
    parser.add_argument("--store", type=Path, help="JSON lines of finished runs")
    asked = parser.parse_args()
    lines = asked.store.read_text().splitlines() if asked.store and asked.store.exists() else []
    stored = {key_of(run["game"], run["params"], run["seed"]): run for run in map(json.loads, lines)}
    rows = []
    for game in asked.games:
        demo.make(asked.data / game, demo.Demo(game=game))
        runs = []
        for params in points(asked.seed):
            if asked.unlabelled and params["action_weight"]:
                continue
            key = key_of(game, params, asked.seed)
            if key not in stored:
                stored[key] = {"game": game, **measured(asked.data / game, params, asked.seed)}
                if asked.store:
                    with asked.store.open("a") as file:
                        file.write(json.dumps(stored[key]) + "\n")
            runs.append(stored[key])
        rows.append(compare(game, runs, asked.unlabelled))
    print("| game | commonest action | plain | pick | its probe | best of all | its probe | apart |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
