"""What a report computes itself rather than load a library for seconds, held against that library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from build_records import Planted, write_sweep

from analysis.decision import trust
from record import intervals


def test_figures_that_need_no_library_are_the_librarys() -> None:
    """scipy.stats and scikit-learn take seconds to load and are not asked; here they are."""
    from scipy.stats import binomtest, spearmanr, t
    from sklearn.neighbors import NearestNeighbors

    pairs = np.random.default_rng(0).integers(0, 5, size=(40, 2)).astype(float)
    assert trust._rank_correlation(pairs) == pytest.approx(spearmanr(*pairs.T).statistic)
    assert trust._rank_correlation(np.ones((9, 2))) is None
    for good, of in ((0, 1), (1, 1), (3, 7), (7, 7)):
        known = binomtest(good, of).proportion_ci()
        assert intervals.share_interval(good, of) == pytest.approx((known.low, known.high))
    assert [intervals.student(degrees) for degrees in (1, 2, 30)] == pytest.approx(t.ppf(0.975, [1, 2, 30]))
    columns = list(np.random.default_rng(1).random((2, 50)))
    near = NearestNeighbors(n_neighbors=trust.NEIGHBOURS).fit(np.array(columns).T).kneighbors(return_distance=False)
    np.testing.assert_array_equal(np.sort(trust._nearest(columns)), np.sort(near))


@pytest.mark.long
@pytest.mark.slow
def test_a_report_loads_neither_and_optunas_forests_still_grow(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {f"t{n:04d}": Planted(epochs=2, control=n / 20, params={"embed_dim": 64 * n})
                                          for n in range(1, 18)})
    code = """if True:
        import sys
        from analysis.report.render import render_html
        from analysis.report.report import build_report
        made = build_report(sys.argv[1])
        assert made.importance.shares
        render_html(made)
        assert not {"sklearn", "scipy.stats", "scipy.special", "pandas", "torch"} & set(sys.modules), sys.modules
        import scipy.special
        assert scipy.special.stdtrit(3, 0.5) == 0
        from optuna.importance import FanovaImportanceEvaluator
        FanovaImportanceEvaluator(n_trees=2)._evaluator._forest.fit([[0.0], [1.0]], [0.0, 1.0])
        assert "sklearn" in sys.modules"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
