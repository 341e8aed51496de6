"""Who a run is: run.json's code, data and software versions, whether a run goes on, and what it is refused for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from torch import nn

from lam.config import RunConfig
from lam.config import of_run as config_of_run
from lam.data import windows as data
from lam.data.windows import Checked, Windows
from lam.metrics import NEEDS, TABLE
from lam.schema import RESUMABLE, placeless
from record import provenance
from record.errors import BadData, BadInput
from record.run import RunFolder

log = logging.getLogger(__name__)


def identify(config: RunConfig, folder: RunFolder, model: nn.Module, train_set: Windows,
           checked: Checked | None = None) -> dict[str, Any]:
    """The contents of run.json at the start of a run."""
    return {
        "run_id": folder.path.name,
        "state": "running",
        "config_fingerprint": config.fingerprint(),
        "data_fingerprint": data.data_fingerprint(config, checked),
        "data": data.summary(config, checked),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_params": sum(parameter.numel() for parameter in model.parameters()),
        "num_train_trials": len(train_set.files),
        "data_stats": train_set.scale.metrics(),
    }


def unlike_promoted(promoted: Mapping[str, Any], config: RunConfig, written: RunConfig) -> list[str]:
    """In what a run would differ from what was promoted: its data, its software, its values; a sentence each.

    More epochs, another device, threads and a moved folder of equal data make no other run.

    Args:
        promoted: the section `provenance` of the production YAML.
        written: what that YAML says, without what was set on the command line.
    """
    found, data_now = [], data.data_fingerprint(config)
    if promoted.get("data_fingerprint") not in (None, data_now):
        folders = ", ".join(part.dir for part in config.data) or config.data_dir
        found.append(f"the data are not those of the promotion (fingerprint {promoted['data_fingerprint']}, now "
                     f"{data_now}): {folders}")
    values = promoted.get("comparable_fingerprint")
    if values not in (None, written.comparable(RESUMABLE)):
        found.append(f"a value is not as it was promoted (fingerprint {values}, now {written.comparable(RESUMABLE)}); "
                     "'lam promotions list FILE' names what was edited")
    found += [f"{key} is set to {asked!r}, and the promoted YAML says {said!r}"
              for key, asked, said in _changes(config, written)]
    now = provenance.versions()
    found += [f"{name} was {version}, now {now[name]}" for name, version in (promoted.get("versions") or {}).items()
              if name in now and now[name] != version]
    return found


def _changes(config: RunConfig, other: RunConfig) -> list[tuple[str, Any, Any]]:
    """(key, its value, the other's) where two configs are not one run; where the data lie does not count."""
    mine, others = (placeless(each.model_dump(mode="json")) for each in (config, other))
    return [(key, mine[key], others[key]) for key in mine
            if key not in RESUMABLE and key not in config.idle and mine[key] != others[key]]


def refuse_other_data(folder: RunFolder, config: RunConfig, checked: Checked | None = None) -> None:
    """A resumed run continues on the data it began with.

    Raises:
        BadData: the data's content has changed since.
    """
    known, now = folder.identity().get("data_fingerprint"), data.data_fingerprint(config, checked)
    if known != now:
        raise BadData(f"the data changed since this run began (fingerprint {known}, now {now})",
                      source=config.data_dir, remedy="start a new run with --run-dir, or put the data back")


def refuse_other_config(folder: RunFolder, config: RunConfig) -> None:
    """A folder holds one run: continuing it with settings that change its numbers would mix two."""
    recorded = config_of_run(folder)
    known = recorded.model_dump(mode="json")
    changed = [f"{key}: {before!r} -> {asked!r}" for key, asked, before in _changes(config, recorded)]
    if changed:
        raise BadInput(f"holds a run with another config ({'; '.join(changed)})", source=folder.path,
                       remedy="name another folder with --run-dir, or put the settings back")
    finished = folder.identity().get("state") == "finished"
    if finished and config.num_epochs > known["num_epochs"] and not folder.can_resume:
        raise BadInput(f"got {config.num_epochs}, and the run in {folder.path} has finished after "
                       f"{known['num_epochs']} epochs: what a resume needs was deleted", source="config",
                       key="num_epochs", remedy="train in another folder with --run-dir, anew or from its weights with "
                       f"--set init_from={folder.path}; keep: all would have kept it")


def is_prolonged(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a run that finished, and not by itself early, is asked for more epochs than it has."""
    known = folder.document()
    return (known.state == "finished" and known.stopped_early is None and folder.can_resume
            and config.num_epochs > (known.epoch or 0))


def say_what_differs(folder: RunFolder, config: RunConfig) -> None:
    """In what a prolonged run is not the run that was as long from the start: its old last epoch was validated."""
    last = folder.document().epoch or 0
    if last % config.val_every:
        log.warning("%s: epoch %d was validated as the last one, which val_every %d leaves out: a run of %d epochs "
                    "from the start would not have, so its best epoch, and where it stops early, may be another",
                    folder.path, last, config.val_every, config.num_epochs)


def is_over(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a run has ended and this config asks for nothing more of it."""
    state = folder.document().state
    ended = state in ("finished", "failed") or (state == "stopped" and not folder.can_resume)
    return ended and not is_prolonged(folder, config)


def refuse_without_labels(config: RunConfig, checked: Checked) -> None:
    rule = config.early_stopping
    if rule is not None and "labels" in TABLE[rule.metric].needs and not data.has_labels(config, checked):
        raise BadInput(f"got {rule.metric}, which needs {NEEDS['labels']}, and there are none", source="config",
                       key="early_stopping.metric", remedy="watch val/objective")


def begins_anew(folder: RunFolder) -> bool:
    """Whether there is no run yet, or one that was cut off before there was anything to go on from."""
    return not folder.exists() or (not folder.can_resume and folder.document().state in ("running", "interrupted"))
