"""From paths to one frozen `Study`: our sweeps and runs, and the records of other trainers (`analysis.read.others`).

A path may be a sweep folder, a run folder, a log, a tracker's folder, database or address, or several of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from analysis.read import merging, others, ours
from analysis.read.sources import is_run, is_sweep, record_folder
from analysis.read.study import SET_BY_SWEEP, Paths, Study, Trial
from record.errors import BadInput
from record.text import printable

__all__ = ["SET_BY_SWEEP", "Paths", "Study", "Trial", "read_study"]


def read_study(paths: Paths, objective: str | None = None, profile: str | None = None) -> Study:
    """Read sweeps, runs and other trainers' records.

    Args:
        objective: what ranks them instead of their own; `-KEY` where lower is better.
        profile: the health profile of other trainers' records, where the one that fits is not wanted.

    Raises:
        BadInput: a path is missing or holds nothing known; a record is damaged; a sweep has no finished trial.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not named:
        raise BadInput("no path given", remedy="name a sweep folder, a run folder, or several of either")
    places = list(dict.fromkeys(_place(path) for path in named))
    sweeps = [place for place in places if isinstance(place, Path) and is_sweep(place)]
    names = _short_names(sweeps) if len(places) > 1 else {}
    parts = [ours.read_sweep_or_run(place, f"{printable(names[place])}/" if place in names else "")
             if isinstance(place, Path) and (is_sweep(place) or is_run(place)) else
             others.read(place, profile, objective) for place in places]
    return merging.ranked_by(parts[0] if len(parts) == 1 else merging.merge(parts, objective), objective)


def _place(path: str | Path) -> Path | str:
    """A folder of ours or of others, absolute; an address of a store as it is."""
    if others.is_known(path):
        return others.absolute(path)
    return record_folder(path)


def _short_names(folders: Sequence[Path]) -> dict[Path, str]:
    """As much of the end of each path as tells the folders apart."""
    depth = next(depth for depth in count(1) if len({folder.parts[-depth:] for folder in folders}) == len(folders))
    return {folder: "/".join(folder.parts[-depth:]) for folder in folders}
