"""A trial that is several processes, as its first one sees it: others that a test says, no Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lam.config import RunConfig, from_mapping
from record.errors import WorkerLost
from record.workload.together import Gone, environment, who
from sweeps.workers import ray_session, trainable
from sweeps.workers.trial import company
from sweeps.workers.trial.company import Ended, OtherDied, OtherRaised, beside, cause

RAISED = Ended({"rule": "raised", "sentence": "training raised ValueError: bad", "node": "b", "trace": "in there\n"})
DIED = Ended(death="ActorDiedError: The actor died because its node has died")


class Said:
    """Two workers beside the first one."""

    nodes: Sequence[str] = ("a", "a", "b")

    def __init__(self, *ends: Ended | None) -> None:
        self.told = who(0, 3, "127.0.0.1", 29500)
        self._ends = ends
        self.asked: list[float | str] = []

    def gone(self) -> bool:
        return False

    def ends(self, seconds: float) -> Sequence[Ended | None]:
        self.asked.append(seconds)
        return self._ends

    def kill(self) -> None:
        self.asked.append("killed")


def test_the_first_worker_is_told_so_and_the_others_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.delenv("RANK", raising=False)
    others = Said()
    with beside(others):
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["MASTER_PORT"]) == ("0", "3", "29500")
        assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False", "an outer torchrun listens for others"
    assert (os.environ.get("RANK"), os.environ["WORLD_SIZE"]) == (None, "8")
    assert others.asked == [company.END_SECONDS, "killed"]
    assert company.END_SECONDS + 1 < ray_session.STOP_SECONDS, "who is to stop has so long, and has to publish too"


def test_what_fails_in_the_first_worker_waits_for_nobody() -> None:
    others = Said()
    with pytest.raises(KeyError), beside(others):
        raise KeyError("mine")
    assert others.asked == ["killed"]


@pytest.mark.parametrize(("ends", "found"), [
    ((DIED, RAISED), "worker 2 of 3: training raised ValueError: bad"),
    ((None, DIED), "worker 2 of 3 ended without a word: ActorDiedError: The actor died because its node has died"),
    ((Ended(), None), "another one is gone")])
def test_whose_end_it_was_is_what_one_raised_else_who_died(ends: Sequence[Ended | None], found: str) -> None:
    others = Said(*ends)
    with pytest.raises((OtherRaised, OtherDied)) as error, beside(others):
        raise WorkerLost("another one is gone")
    assert str(error.value) == found
    assert others.asked == [company.CAUSE_SECONDS, "killed"]


def test_what_another_one_raised_keeps_its_rule_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    error = cause(WorkerLost("gone"), [RAISED, None])
    assert isinstance(error, OtherRaised)
    assert error.reason == {"rule": "raised", "sentence": "worker 1 of 3: training raised ValueError: bad", "node": "b"}
    assert capsys.readouterr().err == "in there\n", "for the trial's output.log"


def test_environment_is_as_it_was_also_where_a_variable_went(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAM_X", raising=False)
    with environment({"LAM_X": "1"}):
        del os.environ["LAM_X"]
    assert "LAM_X" not in os.environ


def lost(config: RunConfig, run_dir: Path, gone: Gone) -> Iterator[dict[str, Any]]:
    """A training whose second worker is gone after an epoch."""
    assert not gone()
    yield {"epoch": 1, "step": 1}
    raise WorkerLost("another one is gone")


def worker(others: Said, folder: Path) -> trainable.TrialTrainable:
    """A trial's process, without a Ray."""
    job = {"id": "t0001", "train": "test_company:lost", "workload": "lam", "after": 0,
           "config": from_mapping({"data_dir": "nowhere"}, "the test").mapping()}
    made = trainable.TrialTrainable.__new__(trainable.TrialTrainable)
    made._failed = made._settled = False
    made._silence, made._published, made._held = 60.0, None, contextlib.ExitStack()
    made._messages = trainable._messages(job, folder, {"workers": 3}, lambda job, place: others)
    return made


def test_a_trial_says_where_its_workers_are_and_dies_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                              ) -> None:
    """Its own end then says how that one ended: what the driver makes of a death it makes of that."""
    process = worker(Said(None, DIED), tmp_path)
    assert process.step() == {"message": '["placed", ["a", "a", "b"]]'}
    assert process.step() == {"message": '["record", {"epoch": 1, "step": 1}]'}
    with pytest.raises(OtherDied, match="its node has died"):
        process.step()
    assert "worker 2 of 3 ended without a word" in capsys.readouterr().err
    with pytest.raises(trainable.ProcessSpent):
        process.step()


def test_what_another_one_raised_is_the_trials_failure(tmp_path: Path) -> None:
    process = worker(Said(RAISED, None), tmp_path)
    said = [process.step()["message"] for _ in range(3)]
    assert said[-1] == ('["failure", {"rule": "raised", "sentence": "worker 1 of 3: training raised ValueError: bad", '
                        '"node": "b"}]')


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_trial_that_is_closed_ends_the_others(steps: int, tmp_path: Path) -> None:
    others = Said(Ended(), Ended())
    process = worker(others, tmp_path)
    for _ in range(steps):
        process.step()
    process._close()
    assert others.asked == [[], [company.END_SECONDS, "killed"], [company.END_SECONDS, "killed"]][steps]
