"""How many labels does the action skill need? Twelve configs of a table's space, with 0, 50, 100, 200, 300 and all.

    python benchmarks/bench_labels.py TABLE DATA_DIR [--configs 12] [--draws 20] [--store FILE]

Each config is trained as for the table. Its skill is measured on labels drawn from the validation videos, `--draws`
times for each number of labels; the objective is then what the product makes of them. With 0
labels the objective is control x health. Said of each number: Spearman's rank correlation of the configs with the skill
from all labels and with the probe on the test videos, how far the probe of the picked config is from the best one's,
the sd of a config's skill over draws, and how often its 95 % interval holds the skill from all labels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tables
import tuple_probe
from scipy.stats import spearmanr

NUMBERS = (50, 100, 200, 300)


def measured(recipe: tables.Recipe, params: dict[str, Any], data_dir: str) -> dict[str, Any]:
    """Train one config; its codes and true actions of the validation videos, and its probe on the test videos."""
    from lam.config import RunConfig
    from lam.data.windows import open_split
    from lam.evaluation import passes
    from lam.model.lam import LatentActionModel
    from lam.training import checkpoints, loop

    config = RunConfig(**{**recipe.base, **params, "data_dir": data_dir})
    folder = Path(tempfile.mkdtemp(prefix="labels-"))
    try:
        record = list(loop.train(config, folder))[-1]
        train, valid, held = (open_split(config, split, stride=1) for split in ("train", "validation", "test"))
        model = LatentActionModel(config, train.latent_shape)
        checkpoints.load_weights(folder / "checkpoints", "best", model)
    finally:
        shutil.rmtree(folder)
    found = passes.measured(model.eval(), valid, config.replace(eval_sequences=len(valid)))
    return {"codes": found.scored.codes.tolist(), "z_e": found.z_e.tolist(), "actions": found.known.actions.tolist(),
            "files": found.scored.files.tolist(), "num_embeddings": config.num_embeddings,
            "probe": float(tuple_probe.ask(model, train, held, config).right.mean()),
            "unlabelled": record["val/control"] * record["val/codebook_health"]}


def skill(run: dict[str, Any], known: Any) -> tuple[float, float, float, float]:
    """(objective, action skill, its bounds) from the labels `known`."""
    from lam import codebook
    from lam.evaluation import skill as module

    actions = np.where(known, np.array(run["actions"]), -1)
    found = module.metrics(module.Known(np.array(run["codes"]), np.array(run["z_e"]), actions, np.array(run["files"])),
                           run["num_embeddings"])
    return (codebook.action_score(found), found["val/action_skill"], found["val/action_skill_low"],
            found["val/action_skill_high"])


def compare(runs: list[dict[str, Any]], draws: int) -> None:
    """Print the table."""
    count = len(runs[0]["actions"])
    everything = np.array([skill(run, np.ones(count, bool)) for run in runs])
    probe = np.array([run["probe"] for run in runs])
    print(f"{len(runs)} configs, {count} validation transitions, probe {probe.min():.3f} to {probe.max():.3f}, mean "
          f"{probe.mean():.3f}")
    print("| labels | with all labels | with the probe | pick, from the best | sd of the skill | interval holds |")
    print("|---|---|---|---|---|---|")
    row("0 (control x health)", np.array([[run["unlabelled"] for run in runs]]), everything, probe)
    for number in NUMBERS:
        found = np.array([drawn(runs, number, draw) for draw in range(draws)])
        row(str(number), found[:, :, 0], everything, probe, found)
    row("all", everything[None, :, 0], everything, probe)


def drawn(runs: list[dict[str, Any]], number: int, draw: int) -> list[tuple[float, float, float, float]]:
    """Every config's skill from the same labels."""
    count = len(runs[0]["actions"])
    known = np.isin(np.arange(count), np.random.default_rng((number, draw)).choice(count, number, replace=False))
    return [skill(run, known) for run in runs]


def row(title: str, values: Any, everything: Any, probe: Any, found: Any = None) -> None:
    """One line: `values` [draws, configs] rank the configs."""
    with_all = [spearmanr(each, everything[:, 0]).statistic for each in values]
    with_probe = [spearmanr(each, probe).statistic for each in values]
    short = [probe.max() - probe[each.argmax()] for each in values]
    cells = [f"{np.mean(with_all):.2f}", f"{np.mean(with_probe):.2f} (least {np.min(with_probe):.2f})",
             f"{np.mean(short):.3f} (most {np.max(short):.3f})"]
    if found is None:
        cells += ["", ""]
    else:
        held = (found[:, :, 2] <= everything[:, 1]) & (everything[:, 1] <= found[:, :, 3])
        cells += [f"{found[:, :, 1].std(axis=0).mean():.3f}", f"{held.mean():.2f}"]
    print(f"| {title} | " + " | ".join(cells) + " |")


def main() -> None:
    """Train what is not stored yet, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(tables.RECIPES))
    parser.add_argument("data_dir")
    parser.add_argument("--configs", type=int, default=12)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--store", type=Path, help="JSON lines of finished configs")
    asked = parser.parse_args()
    recipe = tables.RECIPES[asked.table]
    lines = asked.store.read_text().splitlines() if asked.store and asked.store.exists() else []
    runs = [json.loads(line) for line in lines]
    for params in recipe.draws()[len(runs) : asked.configs]:
        runs.append(measured(recipe, params, asked.data_dir))
        if asked.store:
            with asked.store.open("a") as file:
                file.write(json.dumps(runs[-1]) + "\n")
    compare(runs, asked.draws)


if __name__ == "__main__":
    main()
