"""Reads records, compares, reports and promotes; runs nothing. `analysis.load(path)` gives a DataFrame.

The names below are loaded on first use, so that importing `analysis.commands` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.judge.frames import curves, load
    from analysis.read.reading import Study, Trial, read_study

__all__ = ["Study", "Trial", "curves", "load", "read_study"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    from analysis.judge import frames
    from analysis.read import reading

    return getattr(frames if name in ("curves", "load") else reading, name)
