"""Which transitions of a folder are labelled, and in which portions: the same for the same files, whoever works.

A portion is what one worker does at a time and what a restart finds done. A long video is cut, short ones share a
portion, so that each holds a few thousand transitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lam.data.index import Header, headers
from lam.data.readers.video import Reader
from lam.data.sources import Direct
from record.errors import BadInput

PORTION = 4096  # transitions


class Piece(NamedTuple):
    """Consecutive transitions of one video, those that lead into the latent frames first .. first + size - 1."""

    file: int
    first: int
    size: int


@dataclass(frozen=True)
class Plan:
    """What is to be labelled.

    Attributes:
        reader: of the folder.
        names: of the videos that have a transition, sorted.
        known: their headers.
        short: videos of one latent frame, which have no transition.
        problems: files that cannot be used, and why.
        portions: pieces in the order of the result, each list done at once.
    """

    reader: Reader
    names: Sequence[str]
    known: Sequence[Header]
    short: Sequence[str]
    problems: Mapping[str, BadInput]
    portions: Sequence[Sequence[Piece]] = field(default_factory=list)

    @property
    def transitions(self) -> int:
        """How many there are in all."""
        return sum(header.info.latent_frames - 1 for header in self.known)

    def source(self) -> Direct:
        """The videos, opened as they are asked for."""
        return Direct(self.reader, self.names, self.known)


def planned(reader: Reader, latent_shape: tuple[int, int, int], portion: int = PORTION) -> Plan:
    """Look at the header of every file of a folder; reads no latents.

    Raises:
        BadInput: no such folder, no file of it can be used or has a transition, or one holds latents of another shape
            than the model's.
    """
    found, problems = headers(reader, reader.names())
    if not found:
        raise next(iter(problems.values()))
    for name, header in found.items():
        if header.info.frame_shape != latent_shape:
            raise BadInput(f"holds latents {list(header.info.frame_shape)}, the model was trained on "
                           f"{list(latent_shape)}", source=reader.home(name), remedy="encode the videos alike, or name "
                           "another model")
    names = [name for name in found if found[name].info.latent_frames > 1]
    if not names:
        raise BadInput("holds videos of one latent frame only, which have no transition", source=reader.folder,
                       remedy="encode longer videos, or name another folder")
    known = [found[name] for name in names]
    return Plan(reader, names, known, [name for name in found if name not in set(names)], problems,
                portions([header.info.latent_frames for header in known], portion))


def portions(frames: Sequence[int], most: int) -> list[list[Piece]]:
    """Portions of about `most` transitions of videos with so many latent frames; only what is longer is cut."""
    done: list[list[Piece]] = []
    size = most
    for file, count in enumerate(frames):
        for first in range(1, count, most):
            piece = Piece(file, first, min(most, count - first))
            if size >= most:
                done.append([])
                size = 0
            done[-1].append(piece)
            size += piece.size
    return done
