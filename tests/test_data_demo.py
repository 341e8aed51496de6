"""The demonstration: real play, deterministic, in the documented format, never half-made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from lam.data import demo
from lam.data.codec import Codec
from lam.data.demo import RECIPE, Demo, _claim, make
from lam.data.games import atari, panning
from lam.data.manifest import read_manifest
from record.errors import BadInput

TINY = Demo(game="pong", episodes=4, length=12, size=32, seed=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest demonstration; do not write into it."""
    folder = tmp_path_factory.mktemp("tiny") / "d"
    assert make(folder, TINY).written == 4
    return folder


def hashes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}


def test_files_have_the_documented_format(tiny_data: Path) -> None:
    names = sorted(path.name for path in tiny_data.glob("*.h5"))
    assert names == [f"pong-{number:04d}.h5" for number in range(10)]
    with h5py.File(tiny_data / names[3]) as file:
        assert file["embeddings"].shape == (12, 16, 2, 8, 8)
        assert file["embeddings"].dtype == np.float32
        assert file["actions"].shape == (24,)
        assert set(file["actions"][:]) <= {0, 1, 2}
        attrs = dict(file.attrs)
    assert attrs["video_name"] == "pong-0003"
    assert (attrs["fps"], attrs["resolution"], attrs["num_chunks"], attrs["seed"]) == (60, 64, 12, 0)
    assert list(attrs["embedding_shape"]) == [12, 16, 2, 8, 8]
    assert json.loads(attrs["action_names"]) == ["NOOP", "RIGHT", "LEFT"]
    assert attrs["game"] == "pong"


def test_latents_are_the_clip_and_actions_led_into_them(tiny_data: Path) -> None:
    clip = atari.play("pong", 24, 64, (0, 5))
    with h5py.File(tiny_data / "pong-0005.h5") as file:
        latents = file["embeddings"][:].transpose(0, 2, 1, 3, 4).reshape(24, 16, 8, 8)
        codec = Codec.load(file["codec"])
        np.testing.assert_array_equal(file["actions"][:], clip.actions)
    np.testing.assert_array_equal(latents, codec.encode(clip.frames))


def test_panning_is_its_picture_moved_by_the_actions(tmp_path: Path) -> None:
    clip = panning.pan(12, 64, (3, 1))
    assert clip.frames.shape == (48, 64, 64, 3)
    assert set(clip.actions) == {0, 1, 2, 3}
    y = x = 0
    for t, action in enumerate(clip.actions[1:], start=1):
        dy, dx = panning.DIRECTIONS[list(panning.DIRECTIONS)[action]]
        y, x = y + 8 * dy, x + 8 * dx
        np.testing.assert_array_equal(clip.frames[4 * t + 3], np.roll(clip.frames[3], (y, x), (0, 1)), err_msg=str(t))
    made = make(tmp_path / "d", Demo("panning", 3, 8, 32))
    assert made.written == 3
    with h5py.File(tmp_path / "d" / "panning-0000.h5") as file:
        assert json.loads(file.attrs["action_names"]) == ["UP", "RIGHT", "LEFT", "DOWN"]


def test_an_action_decides_the_frames_it_is_stored_with() -> None:
    """Pong's own paddle moves down under LEFT and up under RIGHT in the latent frame that carries the action."""
    moves: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for number in range(3):
        clip = atari.play("pong", 40, 128, (0, number))
        right = clip.frames[:, 20:116, 112:118].astype(int)
        green = (right[..., 1] > 150) & (right[..., 0] < 130)
        rows = [np.nonzero(mask)[0].mean() if mask.any() else np.nan for mask in green]
        height = np.array(rows).reshape(40, 4)
        for t in range(1, 40):
            moves[int(clip.actions[t])].append(height[t, 3] - height[t - 1, 3])
    up, down = np.nanmean(moves[1]), np.nanmean(moves[2])
    assert up < -1
    assert down > 1


def test_the_codec_is_fitted_on_training_clips_only(tiny: Path) -> None:
    training = [int(name[5:9]) for name in read_manifest(tiny / "manifest.json", tiny).train]
    with h5py.File(tiny / "pong-0000.h5") as file:
        codec = Codec.load(file["codec"])
    assert 0 < len(training) < TINY.episodes
    with ThreadPoolExecutor(1) as pool:
        for numbers, same in ((training, True), (range(TINY.episodes), False)):
            assert np.allclose(codec.mean, demo._fit(pool, TINY, list(numbers)).mean, atol=1e-4) is same


@pytest.mark.long
def test_same_arguments_same_bytes_other_seed_other_bytes(tiny: Path, tmp_path: Path) -> None:
    for name, recipe in (("b", TINY), ("c", TINY._replace(seed=4))):
        make(tmp_path / name, recipe)
    assert hashes(tiny) == hashes(tmp_path / "b")
    assert hashes(tiny) != hashes(tmp_path / "c")


def test_again_does_nothing_and_a_lost_file_comes_back(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "d"))
    whole, manifest = hashes(folder), (folder / "manifest.json").read_bytes()
    assert make(folder, TINY).written == 0
    assert (folder / "manifest.json").read_bytes() == manifest
    (folder / "pong-0002.h5").unlink()
    (folder / "manifest.json").unlink()
    assert make(folder, TINY).written == 1
    assert hashes(folder) == whole
    assert (folder / "manifest.json").exists()


@pytest.mark.slow
def test_a_process_that_is_killed_is_one_message(tmp_path: Path) -> None:
    words = ["-m", "lam.cli", "data", "demo", str(tmp_path / "d"), "--game", "panning", "--size", "32"]
    made = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True, start_new_session=True)
    found: list[psutil.Process] = []
    while not found and made.poll() is None:
        time.sleep(0.1)
        found = [child for child in psutil.Process(made.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    found[0].kill()
    _, err = made.communicate(timeout=100)
    assert made.returncode == 3, err
    assert err.strip().splitlines()[-1].endswith(
        f"{tmp_path / 'd'}: a process that did part of the work was killed, perhaps because memory ran out (dmesg says "
        "so); what is done is kept: run the same command again")
    assert "Traceback" not in err


def test_refuses_a_folder_that_holds_something_else(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="is not empty and holds no demonstration; name a new folder"):
        make(tmp_path, TINY)
    with pytest.raises(BadInput, match=r"holds another demonstration \(length 12, seed 3\)"):
        make(tiny, TINY._replace(length=14, seed=5))
    with pytest.raises(BadInput, match="is a file, expected a folder"):
        make(tmp_path / "notes.txt", TINY)


def test_a_slip_of_the_arguments_that_made_no_clip_is_no_obstacle(tmp_path: Path) -> None:
    for length in (4000, 12, 12):
        _claim(tmp_path / "d", TINY._replace(length=length))
        assert json.loads((tmp_path / "d" / RECIPE).read_text())["length"] == length


@pytest.mark.parametrize(("change", "message"), [
    ({"episodes": 2}, "--episodes: got 2, expected 3 to 100,000; one file each for training, validation and test"),
    ({"length": 2}, "--length: got 2, expected 4"),
    ({"length": 13}, "--length: got 13, which is no multiple of 2; take 12 or 14"),
    ({"size": 100}, "--size: got 100, which is no multiple of 8; take 96 or 104"),
    ({"size": 0}, "--size: got 0, expected 32 to 512"),
    ({"seed": -1}, "--seed: got -1, expected 0"),
    ({"game": "pongg"}, "--game: got 'pongg', no such game; did you mean 'pong'?"),
    ({"game": "joust"}, "--game: got 'joust', no such game"),  # on the disk, but the emulator does not know it
    ({"game": ""}, "--game: got '', no such game; for example battle_zone"),
])
def test_bad_arguments_start_nothing(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        make(tmp_path / "d", TINY._replace(**change))
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "d").exists()


def test_a_clip_never_loses_a_life() -> None:
    """In River Raid a random player soon crashes; play goes back until the clip is whole, and never jumps."""
    clip = atari.play("riverraid", 100, 32, (0, 0))
    jumps = np.abs(np.diff(clip.frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert clip.frames.shape == (400, 32, 32, 3)
    assert jumps.max() < 40  # a screen that is cut away changes by far more


def test_a_long_clip_is_played_on_from_where_it_got() -> None:
    assert len(atari.play("breakout", 400, 32, (0, 0)).actions) == 400


def test_a_game_without_a_table_uses_its_minimal_actions() -> None:
    assert atari.game_actions("kaboom") == ["NOOP", "FIRE", "RIGHT", "LEFT"]


def test_every_table_names_actions_of_its_game() -> None:
    for game, names in atari.ACTIONS.items():
        legal = {action.name for action in atari._emulator(game, 0).getMinimalActionSet()}
        assert set(names) <= legal, game
        assert len(set(names)) == len(names)
