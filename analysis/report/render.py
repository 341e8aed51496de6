"""A report as HTML (one file, no network), Markdown or JSON. The content is decided in `analysis.report.report`."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.judge.ranking import state_word
from analysis.read.sources import save
from analysis.report import charts
from analysis.report.drawing import draw
from analysis.report.pictures import PANELS
from analysis.report.report import Report
from record.errors import BadInput
from record.files import jsonable
from record.text import MISSING, interval, number, share, value_text, words

TEMPLATES = Path(__file__).parent / "templates"
_ARROWS = {"up": "higher is better", "down": "lower is better", "none": ""}


def render_html(report: Report) -> str:
    """A page that opens from disk: style, script, charts and pictures inside, everything from outside escaped."""
    style, script = (_asset(f"report.{kind}") for kind in ("css", "js"))
    return _environment(True).get_template("report.html.j2").render(
        report=report, tiles=tiles(report), charts=charts, drawn=draw(report), panels=PANELS, seeds=_seed_rows(report),
        rules={stop.label: stop.rule for stop in report.stops}, style=Markup(style), script=Markup(script),
        style_hash=_hash(style), script_hash=_hash(script), data=Markup(_script_safe(report_dict(report))))


def render_markdown(report: Report) -> str:
    """The same content as tables; charts and pictures are left out, and the text says so."""
    return _environment(False).get_template("report.md.j2").render(report=report, tiles=tiles(report))


def render_json(report: Report) -> str:
    """Every number of the report; pictures are left out."""
    return json.dumps(report_dict(report), indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {".html": render_html, ".md": render_markdown, ".json": render_json}


def report_dict(report: Report) -> dict[str, Any]:
    """The report as plain values, picture data left out."""
    values: dict[str, Any] = jsonable({"schema": 1, **dataclasses.asdict(report), **dataclasses.asdict(draw(report))})
    for strips in values["strips"]:
        for strip in strips["strips"]:
            del strip["images"]
    return values


def check_target(path: Path) -> Path:
    """The path itself, when a report can be written there.

    Raises:
        BadInput: its suffix names no format, or it is a folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"got {str(path)!r}, expected a name that ends in {', '.join(FORMATS)}", source="-o",
                       remedy=f"for example -o {path.with_suffix('.html').name or 'report.html'}")
    if path.is_dir():
        raise BadInput(f"got {str(path)!r}, which is a folder", source="-o", remedy=f"name a file, {path}/report.html")
    return path


def write(report: Report, targets: list[Path]) -> None:
    """Write the report in each target's format; all are rendered before the first is written.

    Raises:
        BadInput, EnvironmentFailed: a target cannot be written; see `analysis.read.sources.save`.
    """
    texts = [(target, FORMATS[target.suffix.lower()](report)) for target in targets]
    for target, text in texts:
        save(target, text)


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
                              trim_blocks=True, lstrip_blocks=True)
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
