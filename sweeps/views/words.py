"""Words that every page of a sweep says: its knobs, how many trials are in which state."""

from __future__ import annotations

from typing import Any

from record.text import short, value_text
from sweeps.journal.state import SweepState


def params_text(params: dict[str, Any]) -> str:
    """Knobs on one line, floats with four digits."""
    return " ".join(f"{name}={short(value) if isinstance(value, float) else value_text(value)}"
                    for name, value in params.items())


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
