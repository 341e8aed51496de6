"""The text of a production YAML: the config, a reason beside each value that was changed, and its sections. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import files, yamlio
from record.errors import BadInput
from record.health.production import Alert
from record.schema import build, suggest
from record.text import printable
from record.workload.settings import PRODUCTION_SECTIONS

DEFAULTS = {"health.abort": ("true", "an abort ends the run and keeps its checkpoint")}
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_][\w.]*):(?P<rest>.*)$")


@dataclass(frozen=True)
class Override:
    """A value that production has instead of the trial's own."""

    key: str
    value: Any
    because: str
    source: str


WATCHED = ("alerts", "aborts")


def watched(kind: str, known: Collection[str], *sections: tuple[Mapping[str, Any], str]) -> list[dict[str, Any]]:
    """What sections of overrides watch for beside what promotion does: their own `alerts` or `aborts`.

    Args:
        known: the metrics there are; a line about another one would be silent for ever.

    Raises:
        BadInput: one of them is wrong.
    """
    found = []
    for values, source in sections:
        asked, where = values.get(kind) or [], f"{source}: {kind}"
        if not isinstance(asked, list):
            raise BadInput(f"got {asked!r:.80}, expected a list", source=where, remedy="begin each line with a dash")
        for line in asked:
            alert = build(Alert, line, where)
            if alert.metric not in known:
                raise BadInput(f"got {alert.metric!r}, no such metric", source=where,
                               remedy=suggest(alert.metric, list(known)))
            found.append(alert.model_dump(mode="json", exclude_unset=True))
    return found


def overrides(*sections: tuple[Mapping[str, Any], str]) -> list[Override]:
    """What sections of overrides ask for; a later section goes before an earlier one.

    Each value stands plain, or as `{value: ..., because: ...}`; keys may be nested or dotted.

    Raises:
        BadInput: a section is no mapping, or holds what promotion itself writes.
    """
    found = {"health.abort": Override("health.abort", True, DEFAULTS["health.abort"][1], "promotion")}
    for values, source in sections:
        if not isinstance(values, Mapping):
            raise BadInput(f"got {values!r:.80}, expected a mapping of config keys", source=source,
                           remedy="for example num_epochs: 80")
        own = [key for key in values if key in PRODUCTION_SECTIONS and key not in WATCHED]
        if own:
            raise BadInput(f"got {', '.join(own)}, which promotion writes", source=source,
                           remedy="leave it out: here stand keys of the config, alerts and aborts")
        found |= {item.key: item for item in _items(values, source) if item.key not in WATCHED}
    return list(found.values())


def _items(values: Mapping[str, Any], source: str, prefix: str = "", because: str = "") -> list[Override]:
    found: list[Override] = []
    for name, value in values.items():
        key, why = f"{prefix}{name}", because
        if isinstance(value, Mapping) and "value" in value and set(value) <= {"value", "because"}:
            value, why = value["value"], str(value.get("because") or because)
        if isinstance(value, Mapping):
            found += _items(value, source, f"{key}.", why)
        else:
            found.append(Override(key, value, " ".join(why.split()), source))
    return found


def changed(values: dict[str, Any], asked: list[Override]) -> dict[str, Any]:
    """A config's values with the overrides in them."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for item in asked:
        *groups, name = item.key.split(".")
        place = result
        for group in groups:
            if not isinstance(place.get(group), dict):
                place[group] = {}
            place = place[group]
        place[name] = item.value
    return result


def reasons(config: dict[str, Any], trial: Mapping[str, Any], base: Mapping[str, Any], before: Mapping[str, Any],
            asked: list[Override], evidence: str) -> dict[str, str]:
    """Dotted key -> from what a value was changed, why, and by which evidence.

    Args:
        trial, base, before: dotted configs of the trial, of the sweep's base (may be empty), and of the file replaced.
    """
    wanted = {item.key: item for item in asked}
    told = {}
    for key, value in files.flat(config).items():
        parts = []
        if key in wanted and _differs(trial, key, value):
            item = wanted[key]
            parts.append(f"trial: {_plain(trial.get(key))}; {item.because or 'no reason was given'} ({item.source})")
        elif base and _differs(base, key, value) and key in base:
            parts.append(f"base: {_plain(base[key])}; {evidence}")
        if before and _differs(before, key, value):
            parts.append(f"before: {_plain(before.get(key))}")
        if parts:
            told[key] = ". ".join(parts)
    return told


def _differs(other: Mapping[str, Any], key: str, value: Any) -> bool:
    if key in other:
        return bool(other[key] != value)
    return not any(known.startswith(f"{key}.") for known in other) or value is not None


def _plain(value: Any) -> str:
    return printable("none" if value is None else str(value).lower() if isinstance(value, bool) else str(value))


def commented(text: str, told: Mapping[str, str]) -> str:
    """YAML text with a comment behind each line whose key has a reason."""
    lines, stack = [], []  # type: list[str], list[tuple[int, str]]
    for line in text.splitlines():
        found = _LINE.match(line)
        if found:
            depth = len(found["indent"])
            stack = [item for item in stack if item[0] < depth]
            stack.append((depth, found["key"]))
            reason = told.get(".".join(name for _, name in stack))
            line = f"{line}  # {reason}" if reason and "  #" not in line else line
        lines.append(line)
    return "\n".join(lines) + "\n"


def read_overrides(path: Path | None) -> tuple[Mapping[str, Any], str]:
    """The overrides of `--production FILE`, and what they are called."""
    return ({}, "") if path is None else (yamlio.load_mapping(path), path.name)
