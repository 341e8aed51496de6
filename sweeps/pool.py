"""Work of others on a Ray cluster: a pool of processes, each of which is prepared once and then does item after item.

It knows nothing of what is done; `lam label --address` finds it by the entry point `ray` of the group `lam.pools`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from record.errors import EnvironmentFailed
from record.text import gist
from sweeps.workers import ray_session
from sweeps.workers.signals import Signals

RESTARTS = 3  # of a worker whose machine is lost; its item is done again elsewhere


def over_cluster(address: str, workers: int, prepare: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...],
           items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """(item, result) of every item, in the order in which they are done.

    Args:
        address: the cluster's, such as 10.0.0.1:6379 or auto.
        workers: processes; each takes one CPU.
        prepare: makes, of `given`, what a process does an item with.

    Raises:
        EnvironmentFailed: the cluster does not answer, or a worker is lost more often than `RESTARTS` times.
        LamError: whatever an item ends in.
    """
    with (tempfile.TemporaryDirectory(prefix="lam-pool-") as logs, Signals() as signals,
          ray_session.session(address, Path(logs) / "ray.log", signals)):
        import ray
        from ray.exceptions import RayError, RayTaskError
        from ray.util import ActorPool

        made = ray.remote(num_cpus=1, max_restarts=RESTARTS, max_task_retries=RESTARTS)(_Worker)
        shared = [ray.put(each) for each in given]  # once for the cluster, not once for each worker
        pool = ActorPool([made.remote(prepare, *shared) for _ in range(min(workers, len(items)))])
        try:
            for done in pool.map_unordered(lambda worker, item: worker.do.remote(item), items):
                if signals.received is not None:
                    raise KeyboardInterrupt
                yield done
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise EnvironmentFailed(f"the cluster at {address} lost a worker ({gist(error)}); the same command goes "
                                    "on") from None


class _Worker:
    """One process of the pool."""

    def __init__(self, prepare: Callable[..., Callable[[Any], Any]], *given: Any) -> None:
        self._do = prepare(*given)

    def do(self, item: Any) -> tuple[Any, Any]:
        return item, self._do(item)
