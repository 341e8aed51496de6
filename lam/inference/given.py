"""What a model is given and gives: arrays of any kind as tensors, videos as windows, actions of many windows as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Actions(NamedTuple):
    """The actions of T - 1 transitions.

    Attributes:
        codes: int64 [B, T-1, S]; None where actions are continuous (quantizer none).
        vectors: [B, T-1, S, Q] what the decoder gets for them.
        embedding: [B, T-1, S, Q] before quantisation, [B, T-1, 1, Q] where slots are residual.
        distance: [B, T-1] Euclidean distance of the embedding to what the codes say it was; NaN where the two lie in
            different spaces (fsq) or there is no code.
    """

    codes: Tensor | None
    vectors: Tensor
    embedding: Tensor
    distance: Tensor

    def rows(self, which: slice) -> Actions:
        """Those of some of the B videos."""
        return merged([self], lambda parts: parts[0][which])


def as_tensor(values: Any) -> Tensor:
    """Of lists, arrays or tensors; copied where torch asks for it: a memory map, reversed axes, another byte order."""
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    as_it_is = array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if as_it_is else array.copy())


def windows_of(video_TCHW: Tensor, most: int, batch_size: int) -> list[Tensor]:
    """The windows of a video in batches; the first is alone, since all its transitions are read and not the last one's.

    The others are views: nothing is copied until they go through the model.
    """
    T = len(video_TCHW)
    if most >= T:
        return [video_TCHW[None]]
    rest = video_TCHW[1:].unfold(0, most, 1).movedim(-1, 1)
    return [video_TCHW[None, :most], *rest.split(batch_size)]


def merged(parts: Sequence[Actions], merge: Callable[[list[Tensor]], Tensor]) -> Actions:
    """One of several, field by field; codes that there are none of stay none."""
    codes = [part.codes for part in parts if part.codes is not None]
    return Actions(merge(codes) if codes else None, merge([part.vectors for part in parts]),
                   merge([part.embedding for part in parts]), merge([part.distance for part in parts]))


def in_time(parts: list[Tensor]) -> Tensor:
    """All transitions of the first window, then the last one of every other: the axis of time, without B."""
    return torch.cat([parts[0][0], *(part[:, -1] for part in parts[1:])])
