"""A tiny run with trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lam.config import RunConfig

TINY = RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, head_dim=16, patch_dim=16, codebook_dim=4,
                 sequence_length=4, batch_size=8, steps_per_epoch=3, num_epochs=3, threads=1, device="cpu",
                 sample_count=0)
CANARY = "canary-5d1f0c"


def config(data: Path, **tracking: Any) -> RunConfig:
    return TINY.replace(data_dir=str(data), tracking=tracking)
