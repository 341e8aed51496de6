"""Several folders of data as one: whose sequences a batch holds, and what their numbers of actions mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lam.data.h5 import UNKNOWN_ACTION
from lam.data.sources import Source

log = logging.getLogger(__name__)


class ActionTable(NamedTuple):
    """One table of actions for several folders.

    Attributes:
        names: of the actions, by number; empty where no folder names them.
        maps: for each folder what its own numbers are in that table; None where they are the same.
    """

    names: tuple[str, ...]
    maps: tuple[NDArray[np.int64] | None, ...]


def actions(tables: Sequence[Sequence[str]], have: Sequence[bool], folders: Sequence[str]) -> ActionTable:
    """The table of all names, in the order in which they first stand.

    Numbers without names mean the same everywhere where no folder has names; beside folders that have, they cannot be
    told from theirs, and are left out.

    Args:
        tables: of each folder its names by number.
        have: of each folder whether it has true actions at all.
    """
    if len(tables) == 1 or not any(tables):
        return ActionTable(tuple(tables[0]), (None,) * len(tables))
    names = tuple(dict.fromkeys(name for table in tables for name in table))
    maps = []
    for table, any_, folder in zip(tables, have, folders, strict=True):
        if any_ and not table:
            log.warning("%s: its actions have numbers without names, and other folders' have names: they are left out",
                        folder)
        maps.append(np.array([names.index(name) for name in table], np.int64))
    return ActionTable(names, tuple(maps))


class Joined:
    """The sources of several folders as one, file after file, their actions in one table."""

    def __init__(self, sources: Sequence[Source], counts: Sequence[int], maps: Sequence[NDArray[np.int64] | None]):
        self.sources, self.maps = sources, maps
        self.begins = np.concatenate([[0], np.cumsum(counts)])

    def _of(self, file: int) -> tuple[int, int]:
        part = int(np.searchsorted(self.begins, file, side="right")) - 1
        return part, file - int(self.begins[part])

    def frames(self, file: int, first: int, count: int) -> NDArray[np.float32]:
        part, number = self._of(file)
        return self.sources[part].frames(number, first, count)

    def actions(self, file: int, first: int, count: int) -> NDArray[np.int64]:
        part, number = self._of(file)
        found, known = self.sources[part].actions(number, first, count), self.maps[part]
        if known is None:
            return found
        inside = (found >= 0) & (found < len(known))
        return np.where(inside, np.append(known, UNKNOWN_ACTION)[np.where(inside, found, -1)], UNKNOWN_ACTION)


def batches(groups: Sequence[NDArray[np.int64]], weights: Sequence[float], size: int, steps: int,
            seed: tuple[int, ...]) -> Iterator[NDArray[np.int64]]:
    """[size] sequence numbers of each step, from `seed` alone.

    Each place of a batch is drawn for a group with the probability of its weight; a group's sequences come in
    permutations, one after another, so that none comes twice before all came once.

    Args:
        groups: the sequences of each folder.
        weights: above 0; of one group of no account.
    """
    pools = [_Permutations(np.random.default_rng(seed if len(groups) == 1 else (*seed, number)), len(group))
             for number, group in enumerate(groups)]
    if len(groups) == 1:
        for _ in range(steps):
            yield groups[0][pools[0].take(size)]
        return
    shares, draws = np.array(weights) / np.sum(weights), np.random.default_rng(seed)
    for _ in range(steps):
        chosen = draws.choice(len(groups), size, p=shares)
        batch = np.empty(size, np.int64)
        for number, group in enumerate(groups):
            mine = chosen == number
            batch[mine] = group[pools[number].take(int(mine.sum()))]
        yield batch


class _Permutations:
    """Numbers below `count` in permutations, one after another."""

    def __init__(self, random: np.random.Generator, count: int) -> None:
        self.random, self.count = random, count
        self.pool: NDArray[np.int64] = np.empty(0, np.int64)

    def take(self, size: int) -> NDArray[np.int64]:
        while len(self.pool) < size:
            self.pool = np.concatenate([self.pool, self.random.permutation(self.count)])
        taken, self.pool = self.pool[:size], self.pool[size:]
        return taken
