"""`lam.load`: a run folder, an export or a URI of either becomes a model that can be used."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lam.config import RunConfig, from_mapping, of_run
from lam.inference import naming
from lam.inference.exported import CONFIG, DOCUMENT, WEIGHTS, Export
from lam.inference.model import ActionModel
from lam.inference.naming import Naming
from lam.model.lam import LatentActionModel
from lam.training import checkpoints
from lam.training.devices import choose_device
from record import documents, yamlio
from record.errors import BadData, BadInput
from record.run import RunFolder
from record.text import gist

NAMES = ("best", "last")  # the weights that are taken where nobody names others


def load(where: str | Path, checkpoint: str | None = None, device: str = "auto") -> ActionModel:
    """A trained model, ready to encode, decode, step and imagine; the data that trained it may be gone.

    Args:
        where: a run folder, a folder of `lam export`, or the URI of either on a store that pyarrow opens (s3://...).
        checkpoint: which kept weights of a run: best, last or epoch-N; default: best, else last.
        device: cpu, cuda, or auto: a GPU where there is one.

    Raises:
        BadInput: there is no model there, or something of it is damaged.
    """
    with _at_hand(where) as folder:
        found = _exported(folder, checkpoint) if (folder / DOCUMENT).exists() else of_folder(folder, checkpoint)
    return found.to(_device(device))


def of_folder(path: Path, checkpoint: str | None = None) -> ActionModel:
    """The model of a run folder, on the CPU."""
    folder = RunFolder(path)
    known, config = folder.document(), of_run(folder)
    name = checkpoint or next((name for name in NAMES if (folder.checkpoints / f"{name}.safetensors").exists()), "best")
    shape = _shape(known.data, folder.identity_file)
    module = built(config, shape)
    checkpoints.load_weights(folder.checkpoints, name, module)
    weights = folder.checkpoints / f"{name}.safetensors"
    provenance = {
        "run": known.run_id, "checkpoint": name, "weights_sha256": digest(weights),
        "chunk_frames": known.data.get("chunk_frames"), "config_fingerprint": known.config_fingerprint,
        "data_fingerprint": known.data_fingerprint, "versions": known.versions, "git_commit": known.git_commit,
        "metrics": _metrics(folder, name),
    }
    return ActionModel(module, shape, lambda: _learned(module, config), provenance)


def _learned(module: LatentActionModel, config: RunConfig) -> Naming | None:
    """The naming, where the data are still there and have true actions."""
    try:
        return naming.learned(module, config)
    except BadData:
        return None


def _exported(folder: Path, checkpoint: str | None) -> ActionModel:
    if checkpoint is not None:
        raise BadInput(f"got {checkpoint!r}, and an export holds one model", key="checkpoint", remedy="leave it out")
    known = documents.load_document(Export, folder / DOCUMENT)
    config = from_mapping(yamlio.load_mapping(folder / CONFIG), source=folder / CONFIG)
    C, H, W = known.latent_shape
    module = built(config, (C, H, W))
    if digest(folder / WEIGHTS) != known.weights_sha256:
        raise BadInput("is not the file that was exported", source=folder / WEIGHTS, remedy="copy the export again")
    checkpoints.load_weights(folder, Path(WEIGHTS).stem, module)
    found = _naming(known, folder) if known.actions else None
    return ActionModel(module, (C, H, W), lambda: found, known.as_written())


def _naming(known: Export, folder: Path) -> Naming:
    assert known.actions is not None
    try:
        return Naming.from_written(known.actions)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"is damaged ({error})", source=folder / DOCUMENT, key="actions",
                       remedy="export the run again") from None


def built(config: RunConfig, shape: tuple[int, int, int]) -> LatentActionModel:
    """The model before it has its weights; nobody's random numbers are used up for those it begins with."""
    with torch.random.fork_rng(devices=[]):
        return LatentActionModel(config, shape)


def _shape(data: dict[str, Any], source: Path) -> tuple[int, int, int]:
    """(C, H, W) of the latents that a run was trained on."""
    try:
        (height, width), channels = data["grid"], data["channels"]
        return int(channels), int(height), int(width)
    except (KeyError, TypeError, ValueError):
        raise BadInput("lacks the shape of the latents", source=source, key="data",
                       remedy="it must have channels and grid: restore it from a copy") from None


def _metrics(folder: RunFolder, checkpoint: str) -> dict[str, Any]:
    """The validation record of the weights: that of the best objective, of the epoch, or the last one."""
    scored = [record for record in folder.metrics() if record.get("val/objective") is not None]
    if not scored:
        return {}
    if checkpoint == "best":
        return max(scored, key=lambda record: float(record["val/objective"]))
    if checkpoint.startswith("epoch-"):
        return next((record for record in scored if checkpoint == f"epoch-{record['epoch']}"), {})
    return scored[-1]


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits.

    Raises:
        BadInput: there is none.
    """
    if not path.is_file():
        raise BadInput("no such file", source=path, remedy="copy the model again")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu") and not name.startswith("cuda"):
        raise BadInput(f"got {name!r}", key="device", remedy="take auto, cpu or cuda")
    if name.startswith("cuda:") and torch.cuda.is_available():
        return torch.device(name)
    return choose_device(RunConfig(device=name.partition(":")[0]))


@contextmanager
def _at_hand(where: str | Path) -> Iterator[Path]:
    """The folder on this machine; what lies on a store is copied for as long as the block lasts."""
    if "://" not in str(where):
        folder = Path(where)
        if not folder.is_dir():
            raise BadInput("no such folder", source=folder, remedy="name a run folder, or one of 'lam export'")
        yield folder
        return
    from pyarrow import fs  # a third of a second that a folder on this machine does not need

    with tempfile.TemporaryDirectory(prefix="lam-model-") as copy:
        try:
            store, path = fs.FileSystem.from_uri(str(where))
            _fetch(store, path, Path(copy))
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot be read ({gist(error)})", source=str(where),
                           remedy="check the address and that this machine may read it") from None
        yield Path(copy)


def _fetch(store: Any, path: str, to: Path) -> None:
    """Copy what a model needs: of a run neither its resume state nor its pictures."""
    from pyarrow import fs

    found = store.get_file_info(fs.FileSelector(path, recursive=True))
    for info in found:
        name = info.path[len(path.rstrip("/")) + 1 :]
        if info.type == fs.FileType.File and name.endswith((".json", ".yaml", ".jsonl", ".safetensors")):
            if not (to / name).resolve().is_relative_to(to.resolve()):
                raise BadInput(f"holds a file named {name!r}, which lies outside of it", source=path,
                               remedy="copy the model anew to a folder of its own")
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            fs.copy_files(info.path, str(to / name), source_filesystem=store,
                          destination_filesystem=fs.LocalFileSystem())
