"""Which transitions a person is asked about, and what becomes of the answers.

They are spread over the split and drawn without regard to the codes, so that a skill measured on them is that of the
split. Answers go to labels.csv as they are given; asking again goes on with what has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lam.config import RunConfig
from lam.data import labels
from lam.data import windows as data
from lam.data.checked import Checked
from lam.data.codec import Codec, png
from lam.data.h5 import MOST_KINDS, UNKNOWN_ACTION
from lam.data.manifest import SplitName
from lam.data.windows import Windows
from lam.evaluation.draws import subset
from record.errors import BadInput
from record.storage import addresses

FRAMES_BEFORE = 3  # latent frames shown before the one that the action led into
_NUMBERS = frozenset(map(str, range(MOST_KINDS)))


@dataclass(frozen=True)
class Question:
    """One transition: the file and the latent frame that its action led into."""

    file: str
    frame: int


@dataclass
class Session:
    """The questions of one sitting and their answers so far.

    Attributes:
        names: actions to choose from, by number; a person may add to them where the data has no table.
        fixed: whether the data has a table of actions, which holds all there are.
        numbered: whether its actions are numbers that have no names.
        answers: by question; None = skipped.
    """

    folder: Path
    windows: Windows
    codec: Codec
    questions: Sequence[Question]
    names: list[str]
    fixed: bool
    numbered: bool = False
    answers: dict[int, str | None] = field(default_factory=dict)

    @property
    def given(self) -> int:
        """Labels that were given, without what was skipped."""
        return sum(action is not None for action in self.answers.values())

    def answer(self, number: int, action: str | None) -> None:
        """Take an answer, durably; None skips the question.

        Raises:
            BadInput: no such question, or no such action.
        """
        if not 0 <= number < len(self.questions):
            raise BadInput(f"got question {number}, there are {len(self.questions)}", key="number")
        if action is not None:
            self._check(action)
            question = self.questions[number]
            labels.append(self.folder, question.file, question.frame, action)
        self.answers[number] = action

    def _check(self, action: str) -> None:
        if action in self.names:
            return
        may, remedy = ((False, f"one of {', '.join(self.names)}") if self.fixed else
                       (action in _NUMBERS, f"a number below {MOST_KINDS}") if self.numbered else
                       (action.isidentifier(), "a word of letters and digits"))
        if not may:
            raise BadInput(f"got {action!r:.40}", key="action", remedy=remedy)
        self.names.append(action)

    def pictures(self, number: int) -> list[str]:
        """The video frames of a question's latent frames as PNG data URIs, oldest first."""
        question = self.questions[number]
        first = max(0, question.frame - FRAMES_BEFORE)
        latents = self.windows.latents_of(self.windows.files.index(question.file), first, question.frame + 1 - first)
        return [png(picture) for block in self.codec.decode(latents) for picture in block]


def begin(config: RunConfig, split: SplitName, count: int) -> Session:
    """Choose `count` transitions of a split that have no label yet.

    Raises:
        BadInput: the data has no codec to show them by, or every transition has its label.
    """
    if addresses.is_one(config.data_dir):
        raise BadInput("labels are kept beside the data, and a store's are read only", source=config.data_dir,
                       key="data_dir", remedy=f"write {labels.FILE_NAME} in a folder, and copy it into the data set")
    checked = data.check(config)
    if len(checked.parts) > 1:
        raise BadInput("the run's data is a mixture, whose folders may know other actions", key="data",
                       remedy=f"write {labels.FILE_NAME} beside each with columns {','.join(labels.COLUMNS)}")
    codec = data.load_codec(config, checked)
    if codec is None:
        raise BadInput("holds no codec, so nothing can be shown", source=config.data_dir,
                       remedy=f"write {labels.FILE_NAME} beside the files with columns {','.join(labels.COLUMNS)}")
    windows = data.open_split(config, split, stride=1, checked=checked)
    open_rows = np.setdiff1d(np.arange(len(windows)), windows.labelled)
    if not len(open_rows):
        raise BadInput(f"every transition of {split} has its true action already", source=config.data_dir,
                       remedy="ask about another --split, or score with 'lam evaluate'")
    rows = np.random.default_rng(len(open_rows)).permutation(open_rows[subset(len(open_rows), count)])
    last = windows.sequence_length - 1
    questions = [Question(windows.files[file], start + last) for file, start in windows.starts[rows].tolist()]
    part, info = checked.first
    numbers = [] if part.given.names else _numbers(config, checked)
    return Session(part.reader.folder, windows, codec, questions, [*part.given.names, *map(str, numbers)],
                   bool(info.action_names), bool(numbers))


def _numbers(config: RunConfig, checked: Checked) -> list[int]:
    """The numbers of actions in the videos that train and that score, in order."""
    splits = [data.open_split(config, split, stride=1, checked=checked) for split in ("train", "validation")]
    found = {number for windows in splits for file in range(len(windows.files))
             for number in windows.actions_of(file).tolist()}
    return sorted(found - {UNKNOWN_ACTION})
