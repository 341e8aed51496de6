"""Validation by folder of a mixture: the same numbers as of the whole, of each folder's transitions alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lam import codebook
from lam.config import RunConfig
from lam.data.windows import Windows
from lam.evaluation import control, skill
from lam.evaluation.control import Distances, Scored
from lam.evaluation.passes import Measured

KEYS = ("mse_loss", "mse_copy", "control", "action_skill", "perplexity_slot", "scored_transitions")


def metrics(found: Measured, windows: Windows, config: RunConfig) -> dict[str, list[float]]:
    """`val/*_by_source`, a number a folder in the order of `data`; empty where there is no mixture."""
    if len(windows.sources) == 1:
        return {}
    of = windows.source_of[found.scored.files]
    known = windows.source_of[found.known.files]
    parts = [_of_rows(found, np.flatnonzero(of == number), windows, config)
             | skill.metrics(found.known.rows(known == number), config.num_embeddings)
             for number in range(len(windows.sources))]
    return {f"val/{key}_by_source": [part.get(f"val/{key}", math.nan) for part in parts] for key in KEYS}


def _of_rows(found: Measured, rows: NDArray[np.int64], windows: Windows, config: RunConfig) -> dict[str, Any]:
    if not len(rows):
        return {"val/scored_transitions": 0}
    scored = _part(found.scored, rows)
    record = {f"val/{name}": float(found.losses[name][rows].mean()) for name in ("mse_loss", "mse_copy")}
    record |= control.metrics(scored, config.num_embeddings, windows.chunk_frames)
    if scored.codes is not None:
        record["val/perplexity_slot"] = codebook.codebook_health(
            scored.codes, config.num_embeddings, config.full_health_perplexity, config.books).perplexity_slot
    return record


def _part(scored: Scored, rows: NDArray[np.int64]) -> Scored:
    """Some of the transitions."""
    def some(value: Any) -> Any:
        if isinstance(value, Distances):
            return Distances(*(column[rows] for column in value))
        return value[rows] if isinstance(value, np.ndarray) else value

    return Scored(**{field.name: some(getattr(scored, field.name)) for field in dataclasses.fields(Scored)})
