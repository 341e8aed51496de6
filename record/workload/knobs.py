"""What a workload declares of a config key as a knob: where in a space it acts, from which step on, how surely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Reach(NamedTuple):
    """Where a knob can act: the condition on a config, and what it needs in words."""

    holds: Callable[[Any], bool]
    needs: str


class Onset(NamedTuple):
    """From which optimizer step on a knob can act under a config, and what happens there in words."""

    step: Callable[[Any], int]
    event: str


@dataclass(frozen=True)
class KnobRule:
    """What is known of one key without training.

    Attributes:
        reach: where in a space it can act; None = everywhere.
        onset: from when on; None = from the first step.
        by_chance: why it may leave the few steps of a probe alone and still act later; "" where it may not.
        certain: its effect follows from what it is, so a launch spends no time on probing it.
        effect: that effect in words, where a probe cannot show it.
    """

    reach: Reach | None = None
    onset: Onset | None = None
    by_chance: str = ""
    certain: bool = False
    effect: str = ""


NO_RULE = KnobRule()


class Size(NamedTuple):
    """A config's operations an epoch, and the bytes of the weights that its finished run keeps."""

    tflops_per_epoch: float
    kept_bytes: int
