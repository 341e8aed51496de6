"""The probes' logistic regression: scikit-learn's optimum, by either way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lam.evaluation import logistic

RNG = np.random.default_rng(0)


def planted(samples: int, features: int, classes: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    x = scale * RNG.normal(size=(samples, features)) + 3
    return x, (x[:, :classes] + 2 * scale * RNG.normal(size=(samples, classes))).argmax(axis=1)


@pytest.mark.parametrize(("samples", "features", "classes"), [
    pytest.param(260, 60, 3, id="narrow"), pytest.param(300, logistic.WIDE + 50, 4, id="wide"),
    pytest.param(40, 90, 5, id="more features than samples")])
def test_it_is_the_optimum_that_scikit_learn_finds(samples: int, features: int, classes: int) -> None:
    x, y = planted(samples, features, classes)
    exact = LogisticRegression(max_iter=10_000, tol=1e-9).fit(x, y)
    found = logistic.fit(x, y)
    assert (found.classes == exact.classes_).all()
    assert np.abs(found.shares(x) - exact.predict_proba(x)).max() < 5e-3


def test_both_ways_agree_and_take_features_of_any_scale() -> None:
    x, y = planted(200, 30, 3, scale=50.0)
    more = np.hstack([x, np.zeros((200, logistic.WIDE))])
    narrow, wide = (logistic.fit(features, y).shares(features) for features in (x, more))
    assert np.abs(narrow - wide).mean() < 1e-2


def test_labels_may_have_gaps_and_be_one() -> None:
    x, y = planted(60, 8, 2)
    found = logistic.fit(x, np.where(y == 0, 3, 100))
    assert found.classes.tolist() == [3, 100]
    assert logistic.fit(x, np.full(60, 7)).shares(x).tolist() == [[1.0]] * 60
