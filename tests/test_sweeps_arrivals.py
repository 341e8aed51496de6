"""The indexes of stopping rules equal a walk over the state, after every event of any story."""

from __future__ import annotations

import math
from typing import Any

import pytest
import walks
from hypothesis import given, settings
from hypothesis import strategies as st

from record.journal import events
from record.journal.events import Reason
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.scheduling.arrivals import Ladder, Means, Unrepeated
from sweeps.spec.sections import Asha

ASHA = Asha(max_epochs=20, grace_epochs=2, reduction_factor=2.0, brackets=2, promote=True)
VALUES = st.sampled_from([math.nan, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
STEP = st.tuples(st.integers(0, 7), st.integers(1, 4), VALUES,
                 st.sampled_from(["live", "live", "live", "collapsed", "nonfinite"]),
                 st.sampled_from(["", "", "", "paused", "completed", "collapsed", "stopped"]))


class Story:
    """A state, and events that could happen to it."""

    def __init__(self) -> None:
        self.state = SweepState()

    def apply(self, kind: type[events.JournalEvent], **fields: Any) -> None:
        self.state.apply(kind(seq=self.state.seq + 1, **fields))

    def take(self, number: int, ahead: int, value: float, verdict: str, ending: str) -> None:
        """A result of a trial, or a new trial, and perhaps how it ends."""
        name = f"t{number:04d}"
        if name not in self.state.trials:
            again = {"repeats": "t0000"} if number == 7 and "t0000" in self.state.trials else {}
            self.apply(events.Suggested, trial=name, params={}, **again)
            return
        trial = self.state.trials[name]
        if trial.status == "paused":
            self.apply(events.TrialInterrupted, trial=name, epoch=trial.epoch)
        if trial.final:
            return
        self.apply(events.Result, trial=name, epoch=trial.epoch + ahead, objective=value, verdict=verdict,
                   tflops=float(trial.epoch), seconds=math.nan if verdict == "nonfinite" else 0.25 * trial.epoch)
        if ending == "completed":
            self.apply(events.Completed, trial=name, epoch=trial.epoch, objective=value)
        elif ending in ("collapsed", "stopped"):
            rule = "codebook_collapsed" if ending == "collapsed" else "asha"
            self.apply(events.Stopped, trial=name, epoch=trial.epoch, reason=Reason(rule=rule, sentence="so"))
        elif ending == "paused" and trial.epoch >= ASHA.ladder(ASHA.bracket(trial.number))[0] and not trial.repeats:
            self.apply(events.Paused, trial=name, epoch=trial.epoch, reason=Reason(rule="asha", sentence="so"))


@pytest.mark.parametrize("maximise", [True, False])
@given(steps=st.lists(STEP, min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_an_index_is_what_a_walk_finds(maximise: bool, steps: list[tuple[int, int, float, str, str]]) -> None:
    story = Story()
    state = story.state
    for step in steps:
        story.take(*step)
        for bracket in (0, 1):
            for rung in range(len(ASHA.ladder(bracket))):
                assert list(Ladder.of(state, ASHA, maximise).arrivals(bracket, rung)) == walks.arrivals(
                    state, ASHA, bracket, rung, maximise)
        for trial in state.configs:
            if trial.results:
                assert list(Means.of(state, maximise).others(trial)) == pytest.approx(
                    walks.other_means(state, trial, maximise))
        assert Unrepeated.of(state, 2).first(state) is walks.wants_another_seed(state, 2)
        totals = state.config_count, state.epochs, state.tflops, state.trial_seconds
        assert totals == pytest.approx(walks.spent(state))


def test_a_result_without_a_time_leaves_the_time_that_was_known() -> None:
    story = Story()
    for verdict in ("live", "live", "nonfinite", "live"):
        story.take(0, 1, 0.5, verdict, "")
        assert math.isfinite(story.state.trial_seconds)
        assert story.state.trial_seconds == story.state.trials["t0000"].seconds
    assert story.state.trial_seconds == 0.25 * 2


@given(steps=st.lists(STEP, min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_is_promoted_is_what_a_walk_promotes(steps: list[tuple[int, int, float, str, str]]) -> None:
    class Spec:
        asha, maximise = ASHA, True

    story = Story()
    for step in steps:
        story.take(*step)
    assert scheduler.promotable(Spec, story.state) is walks.promotable(story.state, ASHA, True)  # type: ignore[arg-type]


def test_an_index_of_other_settings_is_another() -> None:
    story = Story()
    for number in range(3):
        story.take(number, 1, 0.0, "live", "")
        story.take(number, 2, 0.1 * number, "live", "")
    other = ASHA.model_copy(update={"grace_epochs": 1})
    assert list(Ladder.of(story.state, ASHA, True).arrivals(0, 0)) != []
    assert Ladder.of(story.state, other, True).arrivals(0, 1) == Ladder.of(story.state, ASHA, True).arrivals(0, 0)
