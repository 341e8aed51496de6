"""Words that every page of a sweep says: its knobs, a number, how many trials are in which state."""

from __future__ import annotations

import math
from typing import Any

from sweeps.journal.state import SweepState


def params_text(params: dict[str, Any]) -> str:
    """Knobs on one line, floats with four digits."""
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in params.items())


def number(value: float | None) -> str:
    """Four digits, or 'not finite'."""
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.4g}"


def counts_text(state: SweepState) -> str:
    """How many trials are in which state, the states that are empty left out."""
    counts = {
        "completed": len(state.with_status("completed")),
        "stopped early": len(state.with_status("stopped")),
        "failed": len(state.with_status("failed")),
        "paused": len(state.with_status("paused")),
        "running": len(state.with_status("started")),
        "to go on": len(state.with_status("suggested", "interrupted")),
    }
    collapsed = sum(trial.verdict == "collapsed" for trial in state.trials.values() if trial.final)
    words = [f"{count} {word}" for word, count in counts.items() if count]
    return ", ".join([*words, *([f"{collapsed} of them collapsed"] if collapsed else [])]) or "no trial yet"
