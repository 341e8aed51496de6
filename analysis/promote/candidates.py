"""What is to be promoted: a trial of a sweep, or a run that was trained by hand, with what confirms it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analysis.judge.judging import LIVE, judge
from analysis.judge.ranking import Standing, bounds, rank
from analysis.judge.verdict import decide
from analysis.judge.vitality import has_no_codes, on_the_same_data
from analysis.read.merging import seeds_as_arms
from analysis.read.reading import Study, Trial, read_study
from analysis.read.sources import is_run, is_sweep, record_folder
from record import documents
from record.errors import AnswerIsNo, BadInput
from record.run import RunFolder
from record.schema import suggest
from record.storage import copies
from record.text import printable

NO_CONFIG = ("num_epochs",)  # in which a training that confirms another one may differ from it, beside its seed


@dataclass(frozen=True)
class Candidate:
    """What is to be promoted.

    Attributes:
        folder: the sweep of the trial, or the run's own; relative paths of the config may be relative to it.
        again: further trainings of configs of the study that are no trials of it, those of one config together.
        sweep: sweep.json of the trial's sweep; empty for a run of its own.
        baseline: the arm without codes that was named.
    """

    study: Study
    trial: Trial
    standing: Standing
    reason: str
    folder: Path
    again: list[list[Trial]] = field(default_factory=list)
    sweep: Mapping[str, Any] = field(default_factory=dict)
    baseline: Trial | None = None

    @property
    def name(self) -> str:
        """The sweep's, or what is read together."""
        return printable(str(self.sweep.get("name", self.study.name)))

    @property
    def production(self) -> Mapping[str, Any]:
        """The sweep's section of production overrides."""
        return (self.sweep.get("spec") or {}).get("production") or {}


def choose(paths: str | Path | Sequence[str | Path], name: str | None, baseline: Path | None) -> Candidate:
    """The one to promote.

    Raises:
        BadInput: nothing of the kind, or no such trial.
        AnswerIsNo: nothing is live, and none was named.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    folders, trial = _of_a_sweep([record_folder(path) for path in named])
    study = read_study(folders)
    study = study if study.sweep else _confirmed_by_hand(study)
    chosen, standing, reason = _named(study, name or trial)
    arm = _baseline(baseline, chosen) if baseline else None
    sweeps, home = [folder for folder in folders if is_sweep(folder)], study.source_of(chosen)
    copies.bring_weights(chosen.path)
    sweep = documents.load_document(documents.Sweep, home / "sweep.json").as_written() if home in sweeps else {}
    return Candidate(study, chosen, standing, reason, home, _fresh(sweeps, chosen), sweep, arm)


def _baseline(path: Path, trial: Trial) -> Trial:
    """The arm without codes that was named.

    Raises:
        BadInput: its errors tell nothing about the trial's codes.
    """
    arm = next(iter(read_study(path).trials), None)
    if arm is None or not has_no_codes(arm):
        raise BadInput(f"got {path}, which was trained with codes", source="--baseline",
                       remedy="name a run with quantizer: none, or leave it out")
    if not on_the_same_data(arm, trial):
        known, other = (each.identity.get("data_fingerprint") for each in (trial, arm))
        raise BadInput(f"got {path}, trained on other data than {trial.label} (fingerprint {other}, not {known})",
                       source="--baseline", remedy="name a run on the same data, or leave it out")
    return arm


def _of_a_sweep(folders: list[Path]) -> tuple[list[Path], str | None]:
    """A trial's folder stands for its sweep and its id; so does that of a fresh seed in the sweep's confirmation."""
    if len(folders) > 1:
        return folders, None
    for up, room in ((1, "trials"), (2, "confirm")):
        above = folders[0].parents[up] if len(folders[0].parents) > up else folders[0]
        below = folders[0].relative_to(above).parts
        if is_run(folders[0]) and below[0] == room and is_sweep(above):
            return [above], below[1]
    return folders, None


def _fresh(sweeps: Sequence[Path], trial: Trial) -> list[list[Trial]]:
    """The trainings of a sweep's confirmation, those of one config together; the promoted trial is among its own."""
    found = []
    for sweep in sweeps:
        for config in sorted((sweep / "confirm").glob("*")):
            runs = [path for path in sorted(config.glob("seed-*")) if RunFolder(path).exists()]
            read = [replace(next(iter(read_study(path).trials)), place=None) for path in runs]
            found.append([*([trial] if trial.path == sweep / "trials" / config.name else []), *read])
    return [group for group in found if group]


def _confirmed_by_hand(study: Study) -> Study:
    """Runs of one config on the same data as one config that those of further seeds confirm."""
    loose = [replace(trial, repeats=None) if trial.place is None else trial for trial in study.trials]
    joined = replace(study, trials=tuple(seeds_as_arms(loose, aside=NO_CONFIG)))
    groups = [joined.trainings(first) for first in joined.configs]
    confirm = {group[0].label: _entry(study, group) for group in groups if len(group) > 1}
    return replace(joined, confirm={**confirm, **study.confirm})


def _entry(study: Study, group: Sequence[Trial]) -> dict[str, Any]:
    """What the further runs of a config came to, as confirm.json says it."""
    judged = [judge(trial, study.objective) for trial in group[1:]]
    values = [each.value for each in judged]
    low, high = bounds(values)
    known = [value for value in values if value is not None]
    return {"trial": group[0].label, "seeds": [each.seed for each in judged], "values": values,
            "mean": sum(known) / len(known) if len(known) == len(values) else None, "low": low, "high": high,
            "live": sum(each.status == LIVE for each in judged)}


def _named(study: Study, name: str | None) -> tuple[Trial, Standing, str]:
    """The trial to promote, its place, and why it was chosen."""
    standings = rank(study)
    verdict = decide(study, standings)
    wanted = name or verdict.winner
    if wanted is None:
        raise AnswerIsNo(f"{verdict.sentence} Nothing is promoted; widen the space, or name a trial with --trial.")
    named = study.named(wanted)
    if len(named) > 1:
        raise BadInput(f"got {wanted!r}, which is in more than one of them", source="--trial",
                       remedy=f"name {' or '.join(each.label for each in named)}")
    trial = next(iter(named), None)
    if trial is None:
        raise BadInput(f"got {wanted!r}, no such trial in {study.name}", source="--trial",
                       remedy=suggest(wanted, [item.label for item in study.trials]))
    if not trial.validated:
        raise BadInput(f"got {wanted!r}, which has no validation to judge it by", source="--trial",
                       remedy="name a trial that has trained")
    first = study.first(trial)
    standing = next(item for item in standings if item.label == first.label)
    again = "" if trial == first else f", which trains the config of {first.label} again with another seed,"
    reason = verdict.sentence if name is None or trial.label == verdict.winner else \
        f"{trial.label}{again} was named by hand, rank {standing.rank} of {len(standings)}. {verdict.sentence}"
    return trial, standing, reason
