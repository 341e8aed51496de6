"""The knob audit: does each swept knob change the loss or the training at all?

Three sources, in this order. Static rules say where in the space a knob is inert (a rollout weight where
there are no rollouts) and from which step on it can act (a refresh every 3000 steps looks inert in a short
run). A numerical probe trains a few steps twice, the two runs differing in that knob alone: bit-equal
losses and weights mean that it is inert there. What the time does not allow is "not probed".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from record.errors import BadInput
from record.workload.knobs import NO_RULE, KnobRule
from record.workload.settings import Settings
from sweeps.spec.probing import Digests, digests
from sweeps.spec.space import corners, draws
from sweeps.spec.spec import Sweep

Word = Literal["active", "inert", "acts only after a step", "not probed"]
SECONDS = 30.0
STEPS = 3
POINTS = 100

Params = dict[str, Any]
Probe = Callable[[str, Mapping[str, Settings], float], Digests]


@dataclass(frozen=True)
class Audited:
    """The verdict on one knob.

    Attributes:
        step: first step at which it can act, where that is known and later than the first.
        reach: share of the space's points with this knob in which it can act.
    """

    knob: str
    word: Word
    why: str
    step: int | None = None
    reach: float = 1.0

    @property
    def sentence(self) -> str:
        """The verdict as a line of `lam sweep plan`."""
        word = f"acts only after step {self.step}" if self.word == "acts only after a step" else self.word
        part = f"; it can act in {100 * self.reach:.0f} % of the space" if 0 < self.reach < 1 else ""
        return f"{self.knob}: {word} ({self.why}){part}"


def audit(sweep: Sweep, probe: Probe | None = digests, steps_per_epoch: int | None = None,
          spare: bool = False) -> tuple[Audited, ...]:
    """A verdict on every knob of the space.

    Args:
        probe: digests of short trainings; None = static rules only.
        steps_per_epoch: of the base config, where it is known; a knob whose first step no trial reaches is inert.
        spare: do not probe knobs whose effect is certain.
    """
    base = sweep.base.mapping()
    points = [*corners(sweep.spec.space, base), *draws(sweep.spec.space, base, POINTS)]
    per_epoch = sweep.workload.steps_per_epoch(sweep.base, look=False) or steps_per_epoch
    last_step = per_epoch * sweep.max_epochs if per_epoch else None
    sure = {name for name in sweep.spec.space if _rule(sweep, name).certain and (spare or probe is None)}
    static = {name: _static(sweep, name, points, last_step) for name in sweep.spec.space}
    asked = {name: pair for name, known in static.items() if known.word != "inert" and name not in sure
             and (pair := _pair(sweep, name, points)) is not None}
    pairs = {name: shortened(sweep, name, pair) for name, pair in asked.items()}
    found = _probe_all(sweep, pairs, probe) if probe is not None and asked else {}
    return tuple(known if name in sure else _conclude(known, _rule(sweep, name), pairs.get(name, ()), found)
                 for name, known in static.items())


def _rule(sweep: Sweep, name: str) -> KnobRule:
    return sweep.workload.knobs.get(name, NO_RULE)


def refuse_inert(sweep: Sweep, audited: Sequence[Audited]) -> None:
    """A knob that changes nothing wastes the sweep's trials.

    Raises:
        BadInput: one is inert.
    """
    for item in audited:
        if item.word == "inert":
            raise BadInput(f"changes nothing in this space: {item.why}", source=sweep.source, key=f"space.{item.knob}",
                           remedy="change the base config, take the knob out, or give --allow-inert")


def _static(sweep: Sweep, name: str, points: Sequence[Params], last_step: int | None) -> Audited:
    """What the rules say: inert, late, or active as far as they know."""
    active = [sweep.config(params) for params in points if name in params]
    reach, onset = _rule(sweep, name).reach, _rule(sweep, name).onset
    reached = [config for config in active if reach is None or reach.holds(config)]
    if not reached:
        return Audited(name, "inert", f"it needs {reach.needs if reach else 'a point with it'}", reach=0.0)
    if len(set(map(repr, sweep.spec.space[name].extremes()))) == 1:
        return Audited(name, "inert", "it has one value only")
    share = len(reached) / len(active)
    if onset is None:
        return Audited(name, "active", "no rule speaks against it", reach=share)
    step = min((found for config in reached if (found := onset.step(config)) > 0), default=1)
    if last_step is not None and step > last_step:
        why = f"it acts only after step {step}, {onset.event}; a trial has {last_step} steps"
        return Audited(name, "inert", why, step)
    if step > 1:
        return Audited(name, "acts only after a step", onset.event, step, share)
    return Audited(name, "active", "no rule speaks against it", reach=share)


def _pair(sweep: Sweep, name: str, points: Sequence[Params]) -> tuple[Settings, Settings] | None:
    """Two configs that differ in the knob alone, where it acts soonest; None where no such pair is valid."""
    low, *_, high = sweep.spec.space[name].extremes()
    reach, onset = _rule(sweep, name).reach, _rule(sweep, name).onset
    best: tuple[int, tuple[Settings, Settings]] | None = None
    for params in points:
        pair = _valid_pair(sweep, params, name, low, high) if name in params else None
        if pair is None or not (reach is None or any(reach.holds(config) for config in pair)):
            continue
        step = min(onset.step(config) for config in pair) if onset else 1
        if best is None or step < best[0]:
            best = (step, pair)
        if step <= 1:
            break
    return best[1] if best else None


def _valid_pair(sweep: Sweep, params: Params, name: str, low: Any, high: Any) -> tuple[Settings, Settings] | None:
    """The point with the knob at either value; None where one of the two is no valid run."""
    try:
        return sweep.config({**params, name: low}), sweep.config({**params, name: high})
    except BadInput:
        return None


def _probe_all(sweep: Sweep, pairs: Mapping[str, tuple[Settings, Settings]], probe: Probe) -> Digests:
    """Digests of every config that is asked for; each config is trained once."""
    return probe(sweep.spec.workload, {config.fingerprint(): config for pair in pairs.values() for config in pair},
                 SECONDS)


def shortened(sweep: Sweep, name: str, pair: tuple[Settings, Settings]) -> tuple[Settings, Settings]:
    """The pair as a few small steps each, the knob itself untouched."""
    low, high = (sweep.workload.shortened(config, STEPS).replace(**{name: config.model_dump()[name]})
                 for config in pair)
    return low, high


def _conclude(known: Audited, rule: KnobRule, pair: Sequence[Settings], found: Digests) -> Audited:
    """The static verdict, corrected by the probe."""
    if known.word == "inert":
        return known
    if rule.effect:
        return Audited(known.knob, "active", rule.effect)
    seen = [found[config.fingerprint()] for config in pair if config.fingerprint() in found]
    if len(seen) < 2:
        return known if known.word != "active" else Audited(
            known.knob, "not probed", "the probe had no time or no data for it", reach=known.reach)
    failed = next((text for text in seen if text.startswith("failed")), None)
    if failed is not None:
        return Audited(known.knob, "not probed", failed, reach=known.reach)
    if seen[0] != seen[1]:
        return Audited(known.knob, "active", f"two runs that differ in it alone part within {STEPS} steps",
                       reach=known.reach)
    if known.word != "active":
        return known
    if rule.by_chance:
        return Audited(known.knob, "acts only after a step", rule.by_chance, STEPS, known.reach)
    return Audited(known.knob, "inert", f"two runs that differ in it alone are bit-equal after {STEPS} steps")
