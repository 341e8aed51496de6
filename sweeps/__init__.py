"""Train many: search spaces, scheduling, the journal and the Ray machinery behind `lam sweep`.

`sweeps.launch(spec)` is the Python interface; it is loaded on first use, so that importing the
package needs neither ray nor optuna.
"""

from __future__ import annotations

from typing import Any

__all__ = ["launch"]


def launch(*args: Any, **kwargs: Any) -> Any:
    """Run or resume a sweep; see `sweeps.commands.launching.launch`."""
    from sweeps.commands import launching

    return launching.launch(*args, **kwargs)
