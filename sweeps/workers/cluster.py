"""The Ray that is joined, as `sweeps.workers.machines` asks for it: machines, probes, what it could become."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray._private.state as ray_state
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from record import yamlio
from record.errors import BadInput, LamError
from record.text import short
from sweeps.spec.sections import Resources
from sweeps.workers import probe
from sweeps.workers.machines import Machine

ANSWER_SECONDS = 180.0  # a first probe imports the software, perhaps from a slow disk, and looks at the data
LEAST_SPEED = 10e6  # bytes a second at which a machine fetches data
BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")  # where `ray up` puts its file on the head


class RayCluster:
    """`sweeps.workers.machines.Cluster` of the Ray that is initialised.

    Args:
        asked: what each machine is asked before it takes a trial.
        bootstrap: the file that tells the autoscaler's machine types.
    """

    def __init__(self, resources: Resources, asked: probe.Asked, bootstrap: Path = BOOTSTRAP) -> None:
        self._resources, self._asked = resources, asked
        self._growth = grows_to(bootstrap.expanduser(), resources)
        self._answers: dict[str, tuple[Any, float]] = {}

    def machines(self) -> list[Machine]:
        """Those that are there and hold a trial, or a worker of one."""
        draining = ray_state.state.get_draining_nodes()
        found = [Machine(node["NodeID"], host(node), fits(node["Resources"], self._resources),
                         draining[node["NodeID"]] / 1000 if node["NodeID"] in draining else None)
                 for node in ray.nodes() if node["Alive"]]
        return [machine for machine in found if machine.fits]

    def probed(self, machine: Machine) -> str | None:
        """What a machine lacks; None while it has not answered."""
        if machine.id not in self._answers:
            place = NodeAffinitySchedulingStrategy(machine.id, soft=False)
            task = ray.remote(num_cpus=0, max_retries=0)(probe.answer).options(scheduling_strategy=place)
            self._answers[machine.id] = task.remote(self._asked), time.monotonic()
        answer, since = self._answers[machine.id]
        try:
            return str(ray.get(answer, timeout=0.01))
        except GetTimeoutError:
            patience = answers_within(self._asked)
            late = time.monotonic() - since > patience
            return f"has not answered within {patience:.0f} s" if late else None
        except RayError as error:
            return in_words(error)

    def growth(self) -> int | None:
        """Trials that it would hold once its autoscaler has done its most; None where that is not known."""
        return self._growth

    def words(self) -> str:
        """What its machines have."""
        return inventory([node["Resources"] for node in ray.nodes() if node["Alive"]])


def answers_within(asked: probe.Asked) -> float:
    """Seconds in which a machine should have answered: more where it fetches its data first."""
    return ANSWER_SECONDS + asked.fetched / LEAST_SPEED


def host(node: Mapping[str, Any]) -> str:
    """A machine's name; with the begin of its id, since several Rays may run on one."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def in_words(error: RayError) -> str:
    """Why a probe did not run."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    text = str(cause or error).strip()
    if "No module named" in text:
        missing = text[text.index("No module named"):].splitlines()[0]
        return f"cannot import lamsweep ({missing}); install it there, as on the driver's machine"
    return f"could not be asked ({text.splitlines()[-1][:300] if text else type(error).__name__})"


def inventory(nodes: list[dict[str, float]]) -> str:
    """The resources of some machines in words."""
    each = [f"{short(node.get('CPU', 0.0))} CPUs and {short(node.get('GPU', 0.0))} GPUs" for node in nodes]
    return "; ".join(f"{each.count(one)} x {one}" for one in dict.fromkeys(each)) or "no machine"


def fits(node: Mapping[str, float], resources: Resources) -> int:
    """Trials that fit on a machine at a time; where a trial is several workers, how many of those."""
    needs = {"CPU": resources.cpu, "GPU": resources.gpus}
    return min(math.floor(node.get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need > 0)


def fitting(resources: Resources, source: str, asked: int | None = None, grows: int | None = 0,
            could: str = "") -> int:
    """Trials that fit at the same time on the Ray that is initialised.

    Args:
        asked: the sweep's `concurrency`, for which a cluster without machines is waited for.
        grows: trials that it would hold once it has grown; None where that is not known.
        could: what its autoscaler starts, in words.

    Raises:
        BadInput: not even one fits on any machine, and none will.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    found = sum(fits(node, resources) for node in nodes) // resources.workers
    most = {name: max(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    from_none = grows is None and most["CPU"] == 0  # a head alone: what its autoscaler starts is not known
    if found == 0 and not grows and not (from_none and asked):
        raise BadInput(f"{_asked(resources)}; the largest node has {most['CPU']:g} CPUs and {most['GPU']:g} GPUs"
                       f"{_in_all(nodes, resources)}{could}", source=source, key="resources",
                       remedy="set 'concurrency', for which the cluster's autoscaler then starts machines" if from_none
                       else "ask for less, or join a larger cluster with --address")
    return found


def _asked(resources: Resources) -> str:
    each = f"each of the {resources.workers} workers of " if resources.workers > 1 else ""
    return f"got cpu {resources.cpu:g} and gpu {resources.gpus:g} for {each}one trial"


def _in_all(nodes: list[dict[str, float]], resources: Resources) -> str:
    if resources.workers == 1:
        return ""
    return f", and all nodes hold {sum(fits(node, resources) for node in nodes)} such workers ({inventory(nodes)})"


def resolved(resources: Resources, bootstrap: Path = BOOTSTRAP) -> Resources:
    """What a trial occupies here: `gpu: auto` is one GPU where a machine has any, or one that may be started."""
    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there += [each for each, _ in _bootstrap(bootstrap.expanduser()) or ()]
    return resources.where(any(node.get("GPU", 0.0) >= 1 for node in there))


def grows_to(bootstrap: Path, resources: Resources) -> int | None:
    """Trials that fit on all machines that `ray up`'s file lets the autoscaler start; None where it is not there."""
    known = _bootstrap(bootstrap)
    return None if known is None else sum(count * fits(each, resources) for each, count in known) // resources.workers


def could_become(bootstrap: Path) -> str:
    """What `ray up`'s file lets the autoscaler start, in words; '' where it is not there."""
    known = _bootstrap(bootstrap)
    return "" if known is None else f", and its autoscaler starts {inventory([each for each, _ in known])}"


def _bootstrap(file: Path) -> list[tuple[dict[str, float], int]] | None:
    """(resources, how many at most) of each machine type."""
    if not file.is_file():
        return None
    try:
        known = yamlio.load_mapping(file)
    except LamError:  # anchors and the like, which Ray takes: not known
        return None
    return [(kind.get("resources") or {}, int(kind.get("max_workers", known.get("max_workers", 0))))
            for kind in (known.get("available_node_types") or {}).values()]


def node_of(actor: Any) -> str:
    """The machine that an actor runs on, '' where that is not known."""
    if actor is None:
        return ""
    known = ray_state.actors(actor._actor_id.hex())
    return str(known.get("Address", {}).get("NodeID", "")) if known else ""
