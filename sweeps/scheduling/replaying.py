"""`lam sweep replay`: what another stopping policy would have done with the curves that a sweep recorded.

The recorded results are played again in their order; the policy's own scheduler judges each, and what comes
after it has ended a trial is left out. Where the sweep itself had stopped a trial that the policy would have
let go on, nobody knows the rest: such trials are counted and said, never made up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from record import yamlio
from record.errors import BadInput
from record.journal import events
from record.journal.results import Event, Told
from record.schema import build
from record.text import share, short
from record.workload.settings import HealthConfig, Settings
from sweeps.journal.state import SweepState, TrialState, ranking
from sweeps.scheduling import scheduler
from sweeps.spec.sections import Scheduler
from sweeps.spec.spec import Sweep, SweepSpec


@dataclass(frozen=True)
class Outcome:
    """What a policy would have come to.

    Attributes:
        recorded_epochs, recorded_tflops: what the sweep spent.
        stopped: trials that the policy ends before their record does.
        skipped: further seeds of trials that the policy ends, which it would not have begun.
        unknown: trials that the policy would have trained on beyond their record.
        winner: the sweep's best trial; None where it has none.
        winner_kept: whether the policy trains it as far as the sweep did.
        winner_epoch: the epoch at which the policy ends it, if it does.
        best: the trial that would have been named instead.
        regret: the winner's objective less that of `best`, in the better direction.
    """

    policy: str
    trials: int
    recorded_epochs: int
    epochs: int
    recorded_tflops: float
    tflops: float
    stopped: int
    skipped: int
    unknown: int
    winner: str | None
    winner_kept: bool
    winner_epoch: int | None
    best: str | None
    regret: float

    def sentence(self) -> str:
        """The outcome in words."""
        saved = self.recorded_epochs - self.epochs
        text = (f"{self.policy}: {self.epochs} of {self.recorded_epochs} epochs, {saved} saved "
                f"({share(saved, self.recorded_epochs or 1)}), "
                f"{short(self.recorded_tflops - self.tflops)} of {short(self.recorded_tflops)} TFLOP; "
                f"{self.stopped} of {self.trials} trials ended earlier")
        if self.skipped:
            text += f", further seeds of them not begun: {self.skipped}"
        if self.unknown:
            text += f"; {self.unknown} would have gone on beyond their record"
        if self.winner is None:
            return text + "; the sweep has no winner to lose"
        if self.winner_kept:
            return text + f"; the winner {self.winner} is kept"
        return text + (f"; it ends the winner {self.winner} at epoch {self.winner_epoch} and names {self.best} instead "
                       f"(worse by {short(self.regret)})")


def parse(text: str, sweep: Sweep) -> tuple[str, Scheduler | None]:
    """A policy such as ``asha``, ``asha:reduction_factor=4,grace_epochs=2``, ``median:min_trials=5`` or ``none``.

    Raises:
        BadInput: no such rule or setting.
    """
    name, _, settings = text.partition(":")
    if name == "none":
        if settings:
            raise BadInput(f"got none with {settings!r}, which has no settings", source="--policy",
                           remedy="write none alone, or for example asha:reduction_factor=4")
        return text, None
    values: dict[str, Any] = {"max_epochs": sweep.max_epochs}
    if sweep.spec.asha is not None and name == "asha":
        values |= sweep.spec.asha.model_dump(exclude_none=True)
    for part in filter(None, settings.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise BadInput(f"got {part!r}, expected key=value", source="--policy",
                           remedy="for example asha:reduction_factor=4,grace_epochs=2")
        values[key.strip()] = _plain(value.strip())
    if name == "asha":
        values["promote"] = False  # a record has no continuation to promote
    return text, build(Scheduler, {name: values}, "--policy")


def _plain(text: str) -> Any:
    """The value as YAML would read it."""
    return yamlio.parse_mapping(f"v: {text}", source="--policy")["v"]


class Recorded(NamedTuple):
    """A journal as any number of policies play it.

    Attributes:
        whole: all that happened.
        order: what a policy is told, as it came; of a result, which is in `whole`, the trial's id.
    """

    whole: SweepState
    order: list[str | events.Suggested | events.Failed]


def recorded(journal: Iterable[Event]) -> Recorded:
    """Read a journal once (`journals.history`)."""
    whole, order = SweepState(), list[str | events.Suggested | events.Failed]()
    for event in journal:
        whole.apply(event)
        if isinstance(event, Told | events.Result):
            order.append(event.trial)
        elif isinstance(event, events.Suggested | events.Failed):
            order.append(event)
    return Recorded(whole, order)


def replay_policy(sweep: Sweep, found: Recorded, policy: str) -> Outcome:
    """Play a sweep's journal with another policy."""
    name, rule = parse(policy, sweep)
    spec = sweep.spec.model_copy(update={"scheduler": rule, "budget": _unlimited(sweep.spec)})
    state, ended = SweepState(), dict[str, int]()
    quiet = scheduler.Quiet(spec)
    for what in found.order:
        if isinstance(what, str):
            if what not in ended and (trial := state.trials.get(what)) is not None:
                state.measure(trial, found.whole.trials[what].results[len(trial.results)])
                config = _Config(sweep, trial)
                if not quiet.at(trial, config):
                    _judge(spec, state, trial, config, ended)
        elif isinstance(what, events.Suggested):
            if what.repeats not in ended:  # what a rung ends gets no further seed
                state.apply(what)
        elif what.trial in state.trials and what.trial not in ended:
            state.apply(what)
    return _outcome(name, sweep, found.whole, state, ended)


def _unlimited(spec: SweepSpec) -> Any:
    return spec.budget.model_copy(update=dict.fromkeys(type(spec.budget).model_fields))


class _Config:
    """A trial's config; to make the whole of one takes longer than to judge its trial, and few judgements need it."""

    def __init__(self, sweep: Sweep, trial: TrialState) -> None:
        self._sweep, self._trial = sweep, trial

    @property
    def num_epochs(self) -> int:
        """Its epochs: the base's, where they are no knob."""
        return int(self._trial.params.get("num_epochs", self._sweep.base.num_epochs))

    @property
    def health(self) -> HealthConfig:
        """By which rules it is judged."""
        return self._whole.health

    def mapping(self) -> dict[str, Any]:
        """All of it."""
        return self._whole.mapping()

    @cached_property
    def _whole(self) -> Settings:
        seed = {} if self._trial.seed is None else {"seed": self._trial.seed}
        return self._sweep.config({**self._trial.params, **seed})


def _judge(spec: SweepSpec, state: SweepState, known: TrialState, config: _Config, ended: dict[str, int]) -> None:
    """End the trial where the policy would."""
    ending = scheduler.judge(spec, state, known, config)
    if ending is not None:
        state.apply(ending.of(known, spec.maximise))
        if ending.event != "completed":
            ended[known.id] = known.epoch


def _outcome(name: str, sweep: Sweep, whole: SweepState, state: SweepState, ended: dict[str, int]) -> Outcome:
    maximise = sweep.spec.maximise
    cut = {trial for trial, epoch in ended.items() if epoch < whole.trials[trial].epoch}
    beyond = [trial for trial in whole.with_status("stopped") if trial.id in state.trials and trial.id not in ended]
    rows = ranking(whole, maximise, codes=sweep.needs_codes)
    winner = rows[0] if rows else None
    for trial in state.trials.values():
        if not trial.final:
            trial.status = "stopped"  # its record ends here
    named = ranking(state, maximise, codes=sweep.needs_codes)
    kept = winner is not None and winner[0].id not in cut
    best = winner if kept else (named[0] if named else None)
    regret = abs(winner[1].objective - best[1].objective) if winner and best else float("nan")
    return Outcome(
        policy=name, trials=len(whole.trials), recorded_epochs=whole.epochs, epochs=state.epochs,
        recorded_tflops=whole.tflops, tflops=state.tflops, stopped=len(cut),
        skipped=len(whole.trials) - len(state.trials), unknown=len(beyond),
        winner=winner[0].id if winner else None, winner_kept=kept,
        winner_epoch=ended.get(winner[0].id) if winner and not kept else None,
        best=best[0].id if best else None, regret=regret)
