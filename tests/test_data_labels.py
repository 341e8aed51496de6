"""labels.csv: labels that a person gave, read over what the files say."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lam.config import RunConfig
from lam.data import labels, windows
from record.errors import BadData


@pytest.fixture
def folder(tiny_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


def config(folder: Path) -> RunConfig:
    return RunConfig(data_dir=str(folder), sequence_length=4)


def without_actions(folder: Path) -> None:
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["actions"]
            del file.attrs["action_names"]


@pytest.mark.parametrize("cache", [True, False])
def test_a_given_label_counts_in_place_of_the_files_and_the_later_of_two(folder: Path, cache: bool) -> None:
    asked = config(folder).replace(cache=cache)
    name = windows.open_split(asked, "train").files[2]
    before = windows.open_split(asked, "train").actions_of(2)
    other = ["NOOP", "RIGHT", "LEFT"][(before[5] + 1) % 3]
    for action in ("0", other):
        labels.append(folder, name, 5, action)
    after = windows.open_split(asked, "train").actions_of(2)
    assert after[5] == (before[5] + 1) % 3
    assert (np.delete(after, 5) == np.delete(before, 5)).all()


def test_data_without_actions_have_those_that_were_given_and_the_others_are_unknown(folder: Path) -> None:
    without_actions(folder)
    assert not windows.has_labels(config(folder))
    scored = windows.open_split(config(folder), "validation").files[0]
    for frame, action in ((3, "jump"), (9, "run"), (10, "jump")):
        labels.append(folder, scored, frame, action)
    assert windows.has_labels(config(folder))
    assert windows.action_names(config(folder)) == ["jump", "run"]
    found = windows.open_split(config(folder), "validation").actions_of(0)
    assert {int(frame): int(found[frame]) for frame in np.flatnonzero(found >= 0)} == {3: 0, 9: 1, 10: 0}
    assert (windows.open_split(config(folder), "train").actions_of(0) == -1).all()


@pytest.mark.parametrize(("first", "second"), [("0", "jump"), ("jump", "0")])
def test_names_and_numbers_of_no_table_are_not_taken_for_each_other(folder: Path, first: str, second: str) -> None:
    without_actions(folder)
    name = windows.open_split(config(folder), "train").files[0]
    for frame, action in ((1, first), (2, second)):
        labels.append(folder, name, frame, action)
    with pytest.raises(BadData, match=rf"labels.csv:3:action: got '{second}' beside '{first}', and no file says"):
        windows.open_split(config(folder), "train")


def test_a_name_is_not_taken_for_a_number_of_the_videos(folder: Path) -> None:
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file.attrs["action_names"]
    labels.append(folder, windows.open_split(config(folder), "validation").files[0], 3, "jump")
    with pytest.raises(BadData, match=r"got 'jump', and the videos have numbers of actions without names; write their"):
        windows.open_split(config(folder), "train")
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            file["actions"][...] = -1
    assert len(windows.open_split(config(folder), "validation").labelled) == 1, "who knows none has no numbers"


def test_a_number_that_can_be_no_action_is_refused_before_anything_is_counted_by_it(folder: Path) -> None:
    path = sorted(folder.glob("*.h5"))[0]
    with h5py.File(path, "r+") as file:
        del file.attrs["action_names"]
        file["actions"][4] = 10**15
    with pytest.raises(BadData, match=r"holds 1000000000000000, expected -1 \(unknown\) to 999; number the actions"):
        windows.open_split(config(folder), "train")


def test_other_labels_are_other_data(folder: Path) -> None:
    before = windows.data_fingerprint(config(folder))
    labels.append(folder, windows.open_split(config(folder), "train").files[0], 1, "LEFT")
    assert windows.data_fingerprint(config(folder)) != before


@pytest.mark.parametrize(("line", "words"), [
    ("nobody.h5,1,LEFT", "got 'nobody.h5', no file of the manifest"),
    ("pong-0000.h5,0,LEFT", "got '0', expected a latent frame from 1 to 23"),
    ("pong-0000.h5,24,LEFT", "got '24', expected a latent frame from 1 to 23"),
    ("pong-0000.h5,-1,LEFT", "got '-1', expected a latent frame"),
    ("pong-0000.h5,1,LEFTT", "got 'LEFTT', no action of the data; did you mean 'LEFT'"),
    ("pong-0000.h5," + "9" * 5000 + ",LEFT", "expected a latent frame from 1 to 23"),
    ("pong-0000.h5,1,3", "got '3', no action of the data"),
    ("pong-0000.h5,1", "got 2 values, expected file,frame,action"),
])
def test_a_line_that_cannot_be_is_named_with_what_may_stand_there(folder: Path, line: str, words: str) -> None:
    (folder / labels.FILE_NAME).write_text(f"file,frame,action\npong-0000.h5,1,LEFT\n\n{line}\n")
    with pytest.raises(BadData, match=r"labels.csv:4") as caught:
        windows.check(config(folder))
    assert words in str(caught.value)


def test_bytes_that_are_no_text_are_refused_in_words(folder: Path) -> None:
    (folder / labels.FILE_NAME).write_bytes(b"file,frame,action\n\xff\xfe,1,LEFT\n")
    with pytest.raises(BadData, match=r"labels.csv: cannot be read as lines of values"):
        windows.check(config(folder))


def test_a_file_without_the_header_is_refused(folder: Path) -> None:
    (folder / labels.FILE_NAME).write_text("pong-0000.h5,1,LEFT\n")
    with pytest.raises(BadData, match=r"labels.csv: begins with 'pong-0000.h5,1,LEFT', expected file,frame,action"):
        windows.check(config(folder))
