"""Several studies as one: labels that name one trial each, seeds of a config as one arm, families side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from analysis.read.families import Family, directed
from analysis.read.study import SET_BY_SWEEP, Study, Trial
from record.errors import BadInput
from record.health.reporting import Reporting
from record.schema import suggest
from record.text import printable
from record.workload.metric import Direction, Metric
from record.workload.settings import Settings
from record.workload.workload import Curve, Workload

SEEDS = ("seed", "random_seed", "rng_seed")


def merge(parts: Sequence[Study], objective: str | None = None) -> Study:
    """Several studies as one; runs of their own get the config keys in which they differ as params.

    Raises:
        BadInput: they were ranked by different metrics and none was named.
    """
    parts, notes = _apart(parts)
    trained = _together(parts)
    trials = seeds_as_arms(_unique_labels([trial for part in parts for trial in part.trials]))
    ranking = _objective(parts, objective, trained)
    knobs = _ordered([knob for part in parts for knob in part.knobs] + _differing(trials))
    return Study(
        name=" and ".join(part.name for part in parts) if len(parts) < 4 else
        f"{len(parts)} runs and sweeps" if any(part.sweep for part in parts) else f"{len(trials)} runs",
        objective=ranking, objectives=(ranking,), knobs=knobs, workload=trained,
        trials=tuple(_with_params(trial, knobs) for trial in trials),
        sources=tuple(source for part in parts for source in part.sources),
        confirm={label: entry for part in parts for label, entry in part.confirm.items()},
        differences=tuple(pair for part in parts for pair in part.differences),
        notes=(*notes, *(note for part in parts for note in part.notes), *_unranked(trials, ranking)),
    )


def ranked_by(study: Study, objective: str | None) -> Study:
    """The study ranked by the metric that a person named; `-KEY`: lower is better.

    Raises:
        BadInput: nothing recorded it.
    """
    if objective is None:
        return study
    key, lower = objective.removeprefix("-"), objective.startswith("-")
    logged = _ordered(key for trial in study.trials for key in trial.epochs.names())
    if key not in logged:
        raise BadInput(f"got {objective!r}, which no run here logged", source="--objective",
                       remedy=suggest(key, list(logged)))
    known = study.workload.metrics.get(key)
    wanted: Direction = "down" if lower else known.direction if known and known.direction != "none" else "up"
    if isinstance(study.workload, (Family, Together)):
        trained = study.workload.ranked(key, wanted)
        trials = tuple(replace(trial, workload=trial.workload.ranked(key, wanted)) if isinstance(
            trial.workload, Family) else trial for trial in study.trials)
        return replace(study, objective=key, objectives=(key,), workload=trained, trials=trials)
    if known is None or known.direction != wanted:
        raise BadInput(f"got {objective!r}, a metric without that direction here", source="--objective",
                       remedy="name a metric that has a better direction")
    return replace(study, objective=key, objectives=(key,))


# ---- families side by side

class Together(Workload):
    """Runs of several families in one report; a metric that they define differently stands once for each."""

    config = Settings
    train = ""

    def __init__(self, kinds: Sequence[Workload]) -> None:
        self.kinds = tuple(kinds)
        self.name = " and ".join(kind.name for kind in kinds)
        self.metrics = {key: metric for kind in reversed(kinds) for key, metric in kind.metrics.items()}
        self.objective, self.error = kinds[0].objective, kinds[0].error

    @property
    def reporting(self) -> Reporting:
        """The sections and panels of each family, the first one's settings."""
        first, *others = [kind.reporting for kind in self.kinds]
        sections = {group.title: group for group in first.sections}
        for other in others:
            for group in other.sections:
                rows = sections[group.title].rows if group.title in sections else []
                known = {(row.key, row.how) for row in rows}
                more = [row for row in group.rows if (row.key, row.how) not in known]
                if rows or more:
                    sections[group.title] = group.model_copy(update={"rows": [*rows, *more]})
        panels = [panel for each in (first, *others) for panel in each.panels]
        return first.model_copy(update={"sections": list(sections.values()), "panels": panels})

    @property
    def curves(self) -> Sequence[Curve]:
        """Those of each family."""
        return list({curve.key: curve for kind in reversed(self.kinds) for curve in kind.curves}.values())[:10]

    @property
    def rows(self) -> Sequence[str]:
        """Those of each family."""
        return _ordered(key for kind in self.kinds for key in kind.rows)

    def needs_codes(self, objective: str, config: Mapping[str, Any]) -> bool:
        """As the first family says."""
        return self.kinds[0].needs_codes(objective, config)

    def ranked(self, key: str, direction: Direction) -> Together:
        """The same, ranked by another metric."""
        made = Together(self.kinds)
        made.objective, made.metrics = key, {**self.metrics, key: directed(_of(self, key), direction)}
        return made

    def prepare(self, configs: Sequence[Settings]) -> str:
        """Nothing can be trained.

        Raises:
            BadInput: always.
        """
        raise BadInput("runs of several trainers are read, not trained", source="workload")


def _of(kind: Workload, key: str) -> Metric:
    return kind.metrics.get(key) or Metric(key, "not stated by its trainer", "none", "mean")


def _together(parts: Sequence[Study]) -> Workload:
    kinds = list({part.workload.name: part.workload for part in parts}.values())
    return kinds[0] if len(kinds) == 1 else Together(kinds)


def _apart(parts: Sequence[Study]) -> tuple[list[Study], list[str]]:
    """The parts, with each metric that an earlier family defines differently under a name of its own; and notes."""
    owners: dict[str, tuple[Metric, str]] = {}
    found, notes = [], []
    for part in parts:
        kind, clashes = part.workload, {}
        for key, metric in kind.metrics.items():
            owner, name = owners.setdefault(key, (metric, kind.name))
            if name != kind.name and _differ(owner, metric):
                clashes[key] = f"{key} ({kind.name})"
                notes.append(f"{key} is shown apart for {name} and {kind.name}: {_meaning(owner)}; {_meaning(metric)}.")
        found.append(_renamed(part, clashes) if clashes and isinstance(kind, Family) else part)
    return found, list(dict.fromkeys(notes))


def _differ(one: Metric, other: Metric) -> bool:
    return (one.formula, one.direction, one.reduction, one.unit) != (
        other.formula, other.direction, other.reduction, other.unit)


def _meaning(metric: Metric) -> str:
    return f"{metric.formula or 'no definition stated'} ({metric.direction})"


def _renamed(part: Study, names: Mapping[str, str]) -> Study:
    assert isinstance(part.workload, Family)
    trained = part.workload.renamed(names)
    trials = tuple(replace(trial, workload=trained, records=tuple(
        {names.get(key, key): value for key, value in record.items()} for record in trial.records))
        for trial in part.trials)
    objective = names.get(part.objective, part.objective)
    return replace(part, workload=trained, trials=trials, objective=objective, objectives=(objective,))


def _objective(parts: Sequence[Study], named: str | None, trained: Workload) -> str:
    if named:
        return named.removeprefix("-")
    objectives = _ordered(part.objective for part in parts)
    if len(objectives) > 1 and not isinstance(trained, Together):
        raise BadInput(f"they were ranked by different metrics ({', '.join(objectives)})",
                       source=", ".join(str(part.sources[0]) for part in parts),
                       remedy="report them one by one, or name one with --objective")
    return objectives[0]


def _unranked(trials: Sequence[Trial], objective: str) -> list[str]:
    silent = [trial.label for trial in trials if trial.records
              and objective not in trial.epochs.names()]
    return [f"{', '.join(silent[:6])}{' and more' if len(silent) > 6 else ''} did not log {objective} and cannot be "
            "ranked by it; name a metric that all of them have with --objective."] if silent else []


# ---- seeds as arms

def with_knobs(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with the config keys in which they differ as params."""
    knobs = _differing(trials)
    return [_with_params(trial, knobs) for trial in trials]


def seeds_as_arms(trials: Sequence[Trial], aside: Collection[str] = ()) -> list[Trial]:
    """Trainings whose configs differ only in the seed as one arm, wherever they come from.

    The first of them stands for it. A training with the same seed as another of its arm is no further evidence and
    stays by itself.

    Args:
        aside: further config keys in which the trainings of an arm may differ.
    """
    arms: dict[str, dict[str, Trial]] = {}
    found = []
    for trial in trials:
        key, seed = _arm(trial, aside), _seed(trial)
        if key is None or trial.repeats is not None:
            found.append(trial)
            continue
        arm = arms.setdefault(key, {})
        first = next(iter(arm.values()), None)
        new = seed not in arm
        arm.setdefault(seed, trial)
        found.append(replace(trial, repeats=first.label) if first is not None and new else trial)
    return found


def _arm(trial: Trial, aside: Collection[str]) -> str | None:
    """What a training's arm has in common; None where its config or its seed is not known."""
    if not trial.config or not _seed(trial):
        return None
    data = trial.identity.get("data_fingerprint")
    left_out = {*aside, *SET_BY_SWEEP, *trial.workload.no_result, *(trial.workload.path_knobs if data else ())}
    rest = {key: value for key, value in trial.config.items()
            if key.split(".")[0] not in left_out and not _is_seed(key)}
    return json.dumps([trial.workload.name, data, rest], sort_keys=True, default=str)


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] in SEEDS


def _seed(trial: Trial) -> str:
    return json.dumps([value for key, value in sorted(trial.config.items()) if _is_seed(key)]).strip("[]")


def _differing(trials: Sequence[Trial]) -> list[str]:
    """Config keys that may change a number and whose values are not the same in every config."""
    firsts = [trial for trial in trials if trial.config and trial.repeats is None]
    keys = _ordered(key for trial in firsts for key in trial.config
                    if key.split(".")[0] not in {*SET_BY_SWEEP, *trial.workload.no_result} and not _is_seed(key))
    return [key for key in keys if len({json.dumps(trial.config.get(key)) for trial in firsts}) > 1]


def _with_params(trial: Trial, knobs: Sequence[str]) -> Trial:
    chosen = {knob: trial.config[knob] for knob in knobs if knob in trial.config} | trial.params
    return replace(trial, params=chosen)


def _unique_labels(trials: Sequence[Trial]) -> list[Trial]:
    """Trials whose labels name one of them each: where two share a label, its path stands in for a run of its own."""
    labels = Counter(trial.label for trial in trials)
    return [replace(trial, label=printable(str(trial.path))) if trial.place is None and labels[trial.label] > 1
            else trial for trial in trials]


def _ordered(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))
