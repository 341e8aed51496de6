"""Do the codes mean the action? A probe of them, cross-fitted by video, against always naming the commonest action.

The probe is a logistic regression on the one-hot codes of each slot and on the commonest code tuples. It is fitted on
some videos of the split and asked on the others, so that no action that it has seen is scored (of fewer than five
videos, on some stretches of them: `record.intervals.clusters`). The same probe on the embedding before the quantiser
says what a linear reading of that knows: where it is far more, the quantiser loses the action; with few labels it may
be less, since a few codes are easier to learn from than many numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lam.evaluation import logistic
from lam.evaluation.control import action_information
from record import intervals

FOLDS = 8
TUPLES = 64
SMOOTHING = 0.01  # of a probe's probabilities towards the frequencies: one confident mistake is not infinite
Array = NDArray[Any]


class Known(NamedTuple):
    """Transitions whose true action is known, or some that may hold such.

    Attributes:
        codes: [N, S]; None where actions are continuous.
        z_e: [N, S, Q] embeddings before quantisation.
        actions: [N] true actions, -1 = unknown.
        files: [N] video number of each, in temporal order within a video.
    """

    codes: Array | None
    z_e: Array
    actions: Array
    files: Array

    def rows(self, which: Array) -> Known:
        """Some of them."""
        return Known(None if self.codes is None else self.codes[which], self.z_e[which], self.actions[which],
                     self.files[which])


def metrics(known: Known, num_embeddings: int) -> dict[str, float]:
    """What the codes tell of the true actions, keys as in `lam.metrics`; only their number where none is known."""
    known = known.rows(known.actions >= 0)
    if not len(known.actions):
        return {"val/labelled_transitions": 0}
    y = np.unique(known.actions, return_inverse=True)[1]  # how actions are numbered is no news
    video, flat = known.files, known.z_e.reshape(len(known.z_e), -1)
    group = intervals.clusters(video)
    with np.errstate(invalid="ignore", over="ignore"):  # weights that are not finite make no finite embedding
        embedded = (flat - flat.mean(axis=0)) / (flat.std(axis=0) + 1e-8)
    coded = embedded if known.codes is None else code_features(known.codes, num_embeddings)
    base = np.where(np.unique(group).size > 1, y == np.bincount(y).argmax(), math.nan)
    right, log_base, log_probe = cross_fitted(coded, y, group)
    before_right, _, _ = cross_fitted(embedded, y, group)
    skill = _skill(right, base, video)
    information = {} if known.codes is None else {"val/action_nmi": action_information(known.codes, y)}
    return information | {
        "val/labelled_transitions": len(y),
        "val/action_skill": skill.value, "val/action_skill_low": skill.low, "val/action_skill_high": skill.high,
        "val/action_accuracy": _mean(right), "val/action_majority": _mean(base),
        "val/action_log_skill": intervals.ratio(log_base - log_probe, log_base, video).value,
        "val/action_skill_embedding": _skill(before_right, base, video).value,
    }


def _skill(right: Array, base: Array, video: Array) -> intervals.Estimate:
    """The skill with the wider of two intervals: over videos, and over transitions as if they were independent.

    The commonest action is that of all labels: of other videos alone it is rarer here than there, the more so the
    fewer there are, and few videos may agree by luck.
    """
    ways = (intervals.ratio(right - base, 1 - base, unit) for unit in (video, np.arange(len(video))))
    return max(ways, key=lambda each: 0.0 if math.isnan(each.high) else each.high - each.low)


def code_features(codes_NS: Array, num_embeddings: int) -> NDArray[np.float64]:
    """[N, S*K + tuples]: the one-hot codes of each slot, then which of the commonest tuples it is."""
    slots = [np.eye(num_embeddings)[slot] for slot in codes_NS.T]
    _, number, counts = np.unique(codes_NS, axis=0, return_inverse=True, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:TUPLES]
    return np.concatenate([*slots, (number.reshape(-1, 1) == common).astype(float)], axis=1)


def cross_fitted(x: Array, y: Array, group: Array) -> tuple[Array, Array, Array]:
    """Per sample: whether the probe is right, the log loss of the actions' frequencies and that of the probe.

    Each sample is answered by what was fitted on other groups; all NaN where there is one group, or a feature is
    not finite.
    """
    found = np.full((3, len(y)), math.nan)
    if not np.isfinite(x).all():
        return found[0], found[1], found[2]
    for fitted, asked in _folds(group):
        frequencies = _frequencies(y[fitted], y.max() + 1)
        shares = np.tile(frequencies, (len(asked), 1))
        if len(np.unique(y[fitted])) > 1:
            probe = logistic.fit(x[fitted], y[fitted])
            shares = SMOOTHING * shares
            shares[:, probe.classes] += (1 - SMOOTHING) * probe.shares(x[asked])
        truth = y[asked]
        found[:, asked] = (truth == shares.argmax(axis=1), -np.log(frequencies[truth]),
                           -np.log(shares[np.arange(len(asked)), truth]))
    return found[0], found[1], found[2]


def _folds(group: Array) -> Iterator[tuple[Array, Array]]:
    """(fitted, asked) rows; a group is asked whole, and once."""
    names = np.unique(group)
    if len(names) < 2:
        return
    fold = np.searchsorted(names, group) % min(FOLDS, len(names))
    for number in range(min(FOLDS, len(names))):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def _frequencies(y: Array, count: int) -> NDArray[np.float64]:
    counts = np.bincount(y, minlength=count) + 1 / count
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan
