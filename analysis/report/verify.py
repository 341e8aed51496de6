"""`lam report --verify`: a JSON report against the records it was made from, computed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.report.render import report_dict
from analysis.report.report import build_report
from record import files
from record.errors import BadInput

NOT_COMPARED = ("made_at", "version")
SAME = 1e-9  # relative: the last digits of a sum may depend on the machine


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


def verify(path: Path) -> tuple[list[Changed], int]:
    """What changed, and how many values were compared.

    Raises:
        BadInput: it is no JSON report, or its records are gone.
    """
    told = _read(path)
    made = report_dict(build_report([Path(source) if Path(source).exists() else source for source in told["sources"]],
                                    **told["asked"]))
    kept = [key for key in told if key not in NOT_COMPARED]
    counted = [0]
    found = [change for key in kept for change in _differences(key, told[key], made.get(key), counted)]
    return found, counted[0]


def _read(path: Path) -> dict[str, Any]:
    try:
        told = files.parse_json(files.read_record(path))
    except FileNotFoundError:
        raise BadInput("no such file", source=path,
                       remedy="name a report that 'lam report -o FILE.json' wrote") from None
    except ValueError as error:
        raise BadInput(f"is no JSON ({error})", source=path, remedy="name a report in JSON") from None
    if not (isinstance(told, dict) and isinstance(told.get("sources"), list) and isinstance(told.get("asked"), dict)):
        raise BadInput("does not say what it was made from", source=path,
                       remedy="make it again with 'lam report PATH... -o FILE.json'")
    return told


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
