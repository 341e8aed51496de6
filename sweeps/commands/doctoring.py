"""`lam doctor`: whether this machine, and what a YAML names, can train; each finding with its remedy.

Each check does the real thing in small (writes and syncs a file, starts Ray and asks it for an answer, reads the data)
and none of them changes anything that stays.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
from packaging.requirements import Requirement

from record import files, provenance, yamlio
from record.errors import BadInput, LamError
from record.storage import addresses, copies
from record.storage.store import Store
from record.text import gist
from record.workload import workload
from record.workload.settings import Settings
from sweeps.commands.launching import data_configs
from sweeps.journal import folders, stores
from sweeps.spec.load import load
from sweeps.spec.sections import Resources
from sweeps.workers import ray_session
from sweeps.workers.signals import Signals

State = Literal["ok", "warning", "failed"]
GIB = 1 << 30
LITTLE_MEMORY, LITTLE_DISK, FEW_FILES = 2 * GIB, 5 * GIB, 1024


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    Attributes:
        name: what was looked at.
        found: what was found.
        remedy: what to do; '' where nothing.
    """

    name: str
    state: State
    found: str
    remedy: str = ""

    def line(self) -> str:
        """As one line."""
        return f"{self.state:<8} {self.name}: {self.found}{f'; {self.remedy}' if self.remedy else ''}"


class Subject(NamedTuple):
    """What a YAML asks for: the configs whose data are read, where results go, what a trial needs."""

    kind: workload.Workload
    configs: list[Settings]
    storage: Path | str
    journal: Path | str | None
    resources: Resources | None


def examine(file: Path | None, storage: str, address: str | None) -> Iterator[Check]:
    """The checks one by one, as they are answered; none of them raises.

    Args:
        file: a run's or a sweep's YAML; None: only what does not depend on one.
        storage: where results go if the YAML does not say: a folder, or the URI of a store.
        address: a Ray cluster's address; None: a Ray of its own.
    """
    yield from _versions()
    yield from _machine()
    subject: list[Subject] = []
    if file is not None:
        yield answered("config", lambda: _read(file, storage, subject))
    for found in subject:
        yield answered("data", partial(_data, found))
        if isinstance(found.journal, str):
            yield answered("journal", partial(_journal, found.journal))
    yield answered("storage", lambda: _storage(subject[0].storage if subject else storage))
    yield answered("Ray", lambda: _ray(address, subject[0].resources if subject else None))
    yield from _trackers(subject)


def answered(name: str, look: Callable[[], Check]) -> Check:
    """The check; where it could not be made, that as its answer."""
    try:
        return look()
    except LamError as error:
        return Check(name, "failed", str(error))
    except Exception as error:  # a doctor who falls ill says so and goes on
        return Check(name, "failed", f"the check itself failed ({gist(error)})", "put this line into a bug report")


# ---- software and machine


def _versions() -> Iterator[Check]:
    commit = provenance.git_commit()
    found = provenance.versions()
    python = found.pop("python")
    yield Check("versions", "ok", ", ".join([f"python {python}", *(f"{name} {what}" for name, what in found.items())])
                + (f" (commit {commit[:8]})" if commit else ""))
    for line in requires("lamsweep") or ():
        wanted = Requirement(line)
        if wanted.marker is None:
            yield from _mismatch(wanted)


def _mismatch(wanted: Requirement) -> Iterator[Check]:
    try:
        have = version(wanted.name)
    except PackageNotFoundError:
        have = "nothing"
    if have == "nothing" or not wanted.specifier.contains(have, prereleases=True):
        yield Check(wanted.name, "failed", f"{have} is installed, {wanted} is needed", f"pip install '{wanted}'")


def _machine() -> Iterator[Check]:
    memory = psutil.virtual_memory()
    yield Check("memory", "warning" if memory.available < LITTLE_MEMORY else "ok",
                f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free, {ray_session.cpus()} CPUs",
                "close other programs, or ask for a smaller batch_size" if memory.available < LITTLE_MEMORY else "")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FEW_FILES
    yield Check("open files", "warning" if few else "ok", f"at most {soft} (up to {hard})",
                f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}" if few else "")
    yield answered("GPU", _gpu)


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return Check("GPU", "ok", ", ".join(names))
    if shutil.which("nvidia-smi") is not None:
        return Check("GPU", "warning", f"there is a driver, and torch {torch.__version__} finds no GPU",
                     "install a torch that is built for CUDA, and look at CUDA_VISIBLE_DEVICES")
    return Check("GPU", "ok", "none; trainings run on the CPU")


# ---- what the YAML names


def _read(file: Path, storage: str, subject: list[Subject]) -> Check:
    if yamlio.load_mapping(file).keys() & {"space", "budget"}:
        sweep = load(file)
        folder = files.plain(sweep.spec.storage) / sweep.spec.name
        uri = folders.storage_uri(sweep)
        journal = sweep.home(folder) if sweep.spec.journal or not uri else None
        subject.append(Subject(sweep.workload, data_configs(sweep), uri or folder.parent, journal,
                               sweep.spec.resources))
        return Check("config", "ok", f"{file}, a sweep of {len(sweep.spec.space)} knobs")
    trained = workload.default()
    config = trained.absolute(trained.read(yamlio.load_mapping(file), file), file.parent)
    subject.append(Subject(trained, [config], storage, None, None))
    return Check("config", "ok", f"{file}, a run")


def _data(found: Subject) -> Check:
    fingerprint = found.kind.prepare(found.configs)
    steps = found.kind.steps_per_epoch(found.configs[0])
    return Check("data", "ok", f"readable, fingerprint {fingerprint[:12]}"
                 + (f", {steps} steps an epoch" if steps is not None else ""))


def _journal(home: str) -> Check:
    stores.check_store(home)
    return Check("journal", "ok", f"{home} can be written")


def _storage(place: Path | str) -> Check:
    if addresses.is_one(place):
        uri = copies.named(str(place), "--storage")
        with copies.told(uri):
            Store(uri).check_writable()
        return Check("storage", "ok", f"{uri} can be written, read and deleted from")
    folder = Path(place)
    there = next(place for place in [folder.absolute(), *folder.absolute().parents] if place.exists())
    if not there.is_dir():
        raise BadInput("is no folder", source=there, remedy="name another storage")
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".lam-doctor-") as file:
            file.write(b"written")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Check("storage", "failed", f"{there} cannot be written ({error.strerror})",
                     "name another with 'storage:' or --storage")
    free = shutil.disk_usage(there).free
    few = free < LITTLE_DISK
    return Check("storage", "warning" if few else "ok", f"{folder} can be written, {free / GIB:.1f} GiB free",
                 "a run keeps its weights twice and the newest state; make room" if few else "")


# ---- what a launch starts or reaches


def _ray(address: str | None, resources: Resources | None) -> Check:
    with (tempfile.TemporaryDirectory(prefix="lam-doctor-") as folder, Signals() as signals,
          ray_session.session(address, Path(folder) / "ray.log", signals)):
        from sweeps.workers import cluster  # after Ray's loggers are quiet

        fitting = cluster.fitting(cluster.resolved(resources or Resources()), "doctor")
    return Check("Ray", "ok", f"{address or 'an embedded one'} starts and answers with its token; "
                 f"{fitting} trials fit at a time")


def _trackers(subject: list[Subject]) -> Iterator[Check]:
    asked = subject[0].configs[0].tracking if subject else None
    address = (asked.mlflow if asked is not None else None) or os.environ.get("MLFLOW_TRACKING_URI")
    if address is None:
        yield Check("MLflow", "ok", "not asked for")
    elif "://" in address and not address.startswith(("sqlite:", "file:")):
        yield answered("MLflow", partial(_mlflow, address))
    else:
        yield Check("MLflow", "ok", f"{address}, a file of this machine")
    yield answered("W&B", lambda: _wandb(asked.wandb if asked is not None else "off"))


def _mlflow(address: str) -> Check:
    from record.tracking import mlflow_client

    mlflow_client.check_answers(address)
    return Check("MLflow", "ok", f"{address} answers")


def _wandb(mode: str) -> Check:
    if mode != "online":
        return Check("W&B", "ok", "not asked for" if mode == "off" else "offline: files beside each run")
    known = "WANDB_API_KEY" in os.environ or (Path.home() / ".netrc").exists()
    return Check("W&B", "ok" if known else "warning", "a key is set" if known else "online, and no key was found",
                 "" if known else "wandb login, or set WANDB_API_KEY")
