"""Play search methods on a recorded table: same curves, same budget, simulated workers, real searchers and schedulers.

Time is counted in TFLOPs: a worker that trains an epoch of a config is busy for that epoch's operations.
So a wide model costs what it costs, and what each method knew when it decided is what it would have known.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tables import Table

from lam import codebook
from lam.config import RunConfig
from record.journal.events import JournalEvent, Suggested
from record.standing import is_sound
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.search import searcher
from sweeps.spec.spec import SweepSpec
from sweeps.workers.entries import result_event

WORKERS = 4


class Method(Protocol):
    """A way to search. Calls come in the order in which a sweep would make them."""

    def suggest(self) -> tuple[str, dict[str, Any]] | None:
        """(trial, parameters) of the next trial; None when nothing is left to ask."""

    def result(self, trial: str, record: dict[str, Any]) -> bool:
        """Takes an epoch's record; whether the trial goes on."""

    def best(self) -> str | None:
        """The trial that the method would name now."""


@dataclass
class Trace:
    """What happened.

    Attributes:
        incumbents: (TFLOPs spent by then, row of the table) at each change of the method's best.
    """

    incumbents: list[tuple[float, int]] = field(default_factory=list)
    spent: float = 0.0
    trials: int = 0
    epochs: int = 0

    def until(self, good: set[int]) -> float:
        """TFLOPs until the incumbent is in `good` and stays there; infinite where it is not at the end."""
        reached = math.inf
        for spent, row in self.incumbents:
            reached = min(reached, spent) if row in good else math.inf
        return reached


def play(table: Table, method: Method, budget: float, workers: int = WORKERS) -> Trace:
    """Run a method until `budget` TFLOPs are spent."""
    trace, order = Trace(), itertools.count()
    rows: dict[str, int] = {}
    busy: list[tuple[float, int, str, int, float]] = []  # when it ends, tie-break, trial, epoch, cost

    def train(trial: str, epoch: int, now: float) -> None:
        cost = table.record(rows[trial], epoch)["total_tflops"] / epoch
        heapq.heappush(busy, (now + cost, next(order), trial, epoch, cost))

    def fill(now: float) -> None:
        while len(busy) < workers:
            asked = method.suggest()
            if asked is None:
                return
            trial, params = asked
            rows[trial] = table.nearest(params, set(rows.values()))
            trace.trials += 1
            train(trial, 1, now)

    fill(0.0)
    while busy and trace.spent < budget:
        now, _, trial, epoch, cost = heapq.heappop(busy)
        trace.spent += cost
        trace.epochs += 1
        goes_on = method.result(trial, table.record(rows[trial], epoch))
        _note(trace, rows, method.best())
        if goes_on and epoch < table.epochs_of(rows[trial]):
            train(trial, epoch + 1, now)
        fill(now)
    return trace


def _note(trace: Trace, rows: dict[str, int], best: str | None) -> None:
    if best is not None and (not trace.incumbents or trace.incumbents[-1][1] != rows[best]):
        trace.incumbents.append((trace.spent, rows[best]))


class Ours:
    """This product: its searcher, its scheduler, its ranking, on a state in memory."""

    def __init__(self, table: Table, seed: int, **spec: Any) -> None:
        self.spec = SweepSpec.model_validate({
            "name": "bench", "base": {}, "space": table.space_mapping, "budget": {"trials": 10**6}, "seed": seed,
            **spec})
        self.base = RunConfig(**table.base)
        self.state = SweepState()
        self._mapping = self.base.mapping()

    def suggest(self) -> tuple[str, dict[str, Any]] | None:
        """The next config."""
        asked = searcher.ask(self.spec, self._mapping, self.state)
        if asked is None:
            return None
        trial = f"t{len(self.state.trials) + 1:04d}"
        self._apply(Suggested(trial=trial, params=asked[0], attrs=asked[1]))
        return trial, asked[0]

    def result(self, trial: str, record: dict[str, Any]) -> bool:
        """Judge as `sweeps.workers.driver` does."""
        known = self.state.trials[trial]
        self._apply(result_event(self.spec, trial, record, codebook.verdict(record)))
        ending = scheduler.judge(self.spec, self.state, known, self.base.replace(**known.params))
        if ending is None:
            return True
        self._apply(ending.of(known, self.spec.maximise))
        return False

    def best(self) -> str | None:
        """The best of all trials so far, running ones too."""
        found = [(trial, best) for trial in self.state.trials.values() if (best := trial.best(self.spec.maximise))]
        if not found:
            return None
        sign = 1 if self.spec.maximise else -1
        return max(found, key=lambda row: (is_sound(row[1].verdict), sign * row[1].objective))[0].id

    def _apply(self, event: JournalEvent) -> None:
        self.state.apply(event.model_copy(update={"seq": self.state.seq + 1}))


class _Trial:
    """What Ray's scheduler wants to know of a trial."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.status = "RUNNING"

    def __str__(self) -> str:
        return self.trial_id


class Stock:
    """Ray Tune's OptunaSearch and AsyncHyperBandScheduler with their defaults, driven as its controller drives them.

    Args:
        metric: what it maximises, read from the record by `value`.
        random: random search in place of OptunaSearch.
        early: whether ASHA ends trials.
        rungs: settings of ASHA other than its defaults.
    """

    def __init__(self, table: Table, seed: int, value: Callable[[dict[str, Any]], float], *, random: bool = False,
                 early: bool = True, **rungs: float) -> None:
        for name in ("RAY_AIR_NEW_OUTPUT", "RAY_TQDM_PATCH_PRINT"):
            os.environ.setdefault(name, "0")
        import optuna
        from ray.tune.schedulers import AsyncHyperBandScheduler
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        sampler = optuna.samplers.RandomSampler(seed=seed) if random else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._search = OptunaSearch(space=_define_by_run(table), metric="value", mode="max", sampler=sampler,
                                        **({} if random else {"seed": seed}))
        self._asha = AsyncHyperBandScheduler(
            metric="value", mode="max", max_t=table.epochs, **rungs) if early else None
        self._value, self._epochs = value, table.epochs
        self._trials: dict[str, _Trial] = {}
        self._last: dict[str, float] = {}

    def suggest(self) -> tuple[str, dict[str, Any]] | None:
        """The next config; every one of the space's conditional knobs is sampled by the define-by-run function."""
        name = f"r{len(self._trials) + 1:04d}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            params = self._search.suggest(name)
        self._trials[name] = _Trial(name)
        if self._asha is not None:
            self._asha.on_trial_add(None, self._trials[name])
        return name, dict(params)

    def result(self, trial: str, record: dict[str, Any]) -> bool:
        """As Tune's controller: the searcher sees the result, the scheduler decides, an end is told as complete."""
        value = self._value(record)
        result = {"value": value, "training_iteration": record["epoch"], "epoch": record["epoch"]}
        self._last[trial] = value
        goes_on = record["epoch"] < self._epochs
        if goes_on and self._asha is not None:
            goes_on = self._asha.on_trial_result(None, self._trials[trial], result) == "CONTINUE"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if goes_on:
                self._search.on_trial_result(trial, result)
            else:
                if self._asha is not None:
                    self._asha.on_trial_complete(None, self._trials[trial], result)
                self._search.on_trial_complete(trial, result=result)
        return goes_on

    def best(self) -> str | None:
        """The highest last value, as ResultGrid.get_best_result picks."""
        finite = {trial: value for trial, value in self._last.items() if math.isfinite(value)}
        return max(finite, key=lambda trial: finite[trial], default=None)


def _define_by_run(table: Table) -> Callable[[Any], None]:
    from sweeps.spec import space as space_module

    def define(trial: Any) -> None:
        space_module.suggest(table.space, table.base, lambda name, knob: searcher._suggest(trial, name, knob))

    return define


def objective(record: dict[str, Any]) -> float:
    """val/objective, NaN where it is null."""
    value = record["val/objective"]
    return math.nan if value is None else float(value)
