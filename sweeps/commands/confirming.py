"""Train the best trials again, on seeds that no trial of the sweep has used, with the full budget.

A sweep picks the best of many noisy numbers, so its best number is too good. The numbers here are
not picked: `confirm.json` holds each trial's mean over fresh seeds with a 95 % t interval, and the
paired differences between trials, which share their seeds. A fresh seed is judged as the sweep
judges its trials, see `record.standing`.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from record import documents, files, standing
from record.errors import AnswerIsNo, BadInput
from record.journal.results import Result, result_of
from record.progress import Screen
from record.run import RunFolder
from record.standing import t_interval
from record.storage import copies
from record.workload.settings import Settings
from record.workload.workload import Workload
from sweeps.commands import launching
from sweeps.journal import folders, stores
from sweeps.journal.state import SweepState, TrialState, ranking
from sweeps.scheduling import scheduler
from sweeps.spec.spec import Sweep
from sweeps.views import display
from sweeps.workers import probe
from sweeps.workers.engine import Job
from sweeps.workers.entries import is_judged, result_event
from sweeps.workers.lost import MAX_LOSSES
from sweeps.workers.machines import Machines

FIRST_SEED = 1000


@dataclass(frozen=True)
class Rerun:
    """One trial on one fresh seed.

    Attributes:
        fingerprint: of the trial's own config, whatever the fresh seed and the epochs of the full budget.
        name: ``<trial>/seed-<seed>``, the run's folder under ``confirm/``.
    """

    trial: str
    seed: int
    config: Settings
    fingerprint: str

    @property
    def name(self) -> str:
        """Where it is kept, and how messages name it."""
        return f"{self.trial}/seed-{self.seed}"


def confirm(folder: str | Path, top: int, seeds: int, options: launching.Options | None = None,
            console: Console | None = None, trials: Sequence[str] = ()) -> documents.Confirmation:
    """Retrain the best `top` trials on `seeds` fresh seeds each; what is already there is not done again.

    Args:
        trials: also these, and those that confirm.json tells of already; `top` may then be 0.

    Returns:
        The contents of confirm.json.

    Raises:
        BadInput: no sweep, a count below 1, or data that is not the sweep's.
        AnswerIsNo: the sweep has no trial to confirm, or a run did not train to the end.
    """
    options, console = options or launching.Options(), console or Screen(file=sys.stdout)
    for name, count, least in (("--top", top, 0 if trials else 1), ("--seeds", seeds, 1)):
        if count < least:
            raise BadInput(f"got {count}, expected {least} or more", source=name)
    folder = files.plain(folder)
    copies.bring(folder, "confirm")
    sweep, state = folders.open_sweep(folder)
    reruns = plan(sweep, state, top, seeds, [*trials, *_known(folder)] if trials else ())
    if not reruns:
        raise AnswerIsNo(f"{copies.where(folder)}: no trial has a result to confirm; "
                         f"'lam sweep explain {copies.where(folder)}' tells each one's story")
    with stores.hold(folder, sweep.home(folder)):
        options = replace(options, fingerprint=launching.prepared(sweep, options))
        folders.check_data(folder, options.fingerprint)
        _run(sweep, folder, reruns, options, console)
        copies.bring(folder, "confirm")
        found = summarise(sweep, reruns, folder)
        documents.write(folder / "confirm.json", found)
        copies.publish(folder, "confirm.json")
    undone = [rerun.name for rerun in reruns if not is_done(sweep.workload, _run_folder(folder, rerun), rerun.config)]
    if undone:
        raise AnswerIsNo(f"{folder}: {', '.join(undone)} did not train to the end and count as missing; output.log in "
                         f"{copies.where(folder / 'confirm')} shows why, the same command tries again")
    return found


def plan(sweep: Sweep, state: SweepState, top: int, seeds: int, trials: Sequence[str] = ()) -> list[Rerun]:
    """The runs that `confirm` makes, best trial first.

    Raises:
        BadInput: one of `trials` has no result to confirm.
    """
    rows = [trial for trial, _ in ranking(state, sweep.spec.maximise, codes=sweep.needs_codes)]
    unknown = [name for name in trials if name not in {trial.id for trial in rows}]
    if unknown:
        raise BadInput(f"got {unknown[0]!r}, which did not end with a result of its own", source="--trial",
                       remedy=f"these did: {', '.join(trial.id for trial in rows[:20]) or 'none'}")
    chosen = [(trial, sweep.config(trial.params)) for place, trial in enumerate(rows)
              if place < top or trial.id in trials]
    fresh = fresh_seeds(sweep, state, seeds)
    return [Rerun(trial.id, seed, config.replace(seed=seed, num_epochs=full_epochs(sweep, trial)), config.fingerprint())
            for trial, config in chosen for seed in fresh]


def _known(folder: Path) -> list[str]:
    """The trials that confirm.json tells of."""
    file = folder / "confirm.json"
    return [row.trial for row in documents.load_document(documents.Confirmation, file).trials] if file.exists() else []


def full_epochs(sweep: Sweep, trial: TrialState) -> int:
    """Epochs of the full budget: what the sweep says, or as many as its TFLOPs buy this config."""
    return scheduler.full_epochs(sweep.spec, trial, sweep.max_epochs)


def fresh_seeds(sweep: Sweep, state: SweepState, count: int) -> list[int]:
    """The first `count` seeds from FIRST_SEED on that neither the base nor any trial has used."""
    used = {sweep.base.seed, *(trial.params.get("seed", trial.seed) for trial in state.trials.values())}
    return list(itertools.islice((seed for seed in itertools.count(FIRST_SEED) if seed not in used), count))


def _run(sweep: Sweep, folder: Path, reruns: list[Rerun], options: launching.Options, console: Console) -> None:
    missing = [rerun for rerun in reruns if not is_done(sweep.workload, _run_folder(folder, rerun), rerun.config)]
    if not missing:
        return
    with launching.trial_machinery(options, folder, sweep, console) as (signals, machines, place, scratch):
        jobs = _ConfirmJobs(sweep, folder, missing, options, None if options.address else place.fitting, console,
                            lambda: signals.received is not None, machines)
        jobs.await_machines()
        launching.run_jobs(jobs, place.resources, folder, scratch)
        if signals.received is not None:
            raise launching.interrupted(signals, folder, options.again)
        if jobs.refused is not None:
            raise launching.refused(folder, jobs.refused)


class _ConfirmJobs:
    """`sweeps.workers.engine.Jobs`: every run to its end, no early stopping but for divergence."""

    def __init__(self, sweep: Sweep, folder: Path, reruns: list[Rerun], options: launching.Options,
                 concurrency: int | None, console: Console, stopping: Callable[[], bool],
                 machines: Machines | None = None) -> None:
        self._sweep, self._folder, self._train, self._console = (
            sweep, folder, launching.training(sweep, options), console)
        self._waiting, self._concurrency, self._asked_to_stop = list(reruns), concurrency, stopping
        self.refused: str | None = None
        self._quiet = options.quiet
        self._reruns = {rerun.name: rerun for rerun in reruns}
        self._live: set[str] = set()
        self._ended: set[str] = set()
        self._losses: dict[str, int] = {}
        self._machines = machines or Machines()

    def await_machines(self) -> None:
        """Until each machine of the cluster has answered its probe."""
        for event in self._machines.answers(self._asked_to_stop):
            self._say(display.line(event, self._sweep.max_epochs))

    def next(self) -> Job | Literal["wait", "finished"]:
        room = self._machines.capacity if self._concurrency is None else self._concurrency
        if len(self._live) >= room or not self._waiting or self.refused:
            return "wait" if self._live else "finished"
        rerun = self._waiting.pop(0)
        self._live.add(rerun.name)
        folder = _run_folder(self._folder, rerun)
        after = max((record["epoch"] for record in folder.metrics()), default=0)
        home = self._folder if (self._folder / "sweep.json").exists() else ""
        return Job(rerun.name, self._train, rerun.config.mapping(), str(folder.path), after,
                   self._sweep.spec.hang_minutes * 60, self._sweep.spec.workload, self._machines.avoided, str(home),
                   probe.versions(), copies.address(self._folder) or "")

    def started(self, job_id: str, node: str = "") -> None:
        self._machines.started(job_id, node)
        self._say(f"{job_id} started")

    def placed(self, job_id: str, nodes: list[str]) -> None:
        self._machines.started(job_id, *nodes)

    def record(self, job_id: str, record: dict[str, Any]) -> bool:
        verdict = self._sweep.workload.verdict(record)
        self._losses.pop(job_id, None)
        if is_judged(record, verdict):
            rerun = self._reruns[job_id]
            told = result_event(self._sweep.spec, rerun.trial, record, verdict).model_copy(update={"trial": job_id})
            self._say(display.line(told, rerun.config.num_epochs))
        if verdict == "nonfinite" or record["epoch"] >= self._reruns[job_id].config.num_epochs:
            self._ended.add(job_id)
        return job_id not in self._ended and not self._machines.leaves(job_id)

    def exhausted(self, job_id: str) -> None:
        self._ended.add(job_id)

    def stopping(self) -> bool:
        for event in self._machines.look():
            self._say(display.line(event, self._sweep.max_epochs))
        self.refused = self.refused or self._machines.hopeless() or None
        return self.refused is not None or self._asked_to_stop()

    def failed(self, job_id: str, reason: dict[str, str]) -> None:
        if reason["rule"] == "environment":
            out = self._machines.refused(job_id, reason["sentence"], reason.get("node", ""))
            for event in out or ():
                self._say(display.line(event, self._sweep.max_epochs))
            if out is None:
                self.refused = f"{job_id}: {reason['sentence']}"
            return
        self._ended.add(job_id)
        self._say(f"{job_id} failed: {reason['sentence']}")

    def left(self, job_id: str, lost: bool, error: str = "") -> None:
        self._live.discard(job_id)
        because = self._machines.left(job_id, lost, error)
        self._losses[job_id] = self._losses.get(job_id, 0) + (lost and not because)
        if job_id in self._ended:
            return
        if self._losses[job_id] < MAX_LOSSES:
            self._waiting.append(self._reruns[job_id])
        else:
            self._say(f"{job_id} failed: its process died {MAX_LOSSES} times in a row; see output.log in its folder")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _run_folder(folder: Path, rerun: Rerun) -> RunFolder:
    return RunFolder(folder / "confirm" / rerun.name)


def is_done(trained: Workload, run: RunFolder, config: Settings) -> bool:
    """Whether a run was trained to its end, or failed for good."""
    if not run.exists():
        return False
    epoch = max((record["epoch"] for record in run.metrics()), default=0)
    by_itself = run.document().state == "finished"
    return _failed(trained, run) or standing.is_trained(epoch, config.num_epochs, by_itself)


def _failed(trained: Workload, run: RunFolder) -> bool:
    """Whether it diverged, or its health profile ended it; the sweep leaves such trials out, too."""
    return run.document().state == "failed" or any(
        trained.verdict(record) == "nonfinite" for record in run.metrics()[-1:])


def summarise(sweep: Sweep, reruns: list[Rerun], folder: Path) -> documents.Confirmation:
    """confirm.json, computed from the runs' records."""
    trials = [_of_trial(sweep, folder, list(group))
              for _, group in itertools.groupby(reruns, key=lambda rerun: rerun.trial)]
    return documents.Confirmation(objective=sweep.spec.primary, trials=trials,
                                  differences=[difference(a, b) for a, b in itertools.combinations(trials, 2)])


def _of_trial(sweep: Sweep, folder: Path, reruns: list[Rerun]) -> documents.Confirmed:
    outcomes = [outcome(sweep, _run_folder(folder, rerun), rerun.config) for rerun in reruns]
    values = [found.objective if found else math.nan for found in outcomes]
    mean, low, high = t_interval(values)
    sound = [found for found in outcomes if found and standing.is_sound(found.verdict, sweep.needs_codes)]
    return documents.Confirmed(
        trial=reruns[0].trial, config_fingerprint=reruns[0].fingerprint, seeds=[rerun.seed for rerun in reruns],
        values=list(values), mean=mean, low=low, high=high, live=len(sound),
        outside=sum(found.violation > 0 for found in sound))


def outcome(sweep: Sweep, run: RunFolder, config: Settings) -> Result | None:
    """A run as the sweep would judge it; None where it failed, was not validated or not trained to its end."""
    if not is_done(sweep.workload, run, config) or _failed(sweep.workload, run):
        return None
    results = [result_of(result_event(sweep.spec, run.path.name, record, verdict)) for record in run.metrics()
               if is_judged(record, verdict := sweep.workload.verdict(record))]
    return standing.ended(results, sweep.spec.maximise)


def difference(a: documents.Confirmed, b: documents.Confirmed) -> documents.Difference:
    """Paired difference a - b over common seeds, with its 95 % t interval."""
    pairs = [math.nan if x is None or y is None else x - y for x, y in zip(a.values, b.values, strict=True)]
    mean, low, high = t_interval(pairs)
    return documents.Difference(a=a.trial, b=b.trial, mean=mean, low=low, high=high)
