"""What is in production as a sweep's first trial: `lam sweep launch SWEEP.yaml --baseline production.yaml`.

It is trained as every trial is, by the sweep's budget and seed; its knobs have production's values. The journal says
so, and a report of the sweep compares with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import yamlio
from record.errors import BadInput
from record.journal.events import BASELINE, Reason, Suggested
from record.workload import workload
from sweeps.journal.state import SweepState
from sweeps.spec import space
from sweeps.spec.space import Knob, Scalar
from sweeps.spec.spec import Sweep


@dataclass(frozen=True)
class InProduction:
    """A production config as this sweep can train it.

    Attributes:
        params: its values of the knobs.
        sentence: where it came from, for the journal.
        otherwise: keys in which production runs on other values, such as more epochs; the sweep's count here.
    """

    params: dict[str, Scalar]
    sentence: str
    otherwise: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """What is trained otherwise than in production."""
        if not self.otherwise:
            return []
        return [f"--baseline: trained by this sweep's {', '.join(self.otherwise)}, not production's, as every trial"]

    def event(self, sweep: Sweep) -> Suggested:
        """The first trial."""
        seed: dict[str, Any] = {"seed": sweep.base.seed} if sweep.spec.seeds > 1 else {}
        reason = Reason(rule=BASELINE, sentence=self.sentence)
        return Suggested(trial="t0001", params=self.params, reason=reason, **seed)

    def check_begun(self, state: SweepState) -> None:
        """Refuse a sweep that has begun without it; the command that began it so may resume it.

        Raises:
            BadInput: its first trial is another one.
        """
        first = next(iter(state.trials.values()), None)
        if first is not None and (first.asked != BASELINE or first.params != self.params):
            raise BadInput(f"the sweep has begun without it: its first trial is {first.id} with "
                           f"{json.dumps(first.params)}", source="--baseline",
                           remedy="leave it out to go on, or give this sweep another name")


def in_production(sweep: Sweep, file: str | Path) -> InProduction:
    """Read a production YAML for a sweep.

    Raises:
        BadInput: promotion did not write it, it trains something else, or this sweep cannot train it.
    """
    values = yamlio.load_mapping(file)
    came_from = values.get("provenance")
    if not isinstance(came_from, dict):
        raise BadInput("was not written by 'lam promote'", source=file, key="provenance",
                       remedy="name the YAML that is in production")
    trained = came_from.get("workload", workload.DEFAULT)
    if trained != sweep.workload.name:
        raise BadInput(f"trains {trained}, this sweep {sweep.workload.name}", source=file,
                       remedy="sweep the same workload")
    full = sweep.workload.absolute(sweep.workload.read(values, file), Path(file).parent).mapping()
    params = space.suggest(sweep.spec.space, sweep.base.mapping(), lambda name, knob: _value(name, knob, full))
    otherwise = _differing(sweep, full)
    sentence = f"in production: {came_from.get('trial')} of {came_from.get('sweep')}, {Path(file).name}"
    return InProduction(params, sentence, otherwise)


def _value(name: str, knob: Knob, full: Mapping[str, Any]) -> Scalar:
    value: Scalar = full[name]
    if not knob.contains(value):
        raise BadInput(f"has {name} {json.dumps(value)}, which this space does not hold", source="--baseline",
                       remedy=f"widen {name} in the sweep's space, so that what is in production is one of its configs")
    return value


def _differing(sweep: Sweep, full: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that may differ and do.

    Raises:
        BadInput: another one differs, so that a trial of this sweep would be another config.
    """
    base, trained = sweep.base.mapping(), sweep.workload
    ends = {"health", *trained.endings}  # how a production run ends: a sweep has rules of its own
    may = trained.aside | trained.resumable | trained.no_result | ends
    other = [key for key in base if key not in sweep.spec.space and full.get(key) != base[key]]
    wrong = [f"{key} is {full.get(key)!r:.60} in production, {base[key]!r:.60} here" for key in other if key not in may]
    if wrong:
        raise BadInput(f"no trial of this sweep is that config: {'; '.join(wrong[:4])}", source="--baseline",
                       remedy="set the base to production's values, or make knobs of these keys")
    return tuple(key for key in other if key in {"num_epochs", "seed", *trained.path_knobs, *ends})
