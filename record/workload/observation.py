"""What a model sees in videos, one vector of figures a video and aspect: what drift is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from record.schema import Strict

Aspect = Literal["codes", "rank", "loss", "latents"]


class Video(Strict):
    """One video.

    Attributes:
        codes: shares of the codes, K for each slot; absent where actions are continuous.
        rank: effective rank of the embeddings before quantisation.
        loss: logarithm of the error over that of copying the last frame.
        latents: of each channel its mean, its standard deviation, and the root mean square of its change in a frame.
    """

    name: str
    codes: tuple[float, ...] | None = None
    rank: tuple[float, ...]
    loss: tuple[float, ...]
    latents: tuple[float, ...]


class Observation(Strict):
    """What a model sees in several videos.

    Attributes:
        windows: how many of each were read, evenly spread; as many of every video, since a rank depends on it.
        num_embeddings: K, into which `codes` are cut; 0 without codes.
        left_out: video -> why nothing is said of it.
    """

    windows: int = Field(ge=2)
    num_embeddings: int = Field(0, ge=0)
    videos: tuple[Video, ...]
    left_out: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_of_one_model(self) -> Observation:
        lengths = {tuple(-1 if each is None else len(each) for each in (video.codes, video.rank, video.loss,
                                                                        video.latents)) for video in self.videos}
        if len(lengths) > 1:
            raise ValueError("the videos' figures are not of one length")
        return self

    def aspects(self) -> tuple[Aspect, ...]:
        """What is known of the videos."""
        coded = bool(self.videos) and self.videos[0].codes is not None
        return ("codes", "rank", "loss", "latents") if coded else ("rank", "loss", "latents")
