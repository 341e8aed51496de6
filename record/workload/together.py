"""Processes that are one training: how each is told who it is among them, by the variables that torchrun sets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping

Gone = Callable[[], bool]  # whether one of the other processes has ended, where that can be known


def nobody_gone() -> bool:
    """What is known of processes that others have started."""
    return False


def who(rank: int, size: int, address: str, port: int, here: int = 1, local: int = 0) -> dict[str, str]:
    """What a process has in its environment, for the length of a training that is several processes.

    Args:
        rank: its number; the first, 0, listens on `address` and `port`, where the others find it.
        here: how many of them are on its machine.
        local: its number among those, by which it takes its GPU where it sees the others' too.
    """
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address, "MASTER_PORT": str(port),
            "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(here),
            "TORCHELASTIC_USE_AGENT_STORE": "False"}  # an outer torchrun's agent does not listen for this group


def free_port(address: str) -> int:
    """A port of this machine on which nobody listens now."""
    with socket.create_server((address, 0)) as listening:
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def environment(told: Mapping[str, str]) -> Iterator[None]:
    """Have these variables for the length of a with-block; afterwards all are as they were."""
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
