"""From the best trial to a production YAML: gates with evidence, the complete config, where it came from.

The file is written whole or not at all, replaces only a file that promotion wrote and nobody edited,
and keeps the one before it as .bak beside it. What was promoted is also in the sweep's promotion.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.judge.gates import GATES, Gate, alerts, try_gates
from analysis.judge.ranking import Standing, rank
from analysis.judge.verdict import decide
from analysis.read.reading import SET_BY_SWEEP, Study, Trial, read_study
from analysis.read.sources import is_sweep, record_folder, save
from record import documents, files, provenance, yamlio
from record.errors import AnswerIsNo, BadInput
from record.run import RunFolder
from record.schema import suggest
from record.workload import workload
from record.workload.settings import PRODUCTION_SECTIONS, Settings
from record.workload.workload import Workload

SEAL = "# Written by 'lam promote', which replaces this file as long as nothing above is edited: "


@dataclass(frozen=True)
class Promotion:
    """What was decided, and why."""

    trial: str
    target: Path
    promoted: bool
    gates: tuple[Gate, ...]
    reason: str
    replaced: Path | None = None

    def document(self) -> documents.Promotion:
        """What promotion.json says of it; it is read from any folder, so its paths are absolute."""
        kept = self.replaced.absolute() if self.replaced else None
        whole = dataclasses.replace(self, target=self.target.absolute(), replaced=kept)
        return documents.Promotion.model_validate(files.jsonable(dataclasses.asdict(whole)))

    def summary(self) -> str:
        """Lines for the terminal."""
        lines = [f"Promoted {self.trial} to {self.target}", *(_gate_line(gate) for gate in self.gates)]
        if self.replaced:
            lines.append(f"The file before it is kept as {self.replaced}")
        return "\n".join([*lines, f"Train it with: {shlex.join(['lam', 'train', str(self.target)])}"])


def promote(folder: str | Path, target: str | Path, trial: str | None = None, waivers: dict[str, str] | None = None,
            now: datetime | None = None) -> Promotion:
    """Check the gates of a sweep's winner (or of `trial`) and, where they let it pass, write its config.

    Args:
        waivers: gate -> the reason to let it pass although it failed.
        now: the time that the file carries.

    Raises:
        BadInput: no sweep, no finished trial, no such trial or gate, or the target cannot be written.
        AnswerIsNo: no trial is live and none was named.
    """
    place, path = record_folder(folder), Path(target)
    if not is_sweep(place):
        raise BadInput("holds a run, not a sweep", source=folder, remedy="name the sweep's folder")
    check_replaceable(path)
    _check_writable(place)
    study = read_study(place)
    chosen, standing, reason = _choose(study, trial)
    gates = try_gates(study, chosen, standing, waivers or {})
    if not all(gate.lets_pass for gate in gates):
        return Promotion(chosen.label, path, False, gates, reason)
    trained = study.workload
    production = _on_its_own(trained, trained.absolute(trained.of_run(RunFolder(chosen.path)), place))
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    came_from = _provenance(study, chosen, standing, reason, production, moment)
    sections = _sections(chosen, standing, gates, came_from)
    kept = _write(path, _text(path, chosen, study.name, production, sections))
    result = Promotion(chosen.label, path, True, gates, reason, kept)
    record = result.document().model_copy(update={"provenance": came_from})
    save(place / "promotion.json", json.dumps(record.as_written(), indent=2, allow_nan=False) + "\n")
    return result


def waivers(names: Sequence[str], reasons: Sequence[str]) -> dict[str, str]:
    """Pair --waive with --because.

    Raises:
        BadInput: an unknown gate, a missing or empty reason.
    """
    for name in names:
        if name not in GATES:
            raise BadInput(f"got {name!r}, no such gate", source="--waive", remedy=suggest(name, list(GATES)))
    if len(names) != len(reasons) or not all(reason.strip() for reason in reasons):
        raise BadInput(f"got {len(names)} --waive and {sum(bool(reason.strip()) for reason in reasons)} --because",
                       remedy='give each --waive GATE its own --because "reason"')
    return dict(zip(names, (" ".join(reason.split()) for reason in reasons), strict=True))


def refusal(result: Promotion) -> str:
    """Why nothing was written, gate by gate, with what to do."""
    failed = [gate for gate in result.gates if not gate.lets_pass]
    lines = [f"{result.trial} is not promoted: {len(failed)} of {len(result.gates)} gates failed"]
    lines.extend(f"  {gate.name}: {gate.evidence}; {gate.remedy}" for gate in failed)
    lines.append('To go on all the same: --waive GATE --because "reason", once for each; it is written into the file.')
    return "\n".join(lines)


def check_replaceable(path: Path) -> None:
    """Refuse a target that is a link, a folder, or a file that is not ours to replace.

    Raises:
        BadInput: saying which, and what to do.
    """
    remedy = "name another file with -o"
    if path.is_symlink():
        raise BadInput("is a link, expected a plain file or none", source=path, remedy=remedy)
    if path.is_dir():
        raise BadInput("is a folder, expected a file", source=path, remedy=f"for example -o {path / 'production.yaml'}")
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise BadInput(f"ends in {path.suffix!r}, expected .yaml", source=path, remedy=remedy)
    if not path.exists():
        return
    try:
        values = yamlio.load_mapping(path)
    except BadInput:
        values = {}
    if not all(isinstance(values.get(section), (dict, list)) for section in PRODUCTION_SECTIONS):
        raise BadInput("exists and was not written by 'lam promote'", source=path, remedy=f"move it away, or {remedy}")
    if _is_edited(path, values):
        raise BadInput("was edited since it was promoted", source=path,
                       remedy=f"move it away to keep your changes, or {remedy}")


def _is_edited(path: Path, values: dict[str, Any]) -> bool:
    """Whether a production YAML is not as it was written, by the hash in its last line.

    A file of before that line was written is known by its config alone.
    """
    body, sealed, digest = path.read_text(encoding="utf-8").rpartition(SEAL)
    if sealed:
        return digest.strip() != _digest(body)
    trained = workload.find(values["provenance"].get("workload", workload.DEFAULT))
    return bool(trained.read(values, source=path).fingerprint() != values["provenance"].get("config_fingerprint"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_writable(folder: Path) -> None:
    """Refuse a sweep's folder that cannot take promotion.json, before the YAML is written.

    Raises:
        BadInput: it cannot be written.
    """
    if not os.access(folder, os.W_OK):
        raise BadInput("cannot be written, and promotion.json belongs there", source=folder,
                       remedy="make it writable, or promote from a copy of it")


def _choose(study: Study, name: str | None) -> tuple[Trial, Standing, str]:
    """The trial to promote, its place, and why it was chosen."""
    standings = rank(study)
    verdict = decide(study, standings)
    wanted = name or verdict.winner
    if wanted is None:
        raise AnswerIsNo(f"{verdict.sentence} Nothing is promoted; widen the space, or name a trial with --trial.")
    trial = study.trial(wanted)
    if trial is None:
        raise BadInput(f"got {wanted!r}, no such trial in {study.sources[0]}", source="--trial",
                       remedy=suggest(wanted, [item.id for item in study.trials]))
    if not trial.validated:
        raise BadInput(f"got {wanted!r}, which has no validation to judge it by", source="--trial",
                       remedy="name a trial that has trained")
    first = study.first(trial)
    standing = next(item for item in standings if item.label == first.label)
    again = "" if trial == first else f", which trains the config of {first.label} again with another seed,"
    reason = verdict.sentence if name is None or trial.label == verdict.winner else \
        f"{trial.label}{again} was named by hand, rank {standing.rank} of {len(standings)}. {verdict.sentence}"
    return trial, standing, reason


def _on_its_own(trained: Workload, trial: Settings) -> Settings:
    """A trial's config with the schema's defaults for what the sweep had set for it."""
    values = trial.mapping()
    kept = {key: values[key] for key in values if key not in SET_BY_SWEEP}
    return trained.read(kept, source="the trial's config")


def _provenance(study: Study, trial: Trial, standing: Standing, reason: str, production: Settings,
                moment: str) -> documents.Provenance:
    """Where the production config came from."""
    fresh, known = standing.confirmed, trial.identity
    named = {} if study.workload.name == workload.DEFAULT else {"workload": study.workload.name}
    return documents.Provenance(
        **named,
        sweep=study.name, sweep_folder=str(study.sources[0]), trial=trial.id, reason=reason, promoted_at=moment,
        config_fingerprint=production.fingerprint(), trial_config_fingerprint=known.get("config_fingerprint"),
        trial_threads=trial.config.get("threads"), data_fingerprint=known.get("data_fingerprint"),
        git_commit=known.get("git_commit"),
        versions={**known.get("versions", {}), "lamsweep_promote": provenance.lamsweep()},
        seeds=list(dict.fromkeys([production.seed, *(standing.seeds.seeds if standing.seeds else ()),
                                  *(fresh.seeds if fresh else ())])),
        objective=study.objective, value=standing.value, epoch=standing.epoch,
        fresh_seed_mean=fresh.mean if fresh else None)


def _sections(trial: Trial, standing: Standing, gates: tuple[Gate, ...],
              came_from: documents.Provenance) -> dict[str, Any]:
    """provenance, gates and alerts; docs/records.md says what they hold."""
    plain: dict[str, Any] = files.jsonable({
        "provenance": came_from.as_written(),
        "gates": [{"name": gate.name, "passed": gate.passed, "evidence": gate.evidence,
                   "waived": gate.waived or None} for gate in gates],
        "alerts": alerts(trial, standing),
    })
    return plain


def _text(path: Path, trial: Trial, sweep: str, production: Settings, sections: dict[str, Any]) -> str:
    waived = [gate["name"] for gate in sections["gates"] if gate["waived"]]
    header = [
        f"# Production config: trial {trial.id} of the sweep {sweep}.",
        f"# Train it with:  lam train {path.name}",
        f"# Watch it with:  lam monitor RUN --alerts {path.name}",
        "# The keys up to `provenance` configure the run; the sections after them say where it came from,",
        "# what it was judged by and what to watch, and configure nothing. Promotion does not replace an edited file.",
        f"# Left out, so that the defaults hold: {' and '.join(SET_BY_SWEEP)}, which the sweep had set for its trials.",
    ]
    if waived:
        header.append(f"# Promoted although these gates failed: {', '.join(waived)}. The reasons are below.")
    body = "\n".join(header) + "\n" + yamlio.dump_mapping(
        {key: value for key, value in production.mapping().items() if key not in SET_BY_SWEEP} | sections)
    return f"{body}{SEAL}{_digest(body)}\n"


def _write(path: Path, text: str) -> Path | None:
    """Replace `path`, keeping what was there; returns where it is kept."""
    backup = path.with_name(path.name + ".bak") if path.exists() else None
    if backup:
        save(backup, path.read_text(encoding="utf-8"))
    save(path, text)
    return backup


def _gate_line(gate: Gate) -> str:
    mark = "passed" if gate.passed else f"WAIVED ({gate.waived})"
    return f"  {gate.name}: {mark}: {gate.evidence}"
