"""Picture strips for the report: frame, true next frame, prediction with the true action and with another.

Written as decoded pixels, so that a reader needs neither torch nor the codec. Only data that carries
its codec (as `lam data demo` writes it) has pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lam.config import RunConfig
from lam.data import windows as data
from lam.data.codec import Codec
from lam.data.windows import Checked, Windows
from lam.evaluation.draws import subset
from lam.model.lam import LatentActionModel
from record import files

POOL = 64


def keep_newest(folder: Path, epoch: int, model: LatentActionModel, windows: Windows, config: RunConfig,
                checked: Checked) -> None:
    """Write the strips of an epoch in place of older ones; nothing where the data has no codec."""
    codec = data.load_codec(config, checked) if config.sample_count else None
    if codec is None:
        return
    path = folder / f"epoch-{epoch}.npz"
    write_samples(path, model, windows, config, codec, data.action_names(config, checked))
    for older in folder.glob("epoch-*.npz"):
        if older != path:
            older.unlink()


@torch.inference_mode()
def write_samples(
    path: Path, model: LatentActionModel, windows: Windows, config: RunConfig, codec: Codec, action_names: list[str]
) -> None:
    """Write `sample_count` strips, of the transitions on which the two actions differ most.

    The other action is the commonest code tuple of a different true action (of a different tuple
    where true actions are unknown), taken from a pool of evenly spread sequences.
    """
    was_training = model.training
    model.eval()
    index = windows.by_source[0][subset(len(windows.by_source[0]), POOL)]  # those that the codec is of
    batch = windows.batch(index)
    latents = batch.latents.to(next(model.parameters()).device)
    output = model(latents)
    codes = output.quantized.codes
    labels = batch.actions[:, -1].numpy()
    tuples = np.zeros((len(index), 1), dtype=np.int64) if codes is None else codes[:, -1].cpu().numpy()
    partner = other_partner(tuples, labels)
    actions = output.quantized.z_q.clone()
    actions[:, -1] = output.quantized.z_q[torch.from_numpy(partner), -1]
    other = model.decode(latents[:, :-1], actions)[:, -1]
    true = output.prediction[:, -1]
    effect = (other - true).abs().flatten(1).mean(1).cpu().numpy()
    chosen = np.sort(np.argsort(-effect, kind="stable")[: config.sample_count])
    columns = (latents[:, -2], latents[:, -1], true, other)
    pictures = np.stack([codec.decode(column[chosen].float().cpu().numpy())[:, -1] for column in columns], axis=1)
    contents: dict[str, Any] = {
        "pictures": pictures.astype(np.uint8),
        "codes": np.stack([tuples[chosen], tuples[partner[chosen]]], axis=1),
        "actions": labels[chosen],
        "other_actions": labels[partner[chosen]],
        "action_names": np.array(action_names, dtype=np.str_),
        "files": np.array([windows.files[int(number)] for number in batch.file[chosen]], dtype=np.str_),
        "frames": batch.start.numpy()[chosen] + config.sequence_length - 1,
    }
    model.train(was_training)
    files.write_atomic(path, lambda file: np.savez_compressed(file, **contents))


def other_partner(tuples: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """For each sample, one whose code tuple is the commonest among samples of another action.

    Args:
        tuples: [N, S] codes.
        labels: [N] true actions, -1 where unknown (then another tuple stands for another action).
    """
    _, tuple_ids = np.unique(tuples, axis=0, return_inverse=True)
    tuple_ids = tuple_ids.ravel()
    groups = labels if (labels >= 0).all() else tuple_ids
    partner = np.arange(len(labels))
    for group in np.unique(groups):
        outside = np.flatnonzero((groups != group) & ~np.isin(tuple_ids, _commonest(tuple_ids[groups == group])))
        if len(outside):
            partner[groups == group] = outside[np.isin(tuple_ids[outside], _commonest(tuple_ids[outside]))][0]
    return partner


def _commonest(ids: NDArray[Any]) -> int:
    return int(np.bincount(ids).argmax())
