"""What a folder of `lam export` holds: the names of its files and the document that describes it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from record.documents import Document, Int

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
DOCUMENT = "export.json"
CARD = "README.md"
PROGRAMS = ("encode", "step")  # as NAME.pt2, where torch.export was asked for


class Export(Document):
    """export.json: what the weights are, where they came from and what was measured of them."""

    latent_shape: tuple[Int, Int, Int] = Field(description="[C, H, W] of a frame")
    chunk_frames: Int | None = Field(None, description="latent frames that were encoded together; null = not recorded")
    weights_sha256: str = Field(description="of model.safetensors")
    run: str | None = Field(None, description="the run's name")
    checkpoint: str = Field(description="which of its weights")
    config_fingerprint: str | None = Field(None, description="of the run's config")
    data_fingerprint: str | None = Field(None, description="of the data that trained it")
    versions: dict[str, str] = Field({}, description="of the software that trained it")
    git_commit: str | None = Field(None, description="null outside a checkout")
    metrics: dict[str, Any] = Field({}, description="the validation record of these weights")
    actions: dict[str, Any] | None = Field(
        None, description="names, tuples [N, S] and counts [N, A]: how often each code tuple led along which true "
        "action in training videos; null where none was known")
    programs: dict[str, Any] = Field({}, description="what torch.export made, and what it was checked against")
