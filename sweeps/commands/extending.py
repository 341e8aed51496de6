"""`lam sweep extend`: more budget, or a wider space, for a sweep that has begun. Its trials stay what they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from record import files, yamlio
from record.errors import BadInput, EnvironmentFailed
from record.progress import Screen
from record.schema import build
from sweeps.commands import launching
from sweeps.journal import folders, stores
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.spec import checks
from sweeps.spec.sections import Budget
from sweeps.spec.spec import Sweep, SweepSpec


def extend(folder: str | Path, more: Mapping[str, float], space_file: str | Path | None = None,
           options: launching.Options | None = None, console: Console | None = None) -> SweepState:
    """Add to the budget and widen the space, then go on.

    Args:
        more: part of the budget that has a limit -> how much is added to it or to what is spent, whichever is more.
        space_file: a YAML with a `space` that holds at least what the present one does.

    Raises:
        BadInput: nothing is added, another part of the budget is spent, the space is not wider, or the data is
            missing or another; the sweep then stays as it is.
        EnvironmentFailed: disk or Ray failed; the message names the command that goes on.
    """
    folder = files.plain(folder)
    options, console = options or launching.Options(), console or Screen(file=sys.stdout)
    sweep, state = folders.open_sweep(folder)
    if not more and space_file is None:
        raise BadInput("nothing to add", source="lam sweep extend", remedy="for example --trials 20, or --space FILE")
    changes: dict[str, Any] = {"budget": raised(sweep.spec, state, more)}
    if space_file is not None:
        changes["space"] = wider(sweep, state, space_file)
    longer = _rebuilt(sweep, changes, folder)
    folders.check_data(folder, launching.prepared(longer, options))
    with stores.hold(folder, sweep.home(folder)):
        folders.rewrite(longer, folder)
    try:
        return launching.run_in(longer, folder, options, console)
    except (BadInput, EnvironmentFailed) as error:
        # The same command once more would add to the budget once more.
        error.args = (f"{error}\nthe sweep is extended already; go on with: {folders.resume_command(folder)}",)
        raise


def raised(spec: SweepSpec, state: SweepState, more: Mapping[str, float]) -> dict[str, float]:
    """The new budget.

    Raises:
        BadInput: an amount is not above 0, its part has no limit, or a part that nothing is added to is spent.
    """
    used, limits = scheduler.used(spec, state), spec.budget.model_dump(exclude_none=True)
    for name, amount in more.items():
        if amount <= 0:
            raise BadInput(f"got {amount:g}, expected more than 0", source=_option(name))
        if name not in limits:  # a limit where there was none would be less
            raise BadInput(f"got {amount:g}, and the sweep's budget has no limit of {name}", source=_option(name),
                           remedy=f"leave it out; add to what limits the sweep: {', '.join(map(_option, limits))}")
        total = max(limits[name], used[name]) + amount
        limits[name] = int(total) if name in ("trials", "epochs") else total
    for name, limit in limits.items():
        if name not in more and used[name] >= limit:
            raise BadInput(f"its budget of {limit:g} {name} is spent too", source=spec.name,
                           remedy=f"add {_option(name)} as well")
    Budget.model_validate(limits)
    return limits


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def wider(sweep: Sweep, state: SweepState, path: str | Path) -> dict[str, Any]:
    """The space of a YAML, which must hold the present one and every trial.

    Raises:
        BadInput: a knob is missing, of another kind, or narrower.
    """
    given = yamlio.load_mapping(path).get("space")
    if not isinstance(given, dict):
        raise BadInput("has no space", source=path, key="space", remedy="write the wider space under 'space:'")
    mapping = {**folders.spec_mapping(sweep), "space": given}
    space = build(SweepSpec, mapping, path).space
    for name, knob in sweep.spec.space.items():
        if name not in space:
            raise BadInput(f"lacks {name}, which the sweep varies", source=path, key="space", remedy="put it back")
        tried = [trial.params[name] for trial in state.trials.values() if name in trial.params]
        outside = [value for value in (*knob.extremes(), *tried) if not space[name].contains(value)]
        if outside or (knob.choice is None) != (space[name].choice is None):
            what = f"does not hold {outside[0]!r}" if outside else "is of another kind"
            raise BadInput(f"{what}, which the sweep's present {name} has", source=path, key=f"space.{name}",
                           remedy="a space can be widened, not narrowed; start another sweep with --warm-start instead")
    return given


def _rebuilt(sweep: Sweep, changes: dict[str, Any], folder: Path) -> Sweep:
    source = folder / "sweep.yaml"
    values = {**folders.spec_mapping(sweep), **changes}
    text = f"{folders.EXTENDED}\n" + yamlio.dump_mapping(values)
    longer = Sweep(build(SweepSpec, values, source), sweep.base, str(source), text)
    checks.check(longer, {})
    return longer
