"""Whether a trial whose worker process died comes back or fails (hung, out of memory, too often). Pure.

Deaths count while a trial makes no progress: one that has finished an epoch since starts at none again.
"""

from __future__ import annotations

import re

from record.errors import MEMORY_REMEDY
from record.journal.events import Reason

MAX_LOSSES = 3
MAX_MEMORY_LOSSES = 2


class Losses:
    """How often each trial has lost its process since its last epoch."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, trial: str, epoch: int) -> int:
        """How often so far.

        Args:
            epoch: its last one.
        """
        count, at = self._known.get(trial, (0, epoch))
        return count if at == epoch else 0

    def add(self, trial: str, epoch: int) -> int:
        """Count one more; how many there are now."""
        count = self.of(trial, epoch) + 1
        self._known[trial] = count, epoch
        return count


def why_lost(losses: int, epoch: int, error: str, silent: float, minutes: float) -> Reason | None:
    """The reason of the failure; None where the trial comes back.

    Args:
        losses: processes that it has lost in this session.
        error: what Ray knows of the last one.
        silent: seconds for which that had reported nothing.
        minutes: for how many it may.
    """
    if silent >= minutes * 60:
        return Reason(rule="hung", sentence=f"it reported no epoch for {minutes:g} minutes after epoch {epoch} and was "
                "killed; output.log in its folder shows where it stood (hang_minutes sets the limit)")
    memory = memory_sentence(error)
    if memory and losses >= MAX_MEMORY_LOSSES:
        return Reason(rule="out_of_memory", sentence=f"its process was killed {losses} times because memory ran out "
                f"({memory}); {MEMORY_REMEDY}, lower concurrency, or give a trial more resources.cpu")
    if losses >= MAX_LOSSES:
        return Reason(rule="process_lost", sentence=f"its process died {losses} times, last after epoch {epoch}; see "
                f"output.log in its folder. If the kernel killed it because memory ran out (dmesg says so): "
                f"{MEMORY_REMEDY}")
    return None


def memory_sentence(error: str) -> str:
    """The numbers of Ray's report of a worker that its memory monitor killed; '' where it was something else."""
    found = re.search(r"Memory on the node[^\n]*?\([\d.]+\)", error)
    return found[0] if found else ("memory ran out" if "OUT_OF_MEMORY" in error or "OutOfMemory" in error else "")
