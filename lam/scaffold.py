"""`lam init`: a commented run.yaml and sweep.yaml, and JSON schemas that editors complete from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from pydantic import BaseModel

from lam import files, yamlio
from lam.config import RunConfig
from lam.errors import BadInput

# A first run.yaml shows what people change first; every other field has its default and is in the schema.
SHOWN = (
    "data_dir", "sequence_length", "embed_dim", "encoder_depth", "decoder_depth", "num_codes", "num_embeddings",
    "codebook_dim", "quantizer", "commitment_weight", "rollout_horizon", "rollout_weight", "num_epochs", "batch_size",
    "learning_rate", "seed",
)


def write(folder: Path, data_dir: str) -> list[Path]:
    """Write the four files; nothing that is there is overwritten.

    Raises:
        BadInput: one of the files exists already.
    """
    contents = {
        "run.yaml": run_yaml(data_dir),
        "sweep.yaml": _template("sweep.yaml"),
        "run.schema.json": schema_text(RunConfig),
        "sweep.schema.json": _template("sweep.schema.json"),
    }
    for name in contents:
        if (folder / name).exists():
            raise BadInput("exists already", source=folder / name, remedy="name another folder, or move the file away")
    return [files.write_text(folder / name, text) for name, text in contents.items()]


def run_yaml(data_dir: str) -> str:
    """A run config with the fields of SHOWN, each with its description."""
    lines = ["# yaml-language-server: $schema=run.schema.json",
             "# One training run; every key left out has its default."]
    values = RunConfig(data_dir=data_dir)
    for name in SHOWN:
        entry = yamlio.dump_mapping({name: getattr(values, name)}).strip()
        lines.append(f"{entry:<32} # {RunConfig.model_fields[name].description}")
    return "\n".join(lines) + "\n"


def schema_text(model: type[BaseModel]) -> str:
    """JSON schema of a config model as text."""
    return json.dumps(model.model_json_schema(), indent=2) + "\n"


def _template(name: str) -> str:
    return resources.files("lam").joinpath("templates", name).read_text(encoding="utf-8")
