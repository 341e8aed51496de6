"""`lam label RUN --ask` on the terminal: opens the page, waits, and says what was given and what is next."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path

import typer

from lam.config import of_run
from lam.data import labels
from lam.data.manifest import SplitName
from lam.labelling import questions
from lam.labelling.page import Page
from lam.labelling.questions import Session
from record import text
from record.run import RunFolder

POLL_SECONDS = 0.2


def ask(run: Path, split: SplitName, count: int, port: int, browser: bool) -> None:
    """Serve the page until every question has its answer, or Ctrl-C."""
    config = of_run(RunFolder(run))
    session = questions.begin(config, split, count)
    with Page(session, port) as page:
        typer.echo(f"{text.count(len(session.questions), 'transition')} of {split}: {page.url}")
        typer.echo("press the number of the action on that page; answers are kept as they are given, Ctrl-C ends")
        if browser:
            webbrowser.open(page.url)
        _wait(session)
    typer.echo(f"{text.count(session.given, 'label')} given, in {session.folder / labels.FILE_NAME}")
    typer.echo(f"next: lam evaluate {run} --split {split}")


def _wait(session: Session) -> None:
    """Until every question has its answer, or Ctrl-C, which is the usual end of a sitting."""
    try:
        while len(session.answers) < len(session.questions):
            time.sleep(POLL_SECONDS)
        time.sleep(POLL_SECONDS)  # the page still asks for what comes after the last one
    except KeyboardInterrupt:
        typer.echo("")
