"""Which weights decay: those that multiply. Norms, biases, positions, queries and codebooks keep their size."""

from __future__ import annotations

from typing import Any

from torch import nn


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return name.endswith("weight") and parameter.ndim > 1 and not name.startswith("quantizer.")


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups for the optimizer: what decays, and what does not."""
    named = list(model.named_parameters())
    return [{"params": [parameter for name, parameter in named if _decays(name, parameter)],
             "weight_decay": weight_decay},
            {"params": [parameter for name, parameter in named if not _decays(name, parameter)], "weight_decay": 0.0}]


def regrouped(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """An optimizer's state in these two groups; an older version had one, with the parameters in the model's order."""
    if len(state["param_groups"]) != 1:
        return state
    named = list(model.named_parameters())
    order = [number for wanted in (True, False) for number, item in enumerate(named) if _decays(*item) == wanted]
    count = sum(_decays(*item) for item in named)
    old = state["param_groups"][0]
    return {"state": {new: state["state"][number] for new, number in enumerate(order) if number in state["state"]},
            "param_groups": [{**old, "params": list(range(count))},
                             {**old, "params": list(range(count, len(order))), "weight_decay": 0.0}]}
