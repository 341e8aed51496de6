"""The workers of a trial beside the first one, as Ray actors in the bundles of the trial's own placement group.

All bundles are reserved before the trial's own actor starts, so no worker waits for a place. Whatever ends the trial's
actor ends them: Ray ends an actor with the one that made it, and with the placement group that it is in.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import get_current_placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from record.errors import EnvironmentFailed, WorkerLost
from record.workload import workload
from record.workload.together import free_port, nobody_gone, who
from sweeps.workers import probe
from sweeps.workers.machines import GONE
from sweeps.workers.trial import process
from sweeps.workers.trial.company import Ended

LOOK_SECONDS = 0.5
SETTLE_SECONDS = 2.0  # in which the others of a worker that ended notice it themselves, and say what they know
STUCK_SECONDS = 30.0  # a machine that is gone closes no connection: who waits for it then waits for ever


class Peer:
    """The process of one worker beside the first."""

    def follow(self, job: Mapping[str, Any], gpu: float, told: Mapping[str, str]) -> dict[str, str] | None:
        """Train along until the first worker says no more; the reason where that fails here, None where it does not."""
        os.environ.update(told)
        try:
            process.claim_gpu(gpu)
            if wrong := probe.differs(job["versions"]):
                raise EnvironmentFailed(f"its machine {wrong}")
            config = workload.find(job["workload"]).read(job["config"], source=f"trial {job['id']}")
            train = process.resolve(job["train"])
            process.use_threads(config.threads)
            for _ in train(config, job["run_dir"], nobody_gone):
                pass
        except WorkerLost:  # the first one has ended, or asks who is gone
            return None
        except Exception as error:
            node = ray.get_runtime_context().get_node_id()
            return {**process.reason(error), "node": node, "trace": traceback.format_exc()}
        return None


class Peers:
    """`sweeps.workers.trial.company.Others` of the trial whose actor this process is.

    The first of them that ends ends all, and so every connection on which the first worker may wait.

    Args:
        place: what each worker takes, and how many they are.
    """

    def __init__(self, job: Mapping[str, Any], place: Mapping[str, Any]) -> None:
        group, size = get_current_placement_group(), int(place["workers"])
        assert group is not None, "a trial has a placement group of its own"
        at = placement_group_table(group)["bundles_to_node_id"]
        self.nodes = [at[number] for number in range(size)]
        address = ray.util.get_node_ip_address()
        port = free_port(address)
        # Each sees its own GPUs alone, so none counts those of its neighbours.
        here = [1 if place["gpu"] else self.nodes.count(node) for node in self.nodes]
        told = [who(number, size, address, port, here[number]) for number in range(size)]
        self.told = told[0]
        self._actors = [_started(group, number, place) for number in range(1, size)]
        self._ends = [actor.follow.remote(dict(job), place["gpu"], told[number])
                      for number, actor in enumerate(self._actors, 1)]
        self._killed: set[int] = set()
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def gone(self) -> bool:
        """Whether one of them has ended."""
        return bool(ray.wait(self._ends, num_returns=1, timeout=0)[0])

    def ends(self, seconds: float) -> Sequence[Ended | None]:
        """How each one ended, once all have or so many seconds are over; those that were killed here say nothing."""
        ray.wait(self._ends, num_returns=len(self._ends), timeout=seconds)
        return list(self._known())

    def _known(self) -> Iterator[Ended | None]:
        ended = {*ray.wait(self._ends, num_returns=len(self._ends), timeout=0)[0]}
        for number, end in enumerate(self._ends):
            yield _how(end) if end in ended and number not in self._killed else None

    def kill(self) -> None:
        """End those that are left; their places are free for the next trial of this process."""
        self._over.set()
        for actor in self._actors:
            ray.kill(actor)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if self.gone():
                self._end_all()
                return

    def _end_all(self) -> None:
        """End the others of one that ended; where its machine is gone, this process too, if it is stuck."""
        known = self.ends(SETTLE_SECONDS)
        if self._over.is_set():
            return
        self._killed = {number for number, end in enumerate(known) if end is None}
        for number in self._killed:
            ray.kill(self._actors[number])
        lost = [end.death for end in known if end is not None and any(words in end.death for words in GONE)]
        if lost and not self._over.wait(STUCK_SECONDS):
            os.write(2, f"the machine of another worker is gone, and this one waits for it: {lost[0]}\n".encode())
            os._exit(1)


def _started(group: Any, number: int, place: Mapping[str, Any]) -> Any:
    bundle = PlacementGroupSchedulingStrategy(group, number, placement_group_capture_child_tasks=True)
    return ray.remote(Peer).options(num_cpus=place["cpu"], num_gpus=place["gpu"], scheduling_strategy=bundle,
                                    max_restarts=0, max_task_retries=0).remote()


def _how(end: Any) -> Ended:
    try:
        reason = ray.get(end, timeout=LOOK_SECONDS)
    except RayError as error:
        return Ended(death=f"{type(error).__name__}: {error}")
    return Ended(reason=reason)
