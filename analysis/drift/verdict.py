"""Drift: new videos against those that a promotion kept, aspect by aspect, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.drift.twosample import level_of, p_value, smallest_p
from record.errors import BadInput
from record.text import number
from record.workload.observation import Aspect, Observation

Array = NDArray[Any]
LABEL, CONFIRM, SWEEP = "label a little", "re-confirm", "re-sweep"


@dataclass(frozen=True)
class Compared:
    """One aspect of the videos.

    Attributes:
        kept, new: its figure in the kept and in the new videos; of codes and latents, how far the two are apart.
        p: how probable so large a difference is where nothing has changed.
        level: below which it counts as drift at this look.
    """

    aspect: Aspect
    sentence: str
    kept: float | None
    new: float
    p: float
    level: float

    @property
    def drifted(self) -> bool:
        return self.p <= self.level


@dataclass(frozen=True)
class Drift:
    """What became of the data.

    Attributes:
        look: how often new data were looked at under this promotion, with this one.
        remedy: what to do, the least first; empty without drift.
    """

    look: int
    kept: int
    new: int
    tests: tuple[Compared, ...]
    remedy: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`drift` or `no drift`."""
        return "drift" if any(test.drifted for test in self.tests) else "no drift"


def judge_drift(kept: Observation, new: Observation, look: int) -> Drift:
    """Compare by video, since transitions within one depend on each other.

    Raises:
        BadInput: there are too few videos to tell at this look, or they were read by another model.
    """
    aspects = kept.aspects()
    if (new.aspects(), new.windows, new.num_embeddings) != (aspects, kept.windows, kept.num_embeddings):
        raise BadInput("the kept videos were read by another model, or at other windows", source="snapshot",
                       remedy="take it again with 'lam promotions snapshot FILE'")
    level = level_of(look, len(aspects))
    _check_enough(len(kept.videos), len(new.videos), level, look)
    tests = tuple(_test(aspect, kept, new, level) for aspect in aspects)
    return Drift(look, len(kept.videos), len(new.videos), tests, _remedy(tests))


def _check_enough(kept: int, new: int, level: float, look: int) -> None:
    """Refuse to answer what no outcome could answer."""
    if kept and new and smallest_p(kept, new) <= level:
        return
    enough = next((count for count in range(new + 1, 1000) if kept and smallest_p(kept, count) <= level), None)
    said = f"of {new} new videos against {kept} kept ones nothing can be told at look {look}: by chance alone they " \
           f"differ as much as can be in 1 of {1 / smallest_p(kept, new):.0f} cases, and asked is 1 of {1 / level:.0f}"
    remedy = f"name a folder of at least {enough} videos, or keep more with 'lam promotions snapshot FILE --data DIR'"
    raise BadInput(said, source="--data", remedy=remedy)


def _test(aspect: Aspect, kept: Observation, new: Observation, level: float) -> Compared:
    a, b = (np.array([getattr(video, aspect) for video in each.videos]) for each in (kept, new))
    scaled = (np.sqrt(a), np.sqrt(b)) if aspect == "codes" else _scaled(a, b)
    sentence, before, now = _TOLD[aspect](a, b, kept.num_embeddings)
    return Compared(aspect, sentence, before, now, p_value(scaled[0], scaled[1], level), level)


def _scaled(a: Array, b: Array) -> tuple[Array, Array]:
    """In standard deviations over all videos: the same for each exchange of them."""
    spread = np.concatenate([a, b]).std(axis=0)
    moves = spread > 0
    return a[:, moves] / spread[moves], b[:, moves] / spread[moves]


def _codes(a: Array, b: Array, K: int) -> tuple[str, float | None, float]:
    p, q = (each.mean(axis=0).reshape(-1, K) for each in (a, b))
    apart = float(np.mean(_bits((p + q) / 2) - (_bits(p) + _bits(q)) / 2))
    return f"{number(max(0.0, apart))} bits apart a slot (Jensen-Shannon, at most 1)", None, apart


def _bits(shares_SK: Array) -> Array:
    """[S] entropies."""
    safe = np.where(shares_SK > 0, shares_SK, 1.0)
    return np.asarray(-(safe * np.log2(safe)).sum(axis=1))


def _rank(a: Array, b: Array, K: int) -> tuple[str, float | None, float]:
    before, now = float(a.mean()), float(b.mean())
    return f"effective rank {number(now)} a video, was {number(before)}", before, now


def _loss(a: Array, b: Array, K: int) -> tuple[str, float | None, float]:
    before, now = float(np.exp(a.mean())), float(np.exp(b.mean()))
    return f"error {number(now)} of that of copying the last frame, was {number(before)}", before, now


def _latents(a: Array, b: Array, K: int) -> tuple[str, float | None, float]:
    spread = np.maximum(a.std(axis=0), 1e-12 + 1e-6 * np.abs(a).max())
    shift = np.abs(b.mean(axis=0) - a.mean(axis=0)) / spread
    place, channels = int(shift.argmax()), a.shape[1] // 3
    what = ("mean", "standard deviation", "change a frame")[place // channels]
    return (f"the {what} of channel {place % channels} moved by {number(float(shift[place]))} standard deviations "
            "of the kept videos"), None, float(shift[place])


_TOLD: dict[Aspect, Callable[[Array, Array, int], tuple[str, float | None, float]]] = {
    "codes": _codes, "rank": _rank, "loss": _loss, "latents": _latents}


def _remedy(tests: tuple[Compared, ...]) -> tuple[str, ...]:
    """The least that helps first, and more the more has changed: the picture, what the model makes of it, its error."""
    drifted = {test.aspect: test for test in tests if test.drifted}
    if not drifted:
        return ()
    told = [f"{LABEL}: give some of the new transitions their true actions ('lam label RUN --ask' on a run whose data "
            "they are), and look at the action skill there"]
    if set(drifted) - {"latents"}:
        told.append(f"{CONFIRM}: train the promoted config on the new data with fresh seeds ('lam train FILE --set "
                    "data_dir=DIR --set seed=101', ...), and promote what holds")
    loss = drifted.get("loss")
    if loss is not None and loss.kept is not None and loss.new > loss.kept:
        told.append(f"{SWEEP}: the model predicts worse there, so another config may be the best one ('lam sweep "
                    "launch SWEEP.yaml --baseline FILE')")
    return tuple(told)
