"""`lam sweep replay`: what another stopping policy would have done with the curves that a sweep recorded.

The recorded results are played again in their order; the policy's own scheduler judges each, and what comes
after it has ended a trial is left out. Where the sweep itself had stopped a trial that the policy would have
let go on, nobody knows the rest: such trials are counted and said, never made up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from record import yamlio
from record.errors import BadInput
from record.journal import events
from record.schema import build
from record.text import share, short
from record.workload.settings import Settings
from sweeps.journal.state import SweepState, TrialState, ranking
from sweeps.scheduling import scheduler
from sweeps.spec.sections import Scheduler
from sweeps.spec.spec import Sweep, SweepSpec

CONFIGS = 1024  # of the trials that were at work last; to make one takes longer than to judge
Configs = Callable[[str], Settings]


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


def replay_policy(sweep: Sweep, journal: Iterable[events.JournalEvent], policy: str) -> Outcome:
    """Play a sweep's journal with another policy."""
    name, rule = parse(policy, sweep)
    spec = sweep.spec.model_copy(update={"scheduler": rule, "budget": _unlimited(sweep.spec)})
    whole, state = SweepState(), SweepState()
    ended: dict[str, int] = {}
    config = lru_cache(CONFIGS)(lambda trial: _config(sweep, state.trials[trial]))
    for event in journal:
        whole.apply(event)
        _feed(spec, config, state, event, ended)
    return _outcome(name, sweep, whole, state, ended)


def _unlimited(spec: SweepSpec) -> Any:
    return spec.budget.model_copy(update=dict.fromkeys(type(spec.budget).model_fields))


def _config(sweep: Sweep, trial: TrialState) -> Settings:
    return sweep.config(trial.params if trial.seed is None else {**trial.params, "seed": trial.seed})


def _feed(spec: SweepSpec, config: Configs, state: SweepState, event: events.JournalEvent,
          ended: dict[str, int]) -> None:
    """Give the policy one event, and its verdict to the state."""
    if isinstance(event, events.Suggested):
        if event.repeats not in ended:  # what a rung ends gets no further seed
            state.apply(event)
    elif not isinstance(event, events.Result | events.Failed) or event.trial not in state.trials or \
            event.trial in ended:
        return
    elif isinstance(event, events.Failed):
        state.apply(event)
    else:
        state.apply(event)
        _judge(spec, config, state, event, ended)


def _judge(spec: SweepSpec, config: Configs, state: SweepState, event: events.Result, ended: dict[str, int]) -> None:
    """End the trial of a result where the policy would."""
    known = state.trials[event.trial]
    ending = scheduler.judge(spec, state, known, config(known.id))
    if ending is not None:
        ended_so = ending.of(known, spec.maximise)
        state.apply(ended_so.model_copy(update={"seq": event.seq, "time": event.time}))
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
