"""All inputs of `tests/test_inputs_*.py` once more, counted: `python tests/tally_inputs.py`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

CLASSES = ("Dangerous", "Crash", "Hang", "Wrong", "Unclear")


class Tally:
    """Counts the rows as they end; the five classes are those of `tests/inputs.py`."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.named: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "[" not in report.nodeid or report.skipped or (report.when != "call" and report.passed):
            return
        area = report.nodeid.split("::")[1].partition("[")[0].removeprefix("test_").replace("_", " ")
        said = str(report.longrepr) if report.failed else ""
        found = next((name for name in CLASSES if f"inputs.{name}" in said), "Crash" if said else "clear")
        self.counts.setdefault(area, Counter())[found] += 1
        if found != "clear":
            self.named.append(f"{found}: {report.nodeid}")

    def table(self) -> str:
        """A row an area, and all."""
        rows = [*self.counts.items(), ("all", sum(self.counts.values(), Counter()))]
        head = f"| kind of input | cases | clear | {' | '.join(name.lower() for name in CLASSES)} |"
        body = [f"| {area} | {sum(found.values())} | {found['clear']} | {' | '.join(str(found[c]) for c in CLASSES)} |"
                for area, found in rows]
        return "\n".join([head, "|---" * (3 + len(CLASSES)) + "|", *body, *self.named])


if __name__ == "__main__":
    tally = Tally()
    files = sorted(map(str, Path(__file__).parent.glob("test_inputs_*.py")))
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-k", "not by_two_of_the_commands"]  # the same as by all
    pytest.main([*options, *sys.argv[1:], *files], plugins=[tally])
    print(tally.table())
