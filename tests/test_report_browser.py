"""The report in a real browser: what a mouse and a keyboard do, what the page asks for, and rules of accessibility."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browsing
import pytest
from build_records import PLANTED, Planted, confirmed, write_sweep

from analysis.report.render import write
from analysis.report.report import Report, build_report

pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(browsing.CHROMIUM is None, reason="no chromium on this machine")]
WIDTHS = (400, 900, 1600)
STOPPED = {"rule": "asha", "sentence": "objective 0.1 at epoch 3 is below the cutoff 0.2 of 3 peers", "rung": 3,
           "value": 0.1, "cutoff": 0.2, "peers": 3, "epochs_saved": 7}


def trials() -> dict[str, Planted]:
    """A sweep with every status, with rungs, and with knobs that are numbers and names."""
    more = {f"t{n:04d}": Planted(
        control=0.1 + 0.02 * n, epochs=3 if n % 3 else 10, end="stopped" if n % 3 else "completed",
        reason=STOPPED if n % 3 else None, params={
            "embed_dim": (64, 128)[n % 2], "commitment_weight": 0.02 * n, "quantizer": ("ema", "vq")[n % 2]})
        for n in range(9, 16)}
    return {name: replace(trial, params={**trial.params, "quantizer": "ema"}) for name, trial in PLANTED.items()} | more


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(write_sweep(tmp_path_factory.mktemp("sweep") / "pong", trials(),
                                    confirm=[confirmed("t0005", [0.40, 0.45, 0.44])]), "t0001")


@pytest.fixture(scope="module")
def shared(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsing.Tab]:
    folder = tmp_path_factory.mktemp("browser")
    write(report, [folder / "report.html"])
    with browsing.opened((folder / "report.html").as_uri(), folder) as tab:
        tab.wait_for("document.readyState === 'complete'")
        yield tab


@pytest.fixture
def tab(shared: browsing.Tab) -> browsing.Tab:
    """The page as it was opened."""
    shared.sized(1600)
    shared.send("Page.reload")
    shared.wait_for("document.readyState === 'complete' && document.querySelector('svg[tabindex]') !== null")
    return shared


def column(tab: browsing.Tab, number: int) -> list[str]:
    found: list[str] = tab.value(f"[...document.querySelectorAll('#all-trials tbody tr')]"
                                 f".map((row) => row.cells[{number}].textContent.trim())")
    return found


def tab_to(tab: browsing.Tab, selector: str, most: int = 120) -> int:
    """Press Tab until such an element has the focus; how many presses it took."""
    for presses in range(1, most):
        tab.press("Tab")
        if tab.value(f"document.activeElement.matches({json.dumps(selector)})"):
            return presses
    raise AssertionError(f"{selector} is not reached by Tab")


def test_the_page_complains_of_nothing_and_asks_for_nothing(tab: browsing.Tab) -> None:
    tab.value("scrollTo(0, document.body.scrollHeight)")
    assert tab.complaints == []
    assert {address.partition(":")[0] for address in tab.requests} <= {"file"}  # the page itself
    assert {address.rpartition("/")[2] for address in tab.requests} <= {"report.html"}


def test_a_heading_sorts_by_mouse_and_by_keyboard(tab: browsing.Tab, report: Report) -> None:
    order = [item.label for item in report.standings]
    tab.point("#all-trials thead th:nth-child(2) button", click=True)
    assert column(tab, 0) == order
    tab_to(tab, "#all-trials thead th:nth-child(2) ~ th button")
    tab.value("document.querySelector('#all-trials thead th:nth-child(2) button').focus()")
    tab.press("Enter")
    assert column(tab, 0) == order[::-1]
    assert tab.value("document.querySelector('#all-trials thead th:nth-child(2)').ariaSort") == "descending"
    tab.press(" ")
    assert column(tab, 0) == order


def test_the_box_searches_and_filters_as_one_types(tab: browsing.Tab, report: Report) -> None:
    tab.point("input[type=search]", click=True)
    for character in "collapsed":
        tab.press(character)
    collapsed = {item.label for item in report.standings if item.status == "collapsed"}
    assert set(column(tab, 0)) == collapsed
    assert tab.value("document.querySelector('output[data-count]').textContent") == f"{len(collapsed)} of 15 trials"
    tab.value("document.activeElement.select()")
    for character in "quantizer=vq value>0.3":
        tab.press(character)
    assert set(column(tab, 0)) == {item.label for item in report.standings
                                   if item.params["quantizer"] == "vq" and (item.value or 0) > 0.3} != set()


def test_what_is_folded_opens_by_mouse_and_by_keyboard(tab: browsing.Tab) -> None:
    opened = "document.querySelector('#glossary details').open"
    assert tab.value(opened) is False
    tab.point("#glossary summary", click=True)
    assert tab.value(opened) is True
    tab.value("document.querySelector('#glossary summary').focus()")
    tab.press("Enter")
    assert tab.value(opened) is False


def test_a_line_answers_the_pointer_and_the_arrow_keys(tab: browsing.Tab, report: Report) -> None:
    said = "document.querySelector('output.readout').textContent"
    assert tab.value(said) == ""
    tab.point("#search .series.winner .dot")
    assert tab.value(said) == "t0005: completed at epoch 10"
    assert tab.value("document.querySelectorAll('.lit').length > 3 && document.body.matches('.dimmed')")
    tab.point("h1")
    assert tab.value(said) == ""
    tab_to(tab, "#curves svg")
    tab.press("ArrowRight")
    assert tab.value(said).startswith("t0005 (winner), epoch 10: ")  # the winner first, at its end
    tab.press("ArrowRight")
    other = tab.value(said).partition(" ")[0]
    assert other in {item.label for item in report.standings} - {"t0005"}
    assert tab.value(f"document.querySelector('#curves svg .lit').dataset.label === '{other}'")
    tab.press("Escape")
    assert tab.value(said) == ""


def test_tab_goes_through_the_page_in_its_order_and_shows_where_it_is(tab: browsing.Tab) -> None:
    tab.press("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    assert tab.value("document.activeElement.getBoundingClientRect().left >= 0")  # it comes into view
    last, hidden = -1.0, []
    for _ in range(40):
        tab.press("Tab")
        outlined, place, name = tab.value("""(() => { const now = document.activeElement, how = getComputedStyle(now);
            return [how.outlineStyle !== "none" || how.textDecorationLine !== "none",
                    [...document.querySelectorAll("*")].indexOf(now), now.outerHTML.slice(0, 80)]; })()""")
        assert place > last
        hidden += [] if outlined else [name]
        last = place
    assert hidden == []


def test_no_width_makes_the_page_scroll_sideways(tab: browsing.Tab) -> None:
    for width in WIDTHS:
        tab.sized(width)
        assert tab.value("document.documentElement.scrollWidth <= innerWidth"), width


def axe() -> str:
    """The rules as the package brings them."""
    found = importlib.util.find_spec("axe_core_python")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("width", "scheme", "rules"), [(400, "light", []), (1600, "dark", ["color-contrast"])])
def test_no_rule_of_accessibility_is_broken(tab: browsing.Tab, width: int, scheme: str, rules: list[str]) -> None:
    tab.sized(width, scheme)
    tab.value(axe())
    tab.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert tab.value("[...document.querySelectorAll('svg:not([aria-hidden])')].every((one) => one.ariaLabel)")
    how = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
    found: list[dict[str, Any]] = tab.value(f"""axe.run({{exclude: [["svg"]]}}, {json.dumps(how)}).then((result) =>
        result.violations.map((one) => ({{rule: one.id, impact: one.impact, count: one.nodes.length,
        first: one.nodes[0].html.slice(0, 160), why: one.nodes[0].failureSummary.slice(0, 300)}})))""")
    assert [item for item in found if item["impact"] in ("serious", "critical")] == []
