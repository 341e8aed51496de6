"""`lam label RUN DATA -o OUT`: the codes of every transition of a folder of videos, in bounded memory and resumable."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from lam.data.index import FileRecord, Header
from lam.data.readers.registry import reader_of
from lam.data.readers.video import Reader
from lam.inference import opening
from lam.inference.model import ActionModel
from lam.labelling import plan as plans
from lam.labelling import tables
from lam.labelling.coding import Coder
from lam.labelling.parts import Parts, listing
from lam.labelling.plan import Plan
from lam.labelling.tables import Columns, Table
from record.errors import BadInput, worker_deaths
from record.progress import track


@dataclass(frozen=True)
class Asked:
    """One labelling.

    Attributes:
        model: a run, an export or a URI of either; `checkpoint` says which weights of a run.
        data: a folder of videos; neither a manifest nor actions are needed.
        latents: their name in each video; see `reader_of`.
        out: the file to write, .h5, .parquet or .npz.
        embedding: also the embedding before quantisation.
        batch_size: windows that go through the model at a time; changes numbers by rounding only.
        workers: processes, of a cluster too.
        address: a Ray cluster that does the work, such as 10.0.0.1:6379; its machines see `data` at the same path.
        device: cpu, cuda or auto.
        portion: transitions that are labelled at a time, more than `sequence_length`; a kill loses at most so many.
    """

    model: str
    data: Path
    out: Path
    checkpoint: str | None = None
    embedding: bool = False
    batch_size: int = 64
    workers: int = 1
    device: str = "auto"
    portion: int = plans.PORTION
    latents: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Done:
    """What came of it."""

    out: Path
    transitions: int
    videos: int
    short: int
    problems: dict[str, str]
    named: bool = True  # whether codes have the names of true actions


def label(asked: Asked, done: Callable[[int], object] = lambda number: None) -> Done:
    """Label a folder. Begun before, it goes on with what is missing; the result is the same.

    Args:
        done: told the number of each portion that is on the disk.

    Raises:
        BadInput: no such model or data, latents of another shape, or `out` ends in no known format.
    """
    tables.form_of(asked.out)
    model = opening.load(asked.model, asked.checkpoint, asked.device)
    plan = plans.planned(reader_of(asked.data, asked.latents), model.latent_shape, asked.portion)
    parts = Parts(asked.out, len(plan.portions), {
        "model": model.provenance["weights_sha256"],
        "data": listing(plan.reader.folder, dict(zip(plan.names, plan.known, strict=True))),
        "columns": ["embedding"] * asked.embedding, "batch size": asked.batch_size, "portion": asked.portion,
        "naming of codes": _named(model)})
    parts.begin()
    missing = parts.missing()
    what = f"labelling {asked.data}, in portions of {asked.portion:,} transitions"
    for number in track(_portions_done(asked, model, plan, parts, missing), len(missing), what):
        done(number)
    provenance = _provenance(asked, model, plan)
    names = model.naming.names if model.naming else ()
    tables.write_table(asked.out, Table(plan.transitions, parts.all, plan.names, names, provenance))
    parts.remove()
    return Done(asked.out, plan.transitions, len(plan.names), len(plan.short),
                {name: str(error) for name, error in plan.problems.items()},
                named=bool(names) or model.config.quantizer == "none")


def _named(model: ActionModel) -> str | None:
    """Hex digits that tell one naming from another; learned here once, and not by every worker."""
    if model.naming is None:
        return None
    return hashlib.sha256(json.dumps(model.naming.as_written()).encode()).hexdigest()


def label_folder(model: str | Path, data: str | Path, out: str | Path, **how: Any) -> Done:
    """`lam.label`: see `label`; `how` are the further attributes of `Asked`."""
    return label(Asked(str(model), Path(data), Path(out), **how))


def _portions_done(asked: Asked, model: ActionModel, plan: Plan, parts: Parts, missing: list[int]) -> Iterator[int]:
    """Do the missing portions, here, in processes or on a cluster; yields the number of each as it is on the disk."""
    given = (_sent(model), plan, asked)
    if not missing:
        return
    if asked.address:
        done = _cluster()(asked.address, asked.workers, prepared, given, missing)
    elif asked.workers == 1 or len(missing) < 2:
        done = Coder(model, plan.source(), asked.embedding, asked.batch_size, plan.names).portions(
            (number, plan.portions[number]) for number in missing)
    else:
        done = _in_processes(asked.workers, given, missing)
    with worker_deaths(asked.out):
        for number, columns in done:
            parts.save(number, columns)
            yield number


def _cluster() -> Callable[..., Iterator[tuple[int, Columns]]]:
    """What spreads work over a Ray cluster, from whoever is installed and knows Ray."""
    for point in entry_points(group="lam.pools", name="ray"):
        found: Callable[..., Iterator[tuple[int, Columns]]] = point.load()
        return found
    raise BadInput("nothing that is installed works on a Ray cluster", key="--address",
                   remedy="pip install lamsweep, or leave it out and set --workers")


def _in_processes(workers: int, given: tuple[Any, ...], missing: list[int]) -> Iterator[tuple[int, Columns]]:
    with ProcessPoolExecutor(min(workers, len(missing)), get_context("spawn"), _prepare, (workers, given)) as pool:
        try:
            with _deaf():  # a submission starts processes
                doing = [pool.submit(_do, number) for number in missing]
            for future in as_completed(doing):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that begin within never hear Ctrl-C, which a terminal sends to all: who began them says when to end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_here: dict[str, Callable[[int], Columns]] = {}  # of a worker process


def _sent(model: ActionModel) -> tuple[Any, ...]:
    """A model as it goes to a process: its weights on the CPU, and where it computed."""
    weights = {name: value.cpu() for name, value in model.module.state_dict().items()}
    return model.config, model.latent_shape, weights, model.naming, str(model.device)


def prepared(sent: tuple[Any, ...], plan: Plan, asked: Asked) -> Callable[[int], Columns]:
    """What a process, here or elsewhere, labels a portion with."""
    config, shape, weights, naming, device = sent
    module = opening.built(config, shape)
    module.load_state_dict(weights)
    model = ActionModel(module, shape, lambda: naming, {}).to(device)
    coder = Coder(model, plan.source(), asked.embedding, asked.batch_size, plan.names)
    return lambda number: coder.portion(plan.portions[number])


def _prepare(workers: int, given: tuple[Any, ...]) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    _here["work"] = prepared(*given)


def _do(number: int) -> tuple[int, Columns]:
    return number, _here["work"](number)


def _provenance(asked: Asked, model: ActionModel, plan: Plan) -> dict[str, Any]:
    """Which weights, which videos by content, and where in its window a transition was measured."""
    contents = [[name, _content(plan.reader, name, header)]
                for name, header in zip(plan.names, plan.known, strict=True)]
    left_out = ("metrics", "actions", "programs")
    return {
        "model": {key: value for key, value in model.provenance.items() if key not in left_out},
        "data": {"folder": asked.data.name, "videos": len(plan.names), "transitions": plan.transitions,
                 "sha256": hashlib.sha256(json.dumps(contents).encode()).hexdigest(),
                 "too_short": list(plan.short), "left_out": sorted(plan.problems)},
        "sequence_length": model.config.sequence_length,
        "measured_place": model.config.sequence_length - 2,
        "num_embeddings": model.config.num_embeddings, "num_codes": model.config.num_codes,
    }


def _content(reader: Reader, name: str, header: Header) -> str:
    """SHA-256 of a video, which the index knows of one that was read in full."""
    if isinstance(header, FileRecord):
        return header.sha256
    video = reader.opened(name, header.info)
    try:
        return video.digest()
    finally:
        video.close()
