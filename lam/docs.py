"""The generated pages: metrics, the run config, health profiles, records and their schemas, ARCHITECTURE's modules.

``python -m lam.docs`` writes them, ``python -m lam.docs --check`` fails where one is stale.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from lam import records_page as records
from lam.config import RunConfig
from lam.metrics import DATA_STATS, TABLE, TFLOPS_VIEWS, Metric
from record import files, yamlio
from record.health.page import health_page
from record.schema import model_in

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("record", "lam", "sweeps", "analysis")


def metrics_page() -> str:
    """The metric table as Markdown."""
    rows = [_metric_row(metric, placed=True) for metric in TABLE.values()]
    return "\n".join([
        "# Metrics", "",
        "Generated from `lam/metrics.py` by `make docs`. `null`: not defined in this epoch, or for a rollout that was",
        "not run. Absent: not measured in this epoch, or the run lacks what the metric needs. 0 is a measured 0.",
        "Symbols: z_e is the encoder's action embedding, z_q its code; d_* are distances of a prediction to its target",
        "with the true codes (action), uniformly drawn codes (rand) or one flipped slot (action_eps).", "",
        "| key | formula | better | measured | needs | reduction | in the loss | unit | bounds |",
        "|---|---|---|---|---|---|---|---|---|", *rows, "",
        "## Of the data, once a run", "", "In `run.json`, and in the trackers.", "",
        "| key | formula | better | reduction | in the loss | unit | bounds |", "|---|---|---|---|---|---|---|",
        *(_metric_row(metric) for metric in DATA_STATS.values()), "",
        "## Against compute", "", "Trackers also get these; records do not repeat them.", "",
        "| key | the same number as |", "|---|---|",
        *(f"| `{view}` | `{key}` |" for view, key in TFLOPS_VIEWS.items()), "",
    ])


def _metric_row(metric: Metric, placed: bool = False) -> str:
    better = {"up": "higher", "down": "lower", "none": "-"}[metric.direction]
    low, high = metric.bounds
    formula = metric.formula.replace("|", "\\|")
    where = (metric.measured, ", ".join(metric.needs)) if placed else ()
    cells = (f"`{metric.key}`", formula, better, *where, metric.reduction, "yes" if metric.in_loss else "",
             metric.unit, f"{low:g} .. {high:g}")
    return "| " + " | ".join(cells) + " |"


def config_page() -> str:
    """The run config's fields as Markdown."""
    return "\n".join([
        "# The run config", "", "Generated from `lam/schema.py` by `make docs`.", "",
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


def architecture_page() -> str:
    """ARCHITECTURE.md with its list of modules as they are now."""
    return _filled((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), "modules", _modules())


def records_page() -> str:
    """docs/records.md with its tables of documents and events as their classes are now."""
    text = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    return _filled(_filled(text, "documents", records.document_lines()), "events",
                   records.event_lines())


def _filled(text: str, what: str, lines: Iterator[str]) -> str:
    """A page with what stands between two marks written anew."""
    begin, end = f"<!-- {what}: written by make docs -->\n", f"<!-- end of {what} -->\n"
    before, _, rest = text.partition(begin)
    return before + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]


def _modules() -> Iterator[str]:
    """A heading a folder with what it is for, then a row a module (its docstring's first line) and a health profile."""
    for package in PACKAGES:
        for folder in sorted({file.parent for file in (ROOT / package).rglob("*.py")}):
            yield f"\n**`{folder.relative_to(ROOT)}/`** {_first_line(folder / '__init__.py')}\n"
            yield from (f"- `{file.name}`: {_first_line(file)}" for file in sorted(folder.glob("*.py"))
                        if file.name != "__init__.py")
            yield from (f"- `profiles/{file.name}`: {yamlio.load_mapping(file)['about']}"
                        for file in sorted(folder.glob("profiles/*.yaml")))


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


PAGES: dict[str, Callable[[], str]] = {
    "docs/metrics.md": metrics_page, "docs/config.md": config_page, "docs/health.md": health_page,
    "ARCHITECTURE.md": architecture_page, "docs/records.md": records_page,
    **{f"docs/schemas/{name}": partial(str, text) for name, text in records.schemas().items()}}


def main(check: bool, folder: Path = ROOT) -> int:
    """Write or check the pages; returns the exit code."""
    stale = [name for name, page in PAGES.items() if not (folder / name).exists()
             or (folder / name).read_text(encoding="utf-8") != page()]
    if check:
        for name in stale:
            print(f"{name} is stale; run 'make docs'")
        return 1 if stale else 0
    for name in stale:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        print(f"wrote {files.write_text(folder / name, PAGES[name]())}")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
