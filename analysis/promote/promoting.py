"""From the best trial, or from a run trained by hand, to a production YAML: gates, the complete config, its weights.

Everything is staged beside the YAML (`analysis.promote.ledger`), then the YAML is replaced whole or not at all; only a
file that promotion wrote and nobody edited is replaced, and every version of it is kept.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.judge import outlook
from analysis.judge.gates import GATES, TESTED, Gate, try_gates
from analysis.promote import production as text_of
from analysis.promote.candidates import Candidate, choose
from analysis.promote.ledger import Ledger, digest
from analysis.promote.tested import ask_test
from analysis.read.sources import save
from analysis.read.study import SET_BY_SWEEP, Trial
from record import documents, files, provenance, yamlio
from record.errors import BadInput
from record.run import RunFolder
from record.schema import suggest
from record.workload import workload
from record.workload.settings import PRODUCTION_SECTIONS, Settings
from record.workload.workload import Workload

ALWAYS_THERE = PRODUCTION_SECTIONS[:3]  # in production YAMLs of every version
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
    version: int = 0
    weights: str = ""
    difference: str = ""

    def document(self) -> documents.Promotion:
        """What promotion.json says of it; it is read from any folder, so its paths are absolute."""
        kept = str(self.replaced.absolute()) if self.replaced else None
        return documents.Promotion.model_validate(files.jsonable({
            "trial": self.trial, "target": str(self.target.absolute()), "promoted": self.promoted,
            "gates": [dataclasses.asdict(gate) for gate in self.gates], "reason": self.reason, "replaced": kept,
            "version": self.version}))

    def summary(self) -> str:
        """Lines for the terminal."""
        lines = [f"Promoted {self.trial} to {self.target}", *(_gate_line(gate) for gate in self.gates)]
        lines.append(f"{sum(gate.passed for gate in self.gates)} of {len(self.gates)} gates passed; {self.weights}")
        if self.replaced:
            lines.append(f"The file before it is kept as {self.replaced}; go back to it with: "
                         f"{shlex.join(['lam', 'promotions', 'rollback', str(self.target)])}")
        return "\n".join([*lines, f"Train it with: {shlex.join(['lam', 'train', str(self.target)])}"])


@dataclass(frozen=True)
class Wish:
    """What a person asks of a promotion beside its source and target.

    Attributes:
        trial: which one; default: the winner.
        waivers: gate -> the reason to let it pass although it failed.
        overrides: a YAML of values that production has instead of the trial's own.
        baseline: a run without codes that is not in the study.
        only_show: write nothing, and give the difference to the file in production.
        now: the time that the file carries.
    """

    trial: str | None = None
    waivers: Mapping[str, str] = field(default_factory=dict)
    overrides: Path | None = None
    baseline: Path | None = None
    only_show: bool = False
    now: datetime | None = None


def promote(paths: str | Path | Sequence[str | Path], target: str | Path, trial: str | None = None,
            waivers: dict[str, str] | None = None, now: datetime | None = None, wish: Wish | None = None) -> Promotion:
    """Check the gates of a winner (or of `trial`) and, where they let it pass, write its config.

    Args:
        paths: a sweep, one of its trials' folders, or runs trained by hand; the first of those with one config is
            promoted, those with other seeds confirm it.
        trial, waivers, now: as in `Wish`, which goes before them.

    Raises:
        BadInput: nothing to promote, no such trial or gate, or the target cannot be written.
        AnswerIsNo: no trial is live and none was named.
    """
    asked, path = wish or Wish(trial, waivers or {}, now=now), Path(target)
    check_replaceable(path)
    found = choose(paths, asked.trial, asked.baseline)
    for folder in found.sweep_folders:
        _check_writable(folder)
    gates = try_gates(found.study, found.trial, found.standing, dict(asked.waivers), found.baseline)
    if asked.only_show:
        text, _ = _made(found, gates, path, asked, None, None)
        return Promotion(found.trial.label, path, False, gates, found.reason, difference=_difference(path, text))
    if not all(gate.lets_pass for gate in gates):
        return Promotion(found.trial.label, path, False, gates, found.reason)
    _check_place(path)
    with Ledger(path).held() as ledger:
        check_replaceable(path)
        return _serve(ledger, found, gates, path, asked)


def _serve(ledger: Ledger, found: Candidate, gates: tuple[Gate, ...], path: Path, asked: Wish) -> Promotion:
    """Stage weights and YAML, then let the ledger replace the file in production."""
    test = ask_test(ledger, found.trial, dict(asked.waivers))
    gates = (*gates, test.gate) if test else gates
    if not all(gate.lets_pass for gate in gates):
        return Promotion(found.trial.label, path, False, gates, found.reason)
    replaced, version = _adopted(ledger, path), ledger.next_version()
    weights, said = _take_weights(found.trial, ledger.model_folder(version))
    text, came_from = _made(found, gates, path, asked, weights, test.document if test else None)
    save(ledger.version_file(version), text)
    result = Promotion(found.trial.label, path, True, gates, found.reason, replaced, version, said)
    record = result.document().model_copy(update={"provenance": came_from}).as_written()
    ledger.serve(kind="promotion", version=version, sha256=digest(text.encode()), trial=found.trial.label,
                 source=str(found.trial.path), because=found.reason, weights=weights,
                 data_fingerprint=came_from.data_fingerprint,
                 record={"folder": str(found.sweep_folders[0]), "document": record} if found.sweep_folders else None)
    return result


def _adopted(ledger: Ledger, path: Path) -> Path | None:
    """Where the file that is replaced is kept; one from before the ledger becomes its first version."""
    if not path.exists():
        return None
    text, known = path.read_text(encoding="utf-8"), ledger.current()
    if known is not None and known.begun.sha256 == digest(text.encode()):
        return ledger.version_file(known.version)
    version = ledger.next_version()
    kept = save(ledger.version_file(version), text)
    ledger.serve(kind="adoption", version=version, sha256=digest(text.encode()), because="written before the ledger")
    return kept


def _take_weights(trial: Trial, to: Path) -> tuple[dict[str, Any] | None, str]:
    """Export the measured checkpoint, and say what went along."""
    folder = RunFolder(trial.path)
    if not any(folder.checkpoints.glob("*.safetensors")):
        return None, "no weights go along: the run keeps none"
    shutil.rmtree(to, ignore_errors=True)  # what a promotion that was cut off has left
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = trial.workload.export(folder, to)
    except BadInput as error:
        return None, f"no weights go along: {error}"
    hashes = {file.relative_to(made).as_posix(): digest(file.read_bytes()) for file in sorted(made.rglob("*"))
              if file.is_file()}
    return {"folder": str(made), "sha256": hashes}, f"its weights are in {made}"


def _made(found: Candidate, gates: tuple[Gate, ...], path: Path, asked: Wish, weights: dict[str, Any] | None,
          test: dict[str, Any] | None) -> tuple[str, documents.Provenance]:
    """The YAML's text, and where it came from."""
    trained, trial = found.study.workload, found.trial
    own = _on_its_own(trained, trained.absolute(trained.of_run(RunFolder(trial.path)), found.folder))
    file, name = text_of.read_overrides(asked.overrides)
    wanted = text_of.overrides((found.production, "the sweep's production section"), (file, name))
    values = text_of.changed(own.mapping(), wanted)
    config = trained.read(values, source=name or "the sweep's production section")
    moment = (asked.now or datetime.now(UTC)).isoformat(timespec="seconds")
    came_from = _provenance(found, config, moment, weights, test)
    sections = _sections(found, config, gates, came_from)
    return _text(path, found, config, sections, wanted), came_from


def _difference(path: Path, text: str) -> str:
    """The new text against the file in production."""
    now = path.read_text(encoding="utf-8") if path.exists() else ""
    return "".join(difflib.unified_diff(now.splitlines(True), text.splitlines(True), f"{path} (in production)",
                                        f"{path} (promoted)"))


def waivers(names: Sequence[str], reasons: Sequence[str]) -> dict[str, str]:
    """Pair --waive with --because.

    Raises:
        BadInput: an unknown gate, a missing or empty reason.
    """
    for name in names:
        if name not in (*GATES, TESTED):
            raise BadInput(f"got {name!r}, no such gate", source="--waive", remedy=suggest(name, [*GATES, TESTED]))
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
    if not all(isinstance(values.get(section), (dict, list)) for section in ALWAYS_THERE):
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


def _check_place(path: Path) -> None:
    """Refuse a target whose folder is none.

    Raises:
        BadInput: saying so.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise BadInput("cannot be written (its folder is a file)", source=path, remedy="name another file with -o")


def _on_its_own(trained: Workload, trial: Settings) -> Settings:
    """A trial's config with the schema's defaults for what the sweep had set for it."""
    values = trial.mapping()
    kept = {key: values[key] for key in values if key not in SET_BY_SWEEP}
    return trained.read(kept, source="the trial's config")


def _provenance(found: Candidate, config: Settings, moment: str, weights: dict[str, Any] | None,
                test: dict[str, Any] | None) -> documents.Provenance:
    """Where the production config came from."""
    study, trial, standing = found.study, found.trial, found.standing
    fresh, known = standing.confirmed, trial.identity
    named = {} if study.workload.name == workload.DEFAULT else {"workload": study.workload.name}
    return documents.Provenance(
        **named,
        sweep=study.name, sweep_folder=str(study.sources[0]), trial=trial.id, reason=found.reason, promoted_at=moment,
        config_fingerprint=config.fingerprint(), comparable_fingerprint=config.comparable(study.workload.resumable),
        trial_config_fingerprint=known.get("config_fingerprint"),
        trial_threads=trial.config.get("threads"), data_fingerprint=known.get("data_fingerprint"),
        git_commit=known.get("git_commit"),
        versions={**known.get("versions", {}), "lamsweep_promote": provenance.lamsweep()},
        seeds=list(dict.fromkeys([config.seed, *(standing.seeds.seeds if standing.seeds else ()),
                                  *(fresh.seeds if fresh else ())])),
        objective=study.objective, value=standing.value, epoch=standing.epoch,
        fresh_seed_mean=fresh.mean if fresh else None, interval=[fresh.low, fresh.high] if fresh else None,
        kept_epoch=standing.kept_epoch, weights=weights, test=test)


def _sections(found: Candidate, config: Settings, gates: tuple[Gate, ...],
              came_from: documents.Provenance) -> dict[str, Any]:
    """What describes the config; docs/records.md says what each section holds."""
    study, trial, epochs = found.study, found.trial, config.num_epochs
    plain: dict[str, Any] = files.jsonable({
        "provenance": came_from.as_written(),
        "gates": [{"name": gate.name, "passed": gate.passed, "evidence": gate.evidence,
                   "waived": gate.waived or None} for gate in gates],
        "alerts": outlook.alerts(trial, found.standing),
        "aborts": outlook.aborts(study, trial, config.mapping()),
        "expected": outlook.expected(study, trial, found.again, epochs),
        "cost": outlook.cost(trial, epochs),
    })
    return plain


def _text(path: Path, found: Candidate, config: Settings, sections: dict[str, Any],
          wanted: Sequence[text_of.Override]) -> str:
    waived = [gate["name"] for gate in sections["gates"] if gate["waived"]]
    where = f"trial {found.trial.id} of the sweep {found.study.name}" if found.trial.place is not None else \
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
    return f"{body}{SEAL}{_digest(body)}\n"


def _reasons(path: Path, found: Candidate, values: dict[str, Any], wanted: list[text_of.Override]) -> dict[str, str]:
    """Why each value differs from the sweep's base, from the trial, and from the file in production."""
    base = files.flat(found.study.sweep.get("base") or {})
    knobs = {key: value for key, value in base.items() if key in found.study.knobs}
    in_production = yamlio.load_mapping(path) if path.exists() else {}
    before = files.flat({key: value for key, value in in_production.items() if key in values})
    evidence = f"{found.trial.label} has rank {found.standing.rank} by {found.study.objective}"
    return text_of.reasons(values, found.trial.config, knobs, before, wanted, evidence)


def _gate_line(gate: Gate) -> str:
    mark = "passed" if gate.passed else f"WAIVED ({gate.waived})"
    return f"  {gate.name}: {mark}: {gate.evidence}"
