"""Do code tuples tell the action? A probe fitted on the training videos and asked on others, as the benchmarks use it.

A logistic regression on the one-hot slots and on the commonest code tuples. It is not the product's own
`val/action_skill`, which is cross-fitted on validation videos: this one judges that one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

TUPLES = 64
Array = NDArray[Any]


class Found(NamedTuple):
    """right, commonest: [N] whether the probe, and the commonest action of the fitted videos, is right of each
    transition; videos: [N]."""

    right: Array
    commonest: Array
    videos: Array


def ask(model: Any, train: Any, held: Any, config: Any) -> Found:
    """Fit on every window of `train`, ask on every window of `held`; the model's codes or, without any, embeddings."""
    from sklearn.linear_model import LogisticRegression

    (fitted, y), (asked, true) = features(model, train, config), features(model, held, config)
    if config.quantizer != "none":
        fitted, asked = with_tuples(fitted, fitted, config.num_codes), with_tuples(fitted, asked, config.num_codes)
    right = LogisticRegression(max_iter=1000).fit(fitted, y).predict(asked) == true
    return Found(right, true == np.bincount(y).argmax(), held.starts[:, 0])


def features(model: Any, windows: Any, config: Any) -> tuple[Array, Array]:
    """One-hot codes [N, S*K] and true actions [N] of the last transition of every window."""
    from lam.evaluation import probe

    index = np.arange(len(windows))
    return probe.features(model, windows, index, config), windows.last_actions(index)


def with_tuples(fitted: Array, asked: Array, slots: int) -> Array:
    """One-hot slots, and one-hot of the tuples that are commonest in `fitted`; [N, S*K + 64]."""
    def codes(one_hot: Array) -> Array:
        return one_hot.reshape(len(one_hot), slots, -1).argmax(-1)

    known, counts = np.unique(codes(fitted), axis=0, return_counts=True)
    commonest = known[np.argsort(-counts, kind="stable")[:TUPLES]]
    return np.hstack([asked, (codes(asked)[:, None, :] == commonest[None]).all(-1)])
