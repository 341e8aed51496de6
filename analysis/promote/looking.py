"""`lam monitor FILE --data DIR`: whether new data are still what the model in production was chosen on.

Each look stands in the ledger, since its number decides what counts as a difference; the same videos seen twice are
one look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.drift.twosample import ALPHA
from analysis.drift.verdict import Drift, judge_drift
from analysis.promote.ledger import SUFFIX, Entry, Ledger, Served, digest, ledger_of
from analysis.promote.snapshots import kept, model_of
from record import files
from record.errors import BadInput
from record.text import count, printable, share, short
from record.workload.observation import Observation


@dataclass(frozen=True)
class Looked:
    """One look at new data, as plain values: what `--json` prints and the ledger keeps."""

    file: Path
    data: Path
    values: dict[str, Any]

    @property
    def drifted(self) -> bool:
        return bool(self.values["verdict"] == "drift")


def look(what: Path, data: Path) -> Looked:
    """Compare the videos of a folder with those kept at promotion.

    Args:
        what: a production YAML, or the folder of one version's weights beside it.

    Raises:
        BadInput: nothing was promoted, no snapshot was kept, or the videos are too few to tell.
    """
    target, version = _named(what)
    ledger = ledger_of(target)
    change = _change(ledger, version)
    before = kept(ledger, change)
    trained, model = model_of(ledger, change)
    new = trained.observe(model, data, before.windows)
    known = digest(json.dumps(new.model_dump(mode="json"), sort_keys=True).encode())
    with ledger.held():
        looks = _looks(ledger, change.version)
        same = next((entry for entry in looks if entry.sha256 == known and entry.look), None)
        if same is not None:
            return Looked(target, data, {**(same.look or {}), "again": True})
        drift = judge_drift(before, new, len(looks) + 1)
        values = _values(target, data, change, new, drift)
        ledger.append("looked", version=change.version, sha256=known, data_fingerprint=None, look=values)
    return Looked(target, data, {**values, "again": False})


def _looks(ledger: Ledger, version: int) -> list[Entry]:
    """The looks that the version's snapshot has served; one that is taken again begins anew."""
    own = [entry for entry in ledger.entries() if entry.version == version]
    taken = max((entry.seq for entry in own if entry.event == "kept"), default=0)
    return [entry for entry in own if entry.event == "looked" and entry.seq > taken]


def _named(what: Path) -> tuple[Path, int | None]:
    """The production YAML, and the version where a folder of weights was named."""
    path = what.absolute()
    if path.parent.name == "models" and path.parents[1].suffix == ".promotions" and path.name.isdigit():
        return path.parents[1].with_suffix(SUFFIX), int(path.name)
    if what.is_dir() or what.suffix != SUFFIX:
        raise BadInput("is no production YAML, and only a promoted model has videos kept to hold new data to",
                       source=what, remedy="name the file that 'lam promote' wrote, for example production.yaml")
    return what, None


def _change(ledger: Ledger, version: int | None) -> Served:
    changes = ledger.changes()
    found = next((change for change in reversed(changes) if version in (None, change.version)), None)
    if found is None:
        raise BadInput("nothing was promoted to it", source=ledger.target,
                       remedy="promote first: lam promote SWEEP -o FILE")
    return found


def _values(target: Path, data: Path, change: Served, new: Observation, drift: Drift) -> dict[str, Any]:
    found: dict[str, Any] = files.jsonable({
        "schema": 1, "file": str(target.absolute()), "version": change.version, "trial": change.begun.trial,
        "data": str(data.absolute()), "verdict": drift.verdict, "look": drift.look, "kept_videos": drift.kept,
        "new_videos": drift.new, "left_out": dict(new.left_out),
        "tests": [{**asdict(test), "drifted": test.drifted} for test in drift.tests], "remedy": list(drift.remedy)})
    return found


def drift_lines(found: Looked) -> Iterator[str]:
    """The look as text."""
    values = found.values
    again = " (the same videos as before: no further look)" if values["again"] else ""
    yield printable(f"{found.file} version {values['version']}: {values['verdict']} in {found.data}: "
                    f"{count(values['new_videos'], 'video')} against {values['kept_videos']} kept at promotion, look "
                    f"{values['look']}{again}")
    for test in values["tests"]:
        mark = "DRIFT" if test["drifted"] else "same "
        yield printable(f"  {mark} {test['aspect']:8} {test['sentence']}; p {short(test['p'])}, drift at "
                        f"{short(test['level'])} or less")
    yield f"  by video; all looks at one snapshot together raise a false alarm in at most {share(ALPHA)} of cases"
    if values["left_out"]:
        yield printable(f"  left out: {count(len(values['left_out']), 'video')}: "
                        + "; ".join(f"{name} ({why})" for name, why in list(values["left_out"].items())[:3]))
    yield from (printable(f"  {number}. {text}") for number, text in enumerate(values["remedy"], 1))
