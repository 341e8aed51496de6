"""What may be the id of a trial: it becomes a folder below `trials/` and `confirm/`, so a plain name and no more."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from record.files import NAME


def _plain(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("expected a plain name such as t0001: no sweep wrote this, do not trust the folder")
    return name


TrialId = Annotated[str, AfterValidator(_plain), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
