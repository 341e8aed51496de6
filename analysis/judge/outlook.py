"""What is expected of a production run: ranges by epoch, alerts, aborts, duration; from the study's records. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.judge.bands import COVERAGE, Curve, expect
from analysis.judge.ranking import Standing
from analysis.judge.vitality import facts_of
from analysis.read.reading import Study, Trial
from analysis.read.study import points_of, remembered, series
from record import health
from record.text import duration, finite, number

MOST_CURVES = 200  # configs from whose curves a range is told, evenly over the search: more narrow no quantile
TOLD_EPOCHS = 12  # of a range: evenly spread in log(epoch), and the last
FURTHER = ("train/loss", "val/loss", "val/control", "val/perplexity_slot", "val/effective_rank_context",
           "val/effective_rank_target")
ALERT_SPIKE, SPIKE = 1.5, 2.0  # times the largest rise of a living trial's loss in one epoch: told, and the end
BEYOND_PATIENCE = 20  # epochs without improvement after early stopping would have ended the run


def alerts(study: Study, trial: Trial, standing: Standing) -> list[dict[str, Any]]:
    """What a production run is watched for: fixed limits, and half of what this trial itself reached.

    `after_epoch`: the alert is silent until then; a codebook that ends healthy may start with two codes.
    """
    grace = int(facts_of(trial)["grace_epochs"])
    rules: list[dict[str, Any]] = [
        _alert("val/mse_loss", "is", "nonfinite", "the run diverged", 0),
        _alert("val/collapsed", "above", 0, "the codebook carries next to nothing", grace),
        _alert("val/control_low", "below", 0, "the decoder cannot be told to heed the actions", grace),
        _alert("val/dsnr_status", "is_not", "ok", "DSNR is not defined", grace),
    ]
    if standing.mse_copy is not None:
        rules.append(_alert("val/mse_loss", "above", standing.mse_copy, "no better than copying the last frame", grace))
    record = next((item for item in trial.validated if item["epoch"] == standing.epoch), {})
    perplexity = finite(record.get("val/perplexity_slot"))
    if perplexity is not None:
        rules.append(_alert("val/perplexity_slot", "below", round(perplexity / 2, 4),
                            f"half of the {number(perplexity)} that the promoted trial had", grace))
    rules.append(_alert("val/mse_loss", "rises_in_a_row", 3, "validation MSE rose three times running", grace))
    rules.append(_alert("train/loss", "rises_in_a_row", 3, "the training loss rose three times running", grace))
    rules += _spike(study, ALERT_SPIKE, grace)
    return [rule for rule in rules if rule["metric"] in trial.workload.metrics]


def _alert(metric: str, comparison: str, threshold: float | str, meaning: str, after: int) -> dict[str, Any]:
    return {"metric": metric, "comparison": comparison, "threshold": threshold, "meaning": meaning,
            "after_epoch": after}


def aborts(study: Study, trial: Trial, production: dict[str, Any]) -> list[dict[str, Any]]:
    """What ends a production run: divergence, collapse, an embedding of few directions, a spike, a plateau.

    Args:
        production: its config; early stopping, where it has some, decides what a plateau is.
    """
    grace = int(facts_of(trial)["grace_epochs"])
    found = [_alert("val/mse_loss", "is", "nonfinite", "the run diverged", 0),
             _alert("val/collapsed", "above", 0, "the codebook carries next to nothing", grace)]
    limits = health.load(str(trial.config.get("health.profile", "lam"))).gates
    for key, least in (("val/effective_rank_context", limits.rank_context),
                       ("val/effective_rank_target", limits.rank_target)):
        known = series(trial.validated, key)
        value = known[-1] if known else None
        if value is not None and value > least:
            found.append(_alert(key, "below", round(least * 2 / 3, 4),
                                f"the embedding collapsed; the promoted trial had {number(value)}", grace))
    found += _spike(study, SPIKE, grace)
    patience = (production.get("early_stopping") or {}).get("patience")
    if patience is not None:
        found.append(_alert("val/mse_loss", "no_gain_for", patience + BEYOND_PATIENCE,
                            f"{BEYOND_PATIENCE} epochs without gain beyond the patience of {patience}", grace))
    return [rule for rule in found if rule["metric"] in trial.workload.metrics]


def _spike(study: Study, times: float, grace: int) -> list[dict[str, Any]]:
    """A rise of the validation loss in one epoch that no living trial came near."""
    for key in ("val/loss", "val/mse_loss"):
        limit = spike_limit(study, key, times)
        if limit is not None:
            return [_alert(key, "changes_by", limit, f"a rise in one epoch of {times:g} times the largest of the "
                           "living trials", grace)]
    return []


def spike_limit(study: Study, key: str, times: float = SPIKE) -> float | None:
    """The largest rise of a metric between validations of a living trial, so often; None where none is recorded."""
    curves = [np.array(series(trial.records, key)) for trial in _living(study)]
    rises = [float(np.diff(curve).max()) for curve in curves if len(curve) > 1]
    if not rises:
        return None
    levels = np.sort(np.abs(np.concatenate(curves)))
    return float(f"{max(times * max(rises), 0.025 * times * float(levels[len(levels) // 2])):.3g}")


def expected(study: Study, trial: Trial, again: list[list[Trial]], epochs: int) -> dict[str, Any]:
    """The section `expected`: where the metrics of a run of so many epochs lie in nine of ten cases.

    Args:
        again: further trainings, those of one config together; the confirmation's fresh seeds are among them.
    """
    recorded = _groups(study)
    recorded = recorded[::math.ceil(len(recorded) / MOST_CURVES) or 1]
    groups = [[each for each in group if each.records] for group in _joined(recorded, again)]
    keys = dict.fromkeys((trial.workload.error, trial.workload.objective, *FURTHER))
    ranges: dict[str, Any] = {}
    for key in keys:
        course = _course(trial, groups, key, epochs) if key in trial.workload.metrics else None
        ranges |= {key: course} if course else {}
    return {"coverage": COVERAGE, "trainings": sum(map(len, groups)), "ranges": ranges}


def _course(trial: Trial, groups: list[list[Trial]], key: str, epochs: int) -> dict[str, Any] | None:
    metric = trial.workload.metrics[key]
    log = metric.direction == "down" and metric.bounds == (0.0, math.inf)
    pool = [[_curve(each, key) for each in group] for group in groups]
    told = expect(_curve(trial, key), pool, _epochs(trial, epochs), log=log, bounds=metric.bounds)
    if not told:
        return None
    return {"better": metric.direction, "epochs": [each.epoch for each in told],
            **{name: [_short(getattr(each, name)) for each in told] for name in ("low", "expected", "high")},
            "basis": [each.basis for each in told]}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _epochs(trial: Trial, last: int) -> list[int]:
    """Epochs that are told: validated ones of the trial, then on to the last, evenly in log(epoch)."""
    known = [int(epoch) for epoch in trial.validated.column("epoch")]
    wanted = {round(math.exp(math.log(last) * step / (TOLD_EPOCHS - 1))) for step in range(TOLD_EPOCHS)}
    within = {min(known, key=lambda epoch: abs(epoch - each)) for each in wanted if known and each <= known[-1]}
    return sorted(within | {known[-1]} | {each for each in wanted if each > known[-1]}) if known else []


@remembered
def _lives(trial: Trial) -> bool:
    return bool(trial.validated) and trial.workload.verdict(trial.validated[-1]) == "live"


def _living(study: Study) -> list[Trial]:
    return list(filter(_lives, study.trials))


def _groups(study: Study) -> list[list[Trial]]:
    """The living trainings of a study, those of one config together."""
    return [group for first in study.configs if (group := list(filter(_lives, study.trainings(first))))]


def _joined(recorded: list[list[Trial]], again: list[list[Trial]]) -> list[list[Trial]]:
    """Both, each training once: what trains a recorded config again stands with it."""
    found = [{each.path: each for each in group} for group in recorded]
    for group in again:
        own = next((known for known in found if any(each.path in known for each in group)), None)
        if own is None:
            found.append(own := {})
        own.update({each.path: each for each in group})
    return [list(known.values()) for known in found]


def _curve(trial: Trial, key: str) -> Curve:
    return {int(epoch): value for epoch, value in points_of(trial, key)}


def cost(trial: Trial, epochs: int) -> dict[str, Any]:
    """The section `cost`: how long a run of so many epochs takes at the trial's own pace, and its operations."""
    last = trial.records[-1] if trial.records else {}
    seconds, tflops, trained = finite(last.get("seconds")), finite(last.get("total_tflops")), trial.last_epoch or 1
    found: dict[str, Any] = {"epochs": epochs, "from": f"{trial.label}, {trained} epochs"}
    if seconds is not None:
        found |= {"seconds_per_epoch": _short(seconds / trained), "seconds": round(seconds / trained * epochs),
                  "duration": duration(seconds / trained * epochs)}
    return found | ({"tflops": _short(tflops / trained * epochs)} if tflops is not None else {})
