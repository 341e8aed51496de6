"""The block codec: what it keeps, what it refuses."""

from __future__ import annotations

import io

import h5py
import numpy as np
import pytest

from lam.data.codec import ARRAYS, CHANNELS, Codec, channel_scale, from_blocks, sample, to_blocks
from lam.data.games.atari import play


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return play("boxing", 24, 64, (0, 0)).frames


@pytest.fixture(scope="module")
def codec(clip: np.ndarray) -> Codec:
    return Codec.fit([sample(clip, 1200, np.random.default_rng(0))])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_blocks_and_back_is_exact(clip: np.ndarray) -> None:
    blocks = to_blocks(clip)
    assert blocks.shape == (24, 8, 8, 768)
    np.testing.assert_array_equal(from_blocks(blocks).reshape(clip.shape), clip)


def test_a_block_is_four_frames_of_one_cell(clip: np.ndarray) -> None:
    np.testing.assert_array_equal(to_blocks(clip)[2, 3, 5].reshape(4, 8, 8, 3), clip[8:12, 24:32, 40:48])


def test_a_clip_that_was_not_fitted_decodes_close_to_its_pixels(codec: Codec) -> None:
    other = play("boxing", 24, 64, (0, 1)).frames
    latents = codec.encode(other)
    assert latents.shape == (24, CHANNELS, 8, 8)
    assert latents.dtype == np.float32
    decoded = codec.decode(latents)
    assert decoded.shape == (24, 4, 64, 64, 3)
    assert decoded.dtype == np.uint8
    assert psnr(decoded.reshape(other.shape), other) > 25
    still = np.broadcast_to(codec.picture, other.shape)
    assert psnr(decoded.reshape(other.shape), other) > psnr(still, other) + 5  # far more than the mean picture


def test_fitted_latents_have_unit_variance_where_the_floor_does_not_act(clip: np.ndarray) -> None:
    drawn = sample(clip, 10**9, np.random.default_rng(0))
    fitted = Codec.fit([drawn])
    std = fitted.encode(clip).std(axis=(0, 2, 3), dtype=np.float64)
    acts = fitted.scale <= 0.05 * fitted.scale.max() * 1.0001
    np.testing.assert_allclose(std[~acts], 1, rtol=1e-3)
    assert (std[acts] <= 1.001).all()


def test_scale_has_a_floor_of_five_percent() -> None:
    np.testing.assert_allclose(channel_scale(np.array([10.0, 1.0, 0.1, 0.0])), [10, 1, 0.5, 0.5])
    np.testing.assert_array_equal(channel_scale(np.zeros(3)), [1, 1, 1])


def test_components_are_orthonormal_and_ordered(codec: Codec) -> None:
    np.testing.assert_allclose(codec.components @ codec.components.T, np.eye(CHANNELS), atol=1e-5)
    assert (np.diff(codec.scale) <= 0).all()
    assert 0.5 < codec.explained_variance <= 1


def test_a_still_clip_encodes_to_zero_and_decodes_to_itself() -> None:
    frames = np.broadcast_to(np.arange(64 * 64 * 3).reshape(64, 64, 3) % 256, (8, 64, 64, 3)).astype(np.uint8)
    fitted = Codec.fit([sample(frames, 500, np.random.default_rng(0))])
    assert fitted.explained_variance == 1
    np.testing.assert_array_equal(fitted.encode(frames), 0)
    np.testing.assert_array_equal(fitted.decode(fitted.encode(frames)).reshape(frames.shape), frames)


def test_saved_and_loaded_is_the_same(codec: Codec, clip: np.ndarray) -> None:
    with h5py.File(io.BytesIO(), "w") as file:
        codec.save(file.create_group("codec"))
        loaded = Codec.load(file["codec"])
    np.testing.assert_array_equal(loaded.encode(clip), codec.encode(clip))
    assert loaded.explained_variance == codec.explained_variance


def test_arrays_have_one_layout_however_the_codec_was_made(codec: Codec) -> None:
    turned = Codec(codec.picture, codec.mean, np.asfortranarray(codec.components), codec.scale, 1.0)
    for made in (codec, turned):
        assert all(getattr(made, name).flags.c_contiguous for name in ARRAYS)


def test_refuses_what_is_no_codec(codec: Codec) -> None:
    with h5py.File(io.BytesIO(), "w") as file:
        group = file.create_group("codec")
        codec.save(group)
        del group["mean"]
        with pytest.raises(ValueError, match="mean is missing"):
            Codec.load(group)
        group["mean"] = np.zeros(5, np.float32)
        with pytest.raises(ValueError, match=r"holds arrays of shapes .* expected \[H, W, 3\] of uint8"):
            Codec.load(group)
        del group["mean"]
        group["mean"] = np.full(768, np.nan, np.float32)
        with pytest.raises(ValueError, match="holds NaN or infinity"):
            Codec.load(group)


def test_refuses_frames_that_do_not_fit(codec: Codec) -> None:
    with pytest.raises(ValueError, match="do not divide into blocks"):
        to_blocks(np.zeros((6, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="do not fit the codec's picture"):
        codec.encode(np.zeros((8, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="got 4 blocks, need at least 16"):
        Codec.fit([sample(np.zeros((4, 16, 16, 3), np.uint8), 500, np.random.default_rng(0))])
