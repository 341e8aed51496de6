"""What was promoted to a production YAML, and the way back: `lam promotions list | show | rollback`."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.promote.ledger import Ledger, Served, ledger_of
from record.errors import BadInput
from record.text import printable

SHOWN_EDITS = 5


def served(file: Path) -> list[Served]:
    """Every change, what a kill left first finished.

    Raises:
        BadInput: nothing was ever promoted to this file.
    """
    ledger = ledger_of(file)
    if ledger.pending():
        with ledger.held():
            pass
    return ledger.changes()


def as_text(file: Path, found: Sequence[Served]) -> list[str]:
    """The history as text, the newest last, and whether the file is as it was written."""
    ledger = Ledger(file)
    told = [_line(change, is_last=change is found[-1]) for change in found]
    return [*told, *edits(ledger), *behind(ledger)]


def _line(change: Served, is_last: bool) -> str:
    begun = change.begun
    what = {"promotion": f"{begun.trial} of {begun.source}", "adoption": "the file from before the ledger",
            "rollback": f"back to version {begun.version}"}[begun.kind or "promotion"]
    why = f" ({begun.because})" if begun.because and begun.kind == "rollback" else ""
    return printable(f"{change.number:>3}  {change.done_at[:19]}  {begun.kind:9}  version {begun.version}  {what}{why}"
                     + ("  <- in production" if is_last else ""))


def behind(ledger: Ledger) -> list[str]:
    """The mirrors that were told of an earlier promotion and not of the last one, with the command that tells them."""
    now, sync = ledger.changes()[-1], ["lam", "promotions", "sync", str(ledger.target)]
    found = []
    if "mlflow" not in now.mirrors and (told := ledger.mirrored("mlflow")):
        found.append((f"MLflow at {told['uri']}", ["--mlflow", told["uri"]]))
    if "wandb" not in now.mirrors and (told := ledger.mirrored("wandb")):
        found.append(("W&B", ["--wandb", told["wandb"], "--wandb-project", told["project"]]))
    return [f"{name} does not know of the last change; tell it with: {shlex.join([*sync, *asked])}"
            for name, asked in found]


def edits(ledger: Ledger) -> list[str]:
    """What somebody changed by hand since the last promotion; empty where file and weights are as they were written."""
    change = ledger.current()
    if change is None:
        return []
    names = ledger.altered(change.begun)
    weights = [f"{ledger.model_folder(change.version)}: {', '.join(names)}: gone or not what was promoted"] if names \
        else []
    return [*weights, *_edits_of_file(ledger, change)]


def _edits_of_file(ledger: Ledger, change: Served) -> list[str]:
    if not ledger.is_edited():
        return []
    if not ledger.target.exists():
        again = f"lam promotions rollback {ledger.target} --to {change.version}"
        return [f"{ledger.target} is gone; put it back with: {again}"]
    kept = ledger.text_of(change.begun)
    if kept is None:
        return [f"{ledger.target} was edited by hand since version {change.version}, whose copy is gone or altered"]
    before = kept.splitlines()
    now = ledger.target.read_text(encoding="utf-8", errors="replace").splitlines()
    changed = [line for line in difflib.unified_diff(before, now, lineterm="", n=0)
               if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    rest = [f"  and {len(changed) - SHOWN_EDITS} more lines"] if len(changed) > SHOWN_EDITS else []
    return [f"{ledger.target} was edited by hand since version {change.version}:",
            *(printable(f"  {line}") for line in changed[:SHOWN_EDITS]), *rest]


def as_json(found: Sequence[Served]) -> list[dict[str, Any]]:
    """The history as plain values."""
    return [{"number": change.number, "done_at": change.done_at, "mirrors": change.mirrors,
             **{key: value for key, value in change.begun.as_written().items() if key != "record"}}
            for change in found]


def shown_at(file: Path, at: str | None) -> tuple[list[str], str]:
    """What to say of the version that was in production, and its text.

    Raises:
        BadInput: no date, or nothing was in production then.
    """
    found = served(file)
    change = Ledger(file).at(_moment(at)) if at else found[-1]
    if change is None:
        raise BadInput(f"got {at!r}, and the first promotion was done at {found[0].done_at[:19]}", source="--at",
                       remedy="name a later moment")
    text = Ledger(file).checked(change.begun)
    told = f"# version {change.version}, in production since {change.done_at[:19]} UTC ({change.begun.kind})"
    return [told, *([] if at else edits(Ledger(file)))], text


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"got {text!r}, expected a date as ISO writes it", source="--at",
                       remedy="for example --at 2026-01-31 or --at 2026-01-31T18:00") from None


def roll_back(file: Path, to: int | None, because: str) -> str:
    """Serve an earlier version again; returns what to say.

    Raises:
        BadInput: there is no such version or none before, or somebody edited the file.
    """
    with ledger_of(file).held() as ledger:
        now = ledger.current()
        known = list(dict.fromkeys(change.version for change in ledger.changes()))
        gone = not ledger.target.exists()
        if now is None or (to is None and len(known) < 2):
            raise BadInput("has no version before the one in production", source=file, remedy="promote a second time")
        wanted = to if to is not None else _before(ledger, now)
        if wanted not in known or (wanted == now.version and not gone):
            raise BadInput(f"got {wanted}, expected another version than the one in production ({now.version}), of "
                           f"{', '.join(map(str, known))}", source="--to", remedy=f"see 'lam promotions list {file}'")
        if ledger.is_edited() and not gone:
            raise BadInput("was edited since it was promoted", source=file,
                           remedy="move it away to keep your changes, then give the same command again")
        old = next(change.begun for change in reversed(ledger.changes()) if change.version == wanted)
        ledger.serve(kind="rollback", version=wanted, sha256=old.sha256, because=because, trial=old.trial,
                     source=old.source, weights=old.weights, data_fingerprint=old.data_fingerprint)
    return f"{file} is version {wanted} again ({old.trial or 'from before the ledger'}); version {now.version} is kept"


def _before(ledger: Ledger, now: Served) -> int:
    """The version that was in production before this one came."""
    return next(change.version for change in reversed(ledger.changes()) if change.version != now.version)
