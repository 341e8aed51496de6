"""Warm start: what another sweep has found, told to the searcher of this one.

A trial of the other sweep is taken over where its complete config is one that this sweep could have
suggested: equal to this sweep's base but for knobs, and each knob inside its range here. It becomes a
`warm_started` event, so that the journal alone still says what the searcher was told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lam.errors import BadInput
from sweeps import folders, space
from sweeps.journal import Journal
from sweeps.spec import Sweep
from sweeps.state import TrialState

# Fields that change no result, or that each sweep has of its own.
_ASIDE = ("data_dir", "manifest_path", "threads", "device", "cache", "keep", "checkpoint_every", "sample_count",
          "eval_batch_size", "val_at_tflops", "seed", "tracking")

LEARNING = ("tpe", "gp", "cmaes")


@dataclass(frozen=True)
class Matches:
    """What can be taken over: (trial, its parameters in this sweep), and how many trials cannot."""

    taken: list[tuple[TrialState, dict[str, Any]]]
    left: int
    other: Sweep


def matches(sweep: Sweep, other_folder: str | Path) -> Matches:
    """Trials of another sweep that this one could have suggested.

    Raises:
        BadInput: no sweep is there, it was ranked by something else, or this sweep's searcher learns nothing from it.
    """
    if sweep.spec.search.name not in LEARNING:
        raise BadInput(f"search {sweep.spec.search.name} starts from no results", source="--warm-start",
                       remedy=f"leave it out, or search with {', '.join(LEARNING[:-1])} or {LEARNING[-1]}")
    other, state = folders.open_sweep(other_folder)
    if other.spec.objectives != sweep.spec.objectives:
        raise BadInput(f"is ranked by {', '.join(other.spec.objectives)}, this sweep by "
                       f"{', '.join(sweep.spec.objectives)}", source=other_folder,
                       remedy="their results do not compare")
    ended = state.with_status("completed", "stopped")
    pairs = [(trial, translated(sweep, other, trial)) for trial in ended]
    taken = [(trial, params) for trial, params in pairs if params is not None and trial.best(sweep.spec.maximise)]
    return Matches(taken, len(ended) - len(taken), other)


def translated(sweep: Sweep, other: Sweep, trial: TrialState) -> dict[str, Any] | None:
    """A trial's parameters as this sweep would have suggested them; None where it could not have."""
    full = other.config(trial.params).mapping()
    base = sweep.base.mapping()
    if any(full[key] != base[key] for key in base if key not in sweep.spec.space and key not in _ASIDE):
        return None
    params = {name: full[name] for name, knob in sweep.spec.space.items() if space.is_active(knob, full)}
    return params if all(sweep.spec.space[name].contains(value) for name, value in params.items()) else None


def record(journal: Journal, sweep: Sweep, found: Matches) -> None:
    """Write the events; those that an interrupted start has written already are left out."""
    known = {trial.id for trial in journal.state.prior}
    for event in _events(sweep, found):
        if event["source"] not in known:
            journal.append("warm_started", **event)


def _events(sweep: Sweep, found: Matches) -> Iterator[dict[str, Any]]:
    for trial, params in found.taken:
        best = trial.best(sweep.spec.maximise)
        assert best is not None, "only trials with a result match"
        yield {"source": f"{found.other.spec.name}/{trial.id}", "params": params, "state": trial.status,
               "epoch": best.epoch, "objective": best.objective, "verdict": best.verdict, "tflops": best.tflops,
               "seconds": best.seconds, "step": best.step, "values": best.values, "violation": best.violation}
