"""`lam export`: a run's model as a folder that can be taken along: weights, config, naming and a card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lam.inference import card, opening
from lam.inference.exported import CARD, CONFIG, DOCUMENT, PROGRAMS, WEIGHTS, Export
from lam.inference.model import ActionModel
from record import documents, files, yamlio
from record.errors import BadInput
from record.run import RunFolder

# Of the trainer's machine and of nobody else's interest; a path may say more than its owner meant to.
LEFT_OUT = ("tracking", "threads", "manifest_path", "init_from")

OWN = {WEIGHTS, CONFIG, DOCUMENT, CARD, *(f"{name}.pt2" for name in PROGRAMS)}


def export(run: str | Path, to: str | Path, checkpoint: str | None = None, programs: bool = False) -> Path:
    """Write the model of a run as a folder that `lam.load` opens and that needs neither the run nor its data.

    The folder appears whole or not at all. The same export again changes nothing.

    Args:
        checkpoint: best, last or epoch-N; default: best, else last.
        programs: also what torch.export makes of encoding and of a step.

    Raises:
        BadInput: no such run or weights, or `to` holds something that is no export of it.
    """
    run, to = Path(run), Path(to)
    RunFolder(run).document()
    model = opening.of_folder(run, checkpoint)
    _check_free(to, str(model.provenance["weights_sha256"]))
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.", suffix=".tmp") as temporary:
        made = Path(temporary) / to.name
        made.mkdir()
        _fill(made, model, RunFolder(run), programs)
        if to.exists():
            shutil.rmtree(to)
        made.rename(to)
    files.sync_folder(to.parent)
    return to


def _check_free(to: Path, weights: str) -> None:
    """Only an export is replaced, and only by one of the same weights."""
    if not to.exists():
        return
    if to.is_dir() and not any(to.iterdir()):
        return
    if not (to / DOCUMENT).is_file():
        raise BadInput("is there already and is no export", source=to, remedy="name a new folder")
    others = sorted({path.name for path in to.iterdir()} - OWN)
    if others:
        raise BadInput(f"holds {others[0]!r}, which no export wrote", source=to,
                       remedy="move it elsewhere, since the folder is written anew, or name a new folder")
    if documents.load_document(Export, to / DOCUMENT).weights_sha256 != weights:
        raise BadInput("holds the export of another model", source=to, remedy="name a new folder, or delete it")


def _fill(made: Path, model: ActionModel, folder: RunFolder, programs: bool) -> None:
    shutil.copyfile(folder.checkpoints / f"{model.provenance['checkpoint']}.safetensors", made / WEIGHTS)
    config = {key: value for key, value in model.config.mapping().items() if key not in LEFT_OUT}
    config["data_dir"] = Path(model.config.data_dir).name
    if model.config.data:
        config["data"] = [part.model_dump() | {"dir": part.called, "manifest": None} for part in model.config.data]
        config["data_dir"] = model.config.data[0].called
    files.write_text(made / CONFIG, yamlio.dump_mapping(config))
    found = _programs(model, made) if programs else {}
    known = documents.checked(Export, files.jsonable({
        **model.provenance, "latent_shape": model.latent_shape, "actions": _actions(model), "programs": found,
    }), made / DOCUMENT)
    documents.write(made / DOCUMENT, known)
    files.write_text(made / CARD, card.text(known, model.config))


def _actions(model: ActionModel) -> dict[str, object] | None:
    """The naming, where the data are still there and have true actions."""
    return model.naming.as_written() if model.naming is not None else None


def _programs(model: ActionModel, made: Path) -> dict[str, object]:
    from lam.inference import programs

    return programs.write_programs(model, made)
