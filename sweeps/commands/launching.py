"""Run or resume a sweep: `launch` is what `lam sweep launch` does.

The same call again resumes. Everything that can be refused is refused before a trial starts; what
can fail later leaves the journal as the state to go on from.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from record.errors import AnswerIsNo, BadInput, EnvironmentFailed, Interrupted
from record.journal import events
from record.progress import Screen
from record.storage import copies
from record.workload.settings import Settings
from sweeps.journal import folders, stores
from sweeps.journal.journal import Journal
from sweeps.journal.state import SweepState
from sweeps.scheduling import scheduler
from sweeps.search import warm
from sweeps.search.baseline import InProduction, in_production
from sweeps.spec import audit, checks, grid
from sweeps.spec.load import load
from sweeps.spec.sections import Resources
from sweeps.spec.space import corners
from sweeps.spec.spec import Sweep
from sweeps.views import display, summary
from sweeps.views.tracking import SweepTracker, allowed
from sweeps.workers import probe, ray_session
from sweeps.workers.machines import Machines
from sweeps.workers.signals import Signals

if TYPE_CHECKING:
    from sweeps.workers.engine import Jobs

Prepare = Callable[[list[Settings]], str]


@dataclass(frozen=True)
class Options:
    """How a command runs its trials; nothing here changes what is computed.

    Attributes:
        address: a Ray cluster's address, None for an embedded Ray.
        quiet: show nothing while trials run.
        train: dotted path that stands in for the workload's own `train`; a seam for tests.
        prepare: stands in for the workload's own `prepare`.
        again: the command that resumes the work, for messages.
        allow_inert: launch although a knob changes nothing.
        warm_start: folder of another sweep whose results the searcher starts from.
        baseline: a production YAML, whose config is the first trial.
        fingerprint: of the data, once they were prepared here.
    """

    address: str | None = None
    quiet: bool = False
    train: str | None = None
    prepare: Prepare | None = None
    again: str | None = None
    allow_inert: bool = False
    warm_start: str | None = None
    baseline: str | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.address is not None and self.address.startswith("ray://"):
            raise BadInput(f"got {self.address!r}, Ray's client, in which a sweep cannot run", source="--address",
                           remedy="run the command on a machine of the cluster with --address auto")


def launch(path: str | Path, storage: str | Path | None = None, options: Options | None = None,
           console: Console | None = None) -> SweepState:
    """Run a sweep until its budget is spent, or resume it.

    Args:
        path: the sweep YAML.
        storage: folder that holds sweeps, or the URI of a store's prefix; default: the spec's.

    Raises:
        BadInput: the spec, the data or the sweep folder is wrong, or another driver is at work.
        AnswerIsNo: the sweep is over and no trial has finished.
        EnvironmentFailed: disk or Ray failed; the same call resumes.
        Interrupted: a signal came; the same call resumes.
    """
    options, console = options or Options(), console or Screen(file=sys.stdout)
    sweep = load(path)
    folder = folders.sweep_folder(sweep, storage)
    folders.check_same(sweep, folder)
    for warning in [*checks.warnings(sweep), *folders.shrunk(sweep, folder), *folders.kept_to_itself(sweep)]:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    return run_in(sweep, folder, options, console)


def run_in(sweep: Sweep, folder: Path, options: Options, console: Console) -> SweepState:
    """Run a validated sweep in its folder; see `launch`."""
    stores.check_store(sweep.home(folder))
    found = warm.matches(sweep, options.warm_start) if options.warm_start else None
    served = in_production(sweep, options.baseline) if options.baseline else None
    fingerprint = prepared(sweep, options)
    checks.check_data(sweep)
    if options.prepare is None and (told := sweep.workload.ranks_by(sweep.base, sweep.spec.primary)):
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    said = [*(found.warnings(fingerprint) if found else ()), *(served.warnings if served else ())]
    for warning in [*said, *folders.another_optuna(folder)]:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    if not (options.allow_inert or (folder / "sweep.json").exists()):
        audit.refuse_inert(sweep, _audited(sweep, options))
    with stores.hold(folder, sweep.home(folder)) as store:
        folders.check_same(sweep, folder)
        folders.check_journal(folder, store)
        folders.write_identity(sweep, folder, fingerprint)
        with contextlib.closing(Journal(folder, store)) as journal:
            if found is not None:
                warm.check_begun(found, journal.state)
            if served is not None:
                served.check_begun(journal.state)
            if not is_over(sweep, journal.state):
                with tracked(sweep, journal, console):
                    _run(sweep, journal, replace(options, fingerprint=fingerprint), console, found, served)
            elif journal.state.finished is None:  # its driver was killed after the last trial
                _begin(sweep, journal)
                _finish(sweep, journal)
            return conclude(sweep, journal, console)


def data_configs(sweep: Sweep) -> list[Settings]:
    """The base, and one config for each different reading of the data in the space."""
    base = sweep.base.mapping()
    configs = [sweep.base, *(sweep.config(params) for params in corners(sweep.spec.space, base))]
    return list({sweep.workload.data_of(config): config for config in configs}.values())


def prepared(sweep: Sweep, options: Options) -> str:
    """Check the data and build what all trials share; the fingerprint of the base config's data."""
    return (options.prepare or sweep.workload.prepare)(data_configs(sweep))


def _audited(sweep: Sweep, options: Options) -> tuple[audit.Audited, ...]:
    """The audit before a launch: what is certain is not probed, and a stand-in for training is not probed at all."""
    if options.train is not None or options.prepare is not None:
        return audit.audit(sweep, None)
    return audit.audit(sweep, steps_per_epoch=sweep.workload.steps_per_epoch(sweep.base), spare=True)


def is_over(sweep: Sweep, state: SweepState) -> bool:
    """Whether there is nothing left to do."""
    if state.unfinished or scheduler.cut_short(sweep.spec, state):
        return False
    if scheduler.wants_another_seed(sweep.spec, state) and not scheduler.spent_budget(sweep.spec, state, trials=False):
        return False
    return scheduler.spent_budget(sweep.spec, state) is not None or searcher_done(sweep, state)


def searcher_done(sweep: Sweep, state: SweepState) -> bool:
    """Whether every point of a grid has been suggested."""
    if sweep.spec.search.grid is None:
        return False
    return grid.unused(grid.grid(sweep.spec.space, sweep.base.mapping(), sweep.spec.seed),
                         [trial.params for trial in state.configs]) is None


def _run(sweep: Sweep, journal: Journal, options: Options, console: Console, found: warm.Matches | None,
         served: InProduction | None) -> None:
    with trial_machinery(options, journal.folder, sweep, console) as (signals, machines, place, scratch):
        from sweeps.workers.driver import SweepDriver  # here: it loads optuna and ray

        driver_display = display.display_for(console, sweep, journal.state, options.quiet, signals)
        driver = SweepDriver(sweep, journal, training(sweep, options),
                             concurrency(sweep, place.fitting, options.address), driver_display.event,
                             lambda: signals.received is not None, machines=machines)
        _begin(sweep, journal)
        if found is not None and not journal.state.trials:
            warm.record(journal, sweep, found)
            console.print(found.sentence, highlight=False, markup=False, soft_wrap=True)
        if served is not None and not journal.state.trials:
            first = display.line(journal.append(served.event(sweep)), sweep.max_epochs)
            console.print(first, highlight=False, markup=False, soft_wrap=True)
        with driver_display:
            try:
                driver.settle()
                run_jobs(driver, place.resources, journal.folder, scratch)
            finally:
                driver.release()
        if signals.received is not None:
            journal.append(events.SweepInterrupted(reason=f"signal {signals.received}"))
            raise interrupted(signals, journal.folder, options.again)
        if driver.refused is not None:
            journal.append(events.SweepHalted(reason=driver.refused))
            raise refused(journal.folder, driver.refused)
        _finish(sweep, journal)


def training(sweep: Sweep, options: Options) -> str:
    """Dotted path of what trains a trial."""
    several = sweep.spec.resources.workers > 1
    return options.train or (sweep.workload.together if several else sweep.workload.train)


def concurrency(sweep: Sweep, fitting: int, address: str | None) -> int | None:
    """Trials at a time. What does not fit would only be asked for too early; a cluster may grow to hold it.

    None = as many as a cluster's machines hold at any time.
    """
    return sweep.spec.concurrency if address else min(sweep.spec.concurrency or fitting, fitting)


def _begin(sweep: Sweep, journal: Journal) -> None:
    from sweeps.workers.entries import session_event

    journal.append(session_event(sweep, begun=bool(journal.state.seq)))


def _finish(sweep: Sweep, journal: Journal) -> None:
    spent = scheduler.spent_budget(sweep.spec, journal.state)
    reason = f"budget spent: {spent}" if spent else "every point of the grid is done"
    journal.append(events.SweepFinished(reason=reason))


@contextlib.contextmanager
def tracked(sweep: Sweep, journal: Journal, console: Console) -> Iterator[None]:
    """The sweep in MLflow, where the base config asks for it, for the length of a with-block."""
    tracking, said = allowed(sweep.base.tracking, sweep.source)
    if said:
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    with contextlib.closing(SweepTracker(journal.folder, tracking, journal.store.read())) as tracker:
        journal.listen = tracker.event
        yield


@contextlib.contextmanager
def trial_machinery(options: Options, folder: Path, sweep: Sweep,
                    console: Console) -> Iterator[tuple[Signals, Machines, Place, Path]]:
    """Ray and the signal handlers for the length of a with-block.

    Yields:
        the signals, the machines, what a trial takes and how many fit, and a folder for what is temporary.
    """
    if not options.quiet:
        console.print(f"starting the workers ({options.address or 'on this machine'})", highlight=False, markup=False)
    with Signals() as signals, ray_session.session(options.address, folder / "ray.log", signals) as scratch:
        if signals.received is not None:
            raise interrupted(signals, folder, options.again)
        from sweeps.workers import engine  # after Ray's loggers are quiet

        for warning in engine.moved_hooks():
            console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
        with probe.held(folder) if options.address else contextlib.nullcontext():
            yield signals, *_machines(options, folder, sweep), scratch


class Place(NamedTuple):
    """What a trial occupies on this Ray, and how many fit at a time now."""

    resources: Resources
    fitting: int


def _machines(options: Options, folder: Path, sweep: Sweep) -> tuple[Machines, Place]:
    """The machines that trials may run on, and how much of them a trial takes."""
    from sweeps.workers import cluster  # after Ray's loggers are quiet

    spec = sweep.spec
    resources = cluster.resolved(spec.resources)
    if options.address is None:
        return Machines(), Place(resources, cluster.fitting(resources, sweep.source))
    configs = data_configs(sweep)
    asked = probe.Asked(str(folder.absolute()), probe.versions(), spec.workload, [each.mapping() for each in configs],
                        options.prepare, options.fingerprint, copies.address(folder) or "",
                        0 if options.prepare else sweep.workload.fetched(configs))
    joined = cluster.RayCluster(resources, asked)
    could = cluster.could_become(cluster.BOOTSTRAP.expanduser())
    fitting = cluster.fitting(resources, sweep.source, spec.concurrency, joined.growth(), could)
    return Machines(joined, workers=resources.workers), Place(resources, fitting)


def run_jobs(jobs: Jobs, resources: Resources, folder: Path, scratch: Path,
             run: Callable[[Jobs, Resources, Path], object] | None = None) -> None:
    """Run the engine (or `run` in its place); what Ray or this machine raises becomes one message.

    Raises:
        EnvironmentFailed: Ray failed, or the system refused (a full temporary disk).
    """
    from sweeps.workers import engine  # here: it loads ray

    try:
        (run or engine.run)(jobs, resources, scratch)
    except engine.FAILURES as error:
        raise _ray_failed(folder, error) from error
    except OSError as error:
        raise EnvironmentFailed(f"{folder}: the system refused: {error}; mend that (Ray's temporary files lie in "
                                f"{scratch.parent}), then run the same command again") from error
    except RuntimeError as error:
        if not raised_in(error, "ray"):
            raise
        raise _ray_failed(folder, error) from error


def _ray_failed(folder: Path, error: Exception) -> EnvironmentFailed:
    return EnvironmentFailed(f"{folder}: Ray failed ({gist(error)}); see ray.log there, then run the same command "
                             "again")


def raised_in(error: BaseException, package: str) -> bool:
    """Whether the line that raised `error` is one of `package`."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").partition(".")[0] == package


def gist(error: Exception) -> str:
    """The line of an error's text that says what happened: the first one, of a traceback the last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if lines[0].startswith("Traceback") else 0][:300]


def refused(folder: Path, what: str) -> EnvironmentFailed:
    """The error of a machine that refused a trial what it needs."""
    return EnvironmentFailed(f"{copies.where(folder)}: {what}; all results so far are kept; mend that, the same "
                             "command then resumes")


def interrupted(signals: Signals, folder: Path, again: str | None) -> Interrupted:
    """The error of a signal, with its exit code and the command that goes on."""
    error = Interrupted(f"interrupted; all results so far are in {copies.where(folder)}; resume with: "
                        f"{again or 'the same command'}")
    error.exit_code = signals.exit_code
    return error


def conclude(sweep: Sweep, journal: Journal, console: Console) -> SweepState:
    """Print what the sweep came to.

    Raises:
        AnswerIsNo: no trial completed.
    """
    state, shown = journal.state, copies.where(journal.folder)
    lines = [*summary.totals_lines(state), summary.best_sentence(sweep, state), f"sweep folder: {shown}"]
    for text in lines:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if not state.with_status("completed"):
        reasons = [trial.reason.sentence for trial in state.with_status("failed", "stopped") if trial.reason]
        seen = "; ".join(itertools.islice(dict.fromkeys(reasons), 3))
        raise AnswerIsNo(f"{shown}: no trial completed ({seen or 'none was started'}); "
                         f"'lam sweep explain {shown}' tells each one's story")
    return state
