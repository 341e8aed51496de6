"""`lam report --verify`: a JSON report against the records it was made from, computed again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis.report.render import report_dict
from analysis.report.report import build_report
from record import files
from record.errors import BadInput

NOT_COMPARED = ("made_at", "version")
SAME = 1e-9  # relative: the last digits of a sum may depend on the machine


class _Asked(BaseModel):
    """What a report was asked for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    baseline: str | None = None
    objective: str | None = None
    profile: str | None = None


class _Made(BaseModel):
    """What a report says that it was made from. Its file may be a stranger's."""

    model_config = ConfigDict(strict=True)

    sources: list[str] = Field(min_length=1)
    asked: _Asked


@dataclass(frozen=True)
class Changed:
    """One value that is no longer what the report says."""

    where: str
    said: str
    now: str

    @property
    def sentence(self) -> str:
        """Both values and where they stand."""
        return f"{self.where}: the report says {self.said}, the records say {self.now}"


def verify(path: Path, named: Sequence[str] = ()) -> tuple[list[Changed], int]:
    """What changed, and how many values were compared.

    Args:
        named: addresses that may be asked; a file alone makes nobody ask a server.

    Raises:
        BadInput: it is no JSON report, its records are gone, or on a server that is not among `named`.
    """
    told, origin = _read(path)
    for source in origin.sources:
        if _is_server(source) and source not in named:
            raise BadInput(f"was made from {source!r}, and no server is asked because a file says so", source=path,
                           key="sources", remedy="name that address too, after --verify FILE.json, if you trust it")
    made = report_dict(build_report([Path(source) if os.path.exists(source) else source for source in origin.sources],
                                    **origin.asked.model_dump()))
    kept = [key for key in dict.fromkeys([*told, *made]) if key not in NOT_COMPARED]
    counted = [0]
    found = [change for key in kept for change in _compared(key, told, made, counted)]
    return found, counted[0]


def _is_server(source: str) -> bool:
    return "://" in source and not source.startswith("sqlite:") and not os.path.exists(source)


def _compared(key: str, told: dict[str, Any], made: dict[str, Any], counted: list[int]) -> Iterator[Changed]:
    if key in told and key in made:
        yield from _differences(key, told[key], made[key], counted)
    else:
        counted[0] += 1
        said, now = (repr(each[key])[:80] if key in each else "nothing" for each in (told, made))
        yield Changed(key, said, now)


def _read(path: Path) -> tuple[dict[str, Any], _Made]:
    try:
        told = files.parse_json(files.read_record(path))
    except FileNotFoundError:
        raise BadInput("no such file", source=path,
                       remedy="name a report that 'lam report -o FILE.json' wrote") from None
    except ValueError as error:
        raise BadInput(f"is no JSON ({error})", source=path, remedy="name a report in JSON") from None
    try:
        return told, _Made.model_validate(told)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise BadInput(f"does not say what it was made from ({error.errors()[0]['msg']})", source=path, key=key,
                       remedy="make it again with 'lam report PATH... -o FILE.json'") from None


def _differences(where: str, said: Any, now: Any, counted: list[int]) -> Iterator[Changed]:
    if isinstance(said, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*said, *now]):
            yield from _differences(f"{where}.{key}", said.get(key), now.get(key), counted)
    elif isinstance(said, list) and isinstance(now, list):
        if len(said) != len(now):
            yield Changed(where, f"{len(said)} entries", f"{len(now)}")
        for place, (one, other) in enumerate(zip(said, now, strict=False)):
            yield from _differences(f"{where}[{place}]", one, other, counted)
    else:
        counted[0] += 1
        if not _same(said, now):
            yield Changed(where, repr(said)[:80], repr(now)[:80])


def _same(said: Any, now: Any) -> bool:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (said, now))
    return abs(said - now) <= SAME * max(abs(said), abs(now)) if numbers else bool(said == now)
