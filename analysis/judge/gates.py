"""What a trial must show before its config is promoted; each gate states its evidence. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from typing import Any

from analysis.judge.judging import LIVE, broken, kept_record
from analysis.judge.ranking import Standing
from analysis.judge.vitality import facts_of
from analysis.read.reading import Study, Trial
from record.text import count, finite, interval, number, words

MIN_SEEDS = 2


@dataclass(frozen=True)
class Gate:
    """One requirement.

    Attributes:
        evidence: the numbers it was judged by, as a sentence.
        remedy: what to do where it failed.
        waived: the reason a person gave to let a failed gate pass; empty otherwise.
    """

    name: str
    passed: bool
    evidence: str
    remedy: str = ""
    waived: str = ""

    @property
    def lets_pass(self) -> bool:
        return self.passed or bool(self.waived)


def try_gates(study: Study, trial: Trial, standing: Standing, waivers: dict[str, str]) -> tuple[Gate, ...]:
    """Every gate for one trial; a waiver counts only where the gate failed.

    `constraints` needs a sweep with some, `beats_copy` a workload that measures copying.
    """
    needless = {"constraints": not trial.limits, "beats_copy": "val/mse_copy" not in trial.workload.metrics}
    gates = (check(study, trial, standing) for name, check in GATES.items() if not needless.get(name))
    return tuple(gate if gate.passed else replace(gate, waived=waivers.get(gate.name, "")) for gate in gates)


def _finished(study: Study, trial: Trial, standing: Standing) -> Gate:
    done = trial.state == "completed"  # to its last epoch, rung or patience: whoever wrote the word knew which
    early = f", {trial.identity['stopped_early']}" if done and trial.identity.get("stopped_early") else ""
    ending = f"; {trial.state}" + (f" by {trial.reason['rule']}" if trial.reason.get("rule") else early)
    return Gate("finished", done, f"trained {standing.last_epoch} of {standing.num_epochs or '?'} epochs{ending}",
                "" if done else "train it to its full budget: 'lam sweep confirm' does, with fresh seeds")


def _live(study: Study, trial: Trial, standing: Standing) -> Gate:
    last = trial.workload.verdict(trial.validated[-1]) if trial.validated else "no validation"
    passed = standing.status == LIVE or (standing.status == "unfinished" and last == LIVE)
    evidence = f"{words(standing.status)}; {_heeds(trial, standing)}{words(last)} at the last validation"
    return Gate("live", passed, evidence,
                "" if passed else "choose a live trial with --trial, or sweep a space where codebooks stay alive")


def _heeds(trial: Trial, standing: Standing) -> str:
    """Control and DSNR, where the workload measures them."""
    if "val/control" not in trial.workload.metrics:
        return ""
    control = f"control {number(standing.control)} {interval(standing.control_low, standing.control_high)}".strip()
    return f"{control}, DSNR {number(standing.dsnr)} ({words(str(standing.dsnr_status or 'not measured'))}); "


def _constraints(study: Study, trial: Trial, standing: Standing) -> Gate:
    remedy = "choose a trial inside the constraints with --trial, or search where they can be met"
    if standing.outside:
        return Gate("constraints", False, "; ".join(standing.outside), remedy)
    kept = broken(trial, kept_record(trial) or {})
    if kept:
        evidence = f"inside at epoch {standing.epoch}, but kept is the checkpoint of epoch {standing.kept_epoch}"
        return Gate("constraints", False, f"{evidence}: {'; '.join(kept)}", remedy)
    limits = ", ".join(f"{key} {bound.text}" for key, bound in trial.limits.items())
    return Gate("constraints", True, f"inside the sweep's constraints ({limits})")


def _beats_copy(study: Study, trial: Trial, standing: Standing) -> Gate:
    passed = standing.mse is not None and standing.mse_copy is not None and standing.mse < standing.mse_copy
    return Gate("beats_copy", passed, f"validation MSE {number(standing.mse)} at epoch {standing.epoch}, copying the "
                                      f"last frame {number(standing.mse_copy)}",
                "" if passed else "train longer, or with a larger model")


def _confirmed(study: Study, trial: Trial, standing: Standing) -> Gate:
    remedy = f"run 'lam sweep confirm {study.sources[0]} --top 1 --seeds 3'" if study.sweep else \
        "train it again with three fresh seeds, and report them together"
    fresh = standing.confirmed
    if fresh is None:
        known = f"chosen by {count(len(standing.seeds.seeds), 'seed')} of the sweep" if standing.seeds else \
            "trained with one seed only"
        return Gate("confirmed", False, f"{known}, no fresh seeds in confirm.json", remedy)
    used, asked = (entry.get("config_fingerprint") for entry in (study.confirm[standing.label],
                                                                 study.first(trial).identity))
    if asked and used and asked != used:
        evidence = f"confirm.json is about another config ({used}, this trial's is {asked})"
        return Gate("confirmed", False, evidence, remedy)
    low, high, copy = (nan if value is None else value for value in (fresh.low, fresh.high, standing.mse_copy))
    beats = beats_copying(study, standing.preset, copy, low, high)
    passed = len(fresh.seeds) >= MIN_SEEDS and fresh.all_live and beats
    outside = f", {fresh.outside} of them outside the constraints" if fresh.outside else ""
    evidence = (f"{count(len(fresh.seeds), 'fresh seed')}, {fresh.live} live{outside}, mean {number(fresh.mean)} "
                f"{interval(fresh.low, fresh.high)}").strip() 
    if not beats and fresh.low is not None:
        evidence += ", not clearly better than repeating the last frame"
    return Gate("confirmed", passed, evidence, "" if passed else remedy)


GATES: dict[str, Callable[[Study, Trial, Standing], Gate]] = {
    "finished": _finished, "live": _live, "constraints": _constraints, "beats_copy": _beats_copy,
    "confirmed": _confirmed,
}


def alerts(trial: Trial, standing: Standing) -> list[dict[str, Any]]:
    """What a production run is watched for: fixed limits, and half of what this trial itself reached.

    `after_epoch`: the alert is silent until then; a codebook that ends healthy may start with two codes.
    """
    grace = int(facts_of(trial)["grace_epochs"])
    rules: list[dict[str, Any]] = [
        _alert("val/mse_loss", "is", "nonfinite", "the run diverged", 0),
        _alert("val/collapsed", "above", 0, "the codebook carries next to nothing", grace),
        _alert("val/control_low", "below", 0, "the decoder cannot be told to heed the actions", grace),
        _alert("val/dsnr_status", "is_not", "ok", "DSNR is not defined", grace),
    ]
    if standing.mse_copy is not None:
        rules.append(_alert("val/mse_loss", "above", standing.mse_copy, "no better than copying the last frame", grace))
    record = next((item for item in trial.validated if item["epoch"] == standing.epoch), {})
    perplexity = finite(record.get("val/perplexity_slot"))
    if perplexity is not None:
        rules.append(_alert("val/perplexity_slot", "below", round(perplexity / 2, 4),
                            f"half of the {number(perplexity)} that the promoted trial had", grace))
    rules.append(_alert("val/mse_loss", "rises_in_a_row", 3, "validation MSE rose three times running", grace))
    return [rule for rule in rules if rule["metric"] in trial.workload.metrics]


def _alert(metric: str, comparison: str, threshold: float | str, meaning: str, after: int) -> dict[str, Any]:
    return {"metric": metric, "comparison": comparison, "threshold": threshold, "meaning": meaning,
            "after_epoch": after}


def beats_copying(study: Study, preset: str, mse_copy: float, low: float, high: float) -> bool:
    """Whether all of an interval is better than what a model scores that repeats the last frame.

    On the objective's own scale: that model's MSE, or -1/2 where MSE is all that ranks, else no control and no codes.
    Nothing is asked of other losses, whose copying is not measured, but that the interval is defined.
    """
    objective, metric = study.objective, study.workload.metrics[study.objective]
    if not study.maximise:
        return high < (mse_copy if objective in ("val/mse_loss", "val/recon_loss") else math.inf)
    return low > (-0.5 if objective == "val/objective" and preset == "mse" else max(0.0, metric.bounds[0]))
