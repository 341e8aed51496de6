"""The decision: requirements, readiness, go or no-go by promotion's gates, the production run and its plan. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.decision.arms import Arm, review
from analysis.decision.checklist import Requirement, checklist, counted
from analysis.decision.plan import Plan, make_plan
from analysis.decision.production import Production, plan_production
from analysis.judge.gates import Gate, try_gates
from analysis.judge.ranking import Standing
from analysis.judge.verdict import Verdict
from analysis.read.study import Study, Trial
from record.intervals import share_interval
from record.standing import is_sound
from record.text import count


@dataclass(frozen=True)
class Decision:
    """What follows from a comparison.

    Attributes:
        chosen: the arm that it is about: the winner, else the one ranked first.
        go: whether every gate of promotion lets it pass.
        readiness: requirements and gates counted, and how many seeds speak for it.
    """

    chosen: str | None
    go: bool
    headline: str
    readiness: str
    requirements: tuple[Requirement, ...] = ()
    gates: tuple[Gate, ...] = ()
    arms: tuple[Arm, ...] = ()
    production: Production | None = None
    plan: Plan | None = None


def conclude(study: Study, standings: tuple[Standing, ...], verdict: Verdict, shown: Sequence[str],
             importance: Sequence[tuple[str, float]] = (), baseline: Trial | None = None) -> Decision:
    """The decision on a study; without any record there is none to make."""
    standing = next((item for item in standings if item.label == verdict.winner),
                    next((item for item in standings if item.eligible), standings[0] if standings else None))
    trial = study.trial(standing.label) if standing else None
    if standing is None or trial is None or not trial.records:
        return Decision(None, False, "NO-GO: nothing was recorded to decide by", "No run has a record.")
    requirements = checklist(study, trial, standing, baseline)
    gates = try_gates(study, trial, standing, {}, baseline)
    failed = [gate.name for gate in gates if not gate.lets_pass]
    go = verdict.winner is not None and not failed
    why = "" if go else f": {count(len(failed), 'gate')} not passed ({', '.join(failed)})" if failed else \
        ": no arm may win"
    production = plan_production(study, trial, standings)
    met = counted(requirements)
    return Decision(
        trial.label, go, f"{'GO' if go else 'NO-GO'} for {trial.label}{why}",
        f"{met}; {sum(gate.lets_pass for gate in gates)} of {count(len(gates), 'gate')} of promotion passed; "
        f"{_seeds(study, trial, standing)}.",
        requirements, gates, review(study, standings, trial, shown, baseline), production,
        make_plan(study, trial, standing, gates, importance, _criteria(production)))


def _seeds(study: Study, trial: Trial, standing: Standing) -> str:
    """How many trainings of the config ended sound, with the interval that so few leave."""
    trained = standing.seeds.statuses if standing.seeds else (standing.status,)
    codes = study.workload.needs_codes(study.objective, trial.config)
    sound = sum(is_sound(status, codes) for status in trained)
    total = len(trained)
    if standing.confirmed:
        sound, total = sound + standing.confirmed.live, total + len(standing.confirmed.seeds)
    low, high = share_interval(sound, total)
    return f"{sound} of {count(total, 'training')} of it ended sound, so of further ones {_percent(low)} to " \
           f"{_percent(high)} % will (95 %)"


def _percent(share: float) -> int:
    return math.floor(100 * share + 0.5)


def _criteria(production: Production) -> list[str]:
    """What a production run must reach to have gone as expected."""
    first = [f"All {production.epochs} epochs, or its own early stopping."] if production.epochs else []
    return first + [f"{item.title} at {item.cautious} or better." for item in production.expected[:2]]
