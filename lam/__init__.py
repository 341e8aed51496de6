"""Latent action models: one run, from a folder of latents to a judged checkpoint.

The Python interface is `lam.train(config, run_dir)` and `lam.load_config(path)`, and for what was trained
`lam.load(run)`, `lam.label(run, data, out)` and `lam.export(run, to)`. All load lazily, so that importing this package,
and the command line's help, need no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("lamsweep")

_PUBLIC = {
    "train": ("lam.training.loop", "train"),
    "evaluate": ("lam.evaluation.measure", "evaluate"),
    "load": ("lam.inference.opening", "load"),
    "label": ("lam.labelling.labelling", "label_folder"),
    "export": ("lam.inference.exporting", "export"),
    "load_config": ("lam.config", "load"),
    "RunConfig": ("lam.config", "RunConfig"),
}
__all__ = ["RunConfig", "evaluate", "export", "label", "load", "load_config", "train"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'lam' has no attribute {name!r}")
