"""Which machines of a cluster take trials, and whose fault it is that a trial left one. No Ray here.

A machine takes trials once it was probed. It is left out when it refuses a trial what trials need (a full disk, data
that it does not see), or when several trials in a row fail on it while none reports an epoch; and its trials leave it
when it is about to go away. None of this is held against a trial.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from record.journal import events

LOOK_SECONDS = 2.0
JOIN_SECONDS = 30.0  # for how long the next machine may still be on its way where none so far will do
STRIKES = 3  # trials that fail in a row on a machine, without an epoch in between
# What Ray says of a worker whose machine went away; of one that ended alone it says other things.
GONE = ("its node has died", "node was terminated", "actor is temporarily unavailable", "node is dead",
        "raylet died", "was preempted")


@dataclass(frozen=True)
class Machine:
    """A machine as the cluster knows it.

    Attributes:
        fits: trials that it holds at a time; where a trial is several workers, how many of those.
        drains: when it goes away, in seconds since 1970; 0 where nobody says; None where it stays.
    """

    id: str
    host: str
    fits: int
    drains: float | None = None


class Cluster(Protocol):
    """What is asked of a cluster."""

    def machines(self) -> list[Machine]:
        """Those that are there and hold a trial."""

    def probed(self, machine: Machine) -> str | None:
        """'' where it sees all that trials need, else what not; None while it has not answered."""

    def growth(self) -> int | None:
        """Trials that it would hold once it has grown; None where that is not known."""

    def words(self) -> str:
        """What it has, for people."""


class Machines:
    """The machines of one session.

    Args:
        cluster: None on this machine alone, which is neither probed nor left out.
        clock: seconds that only grow.
        workers: of a trial; they may be on several machines.
    """

    def __init__(self, cluster: Cluster | None = None, clock: Callable[[], float] = time.monotonic,
                 workers: int = 1) -> None:
        self._cluster, self._clock, self._next, self._workers = cluster, clock, -math.inf, workers
        self._none_since = math.inf
        self._there: dict[str, Machine] = {}
        self._ready: set[str] = set()
        self._out: dict[str, str] = {}
        self._draining: set[str] = set()
        self._at: dict[str, tuple[str, ...]] = {}
        self._blamed: dict[str, str] = {}
        self._strikes: dict[str, set[str]] = {}

    def look(self, now: bool = False) -> list[events.MachineEvent]:
        """What has changed since the last look; looks every two seconds, or `now`."""
        if self._cluster is None or (self._clock() < self._next and not now):
            return []
        self._next = self._clock() + LOOK_SECONDS
        there = {machine.id: machine for machine in self._cluster.machines()}
        gone = [machine for name, machine in self._there.items() if name not in there]
        self._there = there
        return [*(self._lost(machine) for machine in gone), *self._probed(self._cluster), *self._drained()]

    def _lost(self, machine: Machine) -> events.MachineEvent:
        self._ready.discard(machine.id)
        self._draining.discard(machine.id)
        self._out.pop(machine.id, None)
        return events.MachineLost(node=machine.id, host=machine.host)

    def _probed(self, cluster: Cluster) -> Iterator[events.MachineEvent]:
        for machine in self._there.values():
            if machine.id in self._ready | self._out.keys() | self._draining:
                continue
            said = cluster.probed(machine)
            if said == "":
                self._ready.add(machine.id)
                several = {"workers": self._workers} if self._workers > 1 else {}
                yield events.MachineJoined(node=machine.id, host=machine.host, fits=machine.fits, **several)
            elif said:
                yield self._leave_out(machine.id, said)

    def _drained(self) -> Iterator[events.MachineEvent]:
        for machine in self._there.values():
            if machine.drains is not None and machine.id not in self._draining:
                self._ready.discard(machine.id)
                self._draining.add(machine.id)
                when = datetime.fromtimestamp(machine.drains, UTC).isoformat(timespec="seconds")
                yield events.MachineDraining(node=machine.id, host=machine.host,
                                             deadline=when if machine.drains else None)

    def _leave_out(self, node: str, why: str) -> events.MachineLeftOut:
        self._ready.discard(node)
        self._out[node] = f"machine {self._there[node].host} {why}"
        return events.MachineLeftOut(node=node, host=self._there[node].host, reason=why)

    def answers(self, stopping: Callable[[], bool], seconds: float = 0.2) -> Iterator[events.MachineEvent]:
        """What the first look at all machines finds, until each has answered its probe."""
        while not stopping():
            yield from self.look(now=True)
            if not self.pending():
                return
            time.sleep(seconds)

    def pending(self) -> bool:
        """Whether a machine that is there has not answered its probe."""
        return bool(self._there.keys() - self._ready - self._out.keys() - self._draining)

    @property
    def avoided(self) -> tuple[str, ...]:
        """Ids of machines on which nothing may be placed."""
        return tuple(sorted(self._out.keys() | self._draining))

    @property
    def capacity(self) -> float:
        """Trials that fit, or will once the cluster has grown."""
        if self._cluster is None:
            return math.inf
        return max(1, self._holds(self._ready), self._cluster.growth() or 0)

    def _holds(self, names: Iterable[str]) -> int:
        """Trials that these machines hold together."""
        return sum(self._there[name].fits for name in names) // self._workers

    def hopeless(self) -> str:
        """Why no trial can be placed any more, '' while one can, or a machine may still be on its way."""
        none = self._cluster is not None and bool(self._out) and not self._holds(self._ready) and not self.pending()
        self._none_since = min(self._none_since, self._clock()) if none else math.inf
        if self._clock() - self._none_since < JOIN_SECONDS or not none:
            return ""
        few = f"too few machines are left for the {self._workers} workers of a trial"
        none_left = few if self._ready else "no machine of the cluster may take a trial"
        return f"{none_left}: {'; '.join(self._out.values())}"

    def started(self, job: str, *nodes: str) -> None:
        """A trial runs on a machine, or its workers on several, the first one's first."""
        self._at[job] = nodes

    def reported(self, job: str) -> None:
        """A trial has finished an epoch: its machines work."""
        for node in self._at.get(job, ()):
            self._strikes.pop(node, None)

    def leaves(self, job: str) -> bool:
        """Whether a trial should leave its machines now."""
        return not (self._out.keys() | self._draining).isdisjoint(self._at.get(job, ()))

    def _one(self, job: str) -> str:
        """The machine of a trial; '' where that is not known, or not one."""
        nodes = {*self._at.get(job, ())}
        return nodes.pop() if len(nodes) == 1 else ""

    def refused(self, job: str, why: str, node: str = "") -> list[events.MachineEvent] | None:
        """A trial's machine refused it what trials need: it is left out. None where no other machine could take it.

        Args:
            node: which one of several; default: the first worker's.
        """
        node = node or next(iter(self._at.get(job, ())), "")
        if not self._elsewhere(node):
            return None
        self._blamed[job] = f"machine {self._there[node].host} refused it"
        return [] if node in self._out else [self._leave_out(node, f"refused {job}: {why}")]

    def failed(self, job: str, why: str) -> list[events.MachineEvent]:
        """A trial failed by itself, or its process died; several in a row on one machine are the machine's doing.

        Of workers on several machines nobody knows whose doing it was.
        """
        node = self._one(job)
        self._strikes.setdefault(node, set()).add(job)
        if len(self._strikes[node]) < STRIKES or node in self._out or not self._elsewhere(node):
            return []
        return [self._leave_out(node, f"had {STRIKES} trials in a row that failed, the last one {job}: {why}")]

    def _elsewhere(self, node: str) -> bool:
        return node in self._there and bool(self._holds(self._ready - {node}) or self.pending() or self._growing())

    def _growing(self) -> bool:
        """Whether machines may still join: what is there holds fewer trials than the cluster would, grown."""
        return self._cluster is not None and (self._cluster.growth() or 0) > self._holds(self._there)

    def left(self, job: str, lost: bool, error: str) -> str:
        """What a trial's machine did, where that is why the trial is off it; '' where the trial is to blame.

        Args:
            lost: its process ended without a word.
            error: what Ray knows of that.
        """
        nodes, blamed = self._at.get(job, ("",)), self._blamed.pop(job, "")
        if blamed or self._cluster is None:
            return blamed
        gone = [node for node in nodes if node not in self._there]
        if lost and (gone or any(words in error for words in GONE)):
            return f"machine {self._host(*gone[:1] or {*nodes})} went away"
        for known, what in ((self._draining, "being drained"), (self._out, "left out")):
            if found := [node for node in nodes if node in known]:
                return f"machine {self._host(found[0])} is {what}"
        return ""

    def _host(self, *nodes: str) -> str:
        """A machine's name; of one that is not known any more, or of one of several, that it was this trial's."""
        return self._there[nodes[0]].host if len(nodes) == 1 and nodes[0] in self._there else "of this trial"

    def words(self) -> str:
        """What the cluster has, for people."""
        return self._cluster.words() if self._cluster else ""
