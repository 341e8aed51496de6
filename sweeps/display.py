"""What a sweep shows while it runs: a live table on a terminal, one line an event elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sweeps.spec import Sweep
from sweeps.state import SweepState, TrialState, ranking

ROWS = 16
REFRESH_SECONDS = 0.5


class Display(Protocol):
    """Shows events; used as a context manager around the run."""

    def event(self, event: dict[str, Any]) -> None:
        """One journal event has been written."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *error: object) -> None: ...


def display_for(console: Console, sweep: Sweep, state: SweepState, quiet: bool) -> Display:
    """The display that suits the console."""
    if quiet:
        return Silent()
    return LiveTable(console, sweep, state) if console.is_terminal else Lines(console, sweep, state)


class Silent:
    """Shows nothing."""

    def event(self, event: dict[str, Any]) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class Lines(Silent):
    """One plain line an event."""

    def __init__(self, console: Console, sweep: Sweep, state: SweepState) -> None:
        self._console, self._sweep, self._state = console, sweep, state

    def event(self, event: dict[str, Any]) -> None:
        """Print the event's line, if it has one."""
        text = line(event, self._sweep.max_epochs)
        if text:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def line(event: dict[str, Any], max_epochs: int) -> str:
    """One event in words, '' for those nobody waits for."""
    kind, trial = event["event"], event.get("trial")
    if kind == "suggested":
        return f"{trial} suggested {params_text(event['params'])}"
    if kind == "result":
        return (f"{trial} epoch {event['epoch']}/{max_epochs} objective {number(event['objective'])} "
                f"{event['verdict'].replace('_', ' ')}")
    if kind == "completed":
        return f"{trial} completed after {event['epoch']} epochs, objective {number(event['objective'])}"
    if kind in ("stopped", "failed"):
        return f"{trial} {kind} after {event['epoch']} epochs: {event['reason']['sentence']}"
    if kind == "paused":
        return f"{trial} paused after {event['epoch']} epochs: {event['reason']['sentence']}"
    if kind == "interrupted":
        return f"{trial} interrupted after {event['epoch']} epochs, it will go on from there"
    return ""


class LiveTable(Silent):
    """A table of the running and the best trials, redrawn in place."""

    def __init__(self, console: Console, sweep: Sweep, state: SweepState) -> None:
        self._sweep, self._state = sweep, state
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=1 / REFRESH_SECONDS,
                          redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> LiveTable:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def event(self, event: dict[str, Any]) -> None:
        """The table reads the state; nothing to do."""

    def _table(self) -> Group:
        return overview(self._sweep, self._state)


def overview(sweep: Sweep, state: SweepState) -> Group:
    """The table, and below it what is spent, what is left, and the best so far."""
    from sweeps import summary

    lines = [*summary.totals_lines(state), summary.outlook_sentence(sweep, state), summary.best_sentence(sweep, state)]
    front = summary.front(sweep, state)
    if front:
        lines.append(f"not beaten on every objective: {', '.join(front)}")
    return Group(table(sweep, state), *(Text(line) for line in lines))


def show(sweep: Sweep, state: SweepState) -> None:
    """Print the overview once."""
    Console().print(overview(sweep, state))


def follow(folder: Path, seconds: float = 2.0) -> None:
    """Redraw the overview from the journal until the sweep is over; Ctrl-C leaves."""
    from sweeps import folders

    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False) as live:
        while True:
            sweep, state = folders.open_sweep(folder)
            live.update(overview(sweep, state), refresh=True)
            if state.finished:
                return
            time.sleep(seconds)


def table(sweep: Sweep, state: SweepState) -> Table:
    """Running trials first, then the best of the others, then those without a result."""
    spec = sweep.spec
    best = [trial for trial, _ in ranking(state, spec.maximise)]
    ordered = [*state.with_status("started"), *best, *state.trials.values()]
    shown = list({trial.id: trial for trial in ordered}.values())[:ROWS]
    view = Table(title=f"{escape(spec.name)}: {counts_text(state)}", title_justify="left", expand=False)
    for heading in ("trial", "state", "epoch", "objective", "verdict", "knobs"):
        view.add_column(heading, justify="right" if heading in ("epoch", "objective") else "left",
                        no_wrap=heading != "knobs")
    for trial in shown:
        view.add_row(*_row(trial, sweep.max_epochs, spec.maximise))
    return view


def _row(trial: TrialState, max_epochs: int, maximise: bool) -> tuple[str, ...]:
    best = trial.best(maximise)
    return (trial.id, "running" if trial.status == "started" else trial.status, f"{trial.epoch}/{max_epochs}",
            number(best.objective if best else None) if trial.epoch else "-", trial.verdict.replace("_", " "),
            escape(params_text(trial.params)))


def params_text(params: dict[str, Any]) -> str:
    """Knobs on one line, floats with four digits."""
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in params.items())


def number(value: float | None) -> str:
    """Four digits, or 'not finite'."""
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.4g}"


def counts_text(state: SweepState) -> str:
    """How many trials are in which state, the states that are empty left out."""
    counts = {
        "completed": len(state.with_status("completed")),
        "stopped early": len(state.with_status("stopped")),
        "failed": len(state.with_status("failed")),
        "paused": len(state.with_status("paused")),
        "running": len(state.with_status("started")),
        "to go on": len(state.with_status("suggested", "interrupted")),
    }
    collapsed = sum(trial.verdict == "collapsed" for trial in state.trials.values() if trial.final)
    words = [f"{count} {word}" for word, count in counts.items() if count]
    return ", ".join([*words, *([f"{collapsed} of them collapsed"] if collapsed else [])]) or "no trial yet"
