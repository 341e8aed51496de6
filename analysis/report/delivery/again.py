"""A report given again: its texts as they were written, where nothing that they were made from has changed since.

Kept of large sweeps in the user's own cache folder, never beside the records, under a digest of every record file's
size, times and inode, of this program's own files and of its libraries' versions. What cannot be read of it, or written
to it, is as if it were not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from record import files

if TYPE_CHECKING:
    from analysis.read.study import Study, Trial

VERSION = 1
KEPT_FROM = 200  # trials; fewer are read in a moment
MOST_REPORTS = 8
OURS = ("analysis", "record")
LIBRARIES = ("lamsweep", "numpy", "scipy", "scikit-learn", "optuna", "orjson", "jinja2", "markupsafe", "pillow")
RECORDS = ("sweep.json", "confirm.json", "journal-*.jsonl")  # of a sweep's folder, beside all below `trials`
ASIDE = ("__pycache__", "checkpoints")  # weights are no record: no report reads them
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, StopIteration)


@dataclass(frozen=True)
class Said:
    """A report as it was given: its texts by suffix, and the lines that the command said.

    Attributes:
        made_at: when it was made.
    """

    texts: Mapping[str, str]
    lines: tuple[str, ...]
    made_at: str


def made_of(paths: Sequence[str], asked: Mapping[str, str | None]) -> str | None:
    """What a report is made from; None where that is more than files of our own sweeps' folders.

    Two calls with the same digest make the same report, but for its time.
    """
    if asked.get("profile") or os.path.exists(asked.get("baseline") or ""):
        return None
    try:
        folders = [Path(path) for path in paths]
        found = [VERSION, [(path, str(folder.resolve())) for path, folder in zip(paths, folders, strict=True)],
                 sorted(asked.items()), [_version(name) for name in LIBRARIES],
                 [list(_sweep(folder)) for folder in folders],
                 [_stamps(place) for place in _program(_workload(folder) for folder in folders)]]
    except _UNREADABLE:
        return None
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32]


def _sweep(folder: Path) -> Iterator[list[Any]]:
    """The stamps of a sweep's records.

    Raises:
        ValueError: its journal is kept elsewhere.
    """
    known = _document(folder)
    if known.get("spec", {}).get("journal") is not None:
        raise ValueError("journal")
    for pattern in RECORDS:
        yield [_stamp(path) for path in sorted(folder.glob(pattern))]
    yield _stamps(str(folder / "trials"))


def _document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = files.parse_json(files.read_record(folder / "sweep.json"))
    return found


def _workload(folder: Path) -> str:
    """The package that a sweep's workload comes from."""
    name = str(_document(folder).get("workload", "lam"))
    return next(re.split("[.:]", point.value)[0] for point in entry_points(group="lam.workloads", name=name))


def _program(workloads: Iterable[str]) -> list[str]:
    """The folders of the code that makes a report."""
    named = (find_spec(name) for name in dict.fromkeys([*OURS, *workloads]))
    return [os.path.dirname(spec.origin) for spec in named if spec is not None and spec.origin]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _stamps(folder: str) -> list[Any]:
    """Every file below a folder with its stamp, in the order of their names.

    Raises:
        ValueError: one of them is a link, whose target may change unseen.
    """
    found: list[Any] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_symlink():
                raise ValueError(entry.path)
            if entry.is_dir():
                found += [entry.name, _stamps(entry.path)] if entry.name not in ASIDE else []
            else:
                found.append([entry.name, *_of(entry.stat())])
    return found


def _stamp(path: Path) -> list[Any]:
    return [path.name, *_of(os.stat(path))]


def _of(state: os.stat_result) -> list[int]:
    """A change within a file shows in its size or times: that of its inode's change can be set by nobody."""
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _has_own_profile(trial: Trial) -> bool:
    """Whether a file that is no record decides by which rules a trial is judged."""
    return str(trial.config.get("health.profile")).endswith((".yaml", ".yml"))


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lamsweep" / "reports"


def find(known: str | None, suffixes: Collection[str]) -> Said | None:
    """The report of a digest in these formats; None where it is not kept."""
    if known is None:
        return None
    try:
        folder = _home() / known
        said = json.loads((folder / "said.json").read_text(encoding="utf-8"))
        texts = {suffix: (folder / f"report{suffix}").read_text(encoding="utf-8") for suffix in suffixes}
        if any(hashlib.sha256(text.encode()).hexdigest() != said["sha256"][suffix] for suffix, text in texts.items()):
            return None
        os.utime(folder)
        return Said(texts, tuple(map(str, said["lines"])), str(said["made_at"]))
    except _UNREADABLE:
        return None


def keep_report(known: str | None, said: Said, study: Study) -> None:
    """Keep a report of a large study for the next call; it says what it is when all of it is there."""
    if known is None or len(study.trials) < KEPT_FROM or any(_has_own_profile(trial) for trial in study.trials):
        return
    with contextlib.suppress(*_UNREADABLE):
        folder = _home() / known
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for suffix, text in said.texts.items():
            files.write_text(folder / f"report{suffix}", text)
        sums = {suffix: hashlib.sha256(text.encode()).hexdigest() for suffix, text in said.texts.items()}
        files.write_json(folder / "said.json", {"made_at": said.made_at, "lines": said.lines, "sha256": sums})
        for old in sorted(folder.parent.iterdir(), key=lambda each: each.stat().st_mtime)[:-MOST_REPORTS]:
            shutil.rmtree(old, ignore_errors=True)
