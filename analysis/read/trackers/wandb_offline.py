"""Offline W&B folders: `.wandb` files, protocol buffers of the installed wandb in LevelDB's log framing."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.read.foreign import profile_of
from analysis.read.logs import Recorded
from analysis.read.trackers.points import epoch_of
from record import files
from record.errors import BadInput
from record.text import gist

BLOCK, HEADER = 32768, 7
MOST_BYTES = 1 << 31


def fits(place: Path | str) -> bool:
    """Whether it is a `.wandb` file or a folder of W&B's."""
    return isinstance(place, Path) and (place.suffix == ".wandb" or bool(place.is_dir() and _files(place)))


def read(place: Path | str) -> list[Recorded]:
    """Every run; what a run that is still written leaves half-done is left out.

    Raises:
        BadInput: a file is damaged.
    """
    folder = Path(place)
    return [_run(path) for path in ([folder] if folder.is_file() else _files(folder))]


def _files(folder: Path) -> list[Path]:
    return sorted({*folder.glob("*.wandb"), *folder.glob("*run-*/*.wandb"), *folder.glob("wandb/*run-*/*.wandb")})


def _run(path: Path) -> Recorded:
    from wandb.proto.wandb_internal_pb2 import Record

    name, state = path.stem, "unknown"
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for payload in _payloads(path, notes):
        try:
            record = Record.FromString(payload)
            if record.HasField("run"):
                name = record.run.display_name or record.run.run_id or name
                config |= {item.key: _value(item.value_json) for item in record.run.config.update
                           if item.key != "_wandb"}
            elif record.HasField("history"):
                rows.append(_row(record.history))
            elif record.HasField("exit"):
                state = "failed" if record.exit.exit_code else "finished"
        except Exception as error:  # protobuf's of a record, ValueError and RecursionError of a value
            raise BadInput(f"is no file of the installed wandb ({gist(error)})", source=path,
                           remedy="restore it from a copy, or export its history as CSV") from None
    records = tuple({**row, "epoch": epoch_of(row, row.get("step", place))} for place, row in enumerate(rows, 1))
    notes += [] if records else ["holds no history"]
    flat = {key: value for key, value in files.flat(config).items() if value is not None}
    return Recorded(name, "W&B", profile_of({key for row in rows for key in row}) or "generic", state, records, {},
                    tuple(notes), flat, source=str(path))


def _row(history: Any) -> dict[str, Any]:
    row = {item.key or "/".join(item.nested_key): _value(item.value_json) for item in history.item}
    step = history.step.num if history.HasField("step") else row.get("_step")
    plain = {key: value for key, value in row.items()
             if not key.startswith("_") and isinstance(value, (int, float)) and not isinstance(value, bool)}
    return {**plain, "step": step, **({"seconds": row["_runtime"]} if "_runtime" in row else {})}


def _value(text: str) -> Any:
    value = json.loads(text) if text else None
    return value["value"] if isinstance(value, dict) and set(value) <= {"value", "desc"} and "value" in value else value


def _payloads(path: Path, notes: list[str]) -> Iterator[bytes]:
    """The records of a file; a last one that is cut off is left out and said."""
    data, place, part = files.read_record(path, MOST_BYTES), HEADER, b""
    while place + HEADER <= len(data):
        room = BLOCK - place % BLOCK
        if room < HEADER:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        if kind not in (1, 2, 3, 4) or place + HEADER + length > len(data):
            break
        part += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):
            yield part
            part = b""
    if part or any(data[place:]):
        notes.append("the end of its file is half-written and is left out")
