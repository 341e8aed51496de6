"""The engine: columns and a profile in, findings out. Pure, and the same everywhere.

A rule fires when its condition has held for `patience` records in a row, in its phase. It clears when
the metric has kept clear of the level `clear` (by default the threshold) for `recovery` records in a
row (by default as many as its patience). In between it stays as it is. Records that lack the metric
do not count, for or against. NaN counts for nothing but the statistic `nonfinite`: it never clears.
A rule of severity `abort` stays fired: what it says is "stop", and a later record does not unsay it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from record.health import expressions
from record.health.columns import Table, of_records
from record.health.findings import Event, Finding, Judgement
from record.health.profile import Profile, Rule
from record.health.statistics import STATISTICS, streak
from record.text import short

Bools = NDArray[np.bool_]
_ORDER = {"info": 1, "warn": 2, "abort": 3}

__all__ = ["Event", "Finding", "Judgement", "events", "judge", "judge_records", "prepare"]


@dataclass(frozen=True)
class _State:
    """One rule over all N records: whether it holds and whether its comparison is met after each, and what it saw.

    `start` is the first record of the streak that fired it last, `fired` the record at which it did.
    """

    holds: Bools
    values: NDArray[Any]
    meets: Bools
    start: NDArray[np.int64]
    fired: NDArray[np.int64]
    threshold: Any


def judge(table: Table, profile: Profile) -> Judgement:
    """Apply every rule of a profile to one run."""
    table = prepare(table, profile)
    states, reasons = _states(table, profile)
    found = {rule.name: finding for rule in profile.rules if rule.name in states
             and (finding := _finding(table, rule, states, profile.axis)) is not None}
    listed = [item for item in found.values() if not profile.rule(item.rule).quiet]
    holding = sorted((item for item in listed if item.active), key=lambda item: -_ORDER[item.severity])
    return Judgement(
        profile.name, holding[0].severity if holding else "ok", tuple(holding),
        tuple(item for item in listed if not item.active), reasons,
        {name: item for name, item in found.items() if item.active},
    )


def events(table: Table, profile: Profile) -> list[Event]:
    """Each time a listed rule fired or cleared, in the order of the records."""
    table = prepare(table, profile)
    states, _ = _states(table, profile)
    found = []
    for rule in profile.rules:
        if rule.quiet or rule.name not in states:
            continue
        state = states[rule.name]
        changes = np.flatnonzero(np.diff(state.holds.astype(np.int8), prepend=np.int8(0)))
        found += [(int(row), Event(_epoch(table.epoch[row]), rule.name, "fired" if state.holds[row] else "cleared",
                                   rule.severity, _plain(state.values[row]), _shown(state.threshold)))
                  for row in changes]
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def _states(table: Table, profile: Profile) -> tuple[dict[str, _State], dict[str, str]]:
    """The state of every rule that can be judged, and why the others cannot."""
    states: dict[str, _State] = {}
    reasons: dict[str, str] = {}
    for rule in profile.rules:
        if rule.count is None:
            found = _simple(table, rule)
            if isinstance(found, str):
                reasons[rule.name] = found
            else:
                states[rule.name] = found
    for rule in profile.rules:
        if rule.count is not None:
            states[rule.name] = _counted(table, rule, states)
    return states, reasons


def judge_records(records: Sequence[Mapping[str, Any]], profile: Profile, facts: Mapping[str, Any]) -> Judgement:
    """`judge` for records as they stand in a file."""
    return judge(of_records(records, facts), profile)


def prepare(table: Table, profile: Profile) -> Table:
    """The table with aliases under one name, and with what must not count taken out (see `Family`)."""
    if not (profile.aliases or profile.families):
        return table
    columns, nonfinite, facts = dict(table.columns), dict(table.nonfinite), dict(table.facts)
    for key, others in profile.aliases.items():
        known = next((other for other in others if other in columns), None)
        if key not in columns and known is not None:
            columns[key] = columns[known]
            nonfinite |= {key: nonfinite[known]} if known in nonfinite else {}
    stages = [stage for stage, pattern in profile.stages.items() if table.matching(pattern)]
    if stages:
        facts.setdefault("stage", stages[0])
    for key, keep in counting(Table(table.epoch, columns, facts=facts), profile).items():
        columns[key] = np.where(keep, columns[key], np.nan)
        nonfinite[key] = nonfinite.get(key, np.zeros(len(table), bool)) & keep
    return Table(table.epoch, columns, nonfinite, facts)


def counting(table: Table, profile: Profile) -> dict[str, Bools]:
    """key -> bool [N], where its values count; a key of which all do is left out."""
    logged: Any = next((stage for stage, pattern in profile.stages.items() if table.matching(pattern)), None)
    stage = table.facts.get("stage", logged)
    found = {key: _counts(table, profile, key, stage) for key in table.columns}
    return {key: keep for key, keep in found.items() if keep is not None}


def _counts(table: Table, profile: Profile, key: str, stage: Any) -> Bools | None:
    family = profile.family(key)
    if family is None:
        return None
    if stage in family.not_in_stage:
        return np.zeros(len(table), bool)
    keep = None
    if key in family.keys:  # an evaluation key is never filtered: its records are on-policy
        for name, wanted in family.only_where.items():
            if name in table.columns:
                keep = (keep if keep is not None else np.ones(len(table), bool)) & (table.columns[name] == wanted)
    return keep


def _simple(table: Table, rule: Rule) -> _State | str:
    """The state of a rule about one metric; a reason where it cannot be judged."""
    missing = table.missing(rule.metric)
    if missing:
        return f"{', '.join(missing)} is not recorded"
    threshold = _resolve(table, rule.threshold, rule.comparison in ("is", "is_not"))
    limits = [threshold, _number(table, rule.patience), _number(table, rule.after_epoch)]
    if any(isinstance(limit, float) and math.isnan(limit) for limit in limits):
        return "its threshold, patience or phase needs a fact about the run that is not known"
    raw = table.values(rule.metric)
    if raw.dtype.kind in "OU" and rule.comparison not in ("is", "is_not"):
        return f"{expressions.text(rule.metric)} holds words, and a number is judged"
    if rule.statistic == "nonfinite":
        flags = table.nonfinite.get(rule.metric, np.zeros(len(table), bool)) if isinstance(rule.metric, str) else None
        raw = flags.astype(np.float64) if flags is not None else (~np.isfinite(raw)).astype(np.float64)
    words = raw.dtype.kind in "OU"
    rows = np.flatnonzero(np.array([value is not None for value in raw]) if words else ~np.isnan(raw))
    if len(rows) == 0:
        return f"{expressions.text(rule.metric)} has no value yet"
    values = raw[rows] if words else STATISTICS[rule.statistic].of(
        raw[rows].astype(np.float64), table.epoch[rows], rule.window, rule.better, rule.min_delta)
    return _spread_out(table, rule, rows, values, threshold)


def _spread_out(table: Table, rule: Rule, rows: NDArray[np.int64], values: NDArray[Any], threshold: Any) -> _State:
    """The state machine over the judged rows, carried forward to every record."""
    condition = _compare(values, rule.comparison, threshold)
    if not condition.any():
        never, nowhere = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=np.int64)
        return _State(never, values, never, nowhere, nowhere, threshold)
    clear = _clears(values, rule, condition)
    holds, start, fired = _hysteresis(table, rule, table.epoch[rows], condition, clear)
    if len(rows) == len(table):
        return _State(holds, values, condition, start, fired, threshold)
    place = np.searchsorted(rows, np.arange(len(table)), side="right") - 1
    known = place >= 0
    unknown: Any = None if values.dtype == object else np.nan
    return _State(known & holds[place], np.where(known, values[place], unknown), known & condition[place],
                  rows[start[place]], rows[fired[place]], threshold)


def _hysteresis(table: Table, rule: Rule, epoch: NDArray[np.float64], condition: Bools, clear: Bools
                ) -> tuple[Bools, NDArray[np.int64], NDArray[np.int64]]:
    """Whether the rule holds after each judged record, the first record of the streak that fired it, and its last."""
    patience = max(1, int(_number(table, rule.patience)))
    index, run = np.arange(len(condition)), streak(condition)
    fires = (run >= patience) & _in_phase(epoch, _number(table, rule.after_epoch), rule.until_epoch)
    last_on = np.maximum.accumulate(np.where(fires, index, -1))
    off = streak(clear) >= (rule.recovery or patience)
    if rule.until_epoch is not None:
        off |= epoch > rule.until_epoch
    last_off = np.maximum.accumulate(np.where(off, index, -1))
    holds = last_on >= 0 if rule.severity == "abort" else last_on > last_off
    began = fires & ~np.concatenate([[False], holds[:-1]])
    first = np.maximum.accumulate(np.where(began, index, -1))
    return holds, np.maximum(0, first - run[first] + 1), np.maximum(0, first)


def _in_phase(epoch: NDArray[np.float64], after: float, until: float | None) -> Bools:
    """Records of the phase; where epochs are not known, only a rule without a phase is judged."""
    inside = (epoch > after) | (np.isnan(epoch) & (after <= 0))
    return inside if until is None else inside & (epoch <= until)


def _compare(values: NDArray[Any], comparison: str, threshold: Any) -> Bools:
    if comparison == "outside":
        return (values < threshold[0]) | (values > threshold[1])
    if comparison in ("is", "is_not"):
        known = np.array([value is not None and value == value for value in values], dtype=bool)
        return known & ((values == threshold) if comparison == "is" else (values != threshold))
    operators = {"above": np.greater, "below": np.less, "at_least": np.greater_equal, "at_most": np.less_equal}
    return operators[comparison](values, threshold)


def _clears(values: NDArray[Any], rule: Rule, condition: Bools) -> Bools:
    """Where the value is on the good side of `clear`; a value that is not defined never is."""
    if values.dtype == object:
        return ~condition
    defined = ~np.isnan(values)
    if rule.clear is None:
        return defined & ~condition
    good = values < rule.clear if rule.comparison in ("above", "at_least") else values > rule.clear
    return defined & good


def _counted(table: Table, rule: Rule, states: Mapping[str, _State]) -> _State:
    """The state of a rule that counts others; one that cannot be judged does not count."""
    parts = [states[name].holds for name in rule.of if name in states]
    counts = np.sum(parts, axis=0) if parts else np.zeros(len(table))
    return _spread_out(table, rule.model_copy(update={"comparison": "at_least"}), np.arange(len(table)),
                       counts.astype(np.float64), float(rule.count or 0))


def _finding(table: Table, rule: Rule, states: Mapping[str, _State], axis: str) -> Finding | None:
    """What a rule's state amounts to; None where it never fired."""
    state = states[rule.name]
    if not state.holds.any():
        return None
    active = bool(state.holds[-1])
    last = len(state.holds) - 1 if active else int(np.flatnonzero(state.holds)[-1])
    ended = None if active else _epoch(table.epoch[last + 1])
    evidence = tuple(name for name in rule.of if name in states and states[name].holds[last])
    return Finding(rule.name, rule.severity, rule.condition, rule.comparison, _plain(state.values[last]),
                   _shown(state.threshold), _epoch(table.epoch[state.start[last]]), ended, rule.meaning, rule.remedy,
                   evidence, axis, _plain(state.values[state.fired[last]]), bool(state.meets[last]),
                   rule.count is not None)


def _epoch(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(value: Any) -> float | str | None:
    return value if isinstance(value, str) or value is None else float(value)


def _shown(threshold: Any) -> str:
    if isinstance(threshold, tuple):
        return f"[{threshold[0]:g}, {threshold[1]:g}]"
    return threshold if isinstance(threshold, str) else short(threshold)


def _resolve(table: Table, threshold: Any, word: bool) -> Any:
    return threshold if isinstance(threshold, tuple) or (word and isinstance(threshold, str)) else \
        table.scalar(threshold)


def _number(table: Table, value: Any) -> float:
    found = table.scalar(value)
    return found if isinstance(found, (int, float)) else math.nan
