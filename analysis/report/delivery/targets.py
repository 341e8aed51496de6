"""Where a report is written, and in which formats; needs nothing of what makes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.read.sources import save
from record.errors import BadInput

TEXTS = (".html", ".md", ".json")
PARQUET = ".parquet"


def check_target(path: Path) -> Path:
    """The path itself, when a report can be written there.

    Raises:
        BadInput: its suffix names no format, or it is a folder.
    """
    known = (*TEXTS, PARQUET)
    if path.suffix.lower() not in known:
        raise BadInput(f"got {str(path)!r}, expected a name that ends in {', '.join(known)}", source="-o",
                       remedy=f"for example -o {path.with_suffix('.html').name or 'report.html'}")
    if path.is_dir():
        raise BadInput(f"got {str(path)!r}, which is a folder", source="-o", remedy=f"name a file, {path}/report.html")
    return path


def save_texts(texts: Mapping[str, str], targets: Sequence[Path]) -> None:
    """Write each target the text of its suffix; tables are no text.

    Raises:
        BadInput, EnvironmentFailed: a target cannot be written; see `analysis.read.sources.save`.
    """
    for target in targets:
        if target.suffix.lower() in texts:
            save(target, texts[target.suffix.lower()])
