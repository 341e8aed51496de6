"""Which number picks the config whose codes tell the action of videos that no search has seen?

    python benchmarks/bench_ranking.py [TABLE ...] [--over 3]

Over the living configs of a recorded table: Spearman's rank correlation between a number of the validation videos (at
a config's best epoch by that number) and the probe of its kept weights on the test videos, over all of them and over
the best quarter by that number, and the probe of the config that the number picks. Intervals are over configs, drawn
again a thousand times.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tables import Table

from lam import codebook

Array = NDArray[np.float64]
FEW = codebook.ENOUGH_LABELS


def _skill(record: dict[str, Any]) -> float:
    return _number(record["val/action_skill"])


def _of(record: dict[str, Any], labels: int) -> float:
    """The objective as if there were so many labels."""
    return codebook.objective({**record, "val/labelled_transitions": labels}, "action")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


NUMBERS: dict[str, Callable[[dict[str, Any]], float]] = {
    "objective (preset action)": lambda record: codebook.objective(record, "action"),
    "mean of the three readings": lambda record: _of(record, FEW),
    "mean of both skills": lambda record: _of(record, codebook.MANY_LABELS),
    "action skill": _skill,
    "its lower bound": lambda record: _number(record["val/action_skill_low"]),
    "log skill": lambda record: _number(record["val/action_log_skill"]),
    "action NMI": lambda record: _number(record["val/action_nmi"]),
    "control x health": lambda record: codebook.objective(record, "control_health"),
    "joint bits": lambda record: _number(record["val/joint_bits"]),
    "-validation MSE": lambda record: -_number(record["val/mse_loss"]),
}


def living(table: Table) -> list[int]:
    """Rows whose last epoch is live and whose weights were probed."""
    return [row for row in range(len(table.rows)) if table.rows[row]["probe"]
            and codebook.is_live(table.record(row, table.epochs_of(row)))]


def best_value(table: Table, row: int, number: Callable[[dict[str, Any]], float], over: int = 1) -> float:
    """The highest value over a config's epochs, each averaged with those before it."""
    values = [number(table.record(row, epoch)) for epoch in range(1, table.epochs_of(row) + 1)]
    means = [float(np.mean(values[max(0, end - over):end])) for end in range(1, len(values) + 1)]
    return max((mean for mean in means if math.isfinite(mean)), default=-math.inf)


def correlation(values: Array, probe: Array, share: float = 1.0) -> float:
    """Spearman's over the share of the configs with the highest values."""
    top = values >= np.quantile(values, 1 - share)
    return float(spearmanr(values[top], probe[top]).statistic) if top.sum() > 2 else math.nan


def interval(values: Array, probe: Array, share: float) -> str:
    """The correlation with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    again = rng.integers(len(values), size=(1000, len(values)))
    draws = [correlation(values[rows], probe[rows], share) for rows in again]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return f"{correlation(values, probe, share):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print a table of Markdown for each recorded one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=["breakout"])
    parser.add_argument("--over", type=int, default=1, help="validations that a number is averaged over")
    asked = parser.parse_args()
    for name in asked.tables:
        table = Table(name)
        rows = living(table)
        probe = np.array([table.rows[row]["probe"]["accuracy"] for row in rows])
        print(f"\n{name}: {len(rows)} living of {len(table.rows)}; probe {probe.min():.3f} to {probe.max():.3f}, mean "
              f"{probe.mean():.3f}, commonest action {table.rows[rows[0]]['probe']['majority']:.3f}\n")
        print("| number | all living | best quarter | probe of its pick |\n|---|---|---|---|")
        for title, number in NUMBERS.items():
            values = np.array([best_value(table, row, number, asked.over) for row in rows])
            print(f"| {title} | {interval(values, probe, 1.0)} | {interval(values, probe, 0.25)} "
                  f"| {probe[values.argmax()]:.3f} |")


if __name__ == "__main__":
    main()
