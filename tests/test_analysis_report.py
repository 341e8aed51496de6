"""The report's files: HTML that needs nothing from outside, Markdown, JSON; the command that writes them."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from build_records import EPOCHS, PLANTED, Planted, confirmed, record, write_run, write_samples, write_sweep
from PIL import Image
from typer.testing import CliRunner

from analysis.commands import register
from analysis.read.reading import read_study
from analysis.report.charts import Dot, Series, histogram, line_chart, scatter, seed_chart
from analysis.report.delivery.targets import check_target
from analysis.report.drawing import draw, positions
from analysis.report.pictures import PANELS, heat, strips_of
from analysis.report.render import markdown_text, render_html, render_json, render_markdown, write
from analysis.report.report import Report, build_report, report_of
from record.errors import BadInput
from record.text import number

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = "</script><img src=x onerror=alert(1)>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("report") / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])


@pytest.fixture(scope="module")
def made(sweep: Path) -> Report:
    return build_report(sweep, now=NOW)


class _Page(HTMLParser):
    """Every element with its attributes, the text of scripts, and the ids and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def test_the_page_refers_to_nothing_outside(made: Report) -> None:
    page = _Page(render_html(made))
    for _, attrs in page.elements:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attrs.get(name) or "#").startswith(("#", "data:")), attrs
        assert not any(name.startswith("on") or name == "style" for name in attrs)
    assert "http" not in "".join(page.texts["style"])
    policy = next(attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_every_link_inside_the_page_has_its_target(made: Report) -> None:
    page = _Page(render_html(made))
    ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    links = {(attrs["href"] or "")[1:] for attrs in page.all("a")}
    assert links <= ids
    assert {"comparison", "trials", "curves", "knobs", "pictures", "codebooks", "seeds", "ledger", "runs",
            "provenance", "glossary"} <= ids


def test_the_page_carries_its_numbers(made: Report) -> None:
    page = _Page(render_html(made))
    data, _ = json.JSONDecoder().raw_decode("".join(page.texts["script"]))
    assert data["verdict"]["winner"] == "t0005"
    assert data == json.loads(render_json(made))


def test_pictures_decode_to_the_right_size(made: Report) -> None:
    page = _Page(render_html(made))
    images = [attrs for attrs in page.all("img") if attrs.get("class") != "uses"]
    assert len(images) == 2 * 3 * len(PANELS)
    assert all(attrs["alt"] for attrs in images)
    for attrs in images:
        data = (attrs["src"] or "").removeprefix("data:image/png;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.format, picture.size, picture.mode) == ("PNG", (160, 160), "RGB")


def test_strips_show_what_was_recorded(made: Report) -> None:
    strips = made.strips[0]
    assert (strips.label, strips.epoch, len(strips.strips)) == ("t0005", EPOCHS, 3)
    assert [strip.action for strip in strips.strips] == ["RIGHT", "LEFT", "unknown"]
    assert [strip.other_action for strip in strips.strips] == ["LEFT", "NOOP", "unknown"]
    first = strips.strips[0]
    assert (first.codes, first.other_codes, first.file, first.frame) == ((1, 5, 9), (2, 5, 3), "pong-000.h5", 0)
    assert first.largest == 236 - 24


def test_a_heat_map_is_black_where_nothing_differs() -> None:
    picture = heat(np.array([[0, 0], [0, 10]]))
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [8, 8, 16]
    assert picture[1, 1].tolist() == [255, 245, 190]
    assert heat(np.zeros((2, 2), dtype=int)).max() == 16


def test_missing_and_broken_samples_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", Planted())
    trial = read_study(run.path).trials[0]
    assert strips_of(trial, 3).note == "No picture was recorded: the data has no codec back to pixels."
    write_samples(run.samples / "epoch-2.npz")
    write_samples(run.samples / "epoch-8.npz")
    assert strips_of(trial, 5).epoch == 2
    (run.samples / "epoch-2.npz").write_bytes(b"PK broken")
    assert strips_of(trial, 5).note.startswith("epoch-2.npz cannot be read (")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    planted = replace(PLANTED["t0003"], reason={"rule": "asha", "sentence": f"{HOSTILE} | `x` \x1b[31m"},
                      params={"embed_dim": 64, HOSTILE: "<b>"})
    folder = write_sweep(tmp_path / "s", {"t0001": PLANTED["t0001"]}, name=HOSTILE)
    study = read_study(folder)
    trial = replace(study.trials[0], label=HOSTILE, params=planted.params, state="stopped", reason=planted.reason or {})
    hostile = replace(study, trials=(trial,), knobs=("embed_dim", HOSTILE))
    report = report_of(hostile, now=NOW)
    html = render_html(report)
    page = _Page(html)
    assert "<img src=x" not in html
    assert html.count("</script>") == 3
    assert not any(attrs.get("src") == "x" for attrs in page.all("img"))
    markdown = render_markdown(report)
    assert "<img" not in markdown
    assert "\x1b" not in markdown + html
    assert "\\| \\`x\\`" in markdown


def test_markdown_escapes() -> None:
    assert markdown_text("a|b\n<c> & `d` *e*") == "a\\|b &lt;c&gt; &amp; \\`d\\` \\*e\\*"


def test_the_markdown_of_a_tiny_study(tmp_path: Path) -> None:
    trials = {"t0001": PLANTED["t0005"], "t0002": PLANTED["t0002"]}
    text = render_markdown(build_report(write_sweep(tmp_path / "s", trials), now=NOW))
    golden = (Path(__file__).parent / "golden_report.md").read_text()
    assert text.replace(markdown_text(tmp_path), "FOLDER").replace(str(tmp_path), "FOLDER") == golden


def test_every_number_is_json(made: Report) -> None:
    values = json.loads(render_json(made))
    assert values["schema"] == 1
    assert [item["label"] for item in values["standings"]][:2] == ["t0005", "t0001"]
    assert values["strips"][0]["strips"][0]["codes"] == [1, 5, 9]
    assert "images" not in values["strips"][0]["strips"][0]


def test_a_run_without_codes_is_a_baseline_not_a_winner(sweep: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "plain", Planted(mse=0.001), run_id="plain", quantizer="none")
    keep = [key for key in record(Planted(), 1) if "code" not in key and "perplexity" not in key and "dsnr" not in key]
    lines = [{key: record(Planted(mse=0.001), epoch)[key] for key in keep if key != "val/collapsed"} | {
        "val/dsnr_status": None, "val/objective": -0.01} for epoch in (1, 2)]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    alone = build_report(tmp_path / "plain", now=NOW)
    assert alone.verdict.sentence == "No winner: none of 1 trial is live and finished (1 no codes)."
    assert "No run here has a codebook" in render_html(alone)
    against = build_report(sweep, baseline=str(tmp_path / "plain"), now=NOW)
    assert against.comparison.columns[-1] == "plain"
    assert against.comparison.against_baseline.startswith("t0005 against the baseline plain (no codes): val/objective")


def test_curves_break_where_a_value_is_not_defined(made: Report) -> None:
    curve = next(curve for curve in made.curves if curve.key == "val/mse_loss")
    lost = next(line for line in curve.courses if line.label == "t0004")
    assert [x for x, y in lost.points if y is None] == [2.0]
    assert (lost.status, lost.ended) == ("nonfinite", True)
    assert next(line for line in curve.courses if line.label == "t0005").status == "live"


def test_the_winner_has_a_mark_of_its_own_in_every_chart(made: Report) -> None:
    drawn = draw(made)
    marks = [*drawn.curves[0].series, *drawn.slices[0].dots, *drawn.histograms]
    assert {mark.status for mark in marks if mark.label == "t0005"} == {"winner"}
    assert "winner" not in {mark.status for mark in marks if mark.label != "t0005"}


def test_settings_stand_at_their_numbers_or_by_name() -> None:
    assert positions([1, 0.5]) == [1.0, 0.5]
    assert positions([1, "ema", True, None]) == ["1", "ema", "true", "–"]


def test_a_chart_draws_one_line_for_each_unbroken_stretch() -> None:
    broken = Series("a", "live", ((1, 0.1), (2, None), (3, 0.2), (4, 0.3)), ended=True)
    chart = line_chart("x", [broken])
    assert chart.count('class="line"') == 2
    assert chart.count('class="stop"') == 1
    assert line_chart("x", [Series("a", "live", ((1, None),))]) == ""
    assert line_chart("x", [Series("a", "live", ((1, -1.0),))], log=True) == ""
    assert line_chart("x", [Series("a", "live", ((1, 2.0),))], log=True).count("<circle") == 1
    narrow = line_chart("x", [Series("a", "live", ((1, 0.021), (2, 0.045)))], log=True)
    assert ">0.03</text>" in narrow


def test_scatters_take_names_and_numbers() -> None:
    numbers = scatter("lr", [Dot(str(n), "live", 10.0 ** -n, 0.1 * n) for n in range(1, 9)])
    assert numbers.count('class="mark live"') == 8
    assert "0.001" in numbers
    names = scatter("quantizer", [Dot("a", "winner", "ema", 0.3), Dot("b", "collapsed", "vq", -0.4)])
    assert ">ema</text>" in names
    assert "a: ema → 0.300" in names
    assert scatter("lr", []) == ""


def test_empty_histograms_and_seeds_draw_nothing() -> None:
    assert histogram("x", [0, 0], "live") == ""
    assert seed_chart([("a", [None], None, None, None)]) == ""
    assert histogram("x", [3, 0, 1], "live").count("<rect") == 3


def test_seeds_below_zero_lie_inside_their_chart() -> None:
    for values in ([-0.4, -0.1], [-0.3, -0.3], [0.2, 0.5]):
        chart = seed_chart([("a", values, sum(values) / 2, values[0] - 0.05, values[1] + 0.05)])
        places = [float(x) for x in re.findall(r'cx="([0-9.-]+)"', chart)]
        assert all(120 < x < 620 for x in places)
        zero = re.search(r'<text x="([0-9.]+)"[^>]*>0</text>', chart)
        assert zero is not None
        assert [x < float(zero[1]) for x in places] == [value < 0 for value in values]


def test_a_rung_in_operations_is_rounded_and_has_its_unit(tmp_path: Path) -> None:
    reason = {"rule": "asha", "sentence": "below the cutoff", "rung": 100 / 27, "value": 0.1, "cutoff": 0.2}
    stopped = replace(PLANTED["t0003"], reason=reason)
    folder = write_sweep(tmp_path / "s", {"t0001": PLANTED["t0001"], "t0003": stopped},
                         scheduler={"asha": {"max_epochs": EPOCHS, "grace_epochs": 2, "max_tflops": 100.0}})
    assert [stop.where for stop in build_report(folder).stops] == ["3.70 TFLOP"]
    assert ">asha at 3.70 TFLOP</td>" in render_html(build_report(folder))
    epochs = write_sweep(tmp_path / "e", {"t0001": PLANTED["t0001"], "t0003": PLANTED["t0003"]})
    assert [stop.where for stop in build_report(epochs).stops] == ["epoch 3"]


@pytest.mark.parametrize(("target", "message"), [
    ("r.pdf", r"-o: got '.*r.pdf', expected a name that ends in .html, .md, .json, .parquet; for example -o r.html"),
    ("folder.html", "which is a folder"),
])
def test_targets_that_are_refused(tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadInput, match=message):
        check_target(tmp_path / target)


def test_a_place_that_cannot_be_written_is_named(made: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match=r"r.html: cannot be written \(.*\); check its permissions"):
        write(made, [tmp_path / "file" / "r.html"])


def test_a_baseline_must_exist(sweep: Path) -> None:
    with pytest.raises(BadInput, match=r"got 't005', neither a trial here nor a folder; did you mean 't0005'"):
        build_report(sweep, baseline="t005")
    with pytest.raises(BadInput, match="which holds 8 trials; name one run's folder"):
        build_report(sweep, baseline=str(sweep))


def test_a_baseline_that_names_two_trials_is_refused(tmp_path: Path) -> None:
    sweeps = [write_sweep(tmp_path / name, {"t0001": PLANTED["t0001"]}) for name in ("x", "y")]
    with pytest.raises(BadInput, match=r"--baseline: got 't0001', which is the id of 2 trials here; "
                                       r"name one of them: x/t0001, y/t0001"):
        build_report(sweeps, baseline="t0001")
    assert build_report(sweeps, baseline="y/t0001").comparison.baseline == "y/t0001"


def _app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_the_command_writes_every_format_and_says_who_won(sweep: Path, tmp_path: Path) -> None:
    targets = [tmp_path / name for name in ("deep/r.html", "r.md", "r.json")]
    result = CliRunner().invoke(_app(), ["report", str(sweep), *(f"-o{target}" for target in targets)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("t0005 wins: mean objective 0.430 [0.380, 0.480] over 3 fresh seeds")
    assert lines[-4:] == [*(f"report          {target}" for target in targets), f"sweep folder    {sweep}"]
    assert all(target.stat().st_size > 1000 for target in targets)


@pytest.mark.parametrize(("text", "message"), [
    ('{"promoted": tr', r"promotion.json: is not JSON \(.*\); restore it from a copy"),
    ("[]", "promotion.json: holds a list, expected an object"),
    ('{"promoted": true}', r"promotion.json: lacks its trial; restore it"),
])
def test_a_damaged_promotion_is_said_before_anything_is_written(tmp_path: Path, text: str, message: str) -> None:
    folder, target = write_sweep(tmp_path / "s", {"t0001": PLANTED["t0001"]}), tmp_path / "r.html"
    (folder / "promotion.json").write_text(text)
    result = CliRunner().invoke(_app(), ["report", str(folder), f"-o{target}"])
    assert isinstance(result.exception, BadInput)
    assert result.exception.exit_code == 2
    assert re.search(message, str(result.exception))
    assert not target.exists()


def test_without_a_target_the_report_lies_in_the_sweep(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"t0001": PLANTED["t0001"]})
    assert CliRunner().invoke(_app(), ["report", str(folder)]).exit_code == 0
    assert (folder / "report.html").exists()


def test_nothing_is_written_for_bad_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(_app(), ["report", str(tmp_path), "-o", str(tmp_path / "r.html")])
    assert isinstance(result.exception, BadInput)
    assert not list(tmp_path.iterdir())


def test_commands_load_nothing_heavy() -> None:
    code = ("import sys, analysis.commands; "
            "print([m for m in ('torch','ray','optuna','pandas','pydantic','numpy','jinja2') if m in sys.modules])")
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _chromium(folder: Path, page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         f"--user-data-dir={folder / 'profile'}", "--window-size=1280,2000", *arguments, page.as_uri()],
        capture_output=True, text=True, timeout=600, check=True)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_page_renders_without_an_error(made: Report, tmp_path: Path) -> None:
    page, picture = tmp_path / "r.html", tmp_path / "r.png"
    write(made, [page])
    done = _chromium(tmp_path, page, f"--screenshot={picture}")
    assert not re.findall(r".*CONSOLE.*", done.stderr)
    with Image.open(picture) as image:
        assert image.size == (1280, 2000)
        assert len(image.convert("L").getcolors(256) or []) > 50  # a page with text and colour, not a blank one


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_headings_sort_and_lines_answer_the_pointer(made: Report, tmp_path: Path) -> None:
    probe = """<script>
      const table = document.querySelector("#trials table");
      const buttons = [...table.querySelectorAll("th button")];
      const column = buttons.findIndex((button) => button.textContent === "MSE");
      buttons[column].click();
      const order = [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join(" ");
      const line = document.querySelector("#curves figure .series.winner");
      line.dispatchEvent(new PointerEvent("pointermove", { clientX: 0, clientY: 0 }));
      const said = document.querySelector("output.readout").textContent;
      document.title = [order, buttons[column].parentNode.getAttribute("aria-sort"), said].join("; ");
    </script></body>"""
    html = re.sub(r"<meta http-equiv[^>]*>", "", render_html(made)).replace("</body>", probe)
    page = tmp_path / "r.html"
    page.write_text(html)
    title = re.search(r"<title>(.*)</title>", _chromium(tmp_path, page, "--dump-dom").stdout)
    assert title is not None
    first = next(course for course in made.curves[0].courses if course.label == "t0005").points[0][1]
    assert title[1] == ("t0007 t0005 t0001 t0008 t0003 t0002 t0004 t0006; ascending; t0005 (winner), epoch 1: "
                        f"{number(first)}")
