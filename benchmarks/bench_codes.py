"""Do the codes mean the action? The demonstration's model with parallel and with residual slots, at equal budget.

    python benchmarks/bench_codes.py [ARM ...] [--game breakout] [--seeds 101 102 103] [--store FILE]

An arm is a list of config changes such as `slots=residual,num_codes=2`; the first arm is what the others are paired
with. Each is trained without labels for 675 steps and measured on twelve videos that took no part in training: the
tuple probe is a logistic regression on the one-hot slots and on the 64 commonest code tuples, fitted on the training
videos. Differences are paired: of the probe over transitions, mean over seeds, clustered by video; of the rest over
seeds. With --store a run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tuple_probe

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROOT = Path(__file__).resolve().parent.parent
SHOWN = {"val/mse_loss": "MSE", "val/control": "control", "val/joint_bits": "joint bits",
         "val/slot_redundancy": "redundancy", "val/collapsed": "collapsed"}


def data(folder: Path, game: str) -> Path:
    """The demonstration's data, and a manifest whose validation split holds the test videos too."""
    from lam.data import demo

    demo.make(folder, demo.Demo(game=game))
    manifest = json.loads((folder / "manifest.json").read_text())
    splits = manifest["splits"]
    names = next(key for key in splits if key.startswith("val"))
    splits[names], splits["test"] = sorted([*splits[names], *splits["test"]]), []
    target = folder / "held-out.json"
    target.write_text(json.dumps(manifest))
    return target


def config(folder: Path, manifest: Path, arm: str, seed: int) -> Any:
    """The demonstration's base config with an arm's changes."""
    from lam.config import from_mapping
    from record import yamlio

    base = yamlio.load_mapping(ROOT / "configs" / "sweeps" / "demo.yaml")["base"]
    changes = yamlio.parse_mapping("\n".join(part.replace("=", ": ", 1) for part in arm.split(",") if part), source=arm)
    return from_mapping({**base, "embed_dim": 32, "quantizer": "vq", "num_epochs": 9, "val_every": 9, "threads": 1,
                         "steps_per_epoch": 75, "lr_decay_epochs": 9, "warmup_steps": 50,
                         "eval_sequences": 4096, "sample_count": 0, "data_dir": str(folder),
                         "manifest_path": str(manifest), "seed": seed, **changes}, source=arm)


def measure(config: Any, folder: Path) -> dict[str, Any]:
    """Train and measure one run; `right` says of each held-out transition whether the probe tells its action."""
    from lam.data.windows import open_split
    from lam.model.lam import LatentActionModel
    from lam.training import checkpoints, loop

    record = list(loop.train(config, folder))[-1]
    train, held = open_split(config, "train", stride=1), open_split(config, "validation", stride=1)
    model = LatentActionModel(config, train.latent_shape)
    checkpoints.load_weights(folder / "checkpoints", "best", model)
    right, commonest, videos = tuple_probe.ask(model, train, held, config)
    return {"probe": float(right.mean()), "right": right.astype(int).tolist(), "videos": videos.tolist(),
            "commonest": float(commonest.mean()), "seconds": record["seconds"],
            "nmi": record["val/action_nmi"], **{key: record[key] for key in SHOWN}}


def paired(first: list[float], other: list[float], ratio: bool = False) -> str:
    """Mean difference or ratio over seeds with its 95 % interval (Student's t)."""
    from scipy import stats

    values = np.array(other) / np.array(first) if ratio else np.array(other) - np.array(first)
    count = len(values)
    reach = float(stats.t(count - 1).ppf(0.975) * values.std(ddof=1) / count**0.5) if count > 1 else float("nan")
    return f"{values.mean():.3f} [{values.mean() - reach:.3f}, {values.mean() + reach:.3f}]"


def compare(arms: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table, and every arm against the first."""
    from record import intervals

    print("| arm | tuple probe by seed | mean | NMI | MSE | control | joint bits | redundancy | collapsed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, runs in arms.items():
        cells = [" ".join(f"{run['probe']:.3f}" for run in runs), f"{np.mean([run['probe'] for run in runs]):.3f}",
                 f"{np.mean([run['nmi'] for run in runs]):.3f}",
                 *(f"{np.nanmean([run[key] for run in runs]):.3f}" for key in SHOWN)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    (first, base), *others = arms.items()
    print(f"commonest action: {base[0]['commonest']:.3f} of {len(base[0]['right'])} transitions")
    for name, runs in others:
        right = np.mean([run["right"] for run in runs], axis=0) - np.mean([run["right"] for run in base], axis=0)
        gap = intervals.mean(right, np.array(base[0]["videos"]))
        lists = {key: ([run[key] for run in base], [run[key] for run in runs]) for key in SHOWN}
        print(f"{name} against {first}: probe {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] by video; "
              f"MSE x {paired(*lists['val/mse_loss'], ratio=True)}, control {paired(*lists['val/control'])}, "
              f"joint bits {paired(*lists['val/joint_bits'])} by seed")


def main() -> None:
    """Train what is not stored yet, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", default=["slots=parallel", "slots=residual"])
    parser.add_argument("--game", default="breakout")
    parser.add_argument("--data", type=Path, help="where the data is or is to be made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--store", type=Path, help="JSON lines of finished runs")
    asked = parser.parse_args()
    folder = asked.data or Path(tempfile.gettempdir()) / f"lam-bench-{asked.game}"
    manifest = data(folder, asked.game)
    lines = asked.store.read_text().splitlines() if asked.store and asked.store.exists() else []
    stored = {(run["arm"], run["seed"], run["game"]): run for run in map(json.loads, lines)}
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in asked.arms}
    for seed in asked.seeds:
        for arm in asked.arms:
            key = (arm, seed, asked.game)
            if key not in stored:
                with tempfile.TemporaryDirectory() as runs:
                    run = measure(config(folder, manifest, arm, seed), Path(runs) / "run")
                stored[key] = {"arm": arm, "seed": seed, "game": asked.game, **run}
                if asked.store:
                    with asked.store.open("a") as file:
                        file.write(json.dumps(stored[key]) + "\n")
            found[arm].append(stored[key])
            print(f"seed {seed}, {arm}: probe {stored[key]['probe']:.3f}, {stored[key]['seconds']:.0f} s",
                  file=sys.stderr, flush=True)
    compare(found)


if __name__ == "__main__":
    main()
