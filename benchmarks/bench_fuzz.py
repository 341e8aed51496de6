"""How long every reader stands files damaged by chance: cases, crashes, the slowest answer, the memory at most.

    python benchmarks/bench_fuzz.py [--minutes 30] [--cases 400]

Rounds of `tests/test_fuzz.py` and `tests/test_hostile_yaml.py`, each a process of its own with cases that were not
drawn before, until the time is over. A crash is a test that fails: a traceback, an answer that takes more than 5 s of
the processor or a minute by the clock, or 1 GiB more memory. The failing round's output is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ("tests/test_fuzz.py", "tests/test_hostile_yaml.py")


def one_round(cases: int, figures: Path) -> dict[str, float]:
    """A round's figures; `crashes` are its failing tests."""
    figures.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "hypothesis",
         "--hypothesis-profile=fuzz", *TESTS], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "FUZZ_CASES": str(cases), "FUZZ_FIGURES": str(figures)})
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-5_000:], flush=True)
    crashes = done.stdout.count("\nFAILED ") + done.stdout.count("\nERROR ")
    found = json.loads(figures.read_text()) if figures.exists() else {}
    return {**found, "crashes": max(crashes, int(done.returncode != 0))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cases", type=int, default=400)
    asked = parser.parse_args()
    begin, rounds = time.monotonic(), list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - begin < 60 * asked.minutes:
            rounds.append(one_round(asked.cases, Path(folder) / "figures.json"))
            print(json.dumps(rounds[-1]), flush=True)
    total = {key: sum(row.get(key, 0) for row in rounds) for key in ("cases", "refused", "crashes")}
    print(f"{(time.monotonic() - begin) / 60:.1f} minutes, {len(rounds)} rounds: {total['cases']:,.0f} cases, "
          f"{total['refused']:,.0f} refused in words, {total['crashes']:.0f} crashes, slowest answer "
          f"{max(row.get('slowest', 0) for row in rounds):.2f} s of the processor ("
          f"{max(row.get('longest', 0) for row in rounds):.2f} s by the clock), memory of the process at most "
          f"{max(row.get('peak', 0) for row in rounds) / 2**30:.2f} GiB")
    sys.exit(1 if total["crashes"] else 0)


if __name__ == "__main__":
    main()
