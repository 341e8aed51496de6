"""Suggestions as a pure function of the journal.

Each question is put to a fresh in-memory Optuna study that holds the trials of the sweep's state,
and to a sampler seeded from (sweep seed, number of the config). So there is no searcher to save,
restore or lose, nothing is ever left RUNNING by accident, and a resumed sweep asks exactly what the
uninterrupted one would have asked. Finished trials are turned into Optuna's form once and kept.

What the study is told of a trial that was stopped, or is paused until it runs again, is the sweep's policy:

    complete          its best value, as if it had finished
    pruned            PRUNED, with its intermediate values
    infeasible        its best value, with a violated constraint
    full_budget_only  FAIL, which samplers ignore; only trials with the full budget are told

Failures are FAIL under every policy; so is a value that is not finite. Where a config is trained
with several seeds the study holds one trial for all of them, with the mean that ranks it; a config that
diverged on one of them has diverged. The grid, Sobol points and CMA-ES come from `sweeps.search.points`.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from record.journal.results import Result
from record.workload.workload import find
from sweeps.journal.state import SweepState, as_learned, mean_result
from sweeps.journal.state import TrialState as Trial
from sweeps.search import points
from sweeps.spec import grid
from sweeps.spec import space as space_module
from sweeps.spec.sections import Search
from sweeps.spec.space import Knob, Scalar
from sweeps.spec.spec import SweepSpec

optuna.logging.set_verbosity(optuna.logging.ERROR)


def ask(spec: SweepSpec, base: Mapping[str, Any], state: SweepState) -> tuple[dict[str, Scalar], dict[str, Any]] | None:
    """Parameters of the next config, and the sampler's attributes to be kept with it; None when a grid is done.

    Conditional knobs are there only where they are active.
    """
    number = len(state.prior) + state.config_count  # a warm start must not draw what the other sweep drew
    if spec.search.grid is not None:
        left = _unused(spec, base, state)
        return None if left is None else (left, {})
    if spec.search.qmc is not None:
        return points.sobol(spec.space, base, spec.seed, number), {}
    if spec.search.cmaes is not None:
        seed = ask_seed(spec.seed, number)
        return points.cmaes(spec.space, base, spec.search.cmaes, seed, _losses(spec, state)), {}
    learns = spec.search.random is None
    study = study_of(spec, state if learns else SweepState(), sampler(spec.search, ask_seed(spec.seed, number)))
    trial = study.ask()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        params = space_module.suggest(spec.space, base, lambda name, knob: _suggest(trial, name, knob))
    return params, study.get_trials(deepcopy=False)[-1].system_attrs


def _unused(spec: SweepSpec, base: Mapping[str, Any], state: SweepState) -> dict[str, Scalar] | None:
    """The next point of the grid, which is made once and walked once."""
    space, walk = state.indexes.get("grid", (None, None))
    if walk is None or space is not spec.space:  # a space that was widened has another grid
        walk = grid.Walk(grid.grid(spec.space, base, spec.seed))
        state.indexes["grid"] = spec.space, walk
    return walk.next([trial.params for trial in itertools.islice(state.trials.values(), walk.seen, None)])


def ask_seed(seed: int, number: int) -> int:
    """Sampler seed of one config: 32 bits that depend on both numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4], "big")


def sampler(search: Search, seed: int) -> BaseSampler:
    """The Optuna sampler of a search section that has one."""
    if search.random is not None:
        return RandomSampler(seed=seed)
    if search.nsga2 is not None:
        return NSGAIISampler(seed=seed, population_size=search.nsga2.population)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if search.gp is not None:
            return GPSampler(seed=seed, n_startup_trials=search.gp.n_startup_trials, warn_independent_sampling=False)
        assert search.tpe is not None, f"search {search.name} has no Optuna sampler"
        joint = search.tpe.multivariate
        return TPESampler(seed=seed, n_startup_trials=search.tpe.n_startup_trials, multivariate=joint, group=joint)


def directions(spec: SweepSpec) -> list[StudyDirection]:
    """Optuna's word for each objective."""
    return [StudyDirection.MAXIMIZE if find(spec.workload).maximises(key) else StudyDirection.MINIMIZE
            for key in spec.objectives]


def study_of(spec: SweepSpec, state: SweepState, sampler: BaseSampler | None = None) -> optuna.Study:
    """The sweep as an Optuna study."""
    study = optuna.create_study(directions=directions(spec), sampler=sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.add_trials(tellable(spec, state))
    return study


def tellable(spec: SweepSpec, state: SweepState) -> list[FrozenTrial]:
    """The configs of a sweep as Optuna trials, those of an earlier sweep first."""
    kept: dict[str, tuple[int, FrozenTrial]] = state.memo
    repeats: dict[str, list[Trial]] = {}
    for trial in state.trials.values():
        repeats.setdefault(trial.repeats or trial.id, []).append(trial)
    found = [told(spec, [trial]) for trial in state.prior]
    for name, trials in repeats.items():
        final = sum(trial.final for trial in trials)
        if final < len(trials):
            found.append(told(spec, trials))
            continue
        if kept.get(name, (0, None))[0] != len(trials):
            kept[name] = (len(trials), told(spec, trials))
        found.append(kept[name][1])
    return found


class Told(FrozenTrial):
    """A trial that is told and never changed: a study that takes a deep copy gets a shallow one.

    Copying them deeply is most of what a question costs in a long sweep.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy.copy(self)


def told(spec: SweepSpec, trials: list[Trial]) -> FrozenTrial:
    """One config as the study is told of it, from its trainings."""
    trial = _told(spec, trials)
    trial.__class__ = Told
    return trial


def _told(spec: SweepSpec, trials: list[Trial]) -> FrozenTrial:
    first = trials[0]
    known: dict[str, Any] = {
        "params": {name: value for name, value in first.params.items() if name in spec.space},
        "distributions": {name: spec.space[name].distribution() for name in first.params if name in spec.space},
        "user_attrs": {"trial": first.id},
        "system_attrs": dict(first.attrs),  # Optuna writes the constraints into it
        "intermediate_values": {result.epoch: result.objective for result in first.results
                                if math.isfinite(result.objective)},
    }
    learned = [as_learned(trial) for trial in trials]
    if not all(trial.final for trial in learned):
        return create_trial(state=TrialState.RUNNING, **known)
    best = mean_result(learned, spec.maximise)
    if best is None or first.status == "failed" or best.verdict == "nonfinite":
        return create_trial(state=TrialState.FAIL, **known)
    values = _values(spec, best)
    if not all(map(math.isfinite, values)):
        return create_trial(state=TrialState.FAIL, **known)
    if first.status != "completed":
        if spec.policy == "pruned":
            return create_trial(state=TrialState.PRUNED, **known)
        if spec.policy == "full_budget_only":
            return create_trial(state=TrialState.FAIL, **known)
    violations = _violations(spec, best, first.status != "completed")
    return create_trial(values=values, constraints=violations or None, **known)


def _values(spec: SweepSpec, best: Result) -> list[float]:
    return [best.objective, *(best.values.get(key, math.nan) for key in spec.objectives[1:])]


def _violations(spec: SweepSpec, best: Result, stopped: bool) -> dict[str, float]:
    """What Optuna reads as infeasible: a positive number."""
    found = {"stopped": float(stopped)} if spec.policy == "infeasible" else {}
    if spec.constraints:
        found["outside"] = min(best.violation, 1e12)
    return found


def _losses(spec: SweepSpec, state: SweepState) -> list[tuple[dict[str, Scalar], float]]:
    """(parameters, loss) of what CMA-ES learns from, in the order of ending: a full generation stays as it is."""
    ended: dict[str, int] = {}
    for trial in state.trials.values():
        ended[trial.repeats or trial.id] = max(ended.get(trial.repeats or trial.id, 0), trial.changed)
    trials = sorted((trial for trial in tellable(spec, state) if trial.state is TrialState.COMPLETE),
                    key=lambda trial: ended.get(trial.user_attrs["trial"], 0))  # 0: of an earlier sweep
    sign = -1.0 if spec.maximise else 1.0
    worst = max((sign * trial.values[0] for trial in trials), default=0.0)
    return [(trial.params, sign * trial.values[0] if sum(trial.constraints.values()) <= 0 else worst)
            for trial in trials]


def _suggest(trial: optuna.Trial, name: str, knob: Knob) -> Scalar:
    if knob.choice is not None:
        return trial.suggest_categorical(name, knob.choice)
    low, high = knob.bounds
    if knob.integer or knob.logint:
        return trial.suggest_int(name, int(low), int(high), step=int(knob.step or 1), log=knob.logint is not None)
    return trial.suggest_float(name, low, high, step=knob.step, log=knob.loguniform is not None)
