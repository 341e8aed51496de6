"""Block PCA: four video frames of 8x8 pixels become one latent cell of 16 numbers, and back.

It stands where a video VAE would: it shrinks a clip by 4 in time and 8 in space, like the latents
that a LAM is meant for, but it is fitted in a second and decodes without torch.

The mean picture of the training clips is subtracted first. What stands still then costs nothing: the
components go to what moves, which an action may have moved. On held-out clips of seven games that
raised the PSNR of moving blocks by 0.7 to 3.0 dB, and that of all blocks by 1.7 to 5.4.

The latents are scaled per channel to unit variance, with a floor at 5 % of the largest, because
otherwise the first components drown what an action changes. The scale is part of the codec, hence of
the file that the latents lie in; no model ever normalises them.

Shape letters: n latent frames, h and w latent cells, C channels, D = 4*8*8*3 numbers of a block.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

BLOCK_FRAMES = 4
BLOCK_PIXELS = 8
BLOCK_SIZE = BLOCK_FRAMES * BLOCK_PIXELS * BLOCK_PIXELS * 3
CHANNELS = 16
SCALE_FLOOR = 0.05
ENCODE_AT_ONCE = 16  # latent frames whose float32 blocks are held in memory at a time

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def to_blocks(frames: NDArray[Any]) -> NDArray[Any]:
    """[4n, H, W, 3] frames as blocks [n, h, w, D].

    Raises:
        ValueError: the frames do not divide into blocks.
    """
    count, height, width, colours = frames.shape
    if count % BLOCK_FRAMES or height % BLOCK_PIXELS or width % BLOCK_PIXELS or colours != 3:
        raise ValueError(f"frames {frames.shape} do not divide into blocks of {BLOCK_FRAMES} frames of "
                         f"{BLOCK_PIXELS}x{BLOCK_PIXELS} RGB pixels")
    h, w = height // BLOCK_PIXELS, width // BLOCK_PIXELS
    blocks = frames.reshape(-1, BLOCK_FRAMES, h, BLOCK_PIXELS, w, BLOCK_PIXELS, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return blocks.reshape(-1, h, w, BLOCK_SIZE)


def from_blocks(blocks: NDArray[Any]) -> NDArray[Any]:
    """Blocks [n, h, w, D] as frames [n, 4, H, W, 3]; undoes `to_blocks`."""
    n, h, w, _ = blocks.shape
    frames = blocks.reshape(n, h, w, BLOCK_FRAMES, BLOCK_PIXELS, BLOCK_PIXELS, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    return frames.reshape(n, BLOCK_FRAMES, h * BLOCK_PIXELS, w * BLOCK_PIXELS, 3)


class Sample(NamedTuple):
    """What of one training clip the codec is fitted on.

    Attributes:
        picture: float64 [H, W, 3] mean of the clip's frames.
        blocks: uint8 [N, D] random blocks.
        cells: int64 [N] where in the picture each block lies, row * w + column.
    """

    picture: NDArray[np.float64]
    blocks: Pixels
    cells: NDArray[np.int64]


def sample(frames: Pixels, count: int, random: np.random.Generator) -> Sample:
    """Draw at most `count` blocks from a clip [4n, H, W, 3], without replacement."""
    blocks = to_blocks(frames)
    grid = blocks.shape[1] * blocks.shape[2]
    flat = blocks.reshape(-1, BLOCK_SIZE)
    chosen = np.sort(random.choice(len(flat), min(count, len(flat)), replace=False))
    return Sample(frames.mean(axis=0, dtype=np.float64), flat[chosen], chosen % grid)


@dataclass(frozen=True)
class Codec:
    """A fitted block PCA.

    Attributes:
        picture: uint8 [H, W, 3] mean picture of the training clips.
        mean: [D] mean block of what differs from the picture, in pixel values.
        components: [C, D] orthonormal rows, by falling variance.
        scale: [C] what a component's score is divided by, in pixel values.
        explained_variance: share, 0..1, of the fitted blocks' variance around the picture that the components hold.
    """

    picture: Pixels
    mean: Floats
    components: Floats
    scale: Floats
    explained_variance: float

    def __post_init__(self) -> None:
        for name in ARRAYS:  # their layout chooses BLAS's kernel, hence the last digits: fitted or loaded, it is one
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name)))

    @classmethod
    def fit(cls, samples: Sequence[Sample]) -> Codec:
        """Fit on samples of training clips.

        Raises:
            ValueError: fewer blocks than channels.
        """
        picture = np.rint(np.mean([part.picture for part in samples], axis=0)).astype(np.uint8)
        cells = _picture_blocks(picture).reshape(-1, BLOCK_SIZE)
        data = np.concatenate([part.blocks - cells[part.cells] for part in samples])
        if len(data) < CHANNELS:
            raise ValueError(f"got {len(data)} blocks, need at least {CHANNELS}")
        mean = data.mean(axis=0, dtype=np.float64).astype(np.float32)
        data -= mean
        with threadpool_limits(1, user_api="blas"):  # BLAS threads that wait for a busy core cost more than they give
            values, vectors = np.linalg.eigh((data.T @ data).astype(np.float64) / len(data))
        values = np.clip(values[::-1], 0, None)
        components = _fix_signs(vectors[:, ::-1].T[:CHANNELS]).astype(np.float32)
        total = values.sum()
        explained = float(values[:CHANNELS].sum() / total) if total > 0 else 1.0
        return cls(picture, mean, components, channel_scale(np.sqrt(values[:CHANNELS])), explained)

    def encode(self, frames: Pixels) -> Floats:
        """uint8 frames [4n, H, W, 3] to latents [n, C, H/8, W/8].

        Raises:
            ValueError: the frames have another size than the codec's picture.
        """
        if frames.shape[1:] != self.picture.shape:
            raise ValueError(f"frames {frames.shape} do not fit the codec's picture {self.picture.shape}")
        blocks = to_blocks(frames)
        ground = _picture_blocks(self.picture) + self.mean
        projection = (self.components / self.scale[:, None]).T
        parts = [(blocks[first:first + ENCODE_AT_ONCE] - ground) @ projection
                 for first in range(0, len(blocks), ENCODE_AT_ONCE)]
        return np.ascontiguousarray(np.concatenate(parts).transpose(0, 3, 1, 2))

    def decode(self, latents: NDArray[np.floating]) -> Pixels:
        """Latents [n, C, h, w] to uint8 frames [n, 4, H, W, 3]; values outside 0..255 are clipped."""
        scores = np.asarray(latents, np.float32).transpose(0, 2, 3, 1) * self.scale
        pixels = scores @ self.components + (_picture_blocks(self.picture) + self.mean)
        return from_blocks(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))

    def save(self, group: h5py.Group) -> None:
        """Write into an H5 group."""
        for name in ARRAYS:
            group.create_dataset(name, data=getattr(self, name))
        group.attrs["explained_variance"] = self.explained_variance

    @classmethod
    def load(cls, group: h5py.Group) -> Codec:
        """Read what `save` wrote.

        Raises:
            ValueError: an array is missing or is not a codec's.
        """
        missing = [name for name in ARRAYS if name not in group]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        picture, mean, components, scale = (group[name][()] for name in ARRAYS)
        shapes = [list(np.shape(array)) for array in (picture, mean, components, scale)]
        channels = np.size(scale)
        if shapes[1:] != [[BLOCK_SIZE], [channels, BLOCK_SIZE], [channels]] or not _is_picture(picture):
            raise ValueError(f"holds arrays of shapes {shapes}, expected [H, W, 3] of uint8, "
                             f"[{BLOCK_SIZE}], [C, {BLOCK_SIZE}] and [C]")
        floats = [np.asarray(array, np.float32) for array in (mean, components, scale)]
        if not all(np.isfinite(array).all() for array in floats):
            raise ValueError("holds NaN or infinity")
        return cls(picture, floats[0], floats[1], floats[2], float(group.attrs.get("explained_variance", np.nan)))


ARRAYS = ("picture", "mean", "components", "scale")


def png(picture: Pixels) -> str:
    """A picture [H, W, 3] as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def channel_scale(std: NDArray[np.floating]) -> Floats:
    """[C] standard deviations raised to 5 % of the largest; all ones where nothing varies."""
    largest = float(std.max())
    return np.maximum(std, SCALE_FLOOR * largest).astype(np.float32) if largest > 0 else np.ones(len(std), np.float32)


def _picture_blocks(picture: Pixels) -> Floats:
    """[h, w, D] the blocks of a clip that shows nothing but the picture."""
    return to_blocks(np.broadcast_to(picture, (BLOCK_FRAMES, *picture.shape)))[0].astype(np.float32)


def _is_picture(array: NDArray[Any]) -> bool:
    return (array.ndim == 3 and array.dtype == np.uint8 and array.shape[2] == 3 and array.size > 0
            and array.shape[0] % BLOCK_PIXELS == 0 and array.shape[1] % BLOCK_PIXELS == 0)


def _fix_signs(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows turned so that the largest entry is positive: the sign of an eigenvector is arbitrary."""
    largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
    return components * np.where(largest < 0, -1.0, 1.0)[:, None]
