"""What `lam train` and `lam evaluate` show: a table that grows an epoch at a time, then where things are."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from lam import codebook
from lam.config import RunConfig, load
from lam.config import of_run as config_of_run
from lam.data import windows as data
from lam.evaluation import measure, probe
from lam.model.lam import LatentActionModel
from lam.training import checkpoints, identity, loop
from lam.training.devices import choose_device
from lam.training.workers import group, starting
from record import files, yamlio
from record.documents import PRODUCTION_FILE
from record.errors import AnswerIsNo, BadInput
from record.health import engine, production, profile
from record.progress import Screen
from record.run import RunFolder
from record.text import count, printable, seen, share
from record.tracking.notices import NOBODY, Notices, Receivers

COLUMNS = (
    ("epoch", "epoch", "{:.0f}"), ("train loss", "train/loss", "{:.4f}"), ("val MSE", "val/mse_loss", "{:.4f}"),
    ("copy", "val/mse_copy", "{:.4f}"), ("objective", "val/objective", "{:+.3f}"), ("control", "val/control", "{:.3f}"),
    ("DSNR", "val/dsnr", "{:.2f}"), ("codes", "val/codebook_usage", "{:.0f}"),
    ("perplexity", "val/perplexity_slot", "{:.2f}"), ("samples/s", "train/samples_per_second", "{:.0f}"),
)
WIDTH = 10


def show_training(config: RunConfig, run_dir: Path, file: Path | None = None, strict: bool = False,
                  told: Receivers = NOBODY, workers: int = 1) -> None:
    """Train with a line an epoch; the last lines say what was reached and where it is.

    Args:
        file: the YAML; where promotion wrote it, its alerts, aborts and expected ranges go with the run.
        strict: refuse one whose data, values or software are not those of its promotion.
        told: who hears of health rules that fire or clear, and of the verdict.
        workers: processes that train together. Under torchrun this is one of them, and the first one alone speaks.

    Raises:
        BadInput: torchrun's variables are there in part, or wrong, or are there and `workers` should be started.
        AnswerIsNo: the run diverged, a health rule aborted it, or `strict` refuses it.
    """
    starting.refuse_another_group(workers)
    if group.told().rank > 0:
        next(loop.train_together(config, run_dir), None)  # until the first one has ended
        return
    folder = RunFolder(run_dir)
    folder.check_free(config.mapping())
    _take_production(config, folder, file, strict)
    done = len(folder.metrics()) if folder.exists() else 0
    if done:
        print(f"resuming {run_dir} after epoch {done}")
    with contextlib.closing(Notices(told, folder.path.name)) as notices:
        with (starting.company(config, workers) as gone,
              contextlib.closing(loop.train_together(config, folder.path, gone)) as records):
            _show_epochs(records, folder, notices)
        _conclude(folder, notices)


def _show_epochs(records: Iterator[dict[str, Any]], folder: RunFolder, notices: Notices) -> None:
    header = " ".join(title.rjust(WIDTH) for title, _, _ in COLUMNS) + "   state"
    for record in records:
        if header:  # after what may still be refused
            print(header)
            header = ""
        state = codebook.verdict(record) if "val/mse_loss" in record or "val/objective" not in record else ""
        print(" ".join(_cell(record, key, form).rjust(WIDTH) for _, key, form in COLUMNS), f"  {state}", flush=True)
        _tell_health(folder, record["epoch"], notices)


def _take_production(config: RunConfig, folder: RunFolder, file: Path | None, strict: bool) -> None:
    """Say in what a promoted config's run would differ from its promotion, and keep a copy of the YAML with the run."""
    promoted = yamlio.load_mapping(file).get("provenance") if file else None
    if file is None or not isinstance(promoted, dict):
        return
    production.of_yaml(file)
    found = [printable(text) for text in identity.unlike_promoted(promoted, config, load(file))]
    if found and strict:
        raise AnswerIsNo(f"{file} is not trained: {'; '.join(found)}. Without --strict it is, with this as a warning")
    for text in found:
        print(f"warning: {text}", file=sys.stderr, flush=True)
    if folder.exists():  # a run that goes on is judged by this YAML, one that refuses it by its own
        identity.refuse_other_config(folder, config)
        identity.refuse_other_data(folder, config)
        if identity.is_over(folder, config):  # it was judged by the YAML that it was trained by
            return
    files.write_text(folder.path / PRODUCTION_FILE, file.read_text(encoding="utf-8"))


def _tell_verdict(folder: RunFolder, notices: Notices) -> None:
    """How a production run went, against what was expected of it."""
    watched = production.beside(folder.path)
    if watched is None:
        return
    rows = [watched.placed(record) for record in folder.metrics()]
    known = profile.load(config_of_run(folder).health.profile).model_copy(
        update={"rules": watched.rules(), "diagnoses": []})
    judged, states = engine.judge_records(rows, known, {}), watched.standing(rows)
    verdict = production.verdict(judged)
    notices.send("verdict", folder=str(folder.path.absolute()), verdict=verdict, expected=states)
    print(f"verdict: {verdict}")
    for text in [*(f"{item.severity}: {item.sentence}" for item in judged.findings), *states]:
        print(printable(f"  {text}"))


def _tell_health(folder: RunFolder, epoch: int, notices: Notices) -> None:
    """What fired or cleared at this epoch; what is only informative is left to `lam monitor`."""
    for event in folder.health():
        if event["epoch"] == epoch and event["severity"] != "info":
            notices.send(folder=str(folder.path.absolute()), **event)
            print(printable(f"{event['severity']}: {event['rule']} {event['event']} (value {seen(event['value'])}, "
                            f"threshold {event['threshold']})"), flush=True)


def show_overfit(config: RunConfig, most_steps: int) -> None:
    """Check that the model can learn one batch by heart, and say what may help where it cannot.

    Raises:
        AnswerIsNo: it cannot, in so many steps.
    """
    from lam.training import overfit as check

    found = check.overfit(config, most_steps)
    reached = (f"MSE {found.mse:.4f} and MAE {found.mae:.4f} on {found.sequences} sequences after {found.steps} steps "
               f"({found.seconds:.0f} s); wanted: MSE below {check.MSE_BELOW:g} and MAE below {check.MAE_BELOW:g}")
    if found.passed:
        print(f"overfit passed: {reached}")
        return
    hints = "".join(f"\n  - {hint}" for hint in check.HINTS)
    raise AnswerIsNo(f"overfit failed: {reached}. What may help:{hints}")


def _cell(record: dict[str, Any], key: str, form: str) -> str:
    value = record.get(key)
    return "-" if value is None or value != value else form.format(value)


def _conclude(folder: RunFolder, notices: Notices) -> None:
    known = folder.identity()
    _tell_verdict(folder, notices)
    if known["state"] == "failed":
        raise AnswerIsNo(f"{folder.path}: {known['reason']}")
    scored = [record for record in folder.metrics() if record.get("val/objective") is not None]
    if scored:
        best = max(scored, key=lambda record: record["val/objective"])
        print(f"best epoch {best['epoch']}: objective {best['val/objective']:+.3f}, {codebook.verdict(best)}")
    print(f"run {folder.path}   records {folder.metrics_file}   checkpoints {folder.checkpoints}")


def show_evaluation(run: Path, split: str, checkpoint: str, as_json: bool, device: str | None = None) -> None:
    """Measure kept weights on a split, write evaluation-SPLIT.json into the run folder, print it."""
    if split not in ("train", "validation", "test"):
        raise BadInput(f"got {split!r}", source="--split", remedy="use train, validation or test")
    folder = RunFolder(run)
    folder.identity()
    if device not in (None, "auto", "cpu", "cuda"):
        raise BadInput(f"got {device!r}", source="--device", remedy="use cpu, cuda or auto")
    result = measured(folder, split, checkpoint, device=device)
    if as_json:  # before it is kept: a folder that cannot be written takes nothing from who asked
        print(json.dumps(files.jsonable(result), indent=2), flush=True)
    path = files.write_json(run / f"evaluation-{split}.json", result)
    if not as_json:
        _print_evaluation(result, path)


def measured(
    folder: RunFolder, split: Any, checkpoint: str = "best", *,
    choose: Callable[[RunConfig], torch.device] = choose_device, device: str | None = None,
) -> dict[str, Any]:
    """Metrics of kept weights on a split, with the probe where true actions are stored.

    Where no `device` is asked for, they are measured on a GPU where there is one, unless the run's config says
    `device: cpu`; a run that was trained on a GPU can be measured without one.
    """
    config = config_of_run(folder)
    checked = data.check(config)
    train_set = data.open_split(config, "train", stride=1, checked=checked)
    scored_set = data.open_split(config, split, stride=1, checked=checked)
    where = choose(config.replace(device=device or ("cpu" if config.device == "cpu" else "auto")))
    model = LatentActionModel(config, train_set.latent_shape).to(where)
    checkpoints.load_weights(folder.checkpoints, checkpoint, model)
    found = probe.probe(model, train_set, scored_set, config)
    probed = {} if found is None else {f"val/probe_{name}": getattr(found, name) for name in
                                       ("accuracy", "majority", "shuffled")}
    return {
        "schema": 1, "run": folder.path.name, "split": split, "checkpoint": checkpoint,
        "metrics": measure.evaluate(model, scored_set, config) | probed,
        "probe": None if found is None else vars(found),
    }


def _print_evaluation(result: dict[str, Any], path: Path) -> None:
    table = Table(title=f"{result['run']}: {result['checkpoint']} weights on {result['split']}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for key, value in result["metrics"].items():
        shown = f"{value:.5g}" if isinstance(value, float) else str(value)
        table.add_row(key.replace("val/", ""), shown)
    console = Screen()
    console.print(table)
    found = result["probe"]
    if found is None:
        console.print("probe: the files hold no two true actions that are known")
    else:
        accuracy, majority, shuffled = (share(found[name], digits=1) for name in ("accuracy", "majority", "shuffled"))
        console.print(
            f"probe: the codes tell the true action in {accuracy} of {found['transitions']} transitions; "
            f"always the commonest action: {majority}; shuffled labels: {shuffled}; "
            f"gain {found['gain']:+.3f} [{found['gain_low']:+.3f}, {found['gain_high']:+.3f}] over "
            f"{count(found['videos'], 'video')}"
            + f"; {found['unlabelled']} have no true action" * (found["unlabelled"] > 0)
        )
    console.print(f"wrote {path}")
