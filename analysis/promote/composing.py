"""What a production YAML says: the complete config, a reason beside each value, and its sections."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.judge import outlook
from analysis.judge.gates import Gate
from analysis.promote import production as text_of
from analysis.promote.candidates import Candidate
from analysis.promote.target import sealed
from analysis.read.study import SET_BY_SWEEP
from record import documents, files, provenance, yamlio
from record.run import RunFolder
from record.storage import copies
from record.workload import workload
from record.workload.settings import Settings
from record.workload.workload import Workload


@dataclass(frozen=True)
class Staged:
    """What lies beside the YAML by the time it is written.

    Attributes:
        weights: their folder, and the hash of each file.
        test: what the test split said of them.
        snapshot: file and hash of what new data are compared with.
    """

    weights: dict[str, Any] | None = None
    test: dict[str, Any] | None = None
    snapshot: dict[str, Any] | None = None


def composed(path: Path, found: Candidate, gates: tuple[Gate, ...], staged: Staged, overrides: Path | None = None,
             now: datetime | None = None) -> tuple[str, documents.Provenance]:
    """The YAML's text, and where it came from.

    Args:
        overrides: a YAML of values that production has instead of the trial's own.
        now: the time that it carries.
    """
    trained, trial = found.study.workload, found.trial
    own = _on_its_own(trained, trained.absolute(trained.of_run(RunFolder(trial.path)), found.folder))
    file, name = text_of.read_overrides(overrides)
    asked = (found.production, "the sweep's production section"), (file, name)
    wanted = text_of.overrides(*asked)
    values = text_of.changed(own.mapping(), wanted)
    config = trained.read(values, source=name or "the sweep's production section")
    moment = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    came_from = _provenance(found, config, moment, staged)
    sections = _sections(found, config, gates, came_from)
    sections |= {kind: [*sections[kind], *text_of.watched(kind, trained.metrics, *asked)] for kind in text_of.WATCHED}
    return _text(path, found, config, sections, wanted), came_from


def _on_its_own(trained: Workload, trial: Settings) -> Settings:
    """A trial's config with the schema's defaults for what the sweep had set for it."""
    values = trial.mapping()
    kept = {key: values[key] for key in values if key not in SET_BY_SWEEP}
    return trained.read(kept, source="the trial's config")


def _provenance(found: Candidate, config: Settings, moment: str, staged: Staged) -> documents.Provenance:
    """Where the production config came from."""
    study, trial, standing = found.study, found.trial, found.standing
    fresh, known = standing.confirmed, trial.identity
    named = {} if study.workload.name == workload.DEFAULT else {"workload": study.workload.name}
    return documents.Provenance(
        **named,
        sweep=found.name, sweep_folder=copies.where(found.folder), trial=trial.id, reason=found.reason,
        promoted_at=moment,
        config_fingerprint=config.fingerprint(), comparable_fingerprint=config.comparable(study.workload.resumable),
        trial_config_fingerprint=known.get("config_fingerprint"),
        trial_threads=trial.config.get("threads"), data_fingerprint=known.get("data_fingerprint"),
        git_commit=known.get("git_commit"),
        versions={**known.get("versions", {}), "lamsweep_promote": provenance.lamsweep()},
        seeds=list(dict.fromkeys([config.seed, *(standing.seeds.seeds if standing.seeds else ()),
                                  *(fresh.seeds if fresh else ())])),
        objective=study.objective, value=standing.value, epoch=standing.epoch,
        fresh_seed_mean=fresh.mean if fresh else None, interval=[fresh.low, fresh.high] if fresh else None,
        kept_epoch=standing.kept_epoch, weights=staged.weights, test=staged.test, snapshot=staged.snapshot)


def _sections(found: Candidate, config: Settings, gates: tuple[Gate, ...],
              came_from: documents.Provenance) -> dict[str, Any]:
    """What describes the config; docs/records.md says what each section holds."""
    study, trial, epochs = found.study, found.trial, config.num_epochs
    plain: dict[str, Any] = files.jsonable({
        "provenance": came_from.as_written(),
        "gates": [{"name": gate.name, "passed": gate.passed, "evidence": gate.evidence,
                   "waived": gate.waived or None} for gate in gates],
        "alerts": outlook.alerts(study, trial, found.standing),
        "aborts": outlook.aborts(study, trial, config.mapping()),
        "expected": outlook.expected(study, trial, found.again, epochs),
        "cost": outlook.cost(trial, epochs),
    })
    return plain


def _text(path: Path, found: Candidate, config: Settings, sections: dict[str, Any],
          wanted: Sequence[text_of.Override]) -> str:
    waived = [gate["name"] for gate in sections["gates"] if gate["waived"]]
    where = f"trial {found.trial.id} of the sweep {found.name}" if found.trial.place is not None else \
        f"the run {found.trial.id}"
    passed = sum(gate["passed"] for gate in sections["gates"])
    header = [
        f"# Production config: {where}; {passed} of {len(sections['gates'])} gates passed.",
        f"# Train it with:  lam train {path.name}",
        f"# Watch it with:  lam monitor RUN --alerts {path.absolute()}",
        "# The keys up to `provenance` configure the run; the sections after them say where it came from,",
        "# what it was judged by, what to watch, what ends it and what to expect. Promotion does not replace an edited "
        "file.",
        f"# Left out, so that the defaults hold: {' and '.join(SET_BY_SWEEP)}, which the sweep had set for its trials.",
    ]
    if waived:
        header.append(f"# Promoted although these gates failed: {', '.join(waived)}. The reasons are below.")
    values = {key: value for key, value in config.mapping().items() if key not in SET_BY_SWEEP}
    plain = yamlio.dump_mapping(values | sections)
    told = text_of.commented(plain, _reasons(path, found, values, list(wanted)))
    safe = told if yamlio.parse_mapping(told) == yamlio.parse_mapping(plain) else plain
    body = "\n".join(header) + "\n" + safe
    return sealed(body)


def _reasons(path: Path, found: Candidate, values: dict[str, Any], wanted: list[text_of.Override]) -> dict[str, str]:
    """Why each value differs from the sweep's base, from the trial, and from the file in production."""
    base = files.flat(found.sweep.get("base") or {})
    knobs = {key: value for key, value in base.items() if key in found.study.knobs}
    in_production = yamlio.load_mapping(path) if path.exists() else {}
    before = files.flat({key: value for key, value in in_production.items() if key in values})
    evidence = f"{found.trial.label} has rank {found.standing.rank} by {found.study.objective}"
    return text_of.reasons(values, found.trial.config, knobs, before, wanted, evidence)


def difference(path: Path, text: str) -> str:
    """The new text against the file in production."""
    now = path.read_text(encoding="utf-8") if path.exists() else ""
    return "".join(difflib.unified_diff(now.splitlines(True), text.splitlines(True), f"{path} (in production)",
                                        f"{path} (promoted)"))
