"""Runs jobs on Ray Tune, and hides Ray Tune: thin adapters between its interfaces and one small protocol.

    Jobs.next()      ->  Searcher.suggest           what to run next
    Jobs.started()   <-  Callback.on_trial_start
    Jobs.record()    <-  TrialScheduler.on_trial_result   returns whether the job goes on
    Jobs.left()      <-  Searcher.on_trial_complete       it ended without a last word

Tune makes trial ids of its own; ours travel in the trial's config, so records, journal and messages
never see Tune's. Tune's own state files are not used: they are written to a temporary folder and
thrown away. `tune.run` is used rather than `Tuner`, which deep-copies searcher and scheduler and so
cuts them off from the journal they write to.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.tune import Callback, Stopper
from ray.tune.error import TuneError
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from record.workload.workload import DEFAULT
from sweeps.spec.sections import Resources
from sweeps.workers import ray_session
from sweeps.workers.cluster import node_of
from sweeps.workers.trainable import TrialTrainable

ERROR_CHARACTERS = 20_000
MEMORY_HOOK = ("ray.air.execution._internal.actor_manager", "RayActorManager", "_actor_task_failed")
# What a Ray that fails raises, beside what a worker of it raised.
FAILURES: tuple[type[Exception], ...] = (RayError, TuneError, ConnectionError)


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        train: dotted path ``module:function`` of ``train(config, run_dir)``; of several workers, of the workload's
            ``together(config, run_dir, gone)``.
        config: the complete run config.
        after: the last epoch that is already known; only later ones are reported.
        silence_seconds: a worker that finishes no epoch for so long kills itself.
        workload: what is trained, by name.
        avoid: ids of machines on which it must not be placed.
        home: the sweep folder, which its machine must see; '' = not asked.
        versions: of the software that its machine must have.
        store: URI of the sweep, where a store keeps it; its machine then needs no folder of the driver's.
    """

    id: str
    train: str
    config: dict[str, Any]
    run_dir: str
    after: int = 0
    silence_seconds: float = 7200.0
    workload: str = DEFAULT
    avoid: tuple[str, ...] = ()
    home: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    store: str = ""


class Jobs(Protocol):
    """Who decides what runs. All calls come from one thread."""

    def next(self) -> Job | Literal["wait", "finished"]:
        """The next job; "wait" while running ones may still bring more, "finished" when none will."""

    def started(self, job_id: str, node: str = "") -> None:
        """A worker has taken the job, on the machine `node`."""

    def placed(self, job_id: str, nodes: list[str]) -> None:
        """The job is several workers, on these machines."""

    def record(self, job_id: str, record: dict[str, Any]) -> bool:
        """An epoch record has come; whether the job goes on."""

    def exhausted(self, job_id: str) -> None:
        """Training has no epoch left although no record ended the job."""

    def failed(self, job_id: str, reason: dict[str, str]) -> None:
        """Training raised."""

    def left(self, job_id: str, lost: bool, error: str = "") -> None:
        """The job is no longer running; `lost`: its process died, and `error` is what Ray knows of it."""

    def stopping(self) -> bool:
        """Whether everything should end now."""


class _Kept:
    """The jobs, and the first error that one of their answers raised: Tune turns it into text, or goes on."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.error: Exception | None = None

    def stopping(self) -> bool:
        """Whether everything should end now."""
        return self.error is not None or self._jobs.stopping()

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self._jobs, name)

        def kept(*args: Any, **named: Any) -> Any:
            try:
                return answer(*args, **named)
            except Exception as error:
                self.error = self.error or error
                raise

        return kept


class _Adapter:
    """What all adapters share: the jobs, which Tune's snapshots must leave out."""

    _jobs: Jobs

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Searcher(_Adapter, Searcher):
    def __init__(self, jobs: Jobs, resources: Resources, errors: dict[str, str], ended: list[str]) -> None:
        super().__init__()
        self._jobs, self._resources, self._errors, self._ended = jobs, resources, errors, ended
        self._ids: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = "finished" if self._jobs.stopping() else self._jobs.next()
        if job == "finished":
            return str(Searcher.FINISHED)
        if not isinstance(job, Job):
            return None
        self._ids[trial_id] = job.id
        asked = self._resources
        place = {"cpu": asked.cpu, "gpu": asked.gpus, "workers": asked.workers, "avoid": list(job.avoid)}
        return {"id": job.id, "job": json.dumps(asdict(job)), "place": json.dumps(place)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        job_id = self._ids.pop(trial_id, None)
        if job_id is not None:  # once: Tune may say it again where its own work on the end of a trial fails
            self._ended.append(trial_id)
            self._jobs.left(job_id, lost=error, error=self._errors.pop(trial_id, ""))

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal holds everything."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Tune's own resume is not used."""
        raise NotImplementedError("a sweep is restored from its journal")


class _Scheduler(_Adapter, FIFOScheduler):
    """Passes results on. Tune tells it of an error before it tells the searcher, and only here with the trial."""

    def __init__(self, jobs: Jobs, errors: dict[str, str], ended: list[str]) -> None:
        super().__init__()
        self._jobs, self._errors, self._ended = jobs, errors, ended

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        ray_session.forget_ended(getattr(tune_controller, "_tune_controller", None), self._ended)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        known = Path(trial.error_file) if trial.error_file else None
        self._errors[trial.trial_id] = known.read_text(errors="replace")[-ERROR_CHARACTERS:] if known else ""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        kind, value = json.loads(result["message"])
        job_id = trial.config["id"]
        if kind == "record" and self._jobs.record(job_id, value):
            return str(TrialScheduler.CONTINUE)
        if kind == "placed":
            self._jobs.placed(job_id, value)
            return str(TrialScheduler.CONTINUE)
        if kind == "exhausted":
            self._jobs.exhausted(job_id)
        elif kind == "failure":
            self._jobs.failed(job_id, value)
            return str(TrialScheduler.CONTINUE)  # into the error that ends the process; stopped, it would be used again
        return str(TrialScheduler.STOP)


class _Starts(_Adapter, Callback):
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._jobs.started(trial.config["id"], node_of(trial.temporary_state.ray_actor))


class _Silence(TrialProgressCallback):
    """In place of Tune's own progress callback, which keeps every trial for what it prints; this one prints nothing.

    Where a user asks Ray for its new output, Tune leaves this one out and prints.
    """

    def __init__(self) -> None: ...

    def _nothing(self, *args: Any, **named: Any) -> None: ...

    on_trial_result = on_trial_error = on_trial_complete = _nothing


class _Stop(_Adapter, Stopper):
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._jobs.stopping()


@contextlib.contextmanager
def _memory_kills_are_deaths(hook: tuple[str, str, str] = MEMORY_HOOK) -> Iterator[None]:
    """A worker that Ray's memory monitor kills is a trial whose process died.

    Tune knows that of RayActorError alone. For the memory monitor's OutOfMemoryError, which is none, it ends the
    whole sweep with "Caught unexpected exception" (seen with Ray 2.60). Where this Ray has no such hook,
    nothing is done.
    """
    manager_class = memory_hook(hook)
    if manager_class is None:
        yield
        return
    name = hook[2]
    original = getattr(manager_class, name)

    def told(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=f"OutOfMemoryError: {exception}")
        original(manager, tracked_actor_task, exception)

    setattr(manager_class, name, told)
    try:
        yield
    finally:
        setattr(manager_class, name, original)


def memory_hook(hook: tuple[str, str, str] = MEMORY_HOOK) -> type | None:
    """Ray's private class that hears of a worker's death; None where this Ray keeps it elsewhere."""
    module, name, method = hook
    try:
        found: type | None = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
    return found if hasattr(found, method) else None


def moved_hooks(hook: tuple[str, str, str] = MEMORY_HOOK) -> list[str]:
    """What this Ray lacks, for people."""
    if memory_hook(hook) is not None:
        return []
    return [f"this Ray ({ray.__version__}) has no {'.'.join(hook)}: a trial that Ray's memory monitor kills "
            "ends the command, which then resumes; install a Ray that pyproject.toml allows"]


def run(jobs: Jobs, resources: Resources, scratch: Path,
        tune_jobs: Callable[[Jobs, Resources, Path], None] | None = None) -> None:
    """Run every job to its end on the Ray that is initialised; returns when `jobs` is finished or stopping.

    Args:
        scratch: folder for Tune's own files, which nobody reads.
        tune_jobs: what runs them; None = Ray Tune.

    Raises:
        whatever `jobs` raises, as it is; else what Ray raises.
    """
    kept = _Kept(jobs)
    try:
        (tune_jobs or _tune)(cast(Jobs, kept), resources, scratch)
    finally:
        if kept.error is not None:
            raise kept.error


def _tune(jobs: Jobs, resources: Resources, scratch: Path) -> None:
    errors: dict[str, str] = {}
    ended: list[str] = []
    with _memory_kills_are_deaths():
        tune.run(
            TrialTrainable,
            name="tune",
            storage_path=str(scratch),
            search_alg=_Searcher(jobs, resources, errors, ended),
            scheduler=_Scheduler(jobs, errors, ended),
            callbacks=[_Starts(jobs), _Silence()],
            stop=_Stop(jobs),
            num_samples=sys.maxsize,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            reuse_actors=True,
            raise_on_failed_trial=False,
            verbose=0,
        )
