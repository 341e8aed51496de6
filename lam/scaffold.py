"""`lam init`: a commented run.yaml and sweep.yaml that fit each other, and JSON schemas for editors.

Two sizes: `full`, the guide's model for a GPU, and `laptop`, a small one that two cores train in
seconds on small latents.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lam.config import RunConfig
from record import files, yamlio
from record.errors import BadInput
from record.schema import suggest
from record.storage import addresses

PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "laptop": {
        "sequence_length": 3, "embed_dim": 32, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 32,
        "patch_size": 2, "num_codes": 2, "num_embeddings": 8, "codebook_dim": 16, "commitment_weight": 0.05,
        "vq_refresh_interval": 20, "rollout_horizon": 1, "num_epochs": 6, "steps_per_epoch": 50,
        "learning_rate": 5e-3, "warmup_steps": 20, "eval_sequences": 128,
    },
}

# What people change first is shown with its default too; every other field is in the schema.
SHOWN = (
    "data_dir", "sequence_length", "embed_dim", "encoder_depth", "decoder_depth", "num_codes", "num_embeddings",
    "codebook_dim", "quantizer", "commitment_weight", "rollout_horizon", "rollout_weight", "num_epochs", "batch_size",
    "learning_rate", "seed",
)


def write(folder: Path, data_dir: str, preset: str) -> list[Path]:
    """Write the configs and schemas; nothing that is there is overwritten, so that an interrupted command goes on.

    Raises:
        BadInput: no such preset, or one of the files exists already with another content.
    """
    if preset not in PRESETS:
        raise BadInput(f"got {preset!r}", source="--preset", remedy=suggest(preset, list(PRESETS)))
    sweep = resources.files("lam").joinpath("templates", f"sweep-{preset}.yaml").read_text(encoding="utf-8")
    swept = set(yamlio.parse_mapping(sweep, source="sweep.yaml")["space"])
    fixed = Path(data_dir).is_absolute() or addresses.is_one(data_dir)
    stated = data_dir if fixed else os.path.relpath(data_dir, folder)
    contents = {"run.yaml": run_yaml(stated, preset, swept), "sweep.yaml": sweep}
    for point in entry_points(group="lam.schemas"):
        contents[f"{point.name}.schema.json"] = json.dumps(point.load().model_json_schema(), indent=2) + "\n"
    for name, text in contents.items():
        if (folder / name).exists() and not _holds(folder / name, text):
            raise BadInput("exists already", source=folder / name, remedy="name another folder, or move the file away")
    return [files.write_text(folder / name, text) for name, text in contents.items()]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.stat().st_size == len(text.encode()) and path.read_bytes() == text.encode()


def run_yaml(data_dir: str, preset: str, swept: set[str]) -> str:
    """A run config with the preset's fields and those of SHOWN, each with its description.

    A field that the sweep varies is shown commented out: a base config must not fix it.
    """
    config = RunConfig(data_dir=data_dir, **PRESETS[preset])
    lines = [
        "# yaml-language-server: $schema=run.schema.json",
        "# One training run. A key left out has its default; one with '#' before it is varied by sweep.yaml.",
    ]
    for name, field in RunConfig.model_fields.items():
        if name in SHOWN or name in PRESETS[preset]:
            entry = ("# " if name in swept else "") + yamlio.dump_mapping({name: getattr(config, name)}).strip()
            lines.append(f"{entry:<30} # {field.description}")
    return "\n".join(lines) + "\n"
