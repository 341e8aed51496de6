"""What a trial must show before its config is promoted; each gate states its evidence. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from typing import Any

from analysis.judge.judging import LIVE, broken, judge, kept_record
from analysis.judge.ranking import Confirmed, Standing, bounds
from analysis.judge.vitality import best_without_codes, course_of, has_no_codes, on_the_same_data, profile_for
from analysis.read.reading import Study, Trial
from analysis.read.study import last_value, series
from record.health.limits import Gates
from record.text import count, finite, interval, number, share, words


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


@dataclass(frozen=True)
class Case:
    """What the gates judge.

    Attributes:
        limits: the numbers of the trial's health profile.
        no_codes: the arm without codes, where one is in the study or was named as baseline.
    """

    study: Study
    trial: Trial
    standing: Standing
    limits: Gates
    no_codes: Trial | None = None

    @property
    def last(self) -> dict[str, Any]:
        """The last validation."""
        return self.trial.validated[-1] if self.trial.validated else {}

    @property
    def judged(self) -> dict[str, Any]:
        """The validation that the trial is ranked by."""
        return next((each for each in self.trial.validated if each["epoch"] == self.standing.epoch), {})

    def records(self, *keys: str) -> bool:
        """Whether a validation of the trial has one of these metrics, though it may not be finite."""
        return not set(keys).isdisjoint(self.trial.validated.names())

    def measures(self, *keys: str) -> bool:
        """Whether a validation of the trial has a finite value of one of these metrics."""
        return any(series(self.trial.validated, key) for key in keys)


def try_gates(study: Study, trial: Trial, standing: Standing, waivers: dict[str, str],
              baseline: Trial | None = None) -> tuple[Gate, ...]:
    """Every gate that can be asked of one trial; a waiver counts only where the gate failed.

    Args:
        baseline: an arm that is not in the study; used where it is without codes, on the trial's data.
    """
    limits = profile_for(trial).gates
    case = Case(study, trial, standing, limits, _arm_without_codes(study, trial, baseline))
    gates = (check(case) for name, check in GATES.items() if ASKED.get(name, _always)(case))
    return tuple(gate if gate.passed else replace(gate, waived=waivers.get(gate.name, "")) for gate in gates)


def _always(case: Case) -> bool:
    return True


def _arm_without_codes(study: Study, trial: Trial, baseline: Trial | None) -> Trial | None:
    """The training without codes on the trial's data; None where the trial is one itself, or there is none."""
    if has_no_codes(trial):
        return None
    named = [baseline] if baseline is not None and has_no_codes(baseline) else []
    arms = [arm for arm in named or study.trials if on_the_same_data(arm, trial)]
    return best_without_codes(arms, trial.workload.error)


def _finished(case: Case) -> Gate:
    trial, standing = case.trial, case.standing
    done = trial.state == "completed"  # to its last epoch, rung or patience: whoever wrote the word knew which
    early = f", {trial.identity['stopped_early']}" if done and trial.identity.get("stopped_early") else ""
    ending = f"; {trial.state}" + (f" by {trial.reason['rule']}" if trial.reason.get("rule") else early)
    return Gate("finished", done, f"trained {standing.last_epoch} of {standing.num_epochs or '?'} epochs{ending}",
                "" if done else "train it to its full budget: 'lam sweep confirm' does, with fresh seeds")


def _live(case: Case) -> Gate:
    trial, standing = case.trial, case.standing
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


def _constraints(case: Case) -> Gate:
    trial, standing = case.trial, case.standing
    remedy = "choose a trial inside the constraints with --trial, or search where they can be met"
    if standing.outside:
        return Gate("constraints", False, "; ".join(standing.outside), remedy)
    kept = broken(trial, kept_record(trial) or {})
    if kept:
        evidence = f"inside at epoch {standing.epoch}, but kept is the checkpoint of epoch {standing.kept_epoch}"
        return Gate("constraints", False, f"{evidence}: {'; '.join(kept)}", remedy)
    limits = ", ".join(f"{key} {bound.text}" for key, bound in trial.limits.items())
    return Gate("constraints", True, f"inside the sweep's constraints ({limits})")


def _beats_copy(case: Case) -> Gate:
    standing = case.standing
    passed = standing.mse is not None and standing.mse_copy is not None and standing.mse < standing.mse_copy
    return Gate("beats_copy", passed, f"validation MSE {number(standing.mse)} at epoch {standing.epoch}, copying the "
                                      f"last frame {number(standing.mse_copy)}",
                "" if passed else "train longer, or with a larger model")


def _confirmed(case: Case) -> Gate:
    study, trial, standing = case.study, case.trial, case.standing
    remedy = _seeds_remedy(case)
    fresh = standing.confirmed or _further(case)
    if fresh is None:
        known = f"chosen by {count(len(standing.seeds.seeds), 'seed')} of the sweep" if standing.seeds else \
            "trained with one seed only"
        where = "" if trial.place is None else " in confirm.json"
        return Gate("confirmed", False, f"{known}, no fresh seeds{where}", remedy)
    used = study.confirm.get(standing.label, {}).get("config_fingerprint")
    asked = study.first(trial).identity.get("config_fingerprint")
    if asked and used and asked != used:
        evidence = f"confirm.json is about another config ({used}, this trial's is {asked})"
        return Gate("confirmed", False, evidence, remedy)
    low, high, copy = (nan if value is None else value for value in (fresh.low, fresh.high, standing.mse_copy))
    beats = beats_copying(study, standing.preset, copy, low, high)
    passed = len(fresh.seeds) >= case.limits.seeds and fresh.all_live and beats
    outside = f", {fresh.outside} of them outside the constraints" if fresh.outside else ""
    seeds = count(len(fresh.seeds), "fresh seed" if standing.confirmed else "further seed")
    spread = interval(fresh.low, fresh.high)
    evidence = f"{seeds}, {fresh.live} live{outside}, mean {number(fresh.mean)} {spread}".strip()
    if len(fresh.seeds) < case.limits.seeds:
        evidence += f", asked are {case.limits.seeds}"
    if not beats and fresh.low is not None:
        evidence += ", not clearly better than repeating the last frame"
    return Gate("confirmed", passed, evidence, "" if passed else remedy)


def _further(case: Case) -> Confirmed | None:
    """Trainings by hand of one config beside the first confirm it, as where `lam promote` is given them."""
    seeds = case.standing.seeds
    if seeds is None or case.trial.place is not None:
        return None
    values = seeds.values[1:]
    known, (low, high) = [value for value in values if value is not None], bounds(values)
    return Confirmed(seeds.seeds[1:], values, sum(known) / len(known) if len(known) == len(values) else None, low, high,
                     seeds.statuses[1:].count(LIVE))


def missing_seeds(trial: Trial, standing: Standing) -> int:
    """How many further trainings a config still needs that no sweep confirms."""
    return max(1, profile_for(trial).gates.seeds + 1 - (len(standing.seeds.seeds) if standing.seeds else 1))


def _seeds_remedy(case: Case) -> str:
    """The command that trains the config again with fresh seeds."""
    if case.trial.place is not None:
        which = "--top 1" if case.standing.rank == 1 else f"--top 0 --trial {case.study.first(case.trial).id}"
        return f"run 'lam sweep confirm {case.study.source_of(case.trial)} {which} --seeds {case.limits.seeds}'"
    more = count(missing_seeds(case.trial, case.standing), "further seed")
    if case.trial.workload.judged_by_rules:
        return f"train it with {more} by its own trainer and name those runs as well"
    again = f"lam train {case.trial.path / 'config.yaml'} --set seed=101 --run-dir {case.trial.path}-101"
    return f"train it with {more} ('{again}', ...) and name those runs as well"


def _dsnr_valid(case: Case) -> Gate:
    status = str(case.judged.get("val/dsnr_status") or "not measured")
    return Gate("dsnr_valid", status == "ok", f"DSNR is {words(status)} at epoch {case.standing.epoch}",
                "" if status == "ok" else f"'lam monitor {case.trial.path}' says what is missing")


def _action_skill(case: Case) -> Gate:
    low, high, skill = (finite(case.judged.get(f"val/action_skill{end}")) for end in ("_low", "_high", ""))
    passed = low is not None and low > 0
    remedy = f"give more labels ('lam label {case.trial.path} --ask'), or sweep where codes follow the actions"
    return Gate("action_skill", passed, f"action skill {number(skill)} {interval(low, high)}, asked is a lower bound "
                                        "above 0".replace("  ", " "), "" if passed else remedy)


def _near_no_codes(case: Case) -> Gate:
    arm = case.no_codes
    assert arm is not None
    key, most = case.trial.workload.error, case.limits.error_over_no_codes
    ours, theirs = judge(case.trial, case.study.objective).number(key), last_value(arm, key)
    gap = None if ours is None or not theirs else ours / theirs - 1
    passed = gap is not None and gap <= most
    return Gate("near_no_codes", passed, f"{key} {number(ours)}, {share(gap)} over the {number(theirs)} of {arm.label} "
                                         f"without codes, at most {share(most)}",
                "" if passed else "sweep num_embeddings and num_codes upwards: 'lam sweep launch', then promote again")


def _ranks(case: Case) -> Gate:
    asked = (("val/effective_rank_context", case.limits.rank_context),
             ("val/effective_rank_target", case.limits.rank_target))
    told, passed = [], True
    for key, least in asked:
        value = finite(case.last.get(key))
        if not case.records(key):
            continue
        if value is None:
            when = "was measured, and not at the last validation" if case.measures(key) else "was never finite"
            told.append(f"{words(key.removeprefix('val/'))} {when}")
            passed = False
            continue
        course = course_of(case.trial, key, "up").word
        asked_for = f"at least {number(least)}{', twice that where it is collapsing' if course == 'collapsing' else ''}"
        told.append(f"{words(key.removeprefix('val/'))} {number(value)}, {asked_for}, {course}")
        passed = passed and value >= (2 * least if course == "collapsing" else least)
    return Gate("ranks", passed, "; ".join(told), "" if passed else
                f"lower commitment_weight or learning_rate; 'lam monitor {case.trial.path}' tells since when")


def _codebook(case: Case) -> Gate:
    codes = finite(case.trial.config.get("num_embeddings")) or 0.0
    least, last = max(1.5, case.limits.perplexity_share * codes), case.trial.validated[-case.limits.last_validations:]
    known = {each["epoch"]: finite(each.get("val/perplexity_slot")) for each in last}
    values = [value for value in known.values() if value is not None]
    unknown = [str(epoch) for epoch, value in known.items() if value is None]
    course = course_of(case.trial, "val/perplexity_slot", "up").word
    passed = bool(values) and not unknown and min(values) >= least and course != "collapsing"
    evidence = (f"slot perplexity {number(min(values, default=None))} to {number(max(values, default=None))} of "
                f"{number(codes)} codes over the last {count(len(values), 'validation')}, at least {number(least)}; "
                f"{course}" + (f"; not finite at epoch {', '.join(unknown)}" if unknown else ""))
    return Gate("codebook", passed, evidence, "" if passed else
                "lower commitment_weight, set vq_refresh_interval, or use a smaller num_embeddings, and sweep again")


GATES: dict[str, Callable[[Case], Gate]] = {
    "finished": _finished, "live": _live, "constraints": _constraints, "dsnr_valid": _dsnr_valid,
    "beats_copy": _beats_copy, "action_skill": _action_skill, "near_no_codes": _near_no_codes, "ranks": _ranks,
    "codebook": _codebook, "confirmed": _confirmed,
}
TESTED = "tested"  # the last gate, which reads the test split: analysis.promote asks it once all others let pass
ASKED: dict[str, Callable[[Case], bool]] = {
    "constraints": lambda case: bool(case.trial.limits),
    "dsnr_valid": lambda case: case.records("val/dsnr_status")
    and case.trial.config.get("quantizer") != "none",
    "beats_copy": lambda case: "val/mse_copy" in case.trial.workload.metrics,
    "action_skill": lambda case: case.measures("val/action_skill") and case.trial.config.get("quantizer") != "none",
    "near_no_codes": lambda case: case.no_codes is not None,
    "ranks": lambda case: case.records("val/effective_rank_context", "val/effective_rank_target"),
    "codebook": lambda case: case.records("val/perplexity_slot") and case.trial.config.get("quantizer") != "none",
}
"""Where a gate can be asked at all; a gate that is not named here always is."""


def beats_copying(study: Study, preset: str, mse_copy: float, low: float, high: float) -> bool:
    """Whether all of an interval is better than what a model scores that repeats the last frame.

    On the objective's own scale: that model's MSE, or -1/2 where MSE is all that ranks, else no control and no codes.
    Nothing is asked of other losses, whose copying is not measured, but that the interval is defined.
    """
    objective, metric = study.objective, study.workload.metrics[study.objective]
    if not study.maximise:
        return high < (mse_copy if objective in ("val/mse_loss", "val/recon_loss") else math.inf)
    return low > (-0.5 if objective == "val/objective" and preset == "mse" else max(0.0, metric.bounds[0]))
