"""From the best trial, or from a run trained by hand, to a production YAML: gates, the complete config, its weights.

Everything is staged beside the YAML (`analysis.promote.ledger`), then the YAML is replaced whole or not at all; only a
file that promotion wrote and nobody edited is replaced, and every version of it is kept.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis.judge.gates import GATES, TESTED, Gate, try_gates
from analysis.promote.candidates import Candidate, choose
from analysis.promote.composing import Staged, composed, difference
from analysis.promote.ledger import Ledger, digest
from analysis.promote.snapshots import take_snapshot
from analysis.promote.target import check_place, check_replaceable, check_writable
from analysis.promote.tested import ask_test
from analysis.read.sources import save
from analysis.read.study import Trial
from record import documents, files
from record.errors import BadInput
from record.run import RunFolder
from record.schema import suggest
from record.storage import copies


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
    if found.sweep and not asked.only_show:
        check_writable(found.folder)
    gates = try_gates(found.study, found.trial, found.standing, dict(asked.waivers), found.baseline)
    if asked.only_show:
        text, _ = composed(path, found, gates, Staged(), asked.overrides, asked.now)
        return Promotion(found.trial.label, path, False, gates, found.reason, difference=difference(path, text))
    if not all(gate.lets_pass for gate in gates):
        return Promotion(found.trial.label, path, False, gates, found.reason)
    check_place(path)
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
    snapshot, kept = take_snapshot(found.trial, ledger, version) if weights else (None, "")
    staged = Staged(weights, test.document if test else None, snapshot)
    text, came_from = composed(path, found, gates, staged, asked.overrides, asked.now)
    save(ledger.version_file(version), text)
    said += f"; {kept}" if kept else ""
    result = Promotion(found.trial.label, path, True, gates, found.reason, replaced, version, said)
    record = result.document().model_copy(update={"provenance": came_from}).as_written()
    ledger.serve(kind="promotion", version=version, sha256=digest(text.encode()), trial=found.trial.label,
                 source=copies.where(found.trial.path), because=found.reason, weights=weights,
                 data_fingerprint=came_from.data_fingerprint,
                 record={"folder": str(found.folder), "document": record} if found.sweep else None)
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


def _gate_line(gate: Gate) -> str:
    mark = "passed" if gate.passed else f"WAIVED ({gate.waived})"
    return f"  {gate.name}: {mark}: {gate.evidence}"
