"""Codes of transitions: what the model says of each, read where a validation would read it.

A transition is read as the last one of a window of `sequence_length` latent frames; the first ones of a video, which
have no whole window before them, at their place in its first window. Column `place` says at which: sequence_length - 2
is where the metrics were measured.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lam.data.sources import Source
from lam.inference.model import ActionModel, Actions
from lam.labelling.plan import Piece
from record.errors import BadInput

AHEAD = 4  # batches read before they are asked for
Array = NDArray[Any]
Item = TypeVar("Item")


class Rows(NamedTuple):
    """Windows of one video of the same length, [B, L, C, H, W], and of each which transitions are wanted of it.

    Attributes:
        file: number of the video.
        first: latent frame at which the first window begins; each next one begins a frame later.
        skip: transitions of the first window that somebody else labels; of the others only the last one counts.
    """

    windows: Tensor
    file: int
    first: int
    skip: int


@dataclass(frozen=True)
class Coder:
    """Labels portions of a plan.

    Attributes:
        embedding: whether the embedding before quantisation is kept.
        batch_size: windows that go through the model at a time.
        names: of the videos, for who is told that one cannot be read.
    """

    model: ActionModel
    source: Source
    embedding: bool = False
    batch_size: int = 64
    names: Sequence[str] = ()

    def portion(self, pieces: Sequence[Piece]) -> dict[str, Array]:
        """The columns of a portion's transitions, in order."""
        return next(columns for _, columns in self.portions([(0, pieces)]))

    def portions(self, numbered: Iterable[tuple[int, Sequence[Piece]]]) -> Iterator[tuple[int, dict[str, Array]]]:
        """Portions with their numbers, one after another; the next windows are read while the model is at work."""
        found: list[dict[str, Array]] = []
        for number, batch in _ahead((number, batch) for number, pieces in numbered
                                    for batch in itertools.chain(self._batches(pieces), (None,))):
            if batch is not None:
                found.extend(self._coded(*batch))
                continue
            joined = {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}
            found = []
            yield number, joined | self._named(joined)

    def _batches(self, pieces: Sequence[Piece]) -> Iterator[tuple[list[Rows], Tensor]]:
        """Windows of several videos together, where they are of one length, and all of them as one tensor."""
        waiting: list[Rows] = []
        for rows in (rows for piece in pieces for rows in self._windows(piece)):
            alike = not waiting or rows.windows.shape[1] == waiting[0].windows.shape[1]
            if not alike or sum(len(each.windows) for each in waiting) + len(rows.windows) > self.batch_size:
                if waiting:
                    yield waiting, torch.cat([each.windows for each in waiting])
                waiting = []
            waiting.append(rows)
        yield waiting, torch.cat([each.windows for each in waiting])

    def _windows(self, piece: Piece) -> Iterator[Rows]:
        """The windows of a piece, at most `batch_size` at a time; what is read at a time is bounded by that."""
        T, end = self.model.config.sequence_length, piece.first + piece.size
        target = piece.first
        while target < end:
            begin = max(0, target - T + 1)
            stop = min(end, begin + T + self.batch_size - 1)
            frames = torch.from_numpy(np.array(self.source.frames(piece.file, begin, stop - begin), np.float32))
            if not frames.isfinite().all():
                raise BadInput(f"holds NaN or infinite latents in frames {begin} to {stop - 1}",
                               source=self.names[piece.file] if self.names else f"video {piece.file}",
                               remedy="encode the video again, or take it out")
            yield Rows(frames.unfold(0, min(T, len(frames)), 1).movedim(-1, 1), piece.file, begin, target - begin - 1)
            target = stop

    @torch.inference_mode()
    def _coded(self, batch: list[Rows], windows_BTCHW: Tensor) -> Iterator[dict[str, Array]]:
        found = self.model.read(windows_BTCHW)
        done = 0
        for rows in batch:
            part = slice(done, done := done + len(rows.windows))
            yield self._columns(rows, found.rows(part))

    def _columns(self, rows: Rows, found: Actions) -> dict[str, Array]:
        """Every wanted transition of the first window, then the last one of each other."""
        length, others = rows.windows.shape[1], len(rows.windows) - 1

        def picked(values: Tensor) -> Array:
            return torch.cat([values[0, rows.skip:], values[1:, -1]]).cpu().numpy()

        places = [*range(rows.skip, length - 1), *([length - 2] * others)]
        first = rows.first + rows.skip + 1
        columns: dict[str, Array] = {
            "video": np.full(len(places), rows.file, np.int32), "frame": first + np.arange(len(places), dtype=np.int32),
            "place": np.array(places, np.int16), "distance": picked(found.distance)}
        if found.codes is not None:
            columns["codes"] = picked(found.codes).astype(np.int32)
        if self.embedding:
            columns["embedding"] = picked(found.embedding.flatten(2))
        return columns

    def _named(self, columns: dict[str, Array]) -> dict[str, Array]:
        """The number of each tuple, and the likeliest action with its probability where actions are known."""
        if "codes" not in columns:
            return {}
        named = {"tuple": np.asarray(self.model.number(columns["codes"]), np.int64)}
        if self.model.naming is not None:
            shares = self.model.naming.shares(columns["codes"])
            named |= {"action": shares.argmax(1).astype(np.int32), "probability": shares.max(1).astype(np.float32)}
        return named


def _ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, read by a thread that is at most `AHEAD` of them ahead of who works on them."""
    source, ready = iter(items), deque[Future[Item]]()
    with ThreadPoolExecutor(1) as reader:
        try:
            while True:
                while len(ready) < AHEAD:
                    ready.append(reader.submit(next, source))
                try:
                    yield ready.popleft().result()
                except StopIteration:
                    return
        finally:
            reader.shutdown(cancel_futures=True)
