"""Is a run called collapsed only if its codes carry nothing? The last epochs of recorded tables.

    python benchmarks/bench_collapse.py [TABLE ...]

A run carries the action where the probe of its last weights tells .05 more of the test videos' actions than always
naming the commonest one. Runs are told apart by whether the lower 95 % bound of control is above 0, and by the verdict.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from tables import Table

from lam import codebook

GAIN = 0.05


def cases(table: Table) -> dict[tuple[bool, str], list[bool]]:
    """(control above 0, verdict) -> of each such run, whether it carries the action."""
    found: dict[tuple[bool, str], list[bool]] = defaultdict(list)
    for row, known in enumerate(table.rows):
        probe = known.get("probe_last") or known["probe"]
        if not probe:
            continue
        record = table.record(row, table.epochs_of(row))
        heeded = (record["val/control_low"] or 0) > 0
        if heeded:  # recorded when a verdict did not ask for control
            record["val/collapsed"] = 0
        found[heeded, codebook.verdict(record)].append(probe["accuracy"] - probe["majority"] > GAIN)
    return found


def main() -> None:
    """Print a row for each case of each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=["deception", "breakout", "pong"])
    print("| table | control above 0 | verdict | runs | carry the action |\n|---|---|---|---|---|")
    for name in parser.parse_args().tables:
        for (heeded, verdict), carries in sorted(cases(Table(name)).items(), reverse=True):
            print(f"| {name} | {'yes' if heeded else 'no'} | {verdict} | {len(carries)} | {sum(carries)} |")


if __name__ == "__main__":
    main()
