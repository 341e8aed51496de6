"""What the engine and its workers do with errors, without a Ray."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.error import TuneError
from ray.tune.execution.tune_controller import TrialRunnerWrapper, TuneController
from ray.tune.experimental.output import get_air_verbosity
from ray.tune.utils.callback import _create_default_callbacks

from lam.config import from_mapping
from lam.data import windows
from record.errors import BadData, BadInput, EnvironmentFailed
from sweeps.commands import launching
from sweeps.workers import engine, ray_session, trainable
from sweeps.workers.trial import process


class Broken:
    """Jobs whose bookkeeping has a fault."""

    def left(self, job_id: str, lost: bool, error: str = "") -> None:
        raise KeyError(job_id)

    def stopping(self) -> bool:
        return False


def test_an_error_of_our_own_bookkeeping_is_kept_as_it_is() -> None:
    """Tune goes on after an error in `on_trial_complete`: it would be seen nowhere."""
    kept: Any = engine._Kept(Broken())  # type: ignore[arg-type]
    assert not kept.stopping()
    with pytest.raises(KeyError):
        kept.left("t0001", lost=False)
    assert isinstance(kept.error, KeyError)
    assert kept.stopping(), "nothing goes on after that"


def test_what_tune_makes_of_an_error_is_not_told_instead(tmp_path: Path) -> None:
    def tune(jobs: Any, resources: Any, scratch: Path) -> None:
        with contextlib.suppress(KeyError):
            jobs.left("t0001", lost=False)
        raise TuneError("Traceback (most recent call last):\n  File x\nKeyError: 't0001'")

    with pytest.raises(KeyError, match="t0001"):
        engine.run(Broken(), None, tmp_path, tune)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "gist"), [
    ("Traceback (most recent call last):\n  File x\nValueError: no such node", "ValueError: no such node"),
    ("the head is gone\nsince 10:00", "the head is gone"), ("", "TuneError")])
def test_an_error_of_rays_is_told_by_the_line_that_says_it(text: str, gist: str) -> None:
    assert launching.gist(TuneError(text)) == gist


@pytest.mark.parametrize("address", ["ray://head:10001", "ray://"])
def test_rays_client_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match=r"--address: got 'ray://.*', Ray's client, in which a sweep cannot run; run the "
                                       "command on a machine of the cluster with --address auto"):
        launching.Options(address=address)
    assert launching.Options(address="10.0.0.1:6379").address == "10.0.0.1:6379"


def test_data_that_cannot_be_used_is_the_machines_fault(tmp_path: Path) -> None:
    config = from_mapping({"data_dir": str(tmp_path / "gone")}, "test")
    with pytest.raises(BadData, match="gone") as found:
        windows.open_split(config, "train")
    assert process.reason(found.value) == {"rule": "environment", "sentence": str(found.value)}
    assert process.reason(BadInput("got 3", source="config"))["rule"] == "raised"


def test_a_run_folder_that_stays_locked_is_the_machines_fault(tmp_path: Path) -> None:
    with open(tmp_path / ".writer", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentFailed, match=r"still being written by another process after 0\.2 s") as found:
            trainable._hold(tmp_path / ".writer", seconds=0.2)
    assert process.reason(found.value)["rule"] == "environment"
    assert trainable.WRITER_WAIT_SECONDS > 90, "the lease after which a server forgets a client that is gone"


def test_an_error_in_closing_is_told_and_leaves_no_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next trial is opened by the same call: it is not charged."""
    def records() -> Iterator[dict[str, Any]]:
        try:
            yield {}
        finally:
            raise RuntimeError("the tracker would not close")

    worker = trainable.TrialTrainable.__new__(trainable.TrialTrainable)
    worker._settled, worker._held, worker._messages = True, contextlib.ExitStack(), records()  # type: ignore[assignment]
    next(worker._messages)
    worker._held.enter_context(trainable._hold(tmp_path / ".writer"))
    worker._close()
    assert "RuntimeError: the tracker would not close" in capsys.readouterr().err
    trainable._hold(tmp_path / ".writer", seconds=0.0).close()


class Ended:
    """As much of Tune's trial as its controller is asked for."""

    def __init__(self, number: int, ended: bool) -> None:
        self.trial_id, self.ended = f"{number:05d}", ended

    def is_finished(self) -> bool:
        return self.ended


def test_tune_keeps_the_latest_ends_and_each_trial_that_runs() -> None:
    """The first one to begin is the last one to end."""
    trials = [Ended(number, ended=number % 50 != 1) for number in range(1000)]
    order = [trial for trial in [*trials[1:], trials[0]] if trial.ended]
    controller = SimpleNamespace(_trials=[*trials], _stopped_trials={*order}, _failed_trials=set(),
                                 _trials_to_cache={*trials}, _trial_metadata={each.trial_id: "{}" for each in trials})
    ended = [trial.trial_id for trial in order]
    ray_session.forget_ended(controller, ended)
    latest = order[-ray_session.ENDED_KEPT:]
    kept = [trial for trial in trials if not trial.ended or trial in latest]
    assert trials[0] in kept
    assert controller._trials == kept
    assert ended == [trial.trial_id for trial in latest]
    assert controller._stopped_trials == {*latest}
    assert controller._trials_to_cache == {*kept}
    assert controller._trial_metadata.keys() == {each.trial_id for each in kept}
    ray_session.forget_ended(None, ended)


def test_tunes_controller_keeps_them_there() -> None:
    assert {*ray_session.ENDED_PLACES} <= {*TuneController.__init__.__code__.co_names}
    assert "_tune_controller" in TrialRunnerWrapper.__init__.__code__.co_names


@pytest.mark.parametrize("asked", ["0", "1"])
def test_starts_are_heard_and_tune_keeps_no_trial_to_print(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """Its own progress callback keeps every trial; with the new output it drops those that it takes for progress."""
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", asked)
    ours, silence = engine._Starts(Broken()), engine._Silence()  # type: ignore[arg-type]
    found = _create_default_callbacks([ours, silence], air_verbosity=get_air_verbosity(0))
    assert ours in found
    if asked == "0":
        assert found == [ours, silence]
