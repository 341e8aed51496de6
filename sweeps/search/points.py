"""Searchers without an Optuna study: Sobol points and CMA-ES, points of the unit cube turned into knob values.

Each is a function of (space, seed, trial number, results), so a resumed sweep asks what the uninterrupted
one would have asked. A knob's coordinate is its quantile under the knob's prior (`sweeps.spec.space.Knob.at`);
knobs that are not active beside the others keep theirs unused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.spec import space as space_module
from sweeps.spec.sections import Cmaes
from sweeps.spec.space import Knob, Scalar, Space

_EDGE = 1e-9


def from_unit(space: Space, base: Mapping[str, Any], point: Sequence[float]) -> dict[str, Scalar]:
    """Parameters at a point of the unit cube, one coordinate a knob in the order of the space."""
    at = dict(zip(space, point, strict=True))
    return space_module.suggest(space, base, lambda name, knob: knob.at(at[name]))


def sobol(space: Space, base: Mapping[str, Any], seed: int, number: int) -> dict[str, Scalar]:
    """The point with this number of a scrambled Sobol sequence."""
    from scipy.stats import qmc  # here: half a second that other searches need not wait for

    engine = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(seed))
    if number:
        engine.fast_forward(number)
    return from_unit(space, base, engine.random(1)[0])


def cmaes(space: Space, base: Mapping[str, Any], search: Cmaes, seed: int,
          told: Sequence[tuple[dict[str, Scalar], float]]) -> dict[str, Scalar]:
    """A draw of the distribution that CMA-ES has learnt from the results.

    Args:
        seed: of this draw.
        told: (parameters, loss to minimise) of the trials that have ended, in the order of ending.
    """
    from cmaes import CMA

    numeric = [name for name, knob in space.items() if knob.choice is None and not knob.when]
    draw = np.random.default_rng(seed).uniform(size=len(space))
    point = dict(zip(space, draw, strict=True))
    if len(numeric) >= 2:  # the algorithm has nothing to adapt in one dimension
        size = search.population or 4 + math.floor(3 * math.log(len(numeric)))
        bounds = np.tile([0.0, 1.0], (len(numeric), 1))
        optimizer = CMA(mean=np.full(len(numeric), 0.5), sigma=search.sigma, bounds=bounds, seed=seed % 2**32,
                        population_size=size)
        for begin in range(0, len(told) // size * size, size):
            optimizer.tell([(_coordinates(space, numeric, {**base, **params}), loss)
                            for params, loss in told[begin:begin + size]])
        point.update(zip(numeric, optimizer.ask(), strict=True))
    return from_unit(space, base, list(point.values()))


def _coordinates(space: Space, names: list[str], values: Mapping[str, Any]) -> NDArray[np.float64]:
    """Where a config lies; a knob that came later had the base's value, in the middle where that is no number."""
    found = np.array([_quantile(space[name], values[name]) for name in names])
    clipped: NDArray[np.float64] = np.clip(found, _EDGE, 1 - _EDGE)
    return clipped


def _quantile(knob: Knob, value: Any) -> float:
    if value is None:
        return 0.5
    low, high = knob.bounds
    return knob.quantile(min(max(float(value), low), high))
