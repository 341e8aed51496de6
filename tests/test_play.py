"""Playing a model: what a page begins with, what a key does, and that it is what the model says."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import browsing
import h5py
import numpy as np
import pytest
from PIL import Image
from test_inference import trained
from test_labelling import fetch

import lam
from lam.inference.playing import TEMPLATE, Game
from lam.inference.serving import LocalPage
from record.errors import BadInput


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_data, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def game(run: Path, tiny_data: Path) -> Game:
    return Game(lam.load(run, device="cpu"), tiny_data)


@pytest.fixture
def page(game: Game) -> Iterator[LocalPage]:
    with LocalPage(TEMPLATE, game.answer) as page:
        yield page


def frames_of(data: Path, name: str) -> np.ndarray:
    with h5py.File(data / name) as file:
        return np.asarray(file["embeddings"][:].transpose(0, 2, 1, 3, 4).reshape(-1, 16, 8, 8))


def test_keys_imagine_what_the_model_imagines(game: Game, tiny_data: Path) -> None:
    game.begin(2, 7)
    for codes in game.keys[:3]:
        game.press(codes)
    frames = frames_of(tiny_data, game.names[2])[4:8]
    known = game.model.encode(frames).codes
    assert known is not None
    made = game.model.imagine(frames, np.concatenate([known.numpy(), game.keys[:3]]))
    assert np.allclose(game._past[-1][0], made[-1].numpy(), atol=1e-5)
    shown = game.shown()
    assert shown["steps"] == 3
    assert shown["away"] == pytest.approx(float(np.sqrt(np.mean((made[-1].numpy() - frames[-1]) ** 2))), rel=1e-4)
    game.undo()
    assert np.allclose(game._past[-1][0], made[-2].numpy(), atol=1e-5)


def test_pictures_are_those_of_the_codec(game: Game, tiny_data: Path) -> None:
    game.begin(0, 3)
    picture = game.shown()["start"][0].removeprefix("data:image/png;base64,")
    assert game.codec is not None
    true = game.codec.decode(frames_of(tiny_data, game.names[0])[3:4])[0, -1]
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))) == true).all()


def test_the_commonest_codes_have_keys_and_say_what_they_mean(game: Game) -> None:
    keys = game.shown()["keys"]
    assert 1 <= len(keys) <= 9
    assert keys[0]["means"].split()[0] in ("NOOP", "RIGHT", "LEFT")


def test_the_page_takes_keys_and_tells_what_is_wrong(page: LocalPage, game: Game) -> None:
    assert b"Choose actions" in fetch(page.url)[1]
    assert json.loads(fetch(page.url + "state")[1])["steps"] == 0
    assert json.loads(fetch(page.url + "press", {"codes": list(game.keys[0])})[1])["steps"] == 1
    assert json.loads(fetch(page.url + "undo", {})[1])["steps"] == 0
    status, body = fetch(page.url + "press", {"codes": [0, 99, 0]})
    assert (status, json.loads(body)["error"]) == (400, "codes: got [[0, 99, 0]]; an action is 3 codes from 0 to 11")
    assert fetch(page.url + "begin", {"video": 99, "frame": 0})[0] == 400
    assert fetch(page.url + "elsewhere")[0] == 404
    assert fetch(page.url.replace(page.token, "x") + "state")[0] == 404


def test_without_a_codec_there_are_numbers(run: Path, tiny_data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for path in copy.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["codec"]
    shutil.rmtree(copy / ".cache", ignore_errors=True)
    game = Game(lam.load(run, device="cpu"), copy)
    game.press(game.keys[0])
    shown = game.shown()
    assert (shown["film"], shown["start"]) == ([], [])
    assert shown["change"] > 0


def test_videos_of_another_shape_cannot_be_played(run: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["embeddings"] = np.zeros((4, 16, 1, 4, 4), np.float32)
    with pytest.raises(BadInput, match=r"holds no video of two or more frames of latents \[16, 8, 8\]; name"):
        Game(lam.load(run, device="cpu"), tmp_path)


def test_a_port_that_is_taken_is_named(page: LocalPage, game: Game) -> None:
    with pytest.raises(BadInput, match=f"--port: got {page.server_port}, which cannot be used .*; name another"):
        LocalPage(TEMPLATE, game.answer, page.server_port)


@pytest.mark.slow
@pytest.mark.skipif(browsing.CHROMIUM is None, reason="no chromium on this machine")
def test_keys_pressed_in_a_browser_change_the_picture(page: LocalPage, game: Game, tmp_path: Path) -> None:
    with browsing.opened(page.url, tmp_path) as tab:
        tab.wait_for("document.querySelectorAll('#keys button').length > 0 && document.querySelector('#now').src")
        seen = [tab.value("document.querySelector('#now').src")]
        for step, key in enumerate(("1", "2"), 1):
            tab.press(key)
            tab.wait_for(f"document.querySelector('#caption').textContent.includes('{step} step')")
            tab.wait_for(f"document.querySelector('#now').src !== {json.dumps(seen[-1])}")
            seen.append(tab.value("document.querySelector('#now').src"))
        assert game.chosen == game.keys[:2], "the keys are those of the commonest actions"
        assert seen[-1].startswith("data:image/png;base64,")
        tab.press("u")
        tab.wait_for("document.querySelector('#caption').textContent.includes('1 step ')")
        assert len(game.chosen) == 1
        tab.press("r")
        tab.wait_for("document.querySelector('#caption').textContent === 'press a key'")
        tab.value("document.querySelector('#codes').focus()")
        tab.press("1")
        assert tab.value("document.querySelector('#codes').value") == "1", "a key typed into the field is no action"
        assert game.chosen == []
        tab.value("document.querySelector('#codes').value = '99 0 0'; document.querySelector('#own').requestSubmit()")
        tab.wait_for("document.querySelector('#error').textContent.includes('an action is 3 codes from 0 to 11')")
        game.codec = None
        tab.value("document.querySelector('#codes').blur()")
        tab.press("1")
        tab.wait_for("document.querySelector('#caption').textContent.includes('1 step on; the data has no codec')")
        assert not tab.value("[...document.images].some(each => each.checkVisibility())"), "no broken pictures"
        refused = [each for each in tab.complaints if "400" in each]
        assert tab.complaints == refused, "nothing but the refused codes is an error"
