"""What a sweep shows while it runs: a live table on a terminal, one line an event elsewhere."""

from __future__ import annotations

import bisect
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from record.journal import events, machines
from record.progress import Screen
from record.text import count, short, words
from sweeps.journal.state import SweepState, TrialState, ranking
from sweeps.spec.spec import Sweep
from sweeps.views import outlook, summary
from sweeps.views.looking import Seen, Watch
from sweeps.views.words import counts_text, params_text
from sweeps.workers.signals import STOPPING, Signals

ROWS = 16
REFRESH_SECONDS = 0.5


class Display(Protocol):
    """Shows events; used as a context manager around the run."""

    def event(self, event: events.JournalEvent) -> None:
        """One journal event has been written."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *error: object) -> None: ...


def display_for(console: Console, sweep: Sweep, state: SweepState, quiet: bool,
                signals: Signals | None = None) -> Display:
    """The display that suits the console.

    Args:
        signals: what hears Ctrl-C, for a display that says so itself.
    """
    if quiet:
        return Silent()
    return LiveTable(console, sweep, state, signals) if console.is_terminal else Lines(console, sweep)


class Silent:
    """Shows nothing."""

    def event(self, event: events.JournalEvent) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class Lines(Silent):
    """One plain line an event."""

    def __init__(self, console: Console, sweep: Sweep) -> None:
        self._console, self._sweep = console, sweep

    def event(self, event: events.JournalEvent) -> None:
        """Print the event's line, if it has one."""
        text = line(event, self._sweep.max_epochs)
        if text:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def line(event: events.JournalEvent, max_epochs: int) -> str:
    """One event in words, '' for those nobody waits for."""
    match event:
        case events.Suggested():
            why = f" ({event.reason.sentence})" if event.reason else ""
            return f"{event.trial} suggested {params_text(event.params)}{why}"
        case events.Result():
            return (f"{event.trial} epoch {event.epoch}/{max_epochs} objective {short(event.objective)} "
                    f"{words(event.verdict)}")
        case events.Completed():
            return f"{event.trial} completed after {event.epoch} epochs, objective {short(event.objective)}"
        case events.Cut():
            return f"{event.trial} {event.event} after {event.epoch} epochs: {event.reason.sentence}"
        case events.TrialInterrupted():
            why = f" ({event.because})" if event.because else ""
            return f"{event.trial} interrupted after {event.epoch} epochs{why}, it will go on from there"
    return _of_machines(event)


def _of_machines(event: events.JournalEvent) -> str:
    """An event of the cluster in words, '' for another."""
    match event:
        case events.MachineJoined():
            each = "trial" if event.workers == 1 else "worker"
            of = "" if event.workers == 1 else f", {event.workers} of which are a trial"
            return f"machine {event.host} takes up to {count(event.fits, each)}{of}"
        case events.MachineEvent():
            return machines.words(event)
        case events.Waiting():
            return event.reason
    return ""


class LiveTable(Silent):
    """A table of the running and the best trials, redrawn in place; it says too that a signal has been heard."""

    def __init__(self, console: Console, sweep: Sweep, state: SweepState, signals: Signals | None = None) -> None:
        self._sweep, self._state, self._signals = sweep, state, signals
        self._shown: Fitted | None = None
        self._next = 0.0
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=1 / REFRESH_SECONDS,
                          redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> LiveTable:
        if self._signals is not None:
            self._signals.announced = True  # what is written past the table would be drawn over
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)
        if self._signals is not None:
            self._signals.announced = False

    def event(self, event: events.JournalEvent) -> None:
        """The table reads the state; nothing to do."""

    def _view(self) -> Fitted:
        """Made anew for at most a tenth of the time: in a long sweep it ranks thousands of trials."""
        stopping = self._signals is not None and self._signals.received is not None
        begin = time.monotonic()
        if self._shown is None or begin >= self._next or stopping:
            self._shown = Fitted(self._sweep, self._state.at(datetime.now(UTC)), notes=(STOPPING,) if stopping else ())
            self._next = begin + 10 * (time.monotonic() - begin)
        return self._shown


class Fitted:
    """The overview with as many trials as the terminal has room for; the sentences come first and stay."""

    def __init__(self, sweep: Sweep, state: SweepState, at_work: bool | None = True, notes: Sequence[str] = ()) -> None:
        self._sweep, self._state, self._lines = sweep, state, [*notes, *sentences(sweep, state, at_work)]
        self._trials = in_order(sweep, state)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many rows as fit, at least one."""
        trials = self._trials

        def view(rows: int) -> Group:
            # The empty last line takes the terminal's own ^C; at the end of a full one it would push the table up.
            return Group(*map(Text, self._lines), table(self._sweep, self._state, trials[:rows]), Text(""))

        def too_tall(rows: int) -> bool:
            return len(console.render_lines(view(rows), options.update(height=None))) > console.size.height - 1

        yield view(max(1, bisect.bisect_left(range(1, len(trials) + 1), True, key=too_tall)))


def sentences(sweep: Sweep, state: SweepState, at_work: bool | None = True) -> list[str]:
    """What is spent, what is left, and the best so far."""
    lines = [*summary.cluster_lines(state), *summary.totals_lines(state), outlook.sentence(sweep, state, at_work),
             summary.best_sentence(sweep, state)]
    front = summary.front(sweep, state)
    return [*lines, *([f"not beaten on every objective: {', '.join(front)}"] if front else [])]


def show(seen: Seen) -> None:
    """Print the overview once, the sentences below the table."""
    lines = [*sentences(seen.sweep, seen.state, seen.at_work), *seen.notes]
    Screen().print(Group(table(seen.sweep, seen.state), *map(Text, lines)))


def follow(folder: Path, seconds: float = 2.0, console: Console | None = None) -> None:
    """Redraw the overview from the journal until the sweep is over; a line an event where that is no terminal.

    Ctrl-C leaves.
    """
    console = console or Screen()
    with contextlib.suppress(KeyboardInterrupt):
        if not console.is_terminal:
            _follow_lines(folder, seconds, console)
            return
        watch = Watch(folder)
        with Live(console=console, auto_refresh=False) as live:
            while not (seen := watch.look()).state.finished:
                live.update(_fitted(seen), refresh=True)
                time.sleep(seconds)
            live.update(_fitted(seen), refresh=True)


def _fitted(seen: Seen) -> Fitted:
    return Fitted(seen.sweep, seen.state, seen.at_work, seen.notes)


def _follow_lines(folder: Path, seconds: float, console: Console) -> None:
    """Events as they come, then the sentences; once it is so, that no driver is at work."""
    watch, said = Watch(folder, lambda sweep, event: Lines(console, sweep).event(event)), False
    while True:
        seen = watch.look()
        for note in seen.notes if not said else ():
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        said = bool(seen.notes)
        if seen.state.finished:
            for text in sentences(seen.sweep, seen.state):
                console.print(text, highlight=False, markup=False, soft_wrap=True)
            return
        time.sleep(seconds)


def in_order(sweep: Sweep, state: SweepState) -> list[TrialState]:
    """The trials to show: running ones first, then the best of the others, then those without a result."""
    best = [trial for trial, _ in ranking(state, sweep.spec.maximise, True, sweep.needs_codes)]
    ordered = [*state.with_status("started"), *best, *state.trials.values()]
    return list({trial.id: trial for trial in ordered}.values())[:ROWS]


def table(sweep: Sweep, state: SweepState, trials: Sequence[TrialState] | None = None) -> Table:
    """One row a trial; default: those of `in_order`."""
    spec = sweep.spec
    shown = in_order(sweep, state) if trials is None else trials
    view = Table(title=f"{escape(spec.name)}: {counts_text(state)}", title_justify="left", box=SIMPLE_HEAD,
                 padding=0)  # every column that is left goes to the knobs
    for heading in ("trial", "state", "epoch", "best", "verdict", "knobs"):
        view.add_column(heading, justify="right" if heading in ("epoch", "best") else "left",
                        no_wrap=heading not in ("verdict", "knobs"), overflow="fold",
                        max_width=len("actions ignored") if heading == "verdict" else None)
    for trial in shown:
        view.add_row(*_row(trial, sweep.max_epochs, spec.maximise))
    return view


def _row(trial: TrialState, max_epochs: int, maximise: bool) -> tuple[str, ...]:
    best = trial.best(maximise)
    objective = short(best.objective if best else None) if trial.epoch else "-"
    again = f"repeats {trial.repeats} with seed {trial.seed}: " if trial.repeats else ""
    return (trial.id, "running" if trial.status == "started" else trial.status, f"{trial.epoch}/{max_epochs}",
            objective + (f" at {best.epoch}" if best and best.epoch != trial.epoch else ""),
            _verdicts(trial, best.verdict if best else ""), escape(again + params_text(trial.params)))


def _verdicts(trial: TrialState, at_best: str) -> str:
    """The verdict at the best epoch, and the last one where it is another."""
    found = dict.fromkeys(filter(None, (at_best, trial.verdict)))
    return words(", then ".join(found))
