"""What a comparison shows of each trial: a list of measures, each a pure function from a trial to a cell.

"Kept" is the epoch whose checkpoint is kept, "end" the last validation, "start" the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

from analysis.decision.production import seconds_of
from analysis.judge.judging import LIVE, kept_record
from analysis.judge.ranking import state_word
from analysis.judge.vitality import collapse_unjudged, course_of, findings, told_by_rules
from analysis.read.study import Study, Trial, last_value, series
from analysis.report.cells import Cell, Measure, course_cell, plain
from analysis.report.hows import measure_of
from record.text import MISSING, duration, finite, interval, number, share, words
from record.workload.metric import Metric


def measures(study: Study) -> list[tuple[str, list[Measure]]]:
    """The sections of a comparison and the measures in each."""
    sections = {
        "Completion and stability": _completion(),
        "Losses": _losses(),
        "Embedding quality": [],
        "Action quality": _quality(study),
        "Codebook health": _codebook(),
        "Metrics": [row for key in study.workload.rows for row in _whole_course(key)],
    }
    if study.workload.judged_by_rules:
        sections["Action quality"] = sections["Action quality"][:1]
    stated = {group.title: [measure_of(row, study) for row in group.rows]
              for group in study.workload.reporting.sections}
    titles = dict.fromkeys([*sections, *stated, "Cost"])
    sections["Cost"] = _cost()
    table = study.workload.metrics
    known = ((title, [_directed(row, table) for row in sections.get(title, []) if not row.key or row.key in table]
              + stated.get(title, [])) for title in titles)
    return [(title, rows) for title, rows in known if rows]


def _cost() -> list[Measure]:
    return [
        Measure("Time, validations included", "", _seconds, "none"),
        Measure("Operations of training", "total_tflops", _tflops, "none", "TFLOP"),
        Measure("Seconds an epoch", "", _seconds_an_epoch, "down"),
    ]


def _seconds(trial: Trial) -> Cell:
    spent = seconds_of(trial)
    return Cell(spent, MISSING if spent is None else duration(spent))


def _seconds_an_epoch(trial: Trial) -> Cell:
    spent = seconds_of(trial)
    return plain(spent / trial.last_epoch if spent and trial.last_epoch else None)


def _tflops(trial: Trial) -> Cell:
    return plain(last_value(trial, "total_tflops"))


def _directed(row: Measure, table: Mapping[str, Metric]) -> Measure:
    return replace(row, direction=table[row.key].direction) if row.direction == "table" else row


def _whole_course(key: str) -> list[Measure]:
    name = key.removeprefix("val/").replace("_", " ").capitalize()
    return [_start(f"{name}, start", key), _extreme(f"{name}, best", key), _end(f"{name}, end", key),
            _trajectory(f"{name}, trajectory", key)]


def _completion() -> list[Measure]:
    return [
        Measure("Epochs trained", "", _epochs, "up"),
        Measure("How it ended", "", _ending, "up"),
        Measure("Validations that were not finite", "", _nonfinite, "down"),
        _rise("Largest rise of validation loss", "val/loss"),
        _rise("Largest rise of validation MSE", "val/mse_loss"),
        Measure("Verdict at the end", "", _last_verdict, "up"),
        Measure("Health rules that hold at the end", "", _rules, "down", "warnings and worse"),
    ]


def _losses() -> list[Measure]:
    return [
        _end("Training loss, end", "train/loss"),
        _end("Validation loss, end", "val/loss"),
        _extreme("Validation loss, best", "val/loss"),
        _start("Validation MSE, start", "val/mse_loss"),
        _end("Validation MSE, end", "val/mse_loss"),
        _kept("Validation MSE, kept", "val/mse_loss"),
        _trajectory("Validation MSE, trajectory", "val/mse_loss"),
        Measure("MSE over that of copying the last frame, kept", "val/mse_copy", _over_copy, "down",
                "below 1 is better"),
        _end("Rollout loss, end", "val/rollout_loss"),
    ]


def _quality(study: Study) -> list[Measure]:
    return [
        Measure("Mean over fresh seeds", study.objective, lambda trial: _fresh(study, trial),
                "table", "95 % interval"),
        _kept("Objective, kept", study.objective),
        Measure("Action skill, kept", "val/action_skill", _skill, "up", "0 = the commonest action, 1 = all of them"),
        _kept("Action skill of the embedding, kept", "val/action_skill_embedding", "a linear probe of it"),
        _trajectory("Action skill, trajectory", "val/action_skill"),
        _start("Control, start", "val/control"),
        Measure("Control, kept", "val/control", _bounded, "up",
                "95 % interval over videos"),
        _trajectory("Control, trajectory", "val/control"),
        _kept("Control inside a chunk, kept", "val/control_within"),
        _kept("Control across chunks, kept", "val/control_across"),
        _kept("ΔPSNR, kept", "val/delta_psnr"),
        _kept("True-action information, kept", "val/action_nmi", "share of the action's entropy"),
        _kept("Probe accuracy, kept", "val/probe_accuracy", "held-out videos"),
        Measure("DSNR, kept", "val/dsnr", _dsnr, "up",
                "gates; never ranks"),
    ]


def _codebook() -> list[Measure]:
    return [
        _usage("start", _first, "none"),
        _usage("fewest", _least, "up"),
        _usage("end", last_value, "up"),
        _start("Slot perplexity, start", "val/perplexity_slot"),
        Measure("Slot perplexity, lowest", "val/perplexity_slot",
                lambda trial: plain(_least(trial, "val/perplexity_slot")), "up"),
        _end("Slot perplexity, end", "val/perplexity_slot"),
        _trajectory("Slot perplexity, trajectory", "val/perplexity_slot"),
        _end("Joint perplexity, end", "val/perplexity_joint"),
        _end("Dead codes, end", "val/dead_codes"),
        _end("Quantisation error, end", "val/quantization_error"),
        _end("Codebook health, end", "val/codebook_health"),
        Measure("Collapsed at the end", "val/collapsed", _collapsed, "down"),
    ]


def _usage(when: str, pick: Callable[[Trial, str], float | None], direction: str) -> Measure:
    key = "val/codebook_usage"
    return Measure(f"Codes in use, {when}", key, lambda trial: _codes(pick(trial, key), trial), direction)


def _trajectory(title: str, key: str) -> Measure:
    """A word by the rules of `record.health.trends`; what too few points say is in brackets."""

    def cell(trial: Trial) -> Cell:
        return course_cell(course_of(trial, key, _direction(trial, key)))

    return Measure(title, key, cell, "none")


def _direction(trial: Trial, key: str) -> str:
    known = trial.workload.metrics.get(key)
    return known.direction if known else "none"


def _rules(trial: Trial) -> Cell:
    found = [item for item in findings(trial) if item.severity != "info"]
    told = [item.rule for item in found[:3]] + [text for text in [collapse_unjudged(trial)] if text]
    return Cell(float(len(found)), str(len(found)), ", ".join(told))


def _start(title: str, key: str) -> Measure:
    return Measure(title, key, lambda trial: plain(_first(trial, key)), "none")


def _end(title: str, key: str) -> Measure:
    return Measure(title, key, lambda trial: plain(last_value(trial, key)), "table")


def _extreme(title: str, key: str) -> Measure:
    def cell(trial: Trial) -> Cell:
        pick = max if trial.workload.maximises(key) else min
        return plain(pick(series(trial.records, key), default=None))

    return Measure(title, key, cell, "table")


def _kept(title: str, key: str, note: str = "") -> Measure:
    def cell(trial: Trial) -> Cell:
        return plain(finite((kept_record(trial) or {}).get(key)))

    return Measure(title, key, cell, "table", note)


def _first(trial: Trial, key: str) -> float | None:
    return next(iter(series(trial.records, key)), None)


def _least(trial: Trial, key: str) -> float | None:
    return min(series(trial.records, key), default=None)


def _epochs(trial: Trial) -> Cell:
    if not trial.num_epochs:
        return Cell(None, MISSING)
    return Cell(trial.last_epoch / trial.num_epochs, f"{trial.last_epoch}/{trial.num_epochs}",
                share(trial.last_epoch, trial.num_epochs))


def _ending(trial: Trial) -> Cell:
    rule = trial.reason.get("rule") or ("early_stopping" if trial.stopped_early else "")
    return Cell(float(trial.state == "completed"), state_word(trial.state), str(rule))


def _nonfinite(trial: Trial) -> Cell:
    if trial.workload.judged_by_rules:  # another trainer's null means that it did not measure
        return Cell(None, MISSING)
    return plain(float(sum(trial.workload.verdict(record) == "nonfinite" for record in trial.validated)))


def _rise(title: str, key: str) -> Measure:
    def cell(trial: Trial) -> Cell:
        values = [(record["epoch"], value) for record in trial.validated
                  if (value := finite(record.get(key))) is not None and value > 0]
        rises = [((after - before) / before, epoch) for (_, before), (epoch, after) in pairwise(values)]
        if not rises:
            return Cell(None, MISSING)
        rise, epoch = max(rises)
        return Cell(rise, f"+{100 * rise:.0f} %", f"epoch {epoch}") if rise > 0 else Cell(0.0, "none")

    return Measure(title, key, cell, "down", "between two validations")


def _last_verdict(trial: Trial) -> Cell:
    if not trial.validated:
        return Cell(None, MISSING)
    last = told_by_rules(trial) if trial.workload.judged_by_rules else trial.workload.verdict(trial.validated[-1])
    return Cell(float(last == LIVE), words(last))


def _over_copy(trial: Trial) -> Cell:
    record = kept_record(trial) or {}
    mse, copy = finite(record.get("val/mse_loss")), finite(record.get("val/mse_copy"))
    return plain(mse / copy if mse is not None and copy else None)


def _fresh(study: Study, trial: Trial) -> Cell:
    entry = study.confirm.get(trial.label, {})
    mean = finite(entry.get("mean"))
    if mean is None:
        return Cell(None, MISSING)
    bounds = interval(finite(entry.get("low")), finite(entry.get("high")))
    return Cell(mean, number(mean), f"{bounds}\n{entry['live']} of {len(entry['seeds'])} live".strip())


def _bounded(trial: Trial, key: str = "val/control") -> Cell:
    record = kept_record(trial) or {}
    value = finite(record.get(key))
    return Cell(value, number(value), interval(finite(record.get(f"{key}_low")), finite(record.get(f"{key}_high"))))


def _skill(trial: Trial) -> Cell:
    return _bounded(trial, "val/action_skill")


def _dsnr(trial: Trial) -> Cell:
    record = kept_record(trial) or {}
    status = record.get("val/dsnr_status")
    if status is None:
        return Cell(None, MISSING)
    dsnr = finite(record.get("val/dsnr"))
    if record.get("val/collapsed"):
        return Cell(None, number(dsnr), "collapsed: says nothing")  # random codes are merely unfamiliar
    return Cell(dsnr, number(dsnr), words(str(status)))


def _codes(used: float | None, trial: Trial) -> Cell:
    total = finite(trial.config.get("num_embeddings"))
    return Cell(used, MISSING) if used is None else Cell(used, f"{number(used)}/{number(total)}", share(used, total))


def _collapsed(trial: Trial) -> Cell:
    value = last_value(trial, "val/collapsed")
    return Cell(value, MISSING if value is None else "yes" if value else "no")
