"""The processes that train one model together: each one's share of a batch, and sums over all of them.

A process is told who it is as torchrun tells it, by RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK and
LOCAL_WORLD_SIZE in its environment. With one process all of this is the identity, so that training is written once.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from lam.config import RunConfig
from lam.training.devices import choose_device
from record.errors import BadInput, WorkerLost, is_out_of_memory
from record.text import gist, printable
from record.workload.together import Gone, nobody_gone

ARRIVAL = timedelta(minutes=5)  # a worker that has not come by then does not come
SILENCE = timedelta(hours=2)  # a worker waits so long for another, which may be validating, or be stuck


@dataclass(frozen=True)
class Group:
    """Who a process is among those that train one model.

    Attributes:
        rank: its number; the first, 0, decides what is done and alone writes.
        size: how many they are.
        here: how many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    here: int = 1

    def share(self, rows: NDArray[Any]) -> NDArray[Any]:
        """This worker's rows of a batch: the first worker has the first ones, and all have nearly as many."""
        return np.array_split(rows, self.size)[self.rank]

    def said(self, word: Any = None) -> Any:
        """What the first worker says; what the others hand over is not heard."""
        if self.size == 1:
            return word
        box = [word]
        with _others():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def total(self, number: int) -> int:
        """The sum of every worker's number."""
        return int(self._sum(torch.tensor([number]))) if self.size > 1 else number

    def sums(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sum of every worker's scalar of each name; here the others notice that one of them is gone."""
        if self.size == 1:
            return dict(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        return dict(zip(values, self._sum(stacked.cpu()).to(stacked.device), strict=True))

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the sum of every worker's, in one message."""
        if self.size > 1:
            _in_one(tensors, self._sum)

    def equal(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by the first worker's, in one message."""
        if self.size > 1:
            _in_one(tensors, self._first)

    def gathered(self, rows: Tensor) -> Tensor:
        """Every worker's rows, those of the first worker first.

        A row stands at one worker and is 0 at the others, so that their sum is exact, however many each has.
        """
        if self.size == 1:
            return rows
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        ends = self._sum(counts).cumsum(0).tolist()
        whole = rows.new_zeros(ends[-1], *rows.shape[1:])
        whole[ends[self.rank] - len(rows) : ends[self.rank]] = rows
        return self._sum(whole)

    def _sum(self, tensor: Tensor) -> Tensor:
        with _others():
            dist.all_reduce(tensor)
        return tensor

    def _first(self, tensor: Tensor) -> Tensor:
        with _others():
            dist.broadcast(tensor, src=0)
        return tensor


ALONE = Group()


def told() -> Group:
    """Who this process is by its environment; where WORLD_SIZE is 1 or not there, the others are not looked at.

    Raises:
        BadInput: another variable is not there, or one is not a number that it can be.
    """
    size = _number("WORLD_SIZE", "1", 1)
    if size == 1:
        return ALONE
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise _not_a_worker(f"got {size}, and no {' and no '.join(missing)}")
    _number("MASTER_PORT", "", 1, 65535)
    _number("LOCAL_RANK", "0", 0, size - 1)
    return Group(_number("RANK", "", 0, size - 1), size, _number("LOCAL_WORLD_SIZE", "1", 1, size))


def _number(name: str, default: str, low: int, high: float = math.inf) -> int:
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        limits = f"from {low}" + (f" to {high}" if high < math.inf else "")
        raise _not_a_worker(f"got {name}={printable(text)}, which has to be a whole number {limits}")
    return int(text)


def _not_a_worker(what: str) -> BadInput:
    return BadInput(what, source="environment", key="WORLD_SIZE", remedy="start by torchrun, or unset WORLD_SIZE")


@contextlib.contextmanager
def joined(config: RunConfig, gone: Gone = nobody_gone) -> Iterator[Group]:
    """The group that this process's environment tells of, for the length of a with-block.

    Where the first worker's block ends in order, and a generator that is closed does, the others are told so. Where
    it fails, they find it gone.

    Raises:
        BadInput: there are more workers than sequences in a batch, or than GPUs on this machine, or the environment
            is wrong.
        WorkerLost: another one did not come.
    """
    group = told()
    if group.size == 1:
        yield ALONE
        return
    refuse_too_many(config, group.size, group.here)
    backend = _claim_device(config)
    with _others():
        _use_interface(os.environ["MASTER_ADDR"])
        dist.init_process_group(backend, store=_store(group, gone), rank=group.rank, world_size=group.size,
                                timeout=SILENCE)
    try:
        yield group
    except GeneratorExit:
        _tell_end(group)
        raise
    else:
        _tell_end(group)
    finally:
        dist.destroy_process_group()


def refuse_too_many(config: RunConfig, workers: int, here: int) -> None:
    """Each worker needs a sequence of each batch, and each of this machine a GPU where training is on GPUs.

    Raises:
        BadInput: there are more workers.
    """
    if workers > config.batch_size:
        raise BadInput(f"got {workers}, and a batch has {config.batch_size} sequences, one for each worker at least",
                       key="workers", remedy="use fewer workers, or a larger batch_size")
    gpus = torch.cuda.device_count() if choose_device(config).type == "cuda" else here
    if here > gpus:
        raise BadInput(f"got {here} on this machine, which has {gpus} GPU{'s' * (gpus > 1)}, one for each worker",
                       key="workers", remedy="use fewer workers, or device: cpu")


def _claim_device(config: RunConfig) -> str:
    """Take this worker's GPU, where there are any; what carries tensors between the workers."""
    if choose_device(config).type == "cpu":
        return "gloo"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return "cpu:gloo,cuda:nccl"


def _tell_end(group: Group) -> None:
    if group.rank == 0:
        group.said(None)


def _store(group: Group, gone: Gone) -> dist.Store:
    """Where workers meet: the first one listens, on the address that all were told and on no other.

    Under torchrun its agent listens already.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    listening = socket.create_server((address, port)).detach() if ours and group.rank == 0 else None
    met = dist.TCPStore(address, port, group.size, is_master=listening is not None, timeout=ARRIVAL,
                        wait_for_workers=False, master_listen_fd=listening)
    if ours:
        _arrive(met, group, gone)
    return dist.PrefixStore("lam", met)


def _arrive(met: dist.Store, group: Group, gone: Gone) -> None:
    """Be counted; the first worker waits until all are."""
    met.add("arrived", 1)
    end = time.monotonic() + ARRIVAL.total_seconds()
    while group.rank == 0 and met.add("arrived", 0) < group.size:
        if gone():
            raise RuntimeError("it ended before all had met")
        if time.monotonic() > end:
            raise TimeoutError(f"it has not come within {ARRIVAL.total_seconds():.0f} s")
        time.sleep(0.02)


def _use_interface(address: str) -> None:
    """Talk through the interface that reaches an address, if nobody named one: the host's name may lead elsewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))  # sends nothing
        own = probe.getsockname()[0]
    for name, found in psutil.net_if_addrs().items():
        if any(each.address == own for each in found):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def _in_one(tensors: Iterable[Tensor], exchange: Any) -> None:
    """Have several tensors exchanged as one, in place."""
    kept = list(tensors)
    if kept:
        parts = exchange(torch.cat([each.detach().flatten() for each in kept])).split([each.numel() for each in kept])
        for each, part in zip(kept, parts, strict=True):
            each.detach().copy_(part.view_as(each))


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """What fails between workers is that one of them is gone; who and why, those who started them know.

    Raises:
        WorkerLost: an exchange failed.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            raise
        raise WorkerLost(f"another worker of this training is gone ({gist(error)}); the same command resumes") from None
