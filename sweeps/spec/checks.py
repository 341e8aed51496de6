"""What can be wrong with a sweep although each of its keys is well-formed. All of it is BadInput."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from record.errors import BadInput
from record.schema import suggest
from record.workload.settings import Settings
from sweeps.spec import grid
from sweeps.spec.space import corners, draws
from sweeps.spec.spec import Sweep

RANDOM_POINTS = 200
MOST_GP_VALUES = 1_000_000

# Keys that a sweep sets itself.
_SET_BY_SWEEP = {"num_epochs": "the scheduler's max_epochs sets it", "threads": "resources.cpu sets it"}


def check(sweep: Sweep, given: Mapping[str, Any]) -> None:
    """Check the space against the run schema, the base and itself.

    Args:
        given: the keys that the base config states itself.
    """
    for name in sweep.spec.space:
        _check_knob(sweep, given, name)
    configs = _every_corner(sweep)
    for name in sweep.spec.space:
        _check_is_active(sweep, name, configs)
        _check_when(sweep, name)
    _check_objective(sweep, configs)
    _check_workers(sweep, configs)
    _check_grid(sweep)
    _check_gp(sweep)
    _check_brackets(sweep)
    _check_gpu_hours(sweep)


def warnings(sweep: Sweep) -> list[str]:
    """Things that are allowed and probably not meant."""
    found = [f"{sweep.source}:space.{name}: has one value only, {knob.extremes()[0]!r}"
             for name, knob in sweep.spec.space.items() if len(knob.extremes()) == 1]
    if _is_never_spent(sweep):
        found.append(f"{sweep.source}:budget.gpu_hours: is never spent, since resources.gpu is "
                     f"{sweep.spec.resources.gpu}; the sweep ends by another part of its budget")
    return found


def _check_knob(sweep: Sweep, given: Mapping[str, Any], name: str) -> None:
    fields = type(sweep.base).model_fields
    fixed = {**dict.fromkeys(sweep.workload.no_result, "it changes no result"), **sweep.workload.fixed, **_SET_BY_SWEEP}

    def bad(what: str, remedy: str, key: str = f"space.{name}") -> BadInput:
        return BadInput(what, source=sweep.source, key=key, remedy=remedy)

    if name not in fields:
        raise bad("is no key of a run config", suggest(name, list(fields)))
    if name in fixed:
        raise bad(f"cannot be swept: {fixed[name]}", "take it out of the space")
    if name in given and given[name] != fields[name].default:
        raise bad(f"is swept, and the base config fixes it at {given[name]!r}",
                  f"take {name} out of the base config or out of the space")
    earlier = list(sweep.spec.space)[: list(sweep.spec.space).index(name)]
    for other in sweep.spec.space[name].when or {}:
        if other not in fields:
            raise bad(f"{other!r} is no key of a run config", suggest(other, list(fields)), f"space.{name}.when")
        if other in sweep.spec.space and other not in earlier:
            raise bad(f"{other!r} is chosen after {name}", f"write {other} above {name}", f"space.{name}.when")


def _every_corner(sweep: Sweep) -> list[tuple[dict[str, Any], Settings]]:
    """Configs of the corners and of random points; the first one that is no valid config is refused."""
    base = sweep.base.mapping()
    points = [*corners(sweep.spec.space, base), *draws(sweep.spec.space, base, RANDOM_POINTS)]
    return [(params, _valid(sweep, params)) for params in points]


def _valid(sweep: Sweep, params: dict[str, Any]) -> Settings:
    try:
        return sweep.config(params)
    except BadInput as error:
        values = ", ".join(f"{name}={value!r}" for name, value in params.items())
        raise BadInput(f"the point {values} is no valid run ({error})", source=sweep.source, key="space",
                       remedy="narrow the range, give it a step, or make a knob conditional with 'when'") from None


def _check_is_active(sweep: Sweep, name: str, configs: list[tuple[dict[str, Any], Settings]]) -> None:
    active = [config for params, config in configs if name in params]
    if not active:
        raise BadInput("is never active: its 'when' holds nowhere in this space", source=sweep.source,
                       key=f"space.{name}", remedy="correct 'when', or take the knob out")


def _check_when(sweep: Sweep, name: str) -> None:
    """Refuse a condition on a value that an earlier knob never has."""
    for other, wanted in (sweep.spec.space[name].when or {}).items():
        knob = sweep.spec.space.get(other)
        if knob is None:
            continue
        beside = [getattr(sweep.base, other)] if knob.when else []  # where the knob is not active, the base stands
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if value not in [*(knob.choice or ()), *beside] and not knob.contains(value):
                raise BadInput(f"{other} is never {value!r} in this space", source=sweep.source,
                               key=f"space.{name}.when", remedy=f"take {value!r} out, or widen {other}")


def _check_gp(sweep: Sweep) -> None:
    """Refuse what Optuna's Gaussian process would write out value by value, in gigabytes."""
    if sweep.spec.search.gp is None:
        return
    for name, knob in sweep.spec.space.items():
        if (knob.step or knob.integer or knob.logint) and knob.size() > MOST_GP_VALUES:
            raise BadInput(f"has {knob.size():,} values, with search gp at most {MOST_GP_VALUES:,} are dealt with",
                           source=sweep.source, key=f"space.{name}",
                           remedy="take a larger step or a narrower range, or use search tpe")


def _check_brackets(sweep: Sweep) -> None:
    """Refuse brackets whose first rung is at the full budget or behind it."""
    asha = sweep.spec.asha
    if asha is None or asha.brackets == 1:
        return
    most = sum(1 for _ in itertools.takewhile(bool, (asha.ladder(k) for k in range(asha.brackets))))
    if most < asha.brackets:
        raise BadInput(f"got {asha.brackets}, and only the first {most} have a rung before {asha.maximum:g}",
                       source=sweep.source, key="scheduler.asha.brackets",
                       remedy=f"ask for at most {max(most, 1)}, or begin earlier")


def _is_never_spent(sweep: Sweep) -> bool:
    return sweep.spec.budget.gpu_hours is not None and sweep.spec.resources.gpus == 0


def _check_gpu_hours(sweep: Sweep) -> None:
    if _is_never_spent(sweep) and len(sweep.spec.budget.model_dump(exclude_none=True)) == 1:
        raise BadInput(f"got {sweep.spec.budget.gpu_hours:g} alone, which is never spent, since resources.gpu is "
                       f"{sweep.spec.resources.gpu}",
                       source=sweep.source, key="budget.gpu_hours",
                       remedy="set resources.gpu to a number, or limit trials, hours, epochs or tflops")


def _check_grid(sweep: Sweep) -> None:
    if sweep.spec.search.grid is None:
        return
    for name, knob in sweep.spec.space.items():
        try:
            knob.size()
        except ValueError as error:
            raise BadInput(str(error), source=sweep.source, key=f"space.{name}",
                           remedy="give it a step or choices, or use search qmc") from None
    size = grid.grid_size(sweep.spec.space)
    if size > grid.MOST_POINTS:
        raise BadInput(f"the grid has up to {size:,} points, at most {grid.MOST_POINTS:,} are dealt with",
                       source=sweep.source, key="search.grid", remedy="take fewer values, or use search qmc")


def _check_objective(sweep: Sweep, configs: list[tuple[dict[str, Any], Settings]]) -> None:
    """Refuse an objective or a constraint that some trial does not have."""
    for key in dict.fromkeys([*sweep.spec.objectives, *sweep.spec.constraints]):
        lacking = next(((params, lack) for params, config in configs
                        if (lack := sweep.workload.lacks(config, key))), None)
        if lacking is not None:
            where = ", ".join(f"{name}={value!r}" for name, value in lacking[0].items())
            raise BadInput(f"got {key}, which needs {lacking[1]}; the trial {where} would not have it",
                           source=sweep.source, key="objective" if key in sweep.spec.objectives else "constraints",
                           remedy="take such trials out of the space, or judge by " + sweep.workload.error)


def _check_workers(sweep: Sweep, configs: list[tuple[dict[str, Any], Settings]]) -> None:
    """Refuse several workers where some trial cannot be several processes."""
    workers = sweep.spec.resources.workers
    for params, config in configs if workers > 1 else ():
        if why := sweep.workload.undivided(config, workers):
            where = ", ".join(f"{name}={value!r}" for name, value in params.items())
            raise BadInput(f"got {workers}, and {why} (the trial {where})", source=sweep.source,
                           key="resources.workers", remedy="use fewer workers")


def check_data(sweep: Sweep) -> None:
    """Refuse an objective or a constraint that needs what the data do not hold, such as true actions.

    Raises:
        BadInput: it does.
    """
    for key in (*sweep.spec.objectives, *sweep.spec.constraints):
        lack = sweep.workload.data_lacks(sweep.base, key)
        if lack:
            raise BadInput(f"got {key}, which needs {lack}, and there are none", source=sweep.source,
                           key="objective" if key in sweep.spec.objectives else "constraints",
                           remedy=f"add them to the data, or use {sweep.workload.objective}")
