"""The knob audit: does each swept knob change the loss or the training at all?

Three sources, in this order. Static rules say where in the space a knob is inert (a rollout weight where
there are no rollouts) and from which step on it can act (a refresh every 3000 steps looks inert in a short
run). A numerical probe trains a few steps twice, the two runs differing in that knob alone: bit-equal
losses and weights mean that it is inert there. What the time does not allow is "not probed".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lam.config import RunConfig
from record.errors import BadInput
from sweeps.spec.probing import Digests, digests
from sweeps.spec.space import corners, draws
from sweeps.spec.spec import Sweep

Word = Literal["active", "inert", "acts only after a step", "not probed"]
SECONDS = 30.0
STEPS = 3
POINTS = 100

Params = dict[str, Any]
Probe = Callable[[Mapping[str, RunConfig], float], Digests]


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


class Reach(NamedTuple):
    """Where a knob can act: the condition on a config, and what it needs in words."""

    holds: Callable[[RunConfig], bool]
    needs: str


_OWN_CODES = ("ema", "vq", "rotation")
_CODES = Reach(lambda config: config.quantizer != "none", "a quantizer other than none")
_OWN = Reach(lambda config: config.quantizer in _OWN_CODES, "a quantizer with codes of its own (ema, vq, rotation)")
_REVIVAL = Reach(lambda config: config.quantizer in _OWN_CODES and config.vq_refresh_interval > 0,
                 "a quantizer with codes of its own (ema, vq, rotation) and vq_refresh_interval above 0")
REACHES: dict[str, Reach] = {
    "ema_decay": Reach(lambda config: config.quantizer in ("ema", "rotation") or _REVIVAL.holds(config),
                       "quantizer ema or rotation, or revivals, which go by averaged use"),
    "commitment_weight": Reach(lambda config: config.quantizer not in ("none", "fsq"),
                               "a quantizer with a codebook, other than none and fsq"),
    "num_embeddings": _CODES, "codebook_init": _OWN, "vq_refresh_interval": _OWN, "revive_below": _REVIVAL,
    "rollout_weight": Reach(lambda config: config.rollout_horizon > 1 and config.rollout_prob > 0,
                            "rollout_horizon above 1 and rollout_prob above 0"),
    "rollout_prob": Reach(lambda config: config.rollout_horizon > 1 and config.rollout_weight > 0,
                          "rollout_horizon above 1 and rollout_weight above 0"),
    "rollout_detach": Reach(lambda config: config.rollout_horizon > 1 and config.rollout_weight > 0,
                            "rollout_horizon above 1 and rollout_weight above 0"),
}

# Knobs that act only from a step on, and what happens there.
_ONSETS: dict[str, tuple[Callable[[RunConfig], int], str]] = {
    "vq_refresh_interval": (lambda config: config.vq_refresh_interval, "the first revival of dead codes"),
    "revive_below": (lambda config: config.vq_refresh_interval, "the first revival of dead codes"),
    "ema_decay": (lambda config: 1 if config.quantizer in ("ema", "rotation") else config.vq_refresh_interval,
                  "the first revival of dead codes"),
}
# Knobs that may leave a few steps alone and still act later.
_BY_CHANCE = {
    "rollout_prob": "no step of the probe drew its coin between the two values",
    "grad_clip": "no gradient of the probe was as long as the smaller value",
    "lr_decay_epochs": "the decay is too slow to show in the probe",
}
# Knobs whose effect follows from what they are; a launch does not spend time on probing them.
CERTAIN = frozenset((
    "batch_size", "codebook_dim", "codebook_init", "commitment_weight", "decoder_depth", "ema_decay", "embed_dim",
    "encoder_depth", "learning_rate", "normalize_codes", "num_codes", "num_embeddings", "patch_dim", "patch_size",
    "predict_residual", "quantizer", "reconstruction_weight", "revive_below", "rollout_detach", "rollout_horizon",
    "rollout_prob", "rollout_weight", "seed", "sequence_length", "steps_per_epoch", "vq_refresh_interval",
    "window_stride",
))


def audit(sweep: Sweep, probe: Probe | None = digests, steps_per_epoch: int | None = None,
          skip: frozenset[str] = frozenset()) -> tuple[Audited, ...]:
    """A verdict on every knob of the space.

    Args:
        probe: digests of short trainings; None = static rules only.
        steps_per_epoch: of the base config, where it is known; a knob whose first step no trial reaches is inert.
        skip: knobs that are not probed because their effect is certain.
    """
    base = sweep.base.mapping()
    points = [*corners(sweep.spec.space, base), *draws(sweep.spec.space, base, POINTS)]
    per_epoch = sweep.base.steps_per_epoch or steps_per_epoch
    last_step = per_epoch * sweep.max_epochs if per_epoch else None
    static = {name: _static(sweep, name, points, last_step) for name in sweep.spec.space}
    asked = {name: pair for name, known in static.items() if known.word != "inert" and name not in skip
             and (pair := _pair(sweep, name, points)) is not None}
    found = _probe_all(asked, probe) if probe is not None and asked else {}
    certain = CERTAIN if probe is None else skip
    return tuple(_conclude(static[name], name in certain, asked.get(name), found) for name in sweep.spec.space)


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
    reach = REACHES.get(name)
    reached = [config for config in active if reach is None or reach.holds(config)]
    if not reached:
        return Audited(name, "inert", f"it needs {reach.needs if reach else 'a point with it'}", reach=0.0)
    if len(set(map(repr, sweep.spec.space[name].extremes()))) == 1:
        return Audited(name, "inert", "it has one value only")
    share = len(reached) / len(active)
    onset = _ONSETS.get(name)
    if onset is None:
        return Audited(name, "active", "no rule speaks against it", reach=share)
    step = min((found for config in reached if (found := onset[0](config)) > 0), default=1)
    if last_step is not None and step > last_step:
        why = f"it acts only after step {step}, {onset[1]}; a trial has {last_step} steps"
        return Audited(name, "inert", why, step)
    if step > 1:
        return Audited(name, "acts only after a step", onset[1], step, share)
    return Audited(name, "active", "no rule speaks against it", reach=share)


def _pair(sweep: Sweep, name: str, points: Sequence[Params]) -> tuple[RunConfig, RunConfig] | None:
    """Two configs that differ in the knob alone, where it acts soonest; None where no such pair is valid."""
    low, *_, high = sweep.spec.space[name].extremes()
    reach, onset = REACHES.get(name), _ONSETS.get(name)
    best: tuple[int, tuple[RunConfig, RunConfig]] | None = None
    for params in points:
        pair = _valid_pair(sweep, params, name, low, high) if name in params else None
        if pair is None or not (reach is None or any(reach.holds(config) for config in pair)):
            continue
        step = min(onset[0](config) for config in pair) if onset else 1
        if best is None or step < best[0]:
            best = (step, pair)
        if step <= 1:
            break
    return best[1] if best else None


def _valid_pair(sweep: Sweep, params: Params, name: str, low: Any, high: Any) -> tuple[RunConfig, RunConfig] | None:
    """The point with the knob at either value; None where one of the two is no valid run."""
    try:
        return sweep.config({**params, name: low}), sweep.config({**params, name: high})
    except BadInput:
        return None


def _probe_all(pairs: Mapping[str, tuple[RunConfig, RunConfig]], probe: Probe) -> Digests:
    """Digests of every config that is asked for; each config is trained once."""
    deadline = time.monotonic() + SECONDS
    wanted = {config.fingerprint(): config for name, pair in pairs.items() for config in shortened(name, pair)}
    return probe(wanted, deadline - time.monotonic())


def shortened(name: str, pair: tuple[RunConfig, RunConfig]) -> tuple[RunConfig, RunConfig]:
    """The pair as a few small steps at the full learning rate, without validation; the knob itself untouched."""
    changes: dict[str, Any] = {
        "num_epochs": max(2, pair[0].num_epochs), "val_every": max(2, pair[0].num_epochs) + 1, "steps_per_epoch": STEPS,
        "batch_size": min(8, pair[0].batch_size), "warmup_steps": 0, "checkpoint_every": 1, "sample_count": 0,
        "tracking": {}, "early_stopping": None,
    }
    changes.pop(name, None)
    return pair[0].replace(**changes), pair[1].replace(**changes)


def _conclude(known: Audited, certain: bool, pair: tuple[RunConfig, RunConfig] | None, found: Digests) -> Audited:
    """The static verdict, corrected by the probe."""
    if known.word == "inert" or certain:
        return known
    pairs = shortened(known.knob, pair) if pair is not None else ()
    seen = [found[config.fingerprint()] for config in pairs if config.fingerprint() in found]
    if known.knob == "steps_per_epoch":
        return Audited(known.knob, "active", "it is the length of an epoch")
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
    if known.knob in _BY_CHANCE:
        return Audited(known.knob, "acts only after a step", _BY_CHANCE[known.knob], STEPS, known.reach)
    return Audited(known.knob, "inert", f"two runs that differ in it alone are bit-equal after {STEPS} steps")
