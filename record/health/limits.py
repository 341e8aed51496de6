"""What a run of a family must show before it is promoted: the numbers that gates compare with."""

from __future__ import annotations

from pydantic import Field

from record.schema import Strict


class Gates(Strict):
    """The section `gates` of a health profile."""

    seeds: int = Field(3, ge=1, description="fresh seeds, every one of them live")
    rank_context: float = Field(3, ge=0, description="smallest effective rank of the frames' embeddings")
    rank_target: float = Field(2, ge=0, description="smallest effective rank of the action embeddings")
    perplexity_share: float = Field(0.125, ge=0, le=1, description="smallest slot perplexity, as a share of K")
    last_validations: int = Field(5, ge=1, description="validations over which the codebook must be stable and diverse")
    error_over_no_codes: float = Field(
        0.25, ge=0, description="how much larger the error may be than that of the arm without codes, as a share")
