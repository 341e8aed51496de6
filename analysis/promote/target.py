"""The file that a promotion replaces: one that promotion wrote and nobody edited, by the seal in its last line."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from analysis.promote.ledger import SUFFIX
from record import yamlio
from record.errors import BadInput
from record.workload import workload
from record.workload.settings import PRODUCTION_SECTIONS

ALWAYS_THERE = PRODUCTION_SECTIONS[:3]  # in production YAMLs of every version
SEAL = "# Written by 'lam promote', which replaces this file as long as nothing above is edited: "


def sealed(body: str) -> str:
    """The text with the line behind it that shows whether somebody edited it."""
    return f"{body}{SEAL}{_digest(body)}\n"


def check_replaceable(path: Path) -> None:
    """Refuse a target that is a link, a folder, or a file that is not ours to replace.

    Raises:
        BadInput: saying which, and what to do.
    """
    remedy = "name another file with -o"
    if path.is_symlink():
        raise BadInput("is a link, expected a plain file or none", source=path, remedy=remedy)
    if path.is_dir():
        raise BadInput("is a folder, expected a file", source=path, remedy=f"for example -o {path / 'production.yaml'}")
    if path.suffix != SUFFIX:
        raise BadInput(f"ends in {path.suffix!r}, expected {SUFFIX}", source=path, remedy=remedy)
    if not path.exists():
        return
    try:
        values = yamlio.load_mapping(path)
    except BadInput:
        values = {}
    if not all(isinstance(values.get(section), (dict, list)) for section in ALWAYS_THERE):
        raise BadInput("exists and was not written by 'lam promote'", source=path, remedy=f"move it away, or {remedy}")
    if _is_edited(path, values):
        raise BadInput("was edited since it was promoted", source=path,
                       remedy=f"move it away to keep your changes, or {remedy}")


def _is_edited(path: Path, values: dict[str, Any]) -> bool:
    """Whether a production YAML is not as it was written, by the hash in its last line.

    A file of before that line was written is known by its config alone.
    """
    body, seal, digest = path.read_text(encoding="utf-8").rpartition(SEAL)
    if seal:
        return digest.strip() != _digest(body)
    trained = workload.find(values["provenance"].get("workload", workload.DEFAULT))
    return bool(trained.read(values, source=path).fingerprint() != values["provenance"].get("config_fingerprint"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(folder: Path) -> None:
    """Refuse a sweep's folder that cannot take promotion.json, before the YAML is written.

    Raises:
        BadInput: it cannot be written.
    """
    if not os.access(folder, os.W_OK):
        raise BadInput("cannot be written, and promotion.json belongs there", source=folder,
                       remedy="make it writable, or promote from a copy of it")


def check_place(path: Path) -> None:
    """Refuse a target whose folder is none.

    Raises:
        BadInput: saying so.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise BadInput("cannot be written (its folder is a file)", source=path, remedy="name another file with -o")
