"""The sweep folder: where it is, who it belongs to, and what sweep.json says."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from record import documents, files, provenance, yamlio
from record.errors import BadInput, EnvironmentFailed
from record.journal import journals
from record.journal.events import Session
from record.schema import build
from record.storage import addresses, copies, trust
from record.workload import workload
from sweeps.journal.state import SweepState, replay
from sweeps.journal.stores import Store
from sweeps.spec.spec import Sweep, SweepSpec

# First line of a sweep.yaml that says more than the one that was launched.
EXTENDED = "# Written by 'lam sweep extend'."

# What a first launch may have left behind when it was cut off before sweep.json was there.
_BEFORE_BEGINNING = ("driver.lock", "ray.log", ".sweep.*.tmp", ".machines.lock", copies.ORIGIN)


def sweep_folder(sweep: Sweep, storage: str | Path | None = None) -> Path:
    """Folder of a sweep under `storage` (default: the spec's); on a store the driver's own copy of it.

    Raises:
        BadInput: it is a URI that cannot be connected to, or not unasked.
        EnvironmentFailed: its store does not answer.
    """
    uri = storage_uri(sweep, storage)
    if uri is not None:
        return copies.begun(addresses.below(uri, sweep.spec.name))
    return files.plain(sweep.spec.storage if storage is None else storage) / sweep.spec.name


def storage_uri(sweep: Sweep, storage: str | Path | None = None) -> str | None:
    """The store that holds the sweep, None where a folder does; opens no connection.

    Raises:
        BadInput: it cannot be connected to, or not unasked.
    """
    given = str(sweep.spec.storage if storage is None else storage)
    if "://" not in given:
        return None
    return copies.named(given, sweep.source if storage is None else "--storage", None if storage else "storage")


def check_same(sweep: Sweep, folder: Path) -> None:
    """Refuse a folder that holds another sweep, or something that is no sweep.

    Raises:
        BadInput: with the keys that differ.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadInput("is a file, expected the sweep's folder", source=folder, remedy=_remedy())
    if not files.stands(folder / "sweep.json"):
        foreign = sorted(path.name for path in folder.iterdir()
                         if not any(path.match(pattern) for pattern in _BEFORE_BEGINNING))
        if foreign:
            raise BadInput(f"is no sweep (sweep.json is missing) and holds {', '.join(foreign[:3])}",
                           source=folder, remedy=_remedy())
        return
    there = known(folder)
    if there.fingerprint != sweep.fingerprint():
        here = {**sweep.asked(), "budget": there.asked.get("budget")}
        lines = "\n".join(f"  {text}" for text in difference(there.asked, here))
        raise BadInput(f"holds another sweep named {sweep.spec.name!r}; what differs (there -> here):\n{lines}\n",
                       source=copies.where(folder), remedy=_remedy(folder))


def known(folder: Path) -> documents.Sweep:
    """What the sweep.json of a folder says.

    Raises:
        BadInput: it is damaged.
    """
    return documents.load_document(documents.Sweep, folder / "sweep.json")


def shrunk(sweep: Sweep, folder: Path) -> list[str]:
    """A warning where a sweep that has begun is given less budget than it has."""
    if not files.stands(folder / "sweep.json"):
        return []
    there, here = known(folder).asked.get("budget") or {}, sweep.asked()["budget"]
    less = {name: limit for name, limit in here.items() if name not in there or limit < there[name]}
    if not less:
        return []
    lines = difference({name: there[name] for name in less if name in there}, less)
    return [f"{copies.where(folder)}: its budget is lowered ({', '.join(lines)}); 'lam sweep extend' raises it again"]


def kept_to_itself(sweep: Sweep) -> list[str]:
    """A warning where the journal's URI names a server, to which other commands do not connect unasked."""
    uri = sweep.spec.journal
    if uri is None or trust.is_plain(uri) or trust.is_allowed(uri, os.environ.get(trust.ALLOWED, "")):
        return []
    return [f"{sweep.source}:journal: names a server; so that other commands read this sweep, {trust.words(uri)}"]


def another_optuna(folder: Path, here: str | None = None) -> list[str]:
    """A warning where a sweep is resumed under another Optuna: what its samplers keep in the journal is private to it.

    Args:
        here: the version that would search; default: the one that is installed.
    """
    began = known(folder).versions.get("optuna") if files.stands(folder / "sweep.json") else None
    here = here or version("optuna")
    if began in (None, here):
        return []
    return [f"{copies.where(folder)}: was begun with optuna {began}, here is {here}; it may suggest other configs "
            f"than it would have: install optuna {began} to go on as it began"]


def check_journal(folder: Path, store: Store) -> None:
    """Refuse a journal that is not this folder's: one that another sweep began, or none where trials are.

    Raises:
        BadInput: the folder is new and the journal is not.
        EnvironmentFailed: the folder has trials and the journal no event.
    """
    first = next(store.read(), None)
    if first is not None and not files.stands(folder / "sweep.json"):
        began = f"{first.name!r} began on {first.host}" if isinstance(first, Session) else "another sweep began"
        raise BadInput(f"holds the journal that {began} at {first.time.isoformat()}", source=store.where,
                       remedy="give this sweep another name or another 'journal', or bring that sweep's folder back")
    if first is None and isinstance(store.where, str) and any((folder / "trials").glob("*")):
        raise EnvironmentFailed(f"{store.where}: holds no event, and {folder} has trials; check that the address and "
                                "the credentials in the environment are those of the first launch")


def _remedy(folder: Path | None = None) -> str:
    elsewhere = "give this sweep another name, or another folder with --storage"
    if folder is None or not is_extended(folder):
        return elsewhere
    return f"it was extended, so go on with '{resume_command(folder)}', or {elsewhere}"


def is_extended(folder: Path) -> bool:
    """Whether the folder's own sweep.yaml says more than the one that was launched."""
    file = folder / "sweep.yaml"
    return file.exists() and files.read_record(file, yamlio.MAX_BYTES).startswith(EXTENDED.encode())


def resume_command(folder: Path) -> str:
    """The command that goes on with a sweep whose own YAML is all of it."""
    uri = copies.address(folder)
    storage = addresses.above(uri)[0] if uri else str(folder.parent)
    return shlex.join(["lam", "sweep", "launch", copies.where(folder / "sweep.yaml"), "--storage", storage])


def difference(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Lines ``key: there -> here`` of the leaves that differ."""
    a, b = dict(_leaves(there)), dict(_leaves(here))
    return [f"{key}: {json.dumps(a[key]) if key in a else 'absent'} -> {json.dumps(b[key]) if key in b else 'absent'}"
            for key in [*a, *(key for key in b if key not in a)] if a.get(key, _ABSENT) != b.get(key, _ABSENT)]


_ABSENT = object()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def write_identity(sweep: Sweep, folder: Path, data_fingerprint: str) -> None:
    """Write sweep.yaml and sweep.json at the first launch; later launches change no more than the budget.

    Raises:
        BadInput: the data is not what the sweep began with.
    """
    file = folder / "sweep.json"
    if file.exists():
        check_data(folder, data_fingerprint)
        if known(folder).asked != sweep.asked() or not (folder / "sweep.yaml").exists():
            rewrite(sweep, folder)
        return
    documents.write(file, documents.Sweep(  # before sweep.yaml: from here on the folder is this sweep's
        name=sweep.spec.name, **_content(sweep), data_fingerprint=data_fingerprint, versions=provenance.versions(),
        git_commit=provenance.git_commit(), created_at=datetime.now(UTC).isoformat(timespec="seconds")))
    files.write_text(folder / "sweep.yaml", sweep.text)
    copies.publish(folder, "sweep.yaml", "sweep.json")


def check_data(folder: Path, data_fingerprint: str) -> None:
    """Refuse data other than what the sweep began with.

    Raises:
        BadInput: the fingerprints differ.
    """
    began_with = known(folder).data_fingerprint
    if began_with != data_fingerprint:
        raise BadInput(f"was begun with data {began_with}, the data is now {data_fingerprint}",
                       source=copies.where(folder), remedy="restore the data, or give this sweep another name")


def _content(sweep: Sweep) -> dict[str, Any]:
    return {"spec": sweep.spec.model_dump(mode="json", by_alias=True), "base": sweep.base.mapping(),
            "asked": sweep.asked(), "fingerprint": sweep.fingerprint()}


def rewrite(sweep: Sweep, folder: Path) -> None:
    """Replace what sweep.yaml and sweep.json say was asked; where the sweep came from stays."""
    files.write_text(folder / "sweep.yaml", sweep.text)
    documents.write(folder / "sweep.json", known(folder).model_copy(update=_content(sweep)))
    copies.publish(folder, "sweep.yaml", "sweep.json")


def spec_mapping(sweep: Sweep) -> dict[str, Any]:
    """The spec as a mapping that `SweepSpec` reads again; the base config stands in it."""
    values = sweep.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**values, "space": sweep.space_mapping(), "base": sweep.base.mapping()}


def begun_in(folder: str | Path) -> Path:
    """The sweep.json of a folder.

    Raises:
        BadInput: there is none.
    """
    file = Path(folder) / "sweep.json"
    if files.stands(file):
        return file
    inside = sorted(child.parent.name for child in Path(folder).glob("*/sweep.json"))
    lacks = "holds no sweep (sweep.json is missing)" if Path(folder).exists() else "no such folder"
    raise BadInput(lacks, source=folder, remedy=f"name one of those inside it: {', '.join(inside[:5])}" if inside else
                   "name the folder that 'lam sweep launch' wrote, for example runs/vq")


def open_sweep(folder: str | Path) -> tuple[Sweep, SweepState]:
    """The sweep that a folder holds, and its state; raises as `sweep_in`."""
    return sweep_in(folder), replay(journals.history(folder))


def sweep_in(folder: str | Path) -> Sweep:
    """The sweep that a folder holds.

    Raises:
        BadInput: the folder holds no sweep, or a damaged one.
    """
    file = begun_in(folder)
    found = known(Path(folder))
    # The space is rebuilt from what was asked, since the plain dump also writes the kinds that are null.
    begun = {"space": found.asked.get("space"), "search": _as_begun(found.spec.get("search"))}
    spec = build(SweepSpec, {**found.spec, **begun}, file)
    return Sweep(spec, workload.find(spec.workload).read(found.base, file), str(file), "")


def _as_begun(search: Any) -> Any:
    """A recorded search section: TPE without the key `multivariate` is of a version that always had it."""
    if not isinstance(search, dict) or not isinstance(search.get("tpe"), dict):
        return search
    return {**search, "tpe": {"multivariate": True, **search["tpe"]}}
