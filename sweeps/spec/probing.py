"""Short trainings in a process of their own, reduced to digests: what the knob audit compares.

The process is killed when the time is up, so that a model that is too large to probe costs no more than that.
`python -m sweeps.spec.probing` reads ``{name: config}`` as JSON and prints ``[name, digest]`` a line.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lam import config as config_module
from lam.config import RunConfig
from record.errors import LamError

Digests = dict[str, str]

# Averages of the codes' use decide about revivals only: they change nothing until one comes.
_BOOKKEEPING = ("usage_K", "weights_K", "sums_KQ", "cluster_size", "embed_avg")


def digests(configs: Mapping[str, RunConfig], seconds: float) -> Digests:
    """The digest of each config's first epoch, of as many as there is time for.

    A digest names the training losses and the weights bit by bit; ``failed: ...`` where training refused.
    """
    asked = json.dumps({name: config.mapping() for name, config in configs.items()})
    process = subprocess.Popen([sys.executable, "-m", "sweeps.spec.probing"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        output, _ = process.communicate(asked, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    return dict(json.loads(line) for line in output.splitlines() if line.endswith("]"))


def digest(config: RunConfig) -> str:
    """Train one epoch in a folder that is deleted, and name what came out."""
    from safetensors.torch import load_file

    from lam.training import loop  # here: it loads torch

    with tempfile.TemporaryDirectory(prefix="lam-probe-") as folder:
        epochs = loop.train(config, folder)
        record = next(epochs)
        epochs.close()  # type: ignore[attr-defined]
        weights = load_file(Path(folder) / "checkpoints" / "epoch-1.safetensors")
    total = hashlib.sha256(json.dumps(_losses(record), sort_keys=True).encode())
    for name in sorted(weights):
        if not name.endswith(_BOOKKEEPING):
            total.update(f"{name}{list(weights[name].shape)}".encode() + weights[name].numpy().tobytes())
    return total.hexdigest()[:16]


def _losses(record: dict[str, Any]) -> dict[str, Any]:
    """The parts that a weight in front of a zero leaves alone: errors and gradients, not settings or times."""
    settings = ("train/lr", "train/samples_per_second")
    return {key: repr(value) for key, value in record.items() if key.startswith("train/") and key not in settings}


def main() -> None:
    """Print a line for each config as soon as it is done."""
    for name, values in json.load(sys.stdin).items():
        try:
            found = digest(config_module.from_mapping(values, source=f"probe {name}"))
        except LamError as error:
            found = f"failed: {error}"
        print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main()
