"""The page of a sweep as it is now, for `lam report --serve`."""

from __future__ import annotations

from markupsafe import escape

from analysis.read.reading import read_study
from analysis.report.render import render_html
from analysis.report.report import build_report
from record.errors import BadInput
from record.journal.events import FINAL


def current(paths: list[str], asked: dict[str, str | None]) -> tuple[str, bool]:
    """The page, and whether it may still change: a trial has not ended, or there is nothing to compare yet.

    Raises:
        BadInput: see `read_study`; not of a sweep without a finished trial, whose page says so.
    """
    try:
        study = read_study(list(paths), asked["objective"], asked["profile"])
    except BadInput as error:
        if "no trial has finished" not in str(error):
            raise
        return f"<!doctype html><meta charset=utf-8><title>lam report</title><p>{escape(error)}</p>", True
    made = build_report(list(paths), asked["baseline"], objective=asked["objective"], profile=asked["profile"],
                        study=study)
    return render_html(made), any(trial.state not in FINAL for trial in study.trials)
