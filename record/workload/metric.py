"""One metric of a training's records: what its key means, which way is better, how it is reduced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from record.errors import BadInput

Direction = Literal["up", "down", "none"]
Reduction = Literal["mean", "sums", "counts", "last", "max", "min", "std", "status"]
Measured = Literal["training", "validation", "evaluate"]

INF = float("inf")

# Keys of an epoch record that say when it was made rather than what was measured.
RECORD_KEYS = ("epoch", "step", "seconds", "train_seconds")


@dataclass(frozen=True)
class Metric:
    """One key of an epoch record.

    Attributes:
        key: the name in records and trackers; what a validation measures begins with `val/`.
        formula: what is computed, in the symbols of the workload's own page.
        direction: which way is better; "none" where neither is.
        in_loss: whether it is a term of the loss that is back-propagated.
        reduction: how an epoch's or split's number comes about: the "mean" over samples, a ratio of
            "sums" taken once over the split, a function of "counts" over the split, the "last" value.
        unit: what it is measured in; "" for a pure number.
        bounds: smallest and largest value it can take.
        needs: what a run must have for it to be defined, in the workload's own words.
        evaluate_only: an evaluation measures it and no training does.
    """

    key: str
    formula: str
    direction: Direction
    reduction: Reduction
    in_loss: bool = False
    unit: str = ""
    bounds: tuple[float, float] = (0.0, INF)
    needs: tuple[str, ...] = ()
    evaluate_only: bool = False

    @property
    def measured(self) -> Measured:
        """Where it is measured: in every epoch of training, in its validations, or by an evaluation alone."""
        if self.evaluate_only:
            return "evaluate"
        return "validation" if self.key.startswith(("val/", "validation/")) else "training"


def check_values(record: Mapping[str, Any], metrics: Mapping[str, Metric], where: str | Path) -> None:
    """Refuse a record in which a metric has a value of a kind that it never has.

    Raises:
        BadInput: naming the key and the value.
    """
    for key in record.keys() & metrics.keys():
        if not _fits(metrics[key], record[key]):
            raise BadInput(f"got {record[key]!r:.80}, expected a number or null", source=where, key=key,
                           remedy="restore it from a copy, or take the run out")


def _fits(metric: Metric, value: Any) -> bool:
    if isinstance(value, str):
        return metric.reduction == "status" and metric.direction == "none"
    if isinstance(value, list):
        return metric.reduction == "counts"
    return value is None or isinstance(value, (bool, int, float))


def is_validated(keys: Collection[str]) -> bool:
    """Whether an epoch record with these keys holds a validation."""
    return any(key.startswith("val/") for key in keys)
