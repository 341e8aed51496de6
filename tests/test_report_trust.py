"""Whether a search can be trusted, panels of a run, many trials on one page, and a report against its records."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from build_records import Planted, confirmed, write_sweep
from typer.testing import CliRunner

from analysis.commands import register
from analysis.decision.replay import below_median, cut, replay
from analysis.decision.trust import Doubt, examine_search
from analysis.judge.ranking import rank
from analysis.read.reading import read_study
from analysis.report.panels import panel_chart, panels_of
from analysis.report.render import MOST_ROWS, render_html, render_json, report_dict, table_rows
from analysis.report.report import build_report
from analysis.report.verify import verify
from record.errors import AnswerIsNo, BadInput

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)


def many(count: int = 20) -> dict[str, Planted]:
    """Trials whose control rises with the learning rate, the best at its upper end."""
    return {f"t{number:04d}": Planted(control=0.2 + 0.02 * number, mse=0.03, params={
        "learning_rate": 1e-4 * 10 ** (2 * number / count), "commitment_weight": 0.1 + 0.03 * (number * 7 % count)})
        for number in range(1, count + 1)}


def answers(folder: Path, baseline: str | None = None) -> dict[str, Doubt]:
    study = read_study(folder)
    trial = study.trial(baseline) if baseline else None
    return {check.title: check for check in examine_search(study, rank(study), trial)}


def test_each_check_says_ok_warning_or_that_it_was_not_checked(tmp_path: Path) -> None:
    found = answers(write_sweep(tmp_path / "s", many()))
    assert {title: check.answer for title, check in found.items()} == {
        "Is the winner at an edge of the space?": "warning", "Does it beat the baseline?": "not checked",
        "Does it beat the search's first draws?": "ok", "Is it told apart from the next?": "not checked",
        "Were all ranked after as much training?": "ok", "How many were lost?": "ok",
        "Do the knobs tell the value?": "ok", "Would stopping early have kept the winner?": "ok",
        "More than one seed?": "warning", "Does the objective agree with the action skill?": "not checked"}
    assert found["Is the winner at an edge of the space?"].evidence.startswith(
        "learning_rate 0.0100 is at the upper end of what was tried")


def test_a_baseline_that_is_better_is_a_warning(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"t0001": Planted(control=0.3), "t0002": Planted(control=0.5)})
    assert answers(folder, "t0001")["Does it beat the baseline?"].answer == "ok"
    assert answers(folder, "t0002")["Does it beat the baseline?"].answer == "warning"


def test_fresh_seeds_answer_the_question_of_seeds_and_ties(tmp_path: Path) -> None:
    two = [confirmed("t0005", [0.45, 0.46, 0.47]), confirmed("t0001", [0.44, 0.45, 0.46])]
    found = answers(write_sweep(tmp_path / "s", confirm=two))
    assert found["More than one seed?"].answer == "ok"
    assert found["Is it told apart from the next?"] == Doubt(
        "Is it told apart from the next?", "warning", "its interval over seeds is reached by 1 config: t0001")


def test_one_training_that_reaches_the_winners_interval_is_a_tie(tmp_path: Path) -> None:
    """Of others that were trained once there is no interval: they tie where their value is in it or better."""
    title = "Is it told apart from the next?"
    for seeds, answer, told in (([0.39, 0.47, 0.47], "warning", "its interval over seeds is reached by 1 config: t"),
                                ([0.20, 0.201, 0.202], "warning", "its interval over seeds is reached by "),
                                ([0.45, 0.451, 0.452], "ok", "0.401 to 0.501 over seeds, and none of ")):
        found = answers(write_sweep(tmp_path / str(seeds[0]), confirm=[confirmed("t0005", seeds)]))[title]
        assert found.answer == answer, found
        assert found.evidence.startswith(told), found


def test_a_late_bloomer_would_have_been_cut(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", many()))
    late = study.trials[-1]
    slow = tuple({**record, "val/objective": 0.0 if record["epoch"] < 5 else record["val/objective"]}
                 for record in late.records)
    study = replace(study, trials=(*study.trials[:-1], replace(late, records=slow)))
    found = {check.title: check for check in examine_search(study, rank(study))}
    assert found["Would stopping early have kept the winner?"].answer == "warning"
    told = found["Would stopping early have kept the winner?"].evidence
    assert "a cut to a third at a fifth of the epochs loses it" in told
    assert "a cut to a third at a third loses it" in told


def test_replayed_rules_say_what_they_keep_and_spend() -> None:
    curves = {f"t{n}": {epoch: n + epoch / 100 for epoch in range(1, 11)} for n in range(9)}
    found = {item.rule: item for item in replay(curves, "t8", 10)}
    assert all(item.keeps for item in found.values())
    assert found["a cut to a third at a fifth of the epochs"].spent == pytest.approx((3 * 10 + 6 * 2) / 90)
    assert found["thirds at a ninth and a third"].spent == pytest.approx((1 * 10 + 2 * 3 + 6 * 1) / 90)
    assert not any(item.keeps for item in replay(curves, "t0", 10))
    assert replay({"t0": {10: 1.0}}, "t0", 10) == ()


def test_a_rule_that_never_judged_the_winner_says_nothing_of_it_and_equals_go_on_together() -> None:
    others = {name: {4: n / 10, 8: n / 10} for n, name in enumerate("abcde")}
    assert not {item.rule for item in replay({**others, "w": {10: 0.9, 20: 1.0}}, "w", 20)} & {
        "a cut to a third at a fifth of the epochs", "quarters at a sixteenth and a quarter"}
    assert cut({"a": {1: 0.5}, "b": {1: 0.5}, "w": {1: 0.5}}, [1], 3) is None


def test_the_median_rule_ends_the_lower_half() -> None:
    curves = {name: dict.fromkeys(range(1, 6), value) for name, value in
              (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("e", 5.0))}
    assert below_median(curves, 3) == {"a": 3, "b": 3}
    assert below_median({name: curves[name] for name in "abc"}, 3) is None  # three others at least


def test_a_trial_that_was_ended_is_spent_up_to_there_only() -> None:
    curves = {"a": {1: 1.0, 2: 1.0}, "b": {1: 2.0, 2: 2.0, 3: 2.0, 4: 2.0}}
    (found,) = [item for item in replay(curves, "b", 4) if item.rule.startswith("quarters")]
    assert (found.keeps, found.spent) == (True, (1 + 4) / 6)


@pytest.mark.parametrize(("stated", "answer", "told"), [
    ({"loguniform": [1e-5, 1.0]}, "ok", "1 knob of the winner, none within"),
    ({"loguniform": [1e-4, 1e-2]}, "warning", "learning_rate 0.0100 is at the upper end of its range (0.000100"),
])
def test_an_edge_is_of_the_range_that_the_sweep_states(tmp_path: Path, stated: dict[str, Any], answer: str,
                                                       told: str) -> None:
    trials = {name: replace(trial, params={"learning_rate": trial.params["learning_rate"]})
              for name, trial in many(9).items()}
    study = read_study(write_sweep(tmp_path / "s", trials))
    study = replace(study, sweep={**study.sweep, "asked": {"space": {"learning_rate": stated}}})
    found = examine_search(study, rank(study))[0]
    assert (found.answer, found.evidence[:len(told)]) == (answer, told)


@pytest.mark.parametrize(("stated", "value", "answer"), [
    ({"uniform": [0.01, 1.0]}, 0.03, "warning"),  # 2 % from the end, a quarter by its logarithm
    ({"loguniform": [1e-4, 1e-3]}, 1.4e-4, "ok"),  # 15 % by its logarithm, 4 % as it stands
    ({"int": [1, 2]}, 1, "not checked"),  # a choice of two: either is an end
    ({"int": [1, 8]}, 1, "warning"),
])
def test_an_edge_is_measured_in_the_ranges_own_scale(tmp_path: Path, stated: dict[str, Any], value: float,
                                                     answer: str) -> None:
    study = read_study(write_sweep(tmp_path / "s", {"t0001": Planted(params={"learning_rate": value})}))
    study = replace(study, sweep={**study.sweep, "asked": {"space": {"learning_rate": stated}}})
    assert examine_search(study, rank(study))[0].answer == answer


def test_importance_names_the_knob_that_matters_with_a_range(tmp_path: Path) -> None:
    first = build_report(write_sweep(tmp_path / "s", many(30))).importance.shares[0]
    assert first.knob == "learning_rate"
    assert first.low is not None
    assert first.high is not None
    assert first.low <= first.share <= first.high or math.isclose(first.share, 1.0)


GAIT = [{"epoch": epoch, "train/total_loss": 1 / epoch, "train/grad_norm_mean": 2.0, "train/is_improving": 1,
         "train/batch_loss_cv": 0.2, "model/ema_diff": 0.01, "validation/gen_std": 0.8, "validation/knee_r_std": 0.4,
         "validation/grf_vz_r_std": 200.0, "validation/knee_healthy": int(epoch >= 4),
         "validation/grf_healthy": int(epoch >= 6), "loss_ratio/simple": 0.6, "loss_ratio/vel": 0.4}
        for epoch in range(1, 21)]


def gait(folder: Path, **changes: dict[str, Any]) -> list[str]:
    folder.mkdir()
    for name, change in {"well": {}, **changes}.items():
        text = "".join(json.dumps({**row, **change}) + "\n" for row in GAIT)
        (folder / f"{name}.jsonl").write_text(text)
    return [str(path) for path in sorted(folder.iterdir())]


def test_the_four_panels_of_a_run_with_their_thresholds(tmp_path: Path) -> None:
    (trial,) = read_study(gait(tmp_path / "g")).trials
    panels = {panel.title: panel for panel in panels_of(trial)}
    assert list(panels) == ["Training health", "Validation quality", "Mode collapse", "Shares of the loss"]
    assert dict(panels["Validation quality"].thresholds) == {"validation/knee_r_std": 0.1,
                                                             "validation/grf_vz_r_std": 10}
    assert [key for key, _ in panels["Validation quality"].bars] == ["validation/knee_healthy",
                                                                     "validation/grf_healthy"]
    assert [key for key, _ in panels["Shares of the loss"].stacked] == ["loss_ratio/simple", "loss_ratio/vel"]
    assert 'class="threshold' in panel_chart(panels["Validation quality"])
    assert panel_chart(panels["Shares of the loss"]).count("<polygon") == 2


def test_a_sweep_of_gait_runs_is_compared_by_performance_stability_and_speed(tmp_path: Path) -> None:
    sick = {"validation/knee_healthy": 0, "train/total_loss": 0.01}
    report = build_report(gait(tmp_path / "g", sick=sick))
    assert report.verdict.winner == "well.jsonl"
    assert {item.label: item.status for item in report.standings}["sick.jsonl"] == "unsound"
    rows = {row.title: [cell.text for cell in row.cells] for section in report.comparison.sections
            for row in section.rows}
    assert rows["Knee healthy at the end"] == ["1", "0"]
    assert rows["Training loss, smallest"] == ["0.0500", "0.0100"]
    assert rows["Epochs until the knee is healthy"] == ["4", "never"]
    assert rows["Epochs until the ground-reaction force is healthy"] == ["6", "6"]
    assert {"Training loss, slope", "Gradient norm, steadiness", "Distance to the averaged model, end"} <= set(rows)


def test_stage_two_runs_are_chosen_by_their_f1(tmp_path: Path) -> None:
    for name, f1 in (("a", 0.4), ("b", 0.6)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({
            "global_step/max_steps": f"{step}/30", "loss": 1.0 / step, "rollout/f1": 0.3,
            **({"eval_rollout_f1": f1 + step / 100} if step % 10 == 0 else {})}) + "\n" for step in range(1, 31)))
    report = build_report([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])
    assert (report.objective, report.verdict.winner) == ("eval_rollout_f1", "b.jsonl")
    assert report.standings[0].value == pytest.approx(0.9)


def test_many_trials_are_rows_that_the_page_makes_and_a_band_in_the_charts(tmp_path: Path) -> None:
    report = build_report(write_sweep(tmp_path / "s", {name: replace(trial, end="stopped", epochs=6, reason={
        "rule": "asha", "sentence": "cut"}) for name, trial in many(MOST_ROWS + 20).items()}))
    page = render_html(report)
    assert page.count('<th scope="row">t0') == 2 * MOST_ROWS
    assert len(table_rows(report)) == MOST_ROWS + 20
    assert report.curves[0].band
    assert len(report.curves[0].courses) <= 40
    assert len(report_dict(report)["standings"]) == MOST_ROWS + 20
    assert len(page) < 1_500_000


def test_a_report_is_verified_against_its_records(tmp_path: Path) -> None:
    app = _app()
    folder, target = write_sweep(tmp_path / "s"), tmp_path / "out.json"
    assert CliRunner().invoke(app, ["report", str(folder), "-o", str(target)]).exit_code == 0
    same = CliRunner().invoke(app, ["report", "--verify", str(target)])
    assert same.exit_code == 0
    assert "values are what its records say" in same.output
    metrics = folder / "trials" / "t0005" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"val/mse_loss":0.013', '"val/mse_loss":0.5').replace(
        '"val/mse_loss": 0.013', '"val/mse_loss": 0.5'))
    changed, _ = verify(target)
    assert any(item.where == "standings[0].mse" and item.now == "0.5" for item in changed)
    told = CliRunner().invoke(app, ["report", "--verify", str(target)])
    assert isinstance(told.exception, AnswerIsNo)
    assert "changed since it was made" in str(told.exception)


def test_what_is_no_report_cannot_be_verified(tmp_path: Path) -> None:
    for text, message in (("{", "is no JSON"), ("{}", "does not say what it was made from")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(BadInput, match=message):
            verify(tmp_path / "x.json")
    with pytest.raises(BadInput, match="no such file"):
        verify(tmp_path / "absent.json")


def test_a_report_stripped_of_what_it_says_is_changed(tmp_path: Path) -> None:
    folder, target = write_sweep(tmp_path / "s"), tmp_path / "out.json"
    told = json.loads(render_json(build_report(folder)))
    target.write_text(json.dumps({key: told[key] for key in ("sources", "asked")}))
    changed, _ = verify(target)
    assert {"verdict", "standings"} <= {item.where for item in changed}
    assert {item.said for item in changed} == {"nothing"}


@pytest.mark.parametrize("values", [
    {"asked": {"x": 1}}, {"asked": {"paths": "x"}}, {"asked": {"now": "x"}}, {"asked": {"baseline": 5}},
    {"sources": [5]}, {"sources": []}, {"asked": None}])
def test_a_report_says_what_it_was_made_from_or_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"sources": [str(tmp_path)], "asked": {}, **values}))
    with pytest.raises(BadInput, match=r"x\.json:(sources|asked).*: does not say what it was made from"):
        verify(tmp_path / "x.json")


def test_no_server_is_asked_because_a_file_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        (tmp_path / "x.json").write_text(json.dumps({"sources": [address], "asked": {}}))
        with pytest.raises(BadInput, match="no server is asked because a file says so; name that address too"):
            verify(tmp_path / "x.json")
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_baseline_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_sweep(tmp_path / "s")
    write_sweep(tmp_path / "t", {"t0001": Planted()})
    monkeypatch.chdir(tmp_path)
    made = build_report(folder, "t/trials/t0001")
    (tmp_path / "out.json").write_text(render_json(made))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert verify(tmp_path / "out.json")[0] == []


def _app() -> Any:
    import typer

    app = typer.Typer()
    register(app)
    return app


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_box_finds_by_word_and_by_value_and_a_heading_sorts_all_rows(tmp_path: Path) -> None:
    probe = """<script>
      const table = document.querySelector("#all-trials"), box = document.querySelector("input[type=search]");
      const first = () => table.tBodies[0].rows[0].cells[0].textContent;
      const count = () => document.querySelector("output[data-count]").textContent;
      const find = (text) => { box.value = text; box.dispatchEvent(new Event("input")); };
      const said = [];
      find("value>0.5 completed"); said.push(count());
      find("t0007"); said.push(count(), first());
      find("");
      [...table.querySelectorAll("th button")].find((button) => button.textContent === "Rank").click();
      said.push(first()); table.querySelectorAll("th button")[1].click(); said.push(first());
      document.title = said.join("; ");
    </script></body>"""
    trials = {name: replace(trial, epochs=2) for name, trial in many(MOST_ROWS + 10).items()}
    report = build_report(write_sweep(tmp_path / "s", trials))
    page = tmp_path / "r.html"
    page.write_text(re.sub(r"<meta http-equiv[^>]*>", "", render_html(report)).replace("</body>", probe))
    done = subprocess.run([str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                           f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
                          capture_output=True, text=True, timeout=300, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    above = sum((item.value or 0) > 0.5 for item in report.standings)
    best, worst = report.standings[0].label, report.standings[-1].label
    assert title[1] == f"{above} of 210 trials{', the first 200 shown' if above > 200 else ''}; 1 of 210 trials; " \
                       f"t0007; {best}; {worst}"
    assert not re.findall(r".*CONSOLE.*", done.stderr)
