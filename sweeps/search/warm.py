"""Warm start: what another sweep has found, told to the searcher of this one.

A trial of the other sweep is taken over where its complete config is one that this sweep could have
suggested: equal to this sweep's base but for knobs, and each knob inside its range here. It becomes a
`warm_started` event, so that the journal alone still says what the searcher was told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record.errors import BadInput
from record.journal.events import WarmStarted
from record.storage import copies
from sweeps.journal import folders
from sweeps.journal.journal import Journal
from sweeps.journal.state import SweepState, TrialState, as_learned
from sweeps.spec import space
from sweeps.spec.spec import Sweep

LEARNING = ("tpe", "gp", "cmaes")


@dataclass(frozen=True)
class Matches:
    """What another sweep has for this one.

    Attributes:
        taken: (trial, its parameters in this sweep) of what can be taken over.
        left: why the other trials that ended cannot be, one reason each.
        other: the sweep that they are of.
        data: fingerprint of the data that they were trained on.
    """

    taken: list[tuple[TrialState, dict[str, Any]]]
    left: list[str]
    other: Sweep
    data: str

    @property
    def sentence(self) -> str:
        """How many are taken over, and why the others are not."""
        reasons = "".join(f"; {count} left out: {reason}" for reason, count in Counter(self.left).most_common())
        return f"warm start: {len(self.taken)} trials of {self.other.spec.name} taken over{reasons}"

    def warnings(self, data: str) -> list[str]:
        """What is allowed and probably not meant, given the fingerprint of this sweep's data."""
        if self.data == data:
            return []
        return [f"--warm-start: {self.other.spec.name} was trained on data {self.data}, this sweep trains on {data}; "
                "its results may not hold here"]


def matches(sweep: Sweep, other_folder: str | Path) -> Matches:
    """Trials of another sweep that this one could have suggested.

    Raises:
        BadInput: no sweep is there, it was ranked or limited by something else, or this sweep's searcher learns
            nothing from it.
    """
    if sweep.spec.search.name not in LEARNING:
        raise BadInput(f"search {sweep.spec.search.name} starts from no results", source="--warm-start",
                       remedy=f"leave it out, or search with {', '.join(LEARNING[:-1])} or {LEARNING[-1]}")
    other_folder = copies.at_hand(other_folder, deep=False)
    other, state = folders.open_sweep(other_folder)
    _check_comparable(sweep, other, other_folder)
    taken, left = [], []
    for trial in state.with_status("completed", "stopped"):
        reason = obstacle(sweep, other, trial)
        if reason is None:
            taken.append((trial, _params(sweep, other, trial)))
        else:
            left.append(reason)
    return Matches(taken, left, other, folders.known(Path(other_folder)).data_fingerprint)


def _check_comparable(sweep: Sweep, other: Sweep, other_folder: str | Path) -> None:
    """Refuse results that mean something else there."""
    if other.spec.objectives != sweep.spec.objectives:
        raise BadInput(f"is ranked by {', '.join(other.spec.objectives)}, this sweep by "
                       f"{', '.join(sweep.spec.objectives)}", source=other_folder,
                       remedy="their results do not compare")
    if other.spec.constraints != sweep.spec.constraints:
        raise BadInput(f"has the constraints {_limits(other)}, this sweep has {_limits(sweep)}", source=other_folder,
                       remedy="what its trials violate is recorded for its own constraints alone; use the same ones")


def _limits(sweep: Sweep) -> str:
    return ", ".join(f"{key} {bound.text}" for key, bound in sweep.spec.constraints.items()) or "none"


def obstacle(sweep: Sweep, other: Sweep, trial: TrialState) -> str | None:
    """Why this sweep could not have suggested a trial of another; None where it could have."""
    full, base = other.config(trial.params).mapping(), sweep.base.mapping()
    for key in base:
        if key not in sweep.spec.space and key not in sweep.workload.aside and full[key] != base[key]:
            return f"{key} is {full[key]!r:.80} there, {base[key]!r:.80} here"
    for name, value in _params(sweep, other, trial).items():
        if not sweep.spec.space[name].contains(value):
            return f"{name} lies outside this space"
    return None if as_learned(trial).best(sweep.spec.maximise) else "no result is finite"


def _params(sweep: Sweep, other: Sweep, trial: TrialState) -> dict[str, Any]:
    """A trial's parameters as this sweep would have suggested them."""
    full = other.config(trial.params).mapping()
    return {name: full[name] for name, knob in sweep.spec.space.items() if space.is_active(knob, full)}


def check_begun(found: Matches, state: SweepState) -> None:
    """Refuse to start a sweep from results once it has trials; the command that began it so may resume it.

    Raises:
        BadInput: it has begun without them.
    """
    source = f"{found.other.spec.name}/"
    if state.trials and found.taken and not any(trial.id.startswith(source) for trial in state.prior):
        raise BadInput(f"the sweep has begun without {found.other.spec.name}: it has {len(state.trials)} trials",
                       source="--warm-start", remedy="leave it out to go on, or give this sweep another name")


def record(journal: Journal, sweep: Sweep, found: Matches) -> None:
    """Write the events; those that an interrupted start has written already are left out."""
    known = {trial.id for trial in journal.state.prior}
    for event in _events(sweep, found):
        if event.source not in known:
            journal.append(event)


def _events(sweep: Sweep, found: Matches) -> Iterator[WarmStarted]:
    for trial, params in found.taken:
        best = as_learned(trial).best(sweep.spec.maximise)
        assert best is not None, "only trials with a result match"
        yield WarmStarted(source=f"{found.other.spec.name}/{trial.id}", params=params, state=trial.status,
                          epoch=best.epoch, objective=best.objective, verdict=best.verdict, tflops=best.tflops,
                          seconds=best.seconds, step=best.step, values=best.values, violation=best.violation)
