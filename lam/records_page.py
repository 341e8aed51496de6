"""What docs/records.md and docs/schemas say of events and documents, made from their classes in `record`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from record.documents import DOCUMENTS
from record.journal import events
from record.schema import model_in

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_lines() -> Iterator[str]:
    """What every event has, then a row an event, then what a `reason` holds."""
    yield from ("| field of every event | |", "|---|---|", *_rows(events.JournalEvent, always=("seq", "time", "event")))
    yield from ("", "| event | says | fields |", "|---|---|---|")
    for name, kind in events.KINDS.items():
        fields = [f"`{field}`{mark}: {text}" for field, mark, text in _fields(kind) if field not in
                  events.JournalEvent.model_fields]
        yield f"| `{name}` | {_first_line(kind)} | {'<br>'.join(fields)} |"
    yield from ("", "| field of `reason` | |", "|---|---|", *_rows(events.Reason))


def document_lines() -> Iterator[str]:
    """A table a document; what it holds in parts stands under the part's name."""
    for name, kind in DOCUMENTS.items():
        yield from ("", f"`{name}.json`: {_first_line(kind)}", "", "| field | |", "|---|---|", *_rows(kind))


def schemas() -> dict[str, str]:
    """File name -> JSON schema of an event of the journal and of each document."""
    found: dict[str, dict[str, Any]] = {"event": events.schema()}
    found |= {name: kind.model_json_schema() for name, kind in DOCUMENTS.items()}
    return {f"{name}.schema.json": json.dumps({"$schema": DIALECT, **schema}, indent=2) + "\n"
            for name, schema in found.items()}


def _rows(model: type[BaseModel], prefix: str = "", always: tuple[str, ...] = ()) -> Iterator[str]:
    for field, mark, text in _fields(model):
        yield f"| `{prefix}{field}`{'' if field in always else mark} | {text} |"
        part = model_in(model.model_fields[field].annotation) if field in model.model_fields else None
        if part is not None:
            yield from _rows(part, f"{prefix}{field}.")


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """(name, '?' where it may be absent, meaning) of each field."""
    for name, field in model.model_fields.items():
        yield field.alias or name, "" if field.is_required() else "?", (field.description or "").replace("|", "\\|")


def _first_line(kind: type[BaseModel]) -> str:
    return (kind.__doc__ or "").partition("\n")[0].rstrip(".")
