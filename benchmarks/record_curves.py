"""Record a table of real training curves (see benchmarks/tables.py).

    python benchmarks/record_curves.py NAME DATA_DIR [--scratch DIR] [--pause-while FILE]

DATA_DIR holds latents of the table's game, 120 clips of 120 latent frames on an 8 by 8 grid:
``lam data demo DATA_DIR --game NAME --size 64 --episodes 120``. Each config takes some seconds on one core. An
interrupted recording continues; the finished table is written to benchmarks/data/NAME.json.gz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import tables
import tuple_probe

from lam.config import RunConfig
from lam.data import windows
from lam.model.lam import LatentActionModel
from lam.training import checkpoints, loop
from record import files
from record.run import RunFolder


def main() -> None:
    """Record what is missing, then write the table."""
    arguments = _arguments()
    recipe = tables.RECIPES[arguments.name]
    partial = Path(arguments.scratch) / f"{arguments.name}.jsonl"
    partial.parent.mkdir(parents=True, exist_ok=True)
    known = {_key(row["params"], row["seed"]): row for row in files.read_json_lines(partial)}

    def row_of(params: dict[str, Any], seed: int) -> dict[str, Any]:
        key = _key(params, seed)
        if key not in known:
            _wait_while(arguments.pause_while)
            known[key] = record(recipe, params, seed, arguments.data_dir)
            with open(partial, "a", encoding="utf-8") as file:
                file.write(files.json_line(known[key]))
            print(len(known), known[key]["cpu_seconds"], flush=True)
        return known[key]

    first = [row_of(params, 0) for params in recipe.draws()]
    best = sorted(first, key=final_objective, reverse=True)[: math.ceil(len(first) / 10)]
    rest = [row_of(row["params"], seed) for row in best for seed in range(1, recipe.seeds_of_best)]
    write(arguments.name, recipe, [*first, *rest])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(tables.RECIPES))
    parser.add_argument("data_dir")
    parser.add_argument("--scratch", default="recording", help="folder of the rows that are done")
    parser.add_argument("--pause-while", type=Path, help="no config is begun while this file exists")
    return parser.parse_args()


def _key(params: dict[str, Any], seed: int) -> str:
    return json.dumps([params, seed], sort_keys=True)


def _wait_while(path: Path | None) -> None:
    while path is not None and path.exists():
        time.sleep(5)


def record(recipe: tables.Recipe, params: dict[str, Any], seed: int, data_dir: str) -> dict[str, Any]:
    """Train one config with its full budget; its curve, and the probe of its best weights."""
    config = RunConfig(**{**recipe.base, **params, "seed": seed, "data_dir": data_dir, "keep": "all"})
    folder = RunFolder(tempfile.mkdtemp(prefix="curve-"))
    begin = time.process_time()
    try:
        curve = [[_plain(record.get(column)) for column in tables.COLUMNS]
                 for record in loop.train(config, folder.path)]
        spent = time.process_time() - begin
        best, last = (_probe(config, folder, name) for name in ("best", "last"))
    finally:
        shutil.rmtree(folder.path)
    return {"params": params, "seed": seed, "cpu_seconds": round(spent, 2), "probe": best, "probe_last": last,
            "curve": curve}


def _plain(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) and math.isfinite(value) else value


def _probe(config: RunConfig, folder: RunFolder, which: str) -> dict[str, float] | None:
    """Accuracy of these weights and of the commonest action, on the test clips; None for a run without such weights."""
    if not (folder.checkpoints / f"{which}.safetensors").exists():
        return None
    train_set = windows.open_split(config, "train", stride=2)
    held = windows.open_split(config, "test", stride=1)
    model = LatentActionModel(config, train_set.latent_shape)
    checkpoints.load_weights(folder.checkpoints, which, model)
    found = tuple_probe.ask(model, train_set, held, config)
    return {"accuracy": _plain(float(found.right.mean())), "majority": _plain(float(found.commonest.mean()))}


def final_objective(row: dict[str, Any]) -> float:
    """The objective at the last epoch, minus infinity where it is not finite."""
    value = row["curve"][-1][tables.COLUMNS.index("val/objective")]
    return -math.inf if value is None or value != value else float(value)


def write(name: str, recipe: tables.Recipe, rows: list[dict[str, Any]]) -> None:
    """The table as compressed JSON; the same rows give the same bytes."""
    table = {"game": recipe.game, "space": recipe.space, "base": recipe.base, "epochs": tables.EPOCHS,
             "columns": tables.COLUMNS, "rows": rows}
    text = json.dumps(files.jsonable(table), separators=(",", ":"), allow_nan=False)
    path = tables.DATA / f"{name}.json.gz"
    files.write_atomic(path, lambda file: file.write(gzip.compress(text.encode(), mtime=0)))
    print(f"wrote {path}: {len(rows)} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
