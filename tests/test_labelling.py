"""Asking a person: which transitions, what a page serves and to whom, and where the answers go."""

from __future__ import annotations

import base64
import io
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import h5py
import numpy as np
import pytest
import typer
from PIL import Image

from lam import cli
from lam.config import RunConfig
from lam.data import windows
from lam.labelling import questions
from lam.labelling.page import Page
from lam.labelling.questions import Session
from lam.workload import LatentActions
from record.errors import BadInput


@pytest.fixture
def folder(tiny_data: Path, tmp_path: Path) -> Path:
    """The data without true actions, but with their names."""
    copy = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for path in copy.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["actions"]
    return copy


def config(folder: Path) -> RunConfig:
    return RunConfig(data_dir=str(folder), sequence_length=4)


@pytest.fixture
def session(folder: Path) -> Session:
    return questions.begin(config(folder), "train", 12)


@pytest.fixture
def page(session: Session) -> Iterator[Page]:
    with Page(session) as page:
        yield page


def fetch(url: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_questions_are_spread_over_the_videos_and_each_is_asked_once(session: Session) -> None:
    assert len({(asked.file, asked.frame) for asked in session.questions}) == 12
    assert len({asked.file for asked in session.questions}) == 8
    assert session.names == ["NOOP", "RIGHT", "LEFT"]


def test_answers_become_the_true_actions_and_are_not_asked_again(folder: Path, session: Session) -> None:
    session.answer(0, "LEFT")
    session.answer(1, None)
    session.answer(0, "RIGHT")  # gone back
    assert session.given == 1
    asked = session.questions[0]
    split = windows.open_split(config(folder), "train")
    assert split.actions_of(split.files.index(asked.file))[asked.frame] == 1
    again = questions.begin(config(folder), "train", 10_000)
    assert len(again.questions) == len(split) - 1
    assert asked not in again.questions


def test_the_last_picture_is_the_frame_that_the_action_led_into(folder: Path, session: Session) -> None:
    asked = session.questions[3]
    codec = windows.load_codec(config(folder))
    assert codec is not None
    split = windows.open_split(config(folder), "train")
    true = codec.decode(split.latents_of(split.files.index(asked.file), asked.frame, 1))[0, -1]
    shown = session.pictures(3)[-1].removeprefix("data:image/png;base64,")
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(shown)))) == true).all()
    assert len(session.pictures(3)) == 4 * min(questions.FRAMES_BEFORE + 1, asked.frame + 1)


@pytest.mark.parametrize(("number", "action", "words"), [
    (12, "LEFT", "got question 12, there are 12"), (-1, "LEFT", "got question -1"),
    (0, "JUMP", "got 'JUMP'; one of NOOP, RIGHT, LEFT"),
])
def test_what_is_no_answer_is_refused_and_nothing_written(session: Session, number: int, action: str,
                                                          words: str) -> None:
    with pytest.raises(BadInput, match=words):
        session.answer(number, action)
    assert not (session.folder / "labels.csv").exists()


def test_a_person_names_actions_where_the_data_names_none(folder: Path) -> None:
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file.attrs["action_names"]
    session = questions.begin(config(folder), "train", 5)
    session.answer(0, "jump")
    session.answer(1, "jump")
    assert session.names == ["jump"]
    with pytest.raises(BadInput, match="a word of letters and digits"):
        session.answer(2, "a,b")
    assert windows.action_names(config(folder)) == ["jump"]


def test_where_the_data_number_their_actions_a_person_gives_numbers(tiny_data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file.attrs["action_names"]
            file["actions"][::2] = -1
    session = questions.begin(config(folder), "validation", 5)
    assert session.names == ["0", "1", "2"]
    with pytest.raises(BadInput, match="got 'LEFT'; a number below 1000"):
        session.answer(0, "LEFT")
    session.answer(0, "2")
    session.answer(1, "3")
    assert session.names == ["0", "1", "2", "3"]
    windows_ = questions.begin(config(folder), "validation", 5).windows
    asked = session.questions[1]
    assert windows_.actions_of(windows_.files.index(asked.file))[asked.frame] == 3


def test_data_without_pictures_or_without_open_questions_say_so(folder: Path, tiny_data: Path) -> None:
    with pytest.raises(BadInput, match="every transition of validation has its true action already"):
        questions.begin(config(tiny_data), "validation", 5)
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["codec"]
    with pytest.raises(BadInput, match=r"holds no codec, so nothing can be shown; write labels.csv"):
        questions.begin(config(folder), "validation", 5)


def test_a_sweep_is_told_by_what_it_ranks(folder: Path, tiny_data: Path) -> None:
    told = LatentActions().ranks_by
    scored = len(windows.open_split(config(folder), "validation", stride=1))
    assert told(config(tiny_data).replace(label_sequences=4), "val/objective") == (
        "ranked by preset control_health, not by what codes mean: the validation split has 4 of the 100 true actions "
        "that it takes; 'lam label RUN --ask' takes some")
    assert "the validation split has no true action; 'lam label" in told(config(folder), "val/objective")
    by_error = config(folder).replace(objective_preset="mse")
    assert told(by_error, "val/objective") == "ranked by preset mse, not by what codes mean"
    named = config(tiny_data).replace(objective_preset="action")
    assert told(named, "val/objective") == (
        f"ranked by what codes tell of {scored} true actions of the validation split (preset action)")
    assert told(named, "val/mse_loss") == ""


def test_the_page_asks_and_takes_answers(page: Page) -> None:
    status, html = fetch(page.url)
    assert (status, b"Which action led" in html) == (200, True)
    status, body = fetch(page.url + "question/0")
    asked = json.loads(body)
    assert (asked["names"], asked["total"], asked["given"]) == (["NOOP", "RIGHT", "LEFT"], 12, 0)
    assert fetch(page.url + "answer", {"number": 0, "action": "LEFT"}) == (200, b'{"given": 1}')
    status, body = fetch(page.url + "answer", {"number": 0, "action": "JUMP"})
    assert (status, json.loads(body)) == (400, {"error": "action: got 'JUMP'; one of NOOP, RIGHT, LEFT"})
    assert json.loads(fetch(page.url + "question/12")[1])["done"]
    assert (page.session.folder / "labels.csv").read_text().count("\n") == 2


@pytest.mark.slow
@pytest.mark.skipif(browsing.CHROMIUM is None, reason="no chromium on this machine")
def test_keys_pressed_in_a_browser_become_labels(page: Page, tmp_path: Path) -> None:
    written = page.session.folder / "labels.csv"
    with browsing.opened(page.url, tmp_path / "browser") as tab:
        tab.wait_for("document.querySelectorAll('#actions button').length === 3")
        for number, key in enumerate(("3", "s", "1"), 1):
            tab.press(key)
            tab.wait_for(f"document.querySelector('#count').textContent.includes('{number + 1} of 12')")
        tab.press("9")  # there are three actions
        assert tab.value("document.querySelector('#count').textContent") == "2 given · 4 of 12"
        tab.press("u")
        tab.wait_for("document.querySelector('#count').textContent.includes('3 of 12')")
        tab.press("2")
        tab.wait_for("document.querySelector('#count').textContent.includes('4 of 12')")
        assert tab.complaints == []
    places, answers = zip(*(line.rsplit(",", 1) for line in written.read_text().splitlines()[1:]), strict=True)
    assert answers == ("LEFT", "NOOP", "RIGHT"), "what cannot be told is no label"
    assert places[1] == places[2] != places[0], "another answer to the same transition, which then counts"


def test_the_page_is_for_this_machine_and_whoever_knows_its_address(page: Page) -> None:
    assert page.server_address[0] == "127.0.0.1"
    assert fetch(page.url.replace(page.token, "guess"))[0] == 404
    assert fetch(page.url, Host="evil.example")[0] == 404
    assert fetch(page.url + "answer", {"number": 0, "action": "L" * 2000})[0] == 404
    assert fetch(page.url + "answer", ["LEFT"])[0] == 400
    assert fetch(page.url + "answer", {"number": 0, "action": 2})[0] == 400


@pytest.mark.parametrize(("given", "said"), [
    (["--ask", "data"], "--ask and DATA: got both; --ask shows transitions of the run's own data and gives no"),
    (["--ask", "--workers", "4"], "--ask and --workers: got both"),
    (["data", "-o", "codes.npz", "--count", "5"], "--count: got it without --ask; add --ask, or leave it out"),
])
def test_an_option_that_would_do_nothing_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        typer.main.get_command(cli.build()).main(["label", "run", *given], standalone_mode=False)
    assert said in str(refused.value)
