"""The first half hour of a new user, typed: each command of README, misspelt, interrupted, from elsewhere.

    python benchmarks/first_half_hour.py [--skip-work] [--whole ANSWERS]

Each command is given in README's order in one folder: three misspellings of it first (its word, an option or a value,
a path), then from another folder, then with Ctrl-C after two seconds (and after twelve, where it works for long), then
as it stands, and once more from another folder with the way to its paths. Seconds are of the whole process, its start
and imports included. docs/first-half-hour.md is what was typed, how long it took, and what was said.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "first-half-hour.md"
INTERRUPT_SECONDS = (2.0, 12.0)
LONG = ("demo", "launch", "confirm", "train")  # which the second Ctrl-C meets at work


class Typed(NamedTuple):
    """What was typed, in which manner, and the answer."""

    manner: str
    line: str
    seconds: float
    code: int
    said: str


def commands() -> list[list[str]]:
    """README's commands, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line, comments=True)[1:] for block in blocks for line in block.splitlines() if line.strip()]


def swapped(word: str) -> str:
    """A word with two letters in the middle changed over, as fingers do."""
    at = next((at for at in range(len(word) // 2, len(word) - 1) if word[at].isalpha() and word[at + 1].isalpha()
               and word[at] != word[at + 1]), None)
    return f"{word}x" if at is None else word[:at] + word[at + 1] + word[at] + word[at + 2:]


def dropped(word: str) -> str:
    """A word whose second letter was not hit; a number with a letter for its last digit."""
    return word[:1] + word[2:] if len(word) > 2 else f"{word[:-1]}o"


def makes_a_folder(words: list[str]) -> bool:
    """Whether its first path is one that it makes, so that another name is no mistake."""
    return words[:2] == ["data", "demo"] or words[0] == "init"


def misspelt(words: list[str]) -> list[list[str]]:
    """Three misspellings: of the command's word, of an option (else of its value), of a path."""
    own = 1 if words[0] in ("data", "sweep") else 0
    option = next((at for at, word in enumerate(words) if word.startswith("--")), len(words) - 1)
    place = len(words) - 1 if makes_a_folder(words) else own + 1
    return [[*words[:at], wrong(words[at]), *words[at + 1:]]
            for at, wrong in ((own, swapped), (option, swapped), (place, dropped))]


def from_elsewhere(words: list[str], here: Path) -> list[str]:
    """The same command in a folder beside, where each path gets the way to it."""
    own = 2 if words[0] in ("data", "sweep") else 1
    return [*words[:own], *(f"../{here.name}/{word}" if (here / word).exists() and not word.startswith("-") else word
                            for word in words[own:])]


def give(folder: Path, words: list[str], manner: str, interrupt: float | None = None) -> Typed:
    """Type it; `interrupt` is after how many seconds Ctrl-C is pressed."""
    begin = time.monotonic()
    process = subprocess.Popen([str(Path(sys.executable).parent / "lam"), *words], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, "PYTHONPATH": str(ROOT)},
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    if interrupt is not None:
        try:
            process.wait(interrupt)
            manner = f"ended before {manner}"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            begin = time.monotonic()
    said, _ = process.communicate(timeout=1500)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode  # as a shell says it
    return Typed(manner, shlex.join(["lam", *words]), time.monotonic() - begin, code, said)


def session(folder: Path, work: bool) -> list[Typed]:
    """Everything, in order; what exists already is not misspelt into being."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    here = folder / "here"
    here.mkdir()
    rows: list[Typed] = []
    for words in commands():
        rows += [give(here, wrong, "misspelt") for wrong in misspelt(words)]
        if not makes_a_folder(words):
            rows.append(give(elsewhere, words, "elsewhere"))
        if work:
            rows += [give(here, words, f"Ctrl-C after {seconds:g} s", seconds)
                     for seconds in INTERRUPT_SECONDS[: 2 if {*words[:2]} & {*LONG} else 1]]
            rows.append(give(here, words, "as it stands"))
            if not makes_a_folder(words):
                rows.append(give(elsewhere, from_elsewhere(words, here), "elsewhere, with the way"))
        print(f"{len(rows)} answers after lam {shlex.join(words)}", flush=True)
    return rows


def gist(said: str, code: int) -> str:
    """What of an answer fits a table: the message of a refusal, else the last line."""
    lines = [line.strip(" │╭╮╰╯─") for line in said.splitlines()]
    lines = [line for line in lines if line]
    chosen = next((line for line in lines if line.startswith("lam: ") or "No such" in line), lines[-1] if lines else "")
    chosen = chosen if code else (lines[-1] if lines else "")
    return re.sub(r"/\S*/(here|elsewhere)", r"\1", chosen)[:230].replace("|", "\\|")


def page(rows: list[Typed]) -> str:
    """docs/first-half-hour.md."""
    said = [f"| {row.manner} | `{row.line}` | {row.seconds:.1f} | {row.code} | {gist(row.said, row.code)} |"
            for row in rows]
    traces = sum("Traceback" in row.said for row in rows)
    refused = sorted(row.seconds for row in rows if row.code == 2)
    return "\n".join([
        "# The first half hour", "",
        "Generated by `python benchmarks/first_half_hour.py`: README's commands typed in order, each misspelt, given",
        "from another folder, interrupted (seconds: from Ctrl-C on), as it stands, and from elsewhere with the way.",
        f"{len(rows)} answers, {traces} tracebacks; {len(refused)} refusals, half of them within "
        f"{refused[len(refused) // 2]:.1f} s,", f"on a machine with other work. {datetime.now(UTC).date()}.", "",
        "| how | typed | s | exit code | what was said last |", "|---|---|---|---|---|", *said, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skip-work", action="store_true", help="only what must be refused")
    parser.add_argument("--whole", type=Path, help="a file for all that was said, from the first line to the last")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = session(Path(folder), not asked.skip_work)
    PAGE.write_text(page(rows))
    if asked.whole:
        asked.whole.write_text("\n".join(
            f"== {row.manner}: {row.line} -> {row.code} after {row.seconds:.1f} s\n{row.said}" for row in rows))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
