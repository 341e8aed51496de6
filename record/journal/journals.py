"""Where a sweep's journal is, and reading it; `sweeps` writes it, `sweeps` and `analysis` read it.

A journal is kept in a folder (segments to which lines are appended) or, where a store cannot append,
as objects (`record.journal.journal_objects`). The key `journal` of the sweep says which; without it, it is in the
sweep folder. Its events are the same in both: numbered 1, 2, 3, ... without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from record import files
from record.errors import BadInput, Damaged, EnvironmentFailed
from record.journal import journal_objects

VERSION = 1

# Parts of names of URI options that carry a secret.
_SECRET = ("key", "secret", "token", "password", "sig", "credential")


# What `pyarrow.fs.FileSystem.from_uri` opens.
SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")


def problem(uri: str) -> str | None:
    """What is wrong with a journal's URI as it is written; None where nothing is. Opens no connection."""
    parts = urlsplit(uri)
    hidden = [name for name, _ in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET)]
    if parts.password or hidden or (parts.username and parts.scheme == "s3"):
        return ("holds a credential, which would be written into the sweep's records; give credentials in the "
                "environment, as pyarrow reads them")
    if "://" not in uri:
        return f"got {uri[:80]!r}, expected a URI such as s3://bucket/prefix"
    if uri.split("://")[0] not in SCHEMES:
        return f"got {uri[:80]!r}, which no store has; it begins with one of {', '.join(SCHEMES)} and ://"
    if parts.scheme == "file" and not parts.path.strip("/"):
        return f"got {uri[:80]!r}, which names no folder; for example file:///shared/journals"
    return None


def place(uri: str, name: str) -> Path | str:
    """Where the journal of the sweep `name` is kept under `uri`: a folder, or the URI of a prefix of objects."""
    parts = urlsplit(uri)
    path = f"{parts.path.rstrip('/')}/{name}"
    return Path(unquote(path)) if parts.scheme == "file" else parts._replace(path=path).geturl()


def read_identity(file: Path) -> dict[str, Any]:
    """What a sweep.json says.

    Raises:
        BadInput: it is no JSON object.
    """
    try:
        known = json.loads(file.read_bytes())
    except ValueError as error:  # what is not UTF-8 as well
        raise BadInput(f"is damaged ({error})", source=file, remedy="restore it from a copy") from None
    if not isinstance(known, dict):
        raise BadInput(f"holds a {type(known).__name__}, expected an object", source=file,
                       remedy="restore it from a copy")
    return known


def home(folder: str | Path) -> Path | str:
    """Where the journal of the sweep in `folder` is kept, by its sweep.json."""
    file = Path(folder) / "sweep.json"
    known = read_identity(file) if file.exists() else {}
    uri = (known.get("spec") or {}).get("journal")
    if uri is None:
        return Path(folder)
    wrong = problem(str(uri))
    if wrong or not known.get("name"):
        raise BadInput(wrong or "has no name", source=file, key="spec.journal", remedy="restore sweep.json from a copy")
    return place(str(uri), str(known["name"]))


def read(folder: str | Path) -> Iterator[dict[str, Any]]:
    """The events of the sweep in `folder`, in order; half-written lines are left out.

    Raises:
        BadInput: sweep.json names no place, or one that does not exist.
        Damaged: a line in the middle is no event, or a sequence number is missing.
        EnvironmentFailed: a newer version wrote it, or the store does not answer.
    """
    return read_at(home(folder))


def read_at(where: Path | str) -> Iterator[dict[str, Any]]:
    """The events kept at a `place`; see `read`."""
    if isinstance(where, Path):
        return _in_folder(where)
    filesystem, root = journal_objects.connect(where)
    return known_version(journal_objects.read_objects(filesystem, root, where), where)


def segments(folder: str | Path) -> list[Path]:
    """Files of a journal that is kept in a folder, in order."""
    return sorted(Path(folder).glob("journal-[0-9]*.jsonl"))


def _in_folder(folder: Path) -> Iterator[dict[str, Any]]:
    expected = 1
    for segment in segments(folder):
        try:
            for event in known_version(files.read_json_lines(segment), segment):
                if event["seq"] != expected:
                    raise Damaged(f"{segment}: the event after number {expected - 1} has number {event['seq']}; "
                                  "restore the journal from a copy of the sweep folder")
                yield event
                expected += 1
        except ValueError as error:
            raise Damaged(f"{error}; restore the journal from a copy of the sweep folder") from None


def known_version(events: Iterable[Any], where: str | Path) -> Iterator[dict[str, Any]]:
    """The events, once each is known to be one, and of a version that is read here.

    Raises:
        Damaged: something is no event.
        EnvironmentFailed: a newer version wrote one.
    """
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("seq"), int) or "event" not in event:
            raise Damaged(f"{where}: an event lacks its seq or its name; restore the journal from a copy")
        if event.get("version", VERSION) > VERSION:
            raise EnvironmentFailed(f"{where}: was written as version {event['version']}, this one reads {VERSION}; "
                                    "update lamsweep")
        yield event
