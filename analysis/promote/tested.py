"""The last gate: the test split, which is read here and nowhere before, once for each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.judge.gates import TESTED, Gate
from analysis.promote.ledger import Ledger, digest
from analysis.read.reading import Trial
from record import files
from record.errors import BadData, BadInput
from record.run import RunFolder
from record.text import count, finite, number, words


@dataclass(frozen=True)
class Test:
    """What the test split said."""

    gate: Gate
    document: dict[str, Any]


def ask_test(ledger: Ledger, trial: Trial, waivers: dict[str, str]) -> Test | None:
    """The gate, and what it was judged by; None where no weights are kept, or the workload measures no test split.

    What was read stands in the ledger: the same weights are not measured a second time, and how often the split was
    read for other models is said.
    """
    folder = RunFolder(trial.path)
    weights = sorted(folder.checkpoints.glob("*.safetensors"))
    if not weights or "keep" not in trial.config:
        return None
    name = next((each for each in weights if each.stem == "best"), weights[-1])
    known, data = digest(name.read_bytes()), trial.identity.get("data_fingerprint")
    earlier = [entry for entry in ledger.entries() if entry.event == "tested" and entry.data_fingerprint == data]
    found = next((entry.test for entry in earlier if entry.sha256 == known), None)
    if found is None:
        try:
            metrics = trial.workload.tested(folder, name.stem)
        except (BadData, BadInput) as error:
            return Test(_gate(False, f"the test split could not be read ({error})", waivers,
                              f"'lam evaluate {trial.path} --split test' says what is missing"), {})
        if metrics is None:
            return None
        found = files.jsonable({"checkpoint": name.stem, "metrics": _few(trial, metrics)})
        ledger.append("tested", trial=trial.label, sha256=known, data_fingerprint=data, test=found)
    return Test(_judged(trial, found, len({entry.sha256 for entry in earlier} - {known}), waivers), found)


def _few(trial: Trial, metrics: dict[str, Any]) -> dict[str, Any]:
    keys = (trial.workload.error, trial.workload.objective, "val/mse_copy", "val/control", "val/control_low",
            "val/control_high", "val/dsnr", "val/dsnr_status", "val/perplexity_slot", "val/collapsed",
            "val/action_skill", "val/action_skill_low", "val/perplexity_joint", "val/objective_preset")
    return {key: metrics[key] for key in keys if key in metrics}


def _judged(trial: Trial, found: dict[str, Any], others: int, waivers: dict[str, str]) -> Gate:
    metrics = found["metrics"]
    error, copy = finite(metrics.get(trial.workload.error)), finite(metrics.get("val/mse_copy"))
    verdict = trial.workload.verdict(metrics)
    passed = verdict == "live" and (copy is None or (error is not None and error < copy))
    evidence = (f"{words(verdict)} on the test split: {words(trial.workload.error.removeprefix('val/'))} "
                f"{number(error)}, copying {number(copy)}, objective "
                f"{number(finite(metrics.get(trial.workload.objective)))}; read before for "
                f"{count(others, 'other model')}")
    return _gate(passed, evidence, waivers, "the choice does not hold on videos that no choice was made by: add "
                                            "validation videos, then sweep again")


def _gate(passed: bool, evidence: str, waivers: dict[str, str], remedy: str) -> Gate:
    return Gate(TESTED, passed, evidence, "" if passed else remedy, "" if passed else waivers.get(TESTED, ""))
