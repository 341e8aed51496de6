"""TensorBoard event files, by the library tensorboard (the extra `tensorboard`): one run a folder that holds some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.read.foreign import profile_of
from analysis.read.logs import Recorded
from analysis.read.trackers.points import records
from record.errors import BadInput

PATTERN = "*tfevents*"


def fits(place: Path | str) -> bool:
    """Whether it is an event file or a folder of some."""
    if not isinstance(place, Path):
        return False
    return "tfevents" in place.name if place.is_file() else next(place.rglob(PATTERN), None) is not None


def read(place: Path | str) -> list[Recorded]:
    """Every run: each folder that holds event files.

    Raises:
        BadInput: the library tensorboard is not installed.
    """
    path = Path(place)
    folders = [path] if path.is_file() else sorted({file.parent for file in path.rglob(PATTERN)})
    return [_run(folder, folder.name if folder in (path, path.parent) else str(folder.relative_to(path)))
            for folder in folders]


def _run(path: Path, name: str) -> Recorded:
    found = _loaded(path)
    points: list[tuple[str, float, Any]] = [
        (tag, event.step, float(event.value)) for tag in found.Tags()["scalars"] for event in found.Scalars(tag)]
    points += [(tag, event.step, _scalar(event.tensor_proto)) for tag in found.Tags()["tensors"]
               for event in found.Tensors(tag) if _scalar(event.tensor_proto) is not None]
    rows = records(points)
    notes = () if rows else ("holds no scalar",)
    return Recorded(name, "TensorBoard", profile_of({key for row in rows for key in row}) or "generic", "unknown",
                    rows, {}, notes, source=str(path))


def _loaded(path: Path) -> Any:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise BadInput("holds TensorBoard's events, and tensorboard is not installed", source=path,
                       remedy="pip install 'lamsweep[tensorboard]'") from None
    found = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def _scalar(proto: Any) -> float | None:
    """A tensor of one number; None of anything else."""
    from tensorboard.util.tensor_util import make_ndarray

    value = make_ndarray(proto)
    return float(value) if value.size == 1 and value.dtype.kind in "fiu" else None
