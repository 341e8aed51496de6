"""Everything a report says, as one frozen object; `analysis.report.render` turns it into HTML, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from analysis.decision.decide import Decision, conclude
from analysis.decision.trust import Doubt, examine_search
from analysis.judge.importance import Importance, importance
from analysis.judge.outcomes import Assessment, Compute, Stop, assess, compute_ledger, stop_ledger
from analysis.judge.ranking import Standing, rank
from analysis.judge.verdict import Difference, Verdict, decide, differences
from analysis.read.epochs.ahead import begun
from analysis.read.reading import Paths, Study, Trial, read_study
from analysis.report.compare import Comparison, choose_columns, compare
from analysis.report.graphs.codes import CodeUse, Histogram, histograms_of, uses_of
from analysis.report.graphs.curves import Curve, curves_of
from analysis.report.graphs.fronts import Front, Regret, fronts_of, regret_of
from analysis.report.graphs.rungs import Rungs, rungs_of
from analysis.report.panels import RunPanel, panels_of
from analysis.report.pictures import Strips, strips_of
from record import provenance
from record.errors import BadInput
from record.schema import suggest
from record.storage import copies
from record.text import printable
from record.workload.metric import Metric

PICTURED = 2
PANELLED = 6
MOST_DOTS = 600
ASSESSED = 12
MEANWHILE = 50  # trials from which a second processor is worth a process


@dataclass(frozen=True)
class Slice:
    """The value of each trial over one knob: (label, status, setting, value)."""

    knob: str
    trials: tuple[tuple[str, str, Any, float], ...]


@dataclass(frozen=True)
class Report:
    """What the page says, and what it was made from: `sources`, and what was `asked`.

    Pictures are PNG data; every other number is as measured, None where undefined.
    """

    title: str
    made_at: str
    version: str
    objective: str
    knobs: tuple[str, ...]
    verdict: Verdict
    standings: tuple[Standing, ...]
    comparison: Comparison
    curves: tuple[Curve, ...]
    slices: tuple[Slice, ...]
    importance: Importance
    strips: tuple[Strips, ...]
    histograms: tuple[Histogram, ...]
    stops: tuple[Stop, ...]
    compute: Compute
    differences: tuple[Difference, ...]
    assessments: tuple[Assessment, ...]
    provenance: tuple[tuple[str, str], ...]
    glossary: tuple[Metric, ...]
    constraints: tuple[str, ...] = ()
    decision: Decision | None = None
    notes: tuple[str, ...] = ()
    panels: tuple[RunPanel, ...] = ()
    sources: tuple[str, ...] = ()
    asked: dict[str, str | None] = field(default_factory=dict)
    trust: tuple[Doubt, ...] = ()
    rungs: Rungs | None = None
    fronts: tuple[Front, ...] = ()
    regret: Regret | None = None
    code_use: tuple[CodeUse, ...] = ()
    maximise: bool = True

    @property
    def winner(self) -> Standing | None:
        """The standing of the config that wins; None where none may."""
        return next((item for item in self.standings if item.label == self.verdict.winner), None)

    @cached_property
    def confirmed(self) -> tuple[Standing, ...]:
        """The configs that were trained again on fresh seeds."""
        return tuple(item for item in self.standings if item.confirmed)

    @cached_property
    def repeated(self) -> tuple[Standing, ...]:
        """The configs that the sweep trained with several seeds."""
        return tuple(item for item in self.standings if item.seeds)


def build_report(paths: Paths, baseline: str | None = None, now: datetime | None = None, *,
                 objective: str | None = None, profile: str | None = None, study: Study | None = None,
                 meanwhile: Callable[[], object] = bool) -> Report:
    """Read, rank and compare.

    Args:
        paths: a sweep, a run, or several of either.
        baseline: a trial of theirs, or the path of a run, to compare against.
        now: the time the report carries.
        objective, profile: see `read_study`.
        study: what was read already.
        meanwhile: what this process may do before it waits for another one, which decides.

    Raises:
        BadInput: see `read_study`; or no such baseline.
    """
    study = study or read_study(paths, objective, profile)
    made = report_of(study, baseline, now, meanwhile)
    if baseline and not study.named(baseline):
        baseline = str(Path(baseline).resolve())
    named = [paths] if isinstance(paths, (str, Path)) else paths
    sources = tuple(str(Path(path).resolve()) if Path(path).exists() else str(path) for path in named)
    return replace(made, sources=sources, asked={"baseline": baseline, "objective": objective, "profile": profile})


def report_of(study: Study, baseline: str | None = None, now: datetime | None = None,
              meanwhile: Callable[[], object] = bool) -> Report:
    """As `build_report`, of what was read."""
    against = _baseline(study, baseline) if baseline else study.trial(study.baseline or "")
    standings = rank(study)
    verdict = decide(study, standings)
    shown = choose_columns(standings)
    trials = {trial.label: trial for trial in study.trials}
    ordered = [training for item in standings for training in study.trainings(trials[item.label])]
    places = {item.label: item for item in standings}
    ordered += [against] if against is not None and against not in ordered else []
    work = partial(_decided, study, standings, verdict, shown, against)
    decided = begun(work) if len(study.trials) >= MEANWHILE else work
    assessed = [label for label in dict.fromkeys([*shown, *places]) if trials[label].records][:ASSESSED]
    made = Report(
        title=study.name, made_at=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        version=provenance.lamsweep(), objective=study.objective, knobs=study.knobs, verdict=verdict,
        standings=standings, comparison=compare(study, standings, against),
        curves=curves_of(ordered, study),
        panels=tuple(panel for label in shown[:PANELLED] for panel in panels_of(trials[label])),
        slices=tuple(_slice(knob, standings) for knob in study.knobs),
        importance=Importance((), 0, ""),
        strips=tuple(strips_of(trials[label], places[label].epoch)
                     for label in _pictured(trials, standings, verdict.winner)),
        histograms=histograms_of([trials[label] for label in shown], study.objective),
        stops=stop_ledger(study), compute=compute_ledger(study), differences=differences(study),
        assessments=tuple(assess(trials[label], places[label]) for label in assessed),
        provenance=tuple(_provenance(study)), glossary=tuple(study.workload.metrics.values()),
        constraints=tuple(dict.fromkeys(f"{key} {bound.text}" for trial in study.trials
                                        for key, bound in trial.limits.items())),
        notes=study.notes, rungs=rungs_of(study, standings), fronts=fronts_of(study, standings),
        regret=regret_of(study, standings), maximise=study.maximise,
        code_use=uses_of([trials[label] for label in shown], study.objective),
    )
    meanwhile()
    return replace(made, **decided())


def _decided(study: Study, standings: tuple[Standing, ...], verdict: Verdict, shown: Sequence[str],
             against: Trial | None) -> dict[str, Any]:
    """What follows from a comparison, as fields of the report; of many trials another process works it out."""
    shares = importance(study, standings)
    told = [(item.knob, item.share) for item in shares.shares]
    return {"importance": shares, "decision": conclude(study, standings, verdict, shown, told, against),
            "trust": examine_search(study, standings, against)}


def _at(study: Study, path: str) -> tuple[Trial, ...]:
    """The trial of the study that lies at a path."""
    if not Path(path).exists():
        return ()
    return tuple(trial for trial in study.trials if trial.path.resolve() == Path(path).resolve())


def _baseline(study: Study, name: str) -> Trial:
    inside = study.named(name) or _at(study, name)
    if len(inside) > 1:
        raise BadInput(f"got {name!r}, which is the id of {len(inside)} trials here", source="--baseline",
                       remedy=f"name one of them: {', '.join(trial.label for trial in inside)}")
    if inside:
        return inside[0]
    if not Path(name).exists():
        raise BadInput(f"got {name!r}, neither a trial here nor a folder", source="--baseline",
                       remedy=suggest(name, [trial.label for trial in study.trials]))
    other = read_study(name)
    if len(other.trials) != 1:
        raise BadInput(f"got {name!r}, which holds {len(other.trials)} trials", source="--baseline",
                       remedy="name one run's folder")
    trial = other.trials[0]
    return replace(trial, label=f"{trial.label} (baseline)") if study.trial(trial.label) else trial


def _slice(knob: str, standings: Sequence[Standing]) -> Slice:
    known = [item for item in standings if knob in item.params and item.value is not None]
    stride = max(1, len(known) // MOST_DOTS)
    return Slice(knob, tuple((item.label, item.status, item.params[knob], float(item.value or 0.0))
                             for item in known[::stride]))


def _pictured(trials: dict[str, Trial], standings: Sequence[Standing], winner: str | None) -> list[str]:
    """The winner, and for contrast the best-placed collapsed or action-ignoring trial that is not it."""
    first = [winner] if winner else []
    contrast = [item.label for item in standings if item.status in ("collapsed", "actions_ignored")]
    pictured = [label for label in contrast if next(trials[label].path.glob("samples/*.npz"), None)]
    return [*first, *(pictured or contrast)][:PICTURED]


def _provenance(study: Study) -> list[tuple[str, str]]:
    """Where the numbers come from, as name and value; what differs between runs is listed."""
    identities = [trial.identity for trial in study.trials if trial.identity]
    places = [copies.where(source) if isinstance(source, Path) else str(source) for source in study.sources]
    rows: list[tuple[str, Any]] = [("Read from", ", ".join(places))]
    if study.sweep:
        rows += [("Sweep made", study.sweep.get("created_at")), ("Sweep fingerprint", study.sweep.get("fingerprint")),
                 ("Search", _keys(study.sweep, "search")), ("Scheduler", _keys(study.sweep, "scheduler")),
                 ("Sweep seed", study.sweep.get("spec", {}).get("seed"))]
    rows += [
        ("Run seeds", _distinct(trial.config.get("seed") for trial in study.trials if trial.config)),
        ("Evaluation seeds", _distinct(trial.config.get("eval_seed") for trial in study.trials if trial.config)),
        ("Data", _distinct(_folders(trial.config) for trial in study.trials if trial.config)),
        ("Data fingerprint", _distinct(identity.get("data_fingerprint") for identity in identities)),
        ("Git commit", _distinct(identity.get("git_commit") for identity in identities)),
        ("Parameters of the model", _distinct(identity.get("num_params") for identity in identities)),
    ]
    packages = dict.fromkeys(name for identity in identities for name in identity.get("versions", {}))
    rows += [(f"Version of {name}", _distinct(identity.get("versions", {}).get(name) for identity in identities))
             for name in packages]
    rows += [(f"Version of {name}", version) for name, version in study.sweep.get("versions", {}).items()
             if name not in packages]
    return [(printable(name), printable(str(value))) for name, value in rows if value not in (None, "")]


def _folders(config: Mapping[str, Any]) -> Any:
    """The folder that was trained on, or those of a mixture with their weights."""
    data = config.get("data")
    named = [f"{part.get('dir')} (weight {part.get('weight', 1)})"
             for part in (data if isinstance(data, list) else []) if isinstance(part, Mapping)]
    return " + ".join(named) or config.get("data_dir")


def _keys(sweep: dict[str, Any], field: str) -> str | None:
    value = sweep.get("spec", {}).get(field)
    if not isinstance(value, dict):
        return None if value is None else str(value)
    return ", ".join(f"{name} {inner}" if inner else str(name) for name, inner in value.items())


def _distinct(values: Any) -> str:
    """The different values, at most six of them."""
    names = list(dict.fromkeys("not recorded" if value is None else f"{value:,}" if isinstance(value, int) and
                               abs(value) >= 10_000 else str(value) for value in values))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
