"""The generated pages: docs/metrics.md from the metric table, docs/config.md from the run schema.

``python -m lam.docs`` writes them, ``python -m lam.docs --check`` fails where one is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from lam.config import RunConfig
from lam.metrics import DATA_STATS, TABLE, TFLOPS_VIEWS, Metric
from record import files
from record.health.page import health_page
from record.schema import model_in

FOLDER = Path(__file__).resolve().parent.parent / "docs"


def metrics_page() -> str:
    """The metric table as Markdown."""
    rows = [_metric_row(metric) for metric in TABLE.values()]
    return "\n".join([
        "# Metrics", "",
        "Generated from `lam/metrics.py` by `make docs`. A metric that is not defined for a run or an epoch is `null`.",
        "Symbols: z_e is the encoder's action embedding, z_q its code; d_* are distances of a prediction to its target",
        "with the true codes (action), uniformly drawn codes (rand) or one flipped slot (action_eps).", "",
        "| key | formula | better | reduction | in the loss | unit | bounds |",
        "|---|---|---|---|---|---|---|", *rows, "",
        "## Of the data, once a run", "", "In `run.json`, and in the trackers.", "",
        "| key | formula | better | reduction | in the loss | unit | bounds |", "|---|---|---|---|---|---|---|",
        *(_metric_row(metric) for metric in DATA_STATS.values()), "",
        "## Against compute", "", "Trackers also get these; records do not repeat them.", "",
        "| key | the same number as |", "|---|---|",
        *(f"| `{view}` | `{key}` |" for view, key in TFLOPS_VIEWS.items()), "",
    ])


def _metric_row(metric: Metric) -> str:
    better = {"up": "higher", "down": "lower", "none": "-"}[metric.direction]
    low, high = metric.bounds
    formula = metric.formula.replace("|", "\\|")
    cells = (f"`{metric.key}`", formula, better, metric.reduction, "yes" if metric.in_loss else "", metric.unit,
             f"{low:g} .. {high:g}")
    return "| " + " | ".join(cells) + " |"


def config_page() -> str:
    """The run config's fields as Markdown."""
    return "\n".join([
        "# The run config", "", "Generated from `lam/config.py` by `make docs`.", "",
        "| key | default | meaning |", "|---|---|---|", *_field_rows(RunConfig), "",
    ])


def _field_rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A row a field; a group has a row for itself only where it may be null, and its fields' rows below."""
    for name, field in model.model_fields.items():
        group = model_in(field.annotation)
        default = field.get_default(call_default_factory=True)
        if group is None or default is None:
            yield f"| `{prefix}{name}` | `{_plain(default)}` | {field.description} |"
        if group is not None:
            yield from _field_rows(group, f"{prefix}{name}.")


def _plain(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


PAGES = {"metrics.md": metrics_page, "config.md": config_page, "health.md": health_page}


def main(check: bool) -> int:
    """Write or check the pages; returns the exit code."""
    stale = [name for name, page in PAGES.items() if not (FOLDER / name).exists()
             or (FOLDER / name).read_text(encoding="utf-8") != page()]
    if check:
        for name in stale:
            print(f"docs/{name} is stale; run 'make docs'")
        return 1 if stale else 0
    for name in stale:
        print(f"wrote {files.write_text(FOLDER / name, PAGES[name]())}")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
