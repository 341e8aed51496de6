"""Reads the epoch records of many runs at once. What looks unusual is read again one by one, which says what it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import orjson

from analysis.read.epochs import ahead, kept
from analysis.read.epochs.columns import Block, Epochs, Record, apart
from analysis.read.sources import epoch_records
from record import files
from record.run import RunFolder
from record.workload.metric import Metric
from record.workload.workload import Workload

TOGETHER = 250  # runs whose records are one block
KEPT_FROM = 200  # runs of a sweep; fewer are read in a moment
_NONE = type(None)
_NUMBERS = frozenset({int, float, _NONE})


def read_epochs(runs: Sequence[RunFolder], trained: Workload) -> Iterator[Epochs]:
    """The epoch records of each run, in order.

    Raises:
        BadInput: a line before the last is damaged, or a value is not of its metric's kind.
    """
    with reading(runs, trained) as read:
        yield from read(runs)


@contextlib.contextmanager
def reading(likely: Sequence[RunFolder], trained: Workload) -> Iterator[Callable[[Sequence[RunFolder]],
                                                                                Iterator[Epochs]]]:
    """Begin to read the runs that will be asked for, as far as that is known; what is yielded is `read_epochs`."""
    parts = _portions(likely) if len(likely) >= KEPT_FROM else []
    with ahead.keeping([part for part in parts if not kept.is_kept(part)], partial(_kept, trained=trained)) as wait:
        yield lambda runs: _asked(runs, trained, wait)


def _portions(runs: Sequence[RunFolder]) -> list[Sequence[RunFolder]]:
    return [runs[start:start + TOGETHER] for start in range(0, len(runs), TOGETHER)]


def _asked(runs: Sequence[RunFolder], trained: Workload, wait: Callable[[ahead.Portion], None]) -> Iterator[Epochs]:
    read = _kept if len(runs) >= KEPT_FROM else _together
    for part in _portions(runs):
        wait(part)
        yield from read(part, trained)


def _kept(runs: Sequence[RunFolder], trained: Workload) -> list[Epochs]:
    """The records as an earlier report kept them, else read and kept."""
    found = kept.load(runs)
    if found is None:
        before = kept.stamps(runs)
        found = _together(runs, trained)
        kept.keep(runs, found, before)
    return found


def _together(runs: Sequence[RunFolder], trained: Workload) -> list[Epochs]:
    try:
        found = [_records(run) for run in runs]
        block = Block.of([record for records in found for record in records])
        if is_usual(block, trained.metrics):
            return apart(block, list(map(len, found)))
    except (KeyError, TypeError, ValueError):
        pass  # one of them is damaged: read one by one, they say which and how
    return [Epochs.of(epoch_records(run, trained)) for run in runs]


def _records(run: RunFolder) -> list[Record]:
    """The records of a run, the later of two of one epoch; unchecked.

    Raises:
        ValueError, KeyError, TypeError: they are not what they usually are.
    """
    if not files.stands(run.metrics_file):
        return []
    *lines, torn = files.read_record(run.metrics_file).split(b"\n")
    records: list[Record] = [orjson.loads(line) for line in lines if line]
    if torn.strip():
        with contextlib.suppress(ValueError):  # cut off while it was written
            records.append(files.parse_json(torn))
    epochs = [record["epoch"] for record in records]
    if all(one < next_ for one, next_ in pairwise(epochs)):
        return records
    later = dict(zip(epochs, records, strict=True))
    return [later[epoch] for epoch in sorted(later)]


def is_usual(block: Block, metrics: Mapping[str, Metric]) -> bool:
    """Whether every value is of its metric's kind, and of the kind that every record has."""
    types = block.types
    if not len(block.shape):
        return True
    epochs = block.numbers.get("epoch")
    if types.get("epoch") != frozenset({int}) or epochs is None or epochs.min() < 0 or epochs.max() > 10**9:
        return False
    if not all(types.get(key, frozenset()) <= _NUMBERS for key in ("step", "seconds", "total_tflops")):
        return False
    return all(_fits(kinds, metrics.get(key)) for key, kinds in types.items()) and not any(
        (np.abs(column) >= 2**63).any() for column in block.numbers.values())


def _fits(kinds: frozenset[type], metric: Metric | None) -> bool:
    if dict in kinds or (kinds & {list, str} and kinds & {int, float, bool}):
        return False
    if metric is None:
        return True
    if str in kinds and not (metric.reduction == "status" and metric.direction == "none"):
        return False
    return list not in kinds or metric.reduction == "counts"
