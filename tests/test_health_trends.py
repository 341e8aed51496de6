"""One word for a trajectory; endpoints alone are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from record.health.trends import NOT_DETERMINED, slope, trend

X = np.arange(20)
NOISE = np.random.default_rng(0).normal(size=20)


@pytest.mark.parametrize(("word", "better", "values"), [
    ("growing", "up", 1 + 0.2 * X),
    ("rising", "down", 1 + 0.2 * X),
    ("decreasing", "down", 10 * 0.8**X + 1),
    ("slow decline", "up", 12 - 0.3 * X),
    ("collapsing", "up", np.where(X < 8, 10.0, 1.0)),
    ("slow decline", "up", 20 - 0.9 * X),  # it halves, but evenly: no sudden loss
    ("plateau", "down", np.where(X < 8, 10.0 - X, 2.0) + 0.01 * NOISE),
    ("stable", "up", 10 + 0.05 * NOISE),
    ("oscillating", "up", 10 + (-1.0) ** X),
    ("volatile", "down", 5 + 4 * NOISE),
    ("recovered", "down", np.where(X == 12, 27.0, 9.0) + 0.01 * NOISE),
    ("recovered", "up", np.where((X > 5) & (X < 9), 2.0, 10.0)),
])
def test_words(word: str, better: str, values: np.ndarray) -> None:
    assert trend(X.tolist(), values.tolist(), better).word == word


def test_a_word_of_the_last_half_says_so_where_the_ends_disagree() -> None:
    back = trend(X.tolist(), np.where(X < 10, 20 - 0.8 * X, 12 + 0.4 * (X - 10)).tolist(), "up")
    assert (back.word, back.told, back.change) == ("growing", "growing lately", "fell")
    assert trend(X.tolist(), (1 + 0.2 * X).tolist(), "up").told == "growing"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_few_points_are_no_trajectory(count: int) -> None:
    found = trend(list(range(count)), [2.3, 7.5, 8, 9][:count], "up")
    assert found.word == NOT_DETERMINED
    assert found.points == count
    assert found.change == ("grew" if count > 1 else "unchanged")


def test_points_that_are_not_finite_are_left_out() -> None:
    assert trend([1, 2, 3, 4, 5, 6], [1, float("nan"), 2, 3, float("inf"), 4], "up").points == 4


def test_the_slopes_interval_is_students() -> None:
    x = np.array([1.0, 2, 3, 4, 5])
    y = np.array([1.1, 1.9, 3.2, 3.8, 5.0])
    known = stats.linregress(x, y)
    found = slope(x, y)
    assert found.value == pytest.approx(known.slope)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 3) * known.stderr)


def test_the_same_change_in_noise_is_no_trend() -> None:
    quiet = trend(X.tolist(), (10 + 0.1 * X).tolist(), "up")
    loud = trend(X.tolist(), (10 + 0.1 * X + 3 * (-1.0) ** X).tolist(), "up")
    assert quiet.word == "growing"
    assert loud.word != "growing"
    assert loud.slope is not None
    assert loud.slope.low < 0 < loud.slope.high
