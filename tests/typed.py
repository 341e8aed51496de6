"""What a person types, answered in this process, which need not import everything again."""

from __future__ import annotations

import contextlib
import io
import signal
from pathlib import Path
from typing import NamedTuple

from lam.cli import main


class Answer(NamedTuple):
    """What a command leaves: its exit code and its two streams."""

    code: int
    out: str
    err: str


def lam(folder: Path, *words: str) -> Answer:
    """`lam` with these words, in a folder."""
    before, out, err = signal.getsignal(signal.SIGTERM), io.StringIO(), io.StringIO()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main([*words])
    except SystemExit as end:
        return Answer(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        signal.signal(signal.SIGTERM, before)
    raise AssertionError("a command ends with its exit code")
