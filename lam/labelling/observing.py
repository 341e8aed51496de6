"""What a model sees in a folder of videos: codes, rank of the embedding, error over copying, moments of the latents.

Each video is read at the same number of windows, evenly spread over it, and scored at their last transition, as a
validation does. Nothing of it needs true actions or a manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lam.data.readers.video import Reader
from lam.evaluation.effective_rank import effective_rank
from lam.inference import opening
from lam.inference.model import ActionModel
from lam.labelling.plan import Plan, planned
from record.errors import BadInput
from record.text import count
from record.workload.observation import Observation, Video

Array = NDArray[Any]
MOST_VIDEOS = 64
MOST_WINDOWS, LEAST_WINDOWS = 64, 8  # of a video


Part = tuple[Reader, Sequence[str] | None]
"""Videos of one folder: which of them, all where none are named."""


def observe(model: Path, parts: Sequence[Part], windows: int | None = None) -> Observation:
    """Read videos with an exported model, at most 64 of them, evenly spread over their names.

    Args:
        windows: of each video; default: as many as half of the videos have, at most 64.

    Raises:
        BadInput: there is no video that the model can read and that is long enough.
    """
    known = opening.load(model)
    length, wanted, left_out = known.config.sequence_length, list[tuple[Plan, int]](), dict[str, str]()
    for reader, names in parts:
        plan = planned(reader, known.latent_shape)
        wanted += [(plan, number) for number, name in enumerate(plan.names) if names is None or name in set(names)]
        left_out |= {name: str(error) for name, error in plan.problems.items() if names is None or name in set(names)}
    have = [plan.known[number].info.latent_frames - length + 1 for plan, number in wanted]
    long_enough = [each for each in have if each >= LEAST_WINDOWS]
    many = windows or (min(MOST_WINDOWS, median_low(long_enough)) if long_enough else LEAST_WINDOWS)
    taken = [item for item, each in zip(wanted, have, strict=True) if each >= many]
    if not taken:
        raise BadInput(f"holds no video of {many + length - 1} latent frames, the longest has "
                       f"{max(have, default=0) + length - 1}", source=parts[0][0].folder,
                       remedy="name a folder of longer videos")
    left_out |= {plan.names[number]: f"shorter than the {count(many, 'window')} that are read of each"
                 for (plan, number), each in zip(wanted, have, strict=True) if each < many}
    found = [_video(known, plan, number, many) for plan, number in _spread(taken, MOST_VIDEOS)]
    left_out |= {each.name: "nothing moves in it, or a latent is not finite" for each in found if not _is_whole(each)}
    return Observation(windows=many, num_embeddings=known.config.num_embeddings if found[0].codes else 0,
                       videos=tuple(each for each in found if _is_whole(each)), left_out=left_out)


def _spread(items: Sequence[tuple[Plan, int]], most: int) -> list[tuple[Plan, int]]:
    """At most so many of them, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]


def _is_whole(video: Video) -> bool:
    return bool(np.isfinite([*video.rank, *video.loss, *video.latents, *(video.codes or ())]).all())


@torch.inference_mode()
def _video(model: ActionModel, plan: Plan, number: int, many: int) -> Video:
    """What the model sees at `many` windows of a video."""
    source, T = plan.source(), model.config.sequence_length
    starts = np.linspace(0, plan.known[number].info.latent_frames - T, many).round().astype(int)
    windows = torch.from_numpy(np.stack([source.frames(number, int(start), T) for start in starts])).to(model.device)
    actions = model.read(windows)
    predicted = model.decode(windows[:, :-1], actions.vectors)[:, -1]
    error, copied = ((frame - windows[:, -1]).pow(2).mean().item() for frame in (predicted, windows[:, -2]))
    z_e = actions.embedding[:, -1].flatten(1).cpu().numpy()
    finite = bool(np.isfinite(z_e).all()) and min(error, copied) > 0
    return Video(
        name=plan.names[number], codes=None if actions.codes is None else
        _short(_shares(actions.codes[:, -1].cpu().numpy(), model.config.num_embeddings)),
        rank=_short([effective_rank(z_e)]), loss=_short([np.log(error / copied) if finite else np.nan]),
        latents=_short(_moments(windows)))


def _shares(codes_NS: Array, K: int) -> Array:
    """[S K] the share of each code in each slot."""
    return np.concatenate([np.bincount(slot, minlength=K) / len(slot) for slot in codes_NS.T])


def _moments(windows_NTCHW: torch.Tensor) -> Array:
    """[3 C] of each channel the mean and the standard deviation of the last frames, and how far they moved."""
    last, before = windows_NTCHW[:, -1].double(), windows_NTCHW[:, -2].double()
    moved = (last - before).pow(2).mean((0, 2, 3)).sqrt()
    return torch.cat([last.mean((0, 2, 3)), last.std((0, 2, 3)), moved]).cpu().numpy()


def _short(values: Any) -> tuple[float, ...]:
    """Six digits: what is kept as text says the same as what was just measured."""
    return tuple(float(f"{value:.6g}") for value in values)
