"""What to watch in a production run, what ends it, what may go wrong, what to try next. From the profile's rules."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import pairwise

from analysis.decision.speech import axis, text_of, title
from analysis.judge.gates import Gate, missing_seeds
from analysis.judge.outlook import alerts
from analysis.judge.ranking import Standing
from analysis.judge.vitality import (
    best_without_codes,
    facts_of,
    findings,
    gravest,
    judged,
    on_the_same_data,
    profile_for,
)
from analysis.read.study import Study, Trial, points_of
from record.health import columns, expressions
from record.health.profile import Rule
from record.text import count, number, value_text, words

TIGHT = 0.25  # a limit that the run came nearer to than this, relative to the limit, is a risk


@dataclass(frozen=True)
class Watch:
    """One limit to watch: metric, limit, from when, what it means, and how near the chosen run came."""

    metric: str
    limit: str
    phase: str
    meaning: str
    seen: str
    ends_it: bool


@dataclass(frozen=True)
class Issue:
    """Something that may go wrong, where it was seen here, and what to do then."""

    what: str
    status: str
    action: str


@dataclass(frozen=True)
class Plan:
    """A production run's plan.

    Attributes:
        spike: the largest rise of the loss that is expected, as a sentence.
        commands: what to run, in order.
    """

    risk: str
    watches: tuple[Watch, ...]
    spike: str
    issues: tuple[Issue, ...]
    tune_next: tuple[str, ...]
    commands: tuple[str, ...]
    criteria: tuple[str, ...] = ()


def make_plan(study: Study, trial: Trial, standing: Standing, gates: Sequence[Gate],
              importance: Sequence[tuple[str, float]], criteria: Sequence[str] = ()) -> Plan:
    """The plan for a run of the trial's config."""
    watched = tuple(_watches(study, trial, standing))
    return Plan(_risk(trial, watched), watched, _spike(trial), tuple(_issues(study, trial)),
                tuple(_next(study, trial, importance)), tuple(commands(study, trial, standing, gates)), tuple(criteria))


# ---- limits

def _watches(study: Study, trial: Trial, standing: Standing) -> list[Watch]:
    """The profile's rules that read something the run logged, aborts first; and, for our own, the production alerts."""
    known = profile_for(trial)
    rules = [rule for rule in known.rules if rule.severity in ("abort", "warn") and not rule.quiet
             and rule.count is None and rule.name not in judged(trial).not_judged]
    rules.sort(key=lambda rule: rule.severity != "abort")
    found = [_watch(trial, rule) for rule in rules]
    if trial.workload.judged_by_rules:
        return found
    own = [Watch(str(item["metric"]), f"{words(str(item['comparison']))} {_threshold(item['threshold'])}",
                 f"after epoch {item['after_epoch']}" if item["after_epoch"] else "always", str(item["meaning"]), "",
                 False) for item in alerts(study, trial, standing)]
    return [*[item for item in found if item.ends_it], *own]


def _watch(trial: Trial, rule: Rule) -> Watch:
    key = expressions.text(rule.metric)
    shown = list(rule.threshold) if isinstance(rule.threshold, tuple) else expressions.text(rule.threshold)
    start = columns.of_records([], facts_of(trial)).scalar(rule.after_epoch)
    phase = f"after {axis(trial)} {start:g}" if isinstance(start, float | int) and start > 0 else "always"
    return Watch(rule.condition, f"{words(rule.comparison)} {shown}", phase, rule.meaning, _nearest(trial, rule, key),
                 rule.severity == "abort")


def _threshold(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def _nearest(trial: Trial, rule: Rule, key: str) -> str:
    """The value of the run that lies nearest to the limit of a plain rule."""
    margin = _margin(trial, rule)
    if margin is None:
        return ""
    value, distance = margin
    if distance > 0 and {each for _, each in points_of(trial, key)} == {value}:
        return f"{text_of(trial, key, value)} throughout"
    if distance < 0:
        return f"{text_of(trial, key, value)} here: beyond it"
    away = f"{100 * distance:.0f} % away" if distance < 10 else "far from it"
    return f"nearest here {text_of(trial, key, value)}, {away}"


def _margin(trial: Trial, rule: Rule) -> tuple[float, float] | None:
    """The nearest value and its distance to the limit, relative to it; only where both are plain numbers."""
    if rule.statistic != "value" or not isinstance(rule.metric, str) or not isinstance(rule.threshold, (int, float)):
        return None
    start = rule.after_epoch if isinstance(rule.after_epoch, (int, float)) else 0
    values = [value for place, value in points_of(trial, rule.metric) if place > start]
    if not values or not rule.threshold or rule.comparison not in ("above", "below", "at_least", "at_most"):
        return None
    below = rule.comparison in ("below", "at_most")
    value = min(values) if below else max(values)
    return value, (value - rule.threshold) / abs(rule.threshold) * (1 if below else -1)


def _risk(trial: Trial, watched: Sequence[Watch]) -> str:
    """low, medium or high, and why: from the rules that hold and how near the run came to a limit that ends it."""
    held = findings(trial)
    known = profile_for(trial)
    tight = [rule.name for rule in known.rules if rule.severity == "abort" and
             (margin := _margin(trial, rule)) is not None and 0 <= margin[1] < TIGHT]
    if any(item.severity == "abort" for item in held):
        return f"High: {', '.join(item.rule for item in held if item.severity == 'abort')} says stop."
    warned = [item.rule for item in held if item.severity == "warn"]
    if warned or tight:
        parts = [f"warnings that hold: {', '.join(warned)}"] * bool(warned) + [
            f"it came near to what would end it: {', '.join(tight)}"] * bool(tight)
        return f"Medium: {'; '.join(parts)}."
    return "Low: no warning holds at the end, and no limit that would end it was near."


def _spike(trial: Trial) -> str:
    key = trial.workload.reporting.roles.loss
    points = points_of(trial, key) if key else []
    if key is None or len(points) < 2:
        return ""
    rise = max(after - before for (_, before), (_, after) in pairwise(points))
    limit = next((rule.threshold for rule in profile_for(trial).rules if rule.statistic == "change" and
                  rule.metric == key and isinstance(rule.threshold, (int, float)) and rule.threshold > 0), None)
    ends = f"; the profile ends a run at +{number(float(limit))}" if limit is not None else ""
    if rise <= 0:
        return f"{title(trial, key)} never rose between two validations{ends}."
    return f"{title(trial, key)} rose by {number(rise)} at most between two validations; look into a rise above " \
           f"{number(3 * rise)}, three times that{ends}."


# ---- issues, next steps, commands

def _issues(study: Study, trial: Trial) -> list[Issue]:
    """Rules that hold in the chosen run, then those that ended or marked other arms: they are what happens here."""
    found: dict[str, Issue] = {}
    for item in gravest(trial):
        status = "holds here; blocking" if item.severity == "abort" else "holds here; not blocking"
        found[item.rule] = Issue(item.meaning, status, item.remedy)
    seen: dict[str, list[str]] = {}
    details: dict[str, Issue] = {}
    for other in study.configs[:50]:
        if other == trial:
            continue
        for item in gravest(other):
            seen.setdefault(item.rule, []).append(other.label)
            details[item.rule] = Issue(item.meaning, "", item.remedy)
    for rule, labels in sorted(seen.items(), key=lambda pair: -len(pair[1])):
        if rule not in found:
            more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
            found[rule] = Issue(details[rule].what, f"seen in {', '.join(labels[:3])}{more}, not here",
                                details[rule].action)
    return list(found.values())[:16]


def _next(study: Study, trial: Trial, importance: Sequence[tuple[str, float]]) -> list[str]:
    steps = [f"{item.meaning} {item.remedy}" for item in findings(trial)]
    steps += [f"{knob} goes most with the value here ({100 * part:.0f} %): search around "
              f"{value_text(trial.params.get(knob))} first." for knob, part in list(importance)[:2]
              if knob in trial.params]
    return steps[:6] or ["Nothing here asks for a change; a longer run or fresh seeds say more than another search."]


def commands(study: Study, trial: Trial, standing: Standing, gates: Sequence[Gate]) -> list[str]:
    """What to type next, in order; a line with # in front is for the reader."""
    failed = {gate.name: gate for gate in gates if not gate.lets_pass}
    first = [f"# {gate.name}: {gate.remedy}" for gate in failed.values() if gate.name != "confirmed" and gate.remedy]
    if trial.workload.judged_by_rules:
        return first + _of_others(study, trial, standing, "confirmed" in failed)
    if first:
        return [*first, "# then compare again", shlex.join(["lam", "report", *map(str, study.sources)])]
    steps = _promoting(study, trial, "confirmed" in failed) if trial.place is not None else \
        _promoting_by_hand(study, trial, standing, "confirmed" in failed)
    return [*steps, "lam train production.yaml", "# meanwhile, in another terminal",
            "lam monitor runs/production --follow --alerts production.yaml"]


def _promoting(study: Study, trial: Trial, unconfirmed: bool) -> list[str]:
    """Fresh seeds and promotion of the leading config of a sweep."""
    source = str(study.source_of(trial))
    promote = shlex.join(["lam", "promote", source, "-o", "production.yaml"])
    seeds = str(profile_for(trial).gates.seeds)
    return [shlex.join(["lam", "sweep", "confirm", source, "--top", "1", "--seeds", seeds]), promote] \
        if unconfirmed else [promote]


def _promoting_by_hand(study: Study, trial: Trial, standing: Standing, unconfirmed: bool) -> list[str]:
    """Further seeds of a config that no sweep trained, and its promotion with all of them."""
    trained = study.trainings(trial)
    used = {other.config.get("seed") for other in trained}
    free = (seed for seed in count_from(101) if seed not in used)
    again = [(seed, f"{trial.path}-{seed}") for seed, _ in zip(
        free, range(missing_seeds(trial, standing)), strict=False)] if unconfirmed else []
    steps = [shlex.join(["lam", "train", str(trial.path / "config.yaml"), "--set", f"seed={seed}", "--run-dir", run])
             for seed, run in again]
    arm = best_without_codes([other for other in study.trials if on_the_same_data(other, trial)], trial.workload.error)
    beside = ["--baseline", str(arm.path)] if arm is not None else []
    runs = [*(str(other.path) for other in trained), *(run for _, run in again)]
    return [*steps, shlex.join(["lam", "promote", *runs, *beside, "-o", "production.yaml"])]


def _of_others(study: Study, trial: Trial, standing: Standing, unconfirmed: bool) -> list[str]:
    """Of another trainer's run: its own program trains, ours compares and watches."""
    seeds = count(missing_seeds(trial, standing), "further seed")
    more = [f"# train the chosen config with {seeds} by its own trainer, add those runs, then",
            shlex.join(["lam", "report", *map(str, study.sources)])] if unconfirmed else []
    return [*more, "# while the production run trains: its folder instead of this one",
            shlex.join(["lam", "monitor", str(trial.path), "--follow", "--profile", trial.workload.profile])]
