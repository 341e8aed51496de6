"""How often the expected ranges of analysis/judge/bands.py hold, on the recorded curves; nominal is 90 %.

    python benchmarks/bench_bands.py [--splits 4]

Living configs with all their epochs, split into halves at random: fitted on one, judged on the other's first seed, cut
after half of its epochs. `curves`: the first half was recorded to the end. `extrapolated`: it, too, ends where the
others are cut. `seeds`: another seed of the same config, the ranges from the other configs' seeds. Widths are relative
to ranges around the last value alone (`flat`), which the same method gives without any slope.

Then the verdict over all these metrics together: how often another seed of a config is called outside, and how often a
config whose objective ends lower by .1 or more is.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from tables import Table

from analysis.judge import bands
from analysis.judge.bands import Curve, Range, expect
from record.health import engine, profile
from record.health.production import Production, of_mapping, verdict

KEYS = {"val/mse_loss": True, "train/loss": True, "val/objective": False, "val/control": False,
        "val/perplexity_slot": False}
"""Metric -> whether it is compared in logarithms."""
Group = list[Curve]


def groups(table: Table, key: str) -> list[Group]:
    """The curves of each living config, one a seed, where every epoch has a value."""
    place, collapsed = table.columns.index(key), table.columns.index("val/collapsed")
    whole = [curves for curves in table.repeats
             if all(len(curve) == table.epochs and not curve[-1][collapsed] for curve in curves)]
    return [[{epoch: row[place] for epoch, row in enumerate(curve, 1)} for curve in curves] for curves in whole
            if all(row[place] is not None for curve in curves for row in curve)]


def cut(curve: Curve, epochs: int) -> Curve:
    """The first epochs of a curve."""
    return {epoch: value for epoch, value in curve.items() if epoch <= epochs}


def split(found: list[Group], epochs: int, log: bool, splits: int) -> dict[str, list[tuple[bool, float]]]:
    """Whether each range held, and its width: of later epochs, by whole and by cut curves."""
    rng, half, said = np.random.default_rng(0), epochs // 2, {"curves": [], "extrapolated": []}
    for _ in range(splits):
        order = rng.permutation(len(found))
        fitted, judged = ([found[each][:1] for each in part] for part in np.array_split(order, 2))
        for (curve,) in judged:
            for name, pool in (("curves", fitted), ("extrapolated", [[cut(each, half)] for (each,) in fitted])):
                said[name] += [_said(each, curve, log) for each in
                               expect(cut(curve, half), pool, range(half + 1, epochs + 1, 3), log=log)]
    return said


def seeds(found: list[Group], epochs: int, log: bool) -> list[tuple[bool, float]]:
    """The same of another seed, epoch by epoch, by the seeds of other configs."""
    several = [group for group in found if len(group) > 1]
    return [_said(each, b, log) for group in several for a in group for b in group if a is not b
            for each in expect(a, [other for other in several if other is not group], range(1, epochs + 1, 3), log=log)]


def verdicts(table: Table) -> tuple[list[bool], list[bool]]:
    """Whether runs are called outside the ranges of a training: other seeds of its config, and worse configs."""
    whole = [curves for curves in table.repeats if all(
        len(curve) == table.epochs and not curve[-1][table.columns.index("val/collapsed")] for curve in curves)]
    same, worse = [], []
    for group in (each for each in whole if len(each) > 1):
        pool = [other for other in whole if other is not group]
        for first in group:
            watched, end = _watched(table, first, pool), _values(table, first)[-1]["val/objective"]
            same += [_outside(watched, _values(table, other)) for other in group if other is not first]
            lower = [rows for others in pool if (rows := _values(table, others[0]))[-1]["val/objective"] < end - 0.1]
            worse += [_outside(watched, rows) for rows in lower[::max(1, len(lower) // 5)]]
    return same, worse


def _values(table: Table, curve: list[list[Any]]) -> list[dict[str, Any]]:
    known = [{key: row[table.columns.index(key)] for key in KEYS} for row in curve]
    return [{"epoch": epoch, **{key: math.nan if value is None else value for key, value in row.items()}}
            for epoch, row in enumerate(known, 1)]


def _watched(table: Table, first: list[list[Any]], pool: list[list[list[list[Any]]]]) -> Production:
    ranges = {}
    for key, log in KEYS.items():
        curve = {row["epoch"]: row[key] for row in _values(table, first)}
        known = [[{row["epoch"]: row[key] for row in _values(table, each)} for each in group] for group in pool]
        told = expect(curve, known, range(1, table.epochs + 1, 3), log=log)
        ranges[key] = {"better": "down" if log else "up", "epochs": [each.epoch for each in told], **{
            side: [getattr(each, side) for each in told] for side in ("low", "expected", "high", "basis")}}
    expected = {"coverage": bands.COVERAGE, "trainings": len(pool), "ranges": ranges}
    return of_mapping({"expected": expected}, "recorded curves")


def _outside(watched: Production, rows: list[dict[str, Any]]) -> bool:
    known = profile.load("lam").model_copy(update={"rules": watched.rules(), "diagnoses": []})
    return verdict(engine.judge_records([watched.placed(row) for row in rows], known, {})) != "healthy"


def _said(found: Range, curve: Curve, log: bool) -> tuple[bool, float]:
    width = np.log(found.high / found.low) if log else found.high - found.low
    return found.holds(curve[found.epoch]), float(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=4, help="0: the verdicts alone")
    asked = parser.parse_args()
    print("| table | metric | configs | curves | extrapolated | seeds | width, flat = 1 |\n" + "|---" * 7 + "|")
    for name in ("pong", "breakout", "deception") if asked.splits else ():
        table = Table(name)
        for key, log in KEYS.items():
            found = groups(table, key)
            said = split(found, table.epochs, log, asked.splits) | {"seeds": seeds(found, table.epochs, log)}
            shares, bands.DAMPING = bands.DAMPING, np.zeros(1)
            flat = split(found, table.epochs, log, asked.splits)["curves"]
            bands.DAMPING = shares
            held = " | ".join(f"{np.mean([hit for hit, _ in rows]):.3f}" if rows else "–" for rows in said.values())
            ratio = np.mean([width for _, width in said["curves"]]) / np.mean([width for _, width in flat])
            print(f"| {name} | {key} | {len(found)} | {held} | {ratio:.2f} |", flush=True)
    print("\n| table | other seeds called outside | worse configs called outside |\n|---|---|---|")
    for name in ("pong", "breakout"):
        shares = (f"{np.mean(rows):.3f} of {len(rows)}" for rows in verdicts(Table(name)))
        print(f"| {name} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
