"""A trial that is several processes, as its first one sees it: who the others are, and whose end it was. No Ray here.

The first worker is the trial: it alone records, is judged and stopped. The others follow it and end with it. It waits
for them in three places, each of them bounded: until they have come (the training's own limit, and none of them may
have ended), after a connection was closed for what became of them (`CAUSE_SECONDS`), and at the end (`END_SECONDS`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from record.errors import WorkerLost
from record.workload.together import environment

CAUSE_SECONDS = 60.0  # Ray takes half a minute to see that a machine is gone
END_SECONDS = 2.0  # within Tune's patience with a worker that is to stop, see `ray_session.STOP_SECONDS`


@dataclass(frozen=True)
class Ended:
    """How a worker beside the first one ended.

    Attributes:
        reason: rule and sentence where its training raised, with its machine as `node` and its traceback as `trace`.
        death: what is known of a process that ended without a word.
    """

    reason: Mapping[str, str] | None = None
    death: str = ""


class Others(Protocol):
    """The workers of a trial beside the first one, in the order of their numbers."""

    @property
    def nodes(self) -> list[str]:
        """The machines of all workers, the first one's first."""

    @property
    def told(self) -> dict[str, str]:
        """What the first worker has in its environment."""

    def gone(self) -> bool:
        """Whether one of them has ended."""

    def ends(self, seconds: float) -> Sequence[Ended | None]:
        """How each one ended, once all have or so many seconds are over; None of one that has not."""

    def kill(self) -> None:
        """End those that are left."""


Start = Callable[[Mapping[str, Any], Mapping[str, Any]], Others]


class OtherRaised(Exception):
    """The training of a worker beside the first one raised.

    Attributes:
        reason: its rule and sentence, and the machine as `node`.
    """

    def __init__(self, reason: Mapping[str, str]) -> None:
        super().__init__(reason["sentence"])
        self.reason = dict(reason)


class OtherDied(Exception):
    """A worker beside the first one ended without a word: what the first one's own death would be."""


@contextlib.contextmanager
def beside(others: Others) -> Iterator[Others]:
    """This process is the first worker of a trial, for the length of a with-block; the others end with it.

    Raises:
        OtherRaised: what the training of another one raised.
        OtherDied: another one is gone, or did not come.
    """
    try:
        with environment(others.told):
            yield others
        others.ends(END_SECONDS)
    except GeneratorExit:
        others.ends(END_SECONDS)
        raise
    except WorkerLost as lost:
        raise cause(lost, others.ends(CAUSE_SECONDS)) from None
    finally:
        others.kill()


def cause(lost: WorkerLost, ends: Sequence[Ended | None]) -> Exception:
    """Why a training lost one of its workers: what one raised, else which one died, else what the first one noticed."""
    size = len(ends) + 1
    for number, end in enumerate(ends, 1):
        if end is not None and end.reason is not None:
            sys.stderr.write(end.reason.get("trace", ""))
            told = {key: value for key, value in end.reason.items() if key != "trace"}
            return OtherRaised({**told, "sentence": f"worker {number} of {size}: {told['sentence']}"})
    for number, end in enumerate(ends, 1):
        if end is not None and end.death:
            return OtherDied(f"worker {number} of {size} ended without a word: {end.death}")
    return OtherDied(str(lost))
