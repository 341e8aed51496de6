"""Stock Ray Tune with its defaults under a fault: a child of `beside_stock.py`, one trial after the other.

    python benchmarks/stock_tune.py FOLDER STORAGE (fit | restore) (none | raise | kill | hang)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

TRIALS, EPOCHS = 8, 4
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")


def train(config: dict[str, Any]) -> None:
    """Four epochs with a checkpoint each; trial 3 meets the fault at its second epoch, once."""
    import tempfile

    from ray import tune

    begin = 0
    if checkpoint := tune.get_checkpoint():
        with checkpoint.as_directory() as folder:
            begin = int((Path(folder) / "epoch").read_text())
    for epoch in range(begin + 1, EPOCHS + 1):
        time.sleep(0.3)
        mark = Path(config["folder"]) / "met"
        if config["number"] == 3 and epoch == 2 and config["fault"] != "none" and not mark.exists():
            mark.touch()
            if config["fault"] == "raise":
                raise RuntimeError("the encoder exploded")
            if config["fault"] == "hang":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)
        with open(Path(config["folder"]) / "epochs.jsonl", "a") as file:
            file.write(json.dumps([config["number"], epoch]) + "\n")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "epoch").write_text(str(epoch))
            tune.report({"epoch": epoch, "loss": 1 / epoch}, checkpoint=tune.Checkpoint.from_directory(folder))


def main(folder: str, storage: str, what: str, fault: str) -> None:
    import ray
    from ray import tune

    ray.init("local", num_cpus=1, include_dashboard=False, object_store_memory=100 * 1024**2, log_to_driver=False)
    if what == "restore":
        tuner = tune.Tuner.restore(f"{storage}/stock", trainable=train)
    else:
        tuner = tune.Tuner(train, param_space={"number": tune.grid_search(list(range(1, TRIALS + 1))),
                                               "folder": folder, "fault": fault},
                           run_config=tune.RunConfig(name="stock", storage_path=storage, verbose=0))
    found = tuner.fit()
    ended = [result for result in found if not result.error and (result.metrics or {}).get("epoch") == EPOCHS]
    (Path(folder) / "finished").write_text(str(len(ended)))


if __name__ == "__main__":
    main(*sys.argv[1:5])
