"""A report as HTML (one file, no network), Markdown or JSON. The content is decided in `analysis.report.report`."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.judge.ranking import Standing, state_word
from analysis.read.study import Study
from analysis.report import charts
from analysis.report.delivery.targets import PARQUET, save_texts
from analysis.report.drawing import draw
from analysis.report.graphs import codes, coordinates, fronts, rungs
from analysis.report.panels import panel_chart
from analysis.report.pictures import PANELS
from analysis.report.report import Report
from record.files import jsonable
from record.text import MISSING, interval, number, share, value_text, words

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 200  # of a table as markup; what lies beyond is made by the page's script when it is asked for
_PLAIN = frozenset({str, int, bool, type(None)})
_ARROWS = {"up": "higher is better", "down": "lower is better", "none": ""}


def get_ready() -> None:
    """Compile the page's templates, a tenth of the time of a small report: for who waits for something else."""
    for name in ("report.html.j2", "decision.html.j2", "search.html.j2"):
        _environment(True).get_template(name)


def render_html(report: Report) -> str:
    """A page that opens from disk: style, script, charts and pictures inside, everything from outside escaped."""
    style, script = (_asset(f"report.{kind}") for kind in ("css", "js"))
    data = report_dict(dataclasses.replace(  # the page's own rows hold the others
        report, standings=report.standings[:MOST_ROWS], stops=report.stops[:MOST_ROWS]))
    return _environment(True).get_template("report.html.j2").render(
        **_graphs(report), report=report, tiles=tiles(report), charts=charts, drawn=draw(report), panels=PANELS,
        panel_chart=panel_chart, seeds=_seed_rows(report),
        rules={stop.label: stop.rule for stop in report.stops}, style=Markup(style), script=Markup(script),
        style_hash=_hash(style), script_hash=_hash(script), data=Markup(_script_safe(data)), most=MOST_ROWS,
        rows=Markup(_script_safe(table_rows(report) if len(report.standings) > MOST_ROWS else [])))


def _graphs(report: Report) -> dict[str, Any]:
    """The pictures of the search, and what draws those of its facts."""
    shares = [item.knob for item in report.importance.shares]
    knobs = [*shares, *(knob for knob in report.knobs if knob not in shares)]
    winner, up = report.verdict.winner, report.maximise
    return {"parallel": coordinates.parallel_chart(knobs, report.standings, winner, up),
            "pairs": coordinates.pair_charts(knobs, report.standings, winner, up),
            "rung_chart": rungs.rung_chart, "regret_chart": fronts.regret_chart, "front_chart": fronts.front_chart,
            "code_picture": codes.code_picture}


def table_rows(report: Report) -> list[list[list[Any]]]:
    """Every row of the table of trials: for each cell its text, small text below it, and what it is sorted by."""
    rules = {stop.label: stop.rule for stop in report.stops}
    return [[[item.label], [str(item.rank), "", item.rank], [words(item.status), _small(item)],
             [number(item.value), "", item.value],
             *([[number(mean), "", mean]] if report.confirmed else []),
             *([value_text(item.params[knob]) if knob in item.params else MISSING, "", item.params.get(knob)]
               for knob in report.knobs),
             [number(item.control), interval(item.control_low, item.control_high), item.control],
             [number(item.health), "", item.health],
             [number(item.dsnr), words(item.dsnr_status or "not measured"), item.dsnr],
             [number(item.mse), "", item.mse],
             [f"{item.last_epoch}/{item.num_epochs or '?'}", "", item.last_epoch],
             [state_word(item.state), rules.get(item.label, "")]]
            for item in report.standings for mean in [item.confirmed.mean if item.confirmed else None]]


def _small(item: Standing) -> str:
    seeds = f"{len(item.seeds.seeds)} seeds" if item.seeds else ""
    return " ".join(part for part in (seeds, "outside constraints" if item.outside else "") if part)


def render_markdown(report: Report) -> str:
    """The same content as tables; charts and pictures are left out, and the text says so."""
    return _environment(False).get_template("report.md.j2").render(report=report, tiles=tiles(report))


def render_json(report: Report) -> str:
    """Every number of the report; pictures are left out."""
    return json.dumps(report_dict(report), indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {".html": render_html, ".md": render_markdown, ".json": render_json}


def report_dict(report: Report) -> dict[str, Any]:
    """The report as plain values, picture data left out."""
    values: dict[str, Any] = {"schema": 1, **plain_fields(report), **plain_fields(draw(report))}
    for strips in values["strips"]:
        for strip in strips["strips"]:
            del strip["images"]
    return values


def plain_fields(value: Any) -> Any:
    """Frozen classes as mappings, tuples as lists, what is not finite as null."""
    kind = type(value)
    if kind is float:
        return value if isfinite(value) else None
    if kind in _PLAIN:
        return value
    if kind is tuple or kind is list:  # most of what is inside is plain: a call less each
        return [item if type(item) in _PLAIN or (type(item) is float and isfinite(item)) else plain_fields(item)
                for item in value]
    if kind is dict:
        return {str(key): plain_fields(item) for key, item in value.items()}
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        return {name: plain_fields(getattr(value, name)) for name in fields}
    return plain_fields(list(value)) if isinstance(value, (list, tuple)) else jsonable(value)


def rendered(report: Report, targets: Sequence[Path]) -> dict[str, str]:
    """The report's text for each suffix that a target has, tables apart."""
    asked = dict.fromkeys(target.suffix.lower() for target in targets)
    return {suffix: FORMATS[suffix](report) for suffix in asked if suffix != PARQUET}


def write(report: Report, targets: Sequence[Path], study: Study | None = None) -> dict[str, str]:
    """Write the report in each target's format; all are rendered before the first is written.

    Args:
        study: what the report was made from; needed for its records as Parquet.

    Returns:
        its texts by suffix.

    Raises:
        BadInput, EnvironmentFailed: a target cannot be written; see `save_texts`.
    """
    texts = rendered(report, targets)
    save_texts(texts, targets)
    for target in targets:
        if target.suffix.lower() == PARQUET and study is not None:
            from analysis.report.delivery.tables import write_tables  # pyarrow, for those who ask for it

            write_tables(study, target)
    return texts


def markdown_text(value: object) -> str:
    """Text that stays text inside a Markdown table."""
    text = " ".join(str(value).split())
    for char in "\\`*_[]|":
        text = text.replace(char, "\\" + char)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seed_rows(report: Report) -> list[charts.SeedRow]:
    return [(item.label, fresh.values, fresh.mean, fresh.low, fresh.high)
            for item in report.confirmed if (fresh := item.confirmed)]


@cache
def _environment(html: bool) -> Environment:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=html, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, optimized=False)  # rendered once, so not worth it
    environment.filters |= {"num": number, "word": words, "state": state_word, "knob": value_text, "md": markdown_text,
                            "better": _ARROWS.get}
    environment.globals |= {"interval": interval, "share": share, "missing": MISSING}
    return environment


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The text's digest as a content-security policy spells it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script_safe(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """The few numbers at the head of a page: name, value, what it means."""
    best = report.winner
    found: list[tuple[str, str, str]] = []
    if best:
        name = "Fresh-seed mean" if best.tier == 0 else "Mean objective" if best.seeds else "Objective"
        found.append((name, number(best.score), f"{best.label}, rank 1 of {len(report.standings)}"))
        if best.control is not None:
            bounds = interval(best.control_low, best.control_high)
            found.append(("Control", number(best.control), f"95 % {bounds}" if bounds else "no interval"))
        if best.health is not None:
            found.append(("Codebook health", number(best.health), "1 is full health"))
        if best.mse is not None and best.mse_copy:
            found.append(("MSE against copying", number(best.mse / best.mse_copy),
                          f"{number(best.mse)} against {number(best.mse_copy)}"))
    live = sum(item.status == "live" and not item.outside for item in report.standings)
    found.append(("Live trials", f"{live} of {len(report.standings)}", "may win"))
    spent = report.compute
    found.append(("Epochs trained", f"{spent.epochs_spent:,}", f"{spent.epochs_saved:,} saved by stopping early"))
    return found
