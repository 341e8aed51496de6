"""What the documents of two other trainers say of their logs, row by row as in docs/other-trainers.md, by figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from other_logs import LIMIT, STEPS, gait, stage_one, stage_two

from analysis.monitor.monitor import examine
from analysis.read import foreign
from analysis.read.families import what_counts
from analysis.report.render import render_html
from analysis.report.report import Report, build_report
from record.health import columns, engine, profile


def rows(report: Report) -> dict[str, list[str]]:
    return {row.title: [cell.text for cell in row.cells] for section in report.comparison.sections
            for row in section.rows}


def concerns(report: Report, label: str) -> str:
    assert report.decision is not None
    arm = next(arm for arm in report.decision.arms if arm.label == label)
    return " ".join(concern.text for concern in arm.concerns)


def metric(report: Report, key: str) -> tuple[str, str, bool]:
    found = next(item for item in report.glossary if item.key == key)
    return found.formula, found.direction, found.in_loss


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("one")
    return build_report([str(stage_one(folder / "well" / "log.jsonl")),
                         str(stage_one(folder / "intruding" / "log.jsonl", intrusion=0.2)),
                         str(stage_one(folder / "losing" / "log.jsonl", lost=0.3))])


@pytest.fixture(scope="module")
def second_stage(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("two")
    return build_report([str(stage_two(folder / "well" / "log.jsonl")),
                         str(stage_two(folder / "endless" / "log.jsonl", f1=0.4, endless=True))])


def test_the_first_stage_is_ranked_by_the_evaluation_loss(first_stage: Report) -> None:
    assert (first_stage.objective, first_stage.maximise) == ("eval_loss", False)
    assert [item.label for item in first_stage.standings] == ["well", "losing", "intruding"]
    table = rows(first_stage)
    assert table["Evaluation loss, end"] == ["1.82", "1.87", "2.01"]  # the gate's weight is 0.2
    assert table["Text loss, end"] == ["0.710", "0.710", "0.900"]
    assert table["Coordinate loss, end"] == ["1.11", "1.16", "1.11"]


def test_both_ways_in_which_coordinate_slots_fail_are_named(first_stage: Report) -> None:
    table = rows(first_stage)
    assert table["Coordinates lost to text, end"] == ["0.0200", "0.300", "0.0200"]
    assert table["Coordinates in format slots, end"] == ["0.0100", "0.0100", "0.200"]
    assert "Coordinate slots are predicted as other tokens" in concerns(first_stage, "losing")
    assert "Coordinate slots lose probability" in concerns(first_stage, "losing")
    assert "Coordinate tokens intrude into text and format" in concerns(first_stage, "intruding")
    assert concerns(first_stage, "well") == ""


@pytest.mark.parametrize(("key", "in_loss"), [
    ("loss", True), ("base_ce/loss", True), ("coord_softce_w1/loss", True), ("coord_softce_w1/soft_ce", True),
    ("coord_softce_w1/w1", True), ("coord_softce_w1/gate", True), ("eval_base_ce/loss", True),
    ("base_ce/noncoord_tokens", False), ("base_ce/loss_per_sample", False), ("coord_softce_w1/coord_vocab_mass", False),
    ("coord_softce_w1/acc_top5", False), ("stage1/total_loss_per_sample_est", False), ("token_acc", False),
    ("coord_monitor/flip_coord_to_noncoord", False), ("desc_token_frac", False)])
def test_what_is_in_the_loss_is_what_the_document_says(first_stage: Report, key: str, in_loss: bool) -> None:
    assert metric(first_stage, key)[2] is in_loss


def test_the_page_says_what_is_in_the_loss(first_stage: Report) -> None:
    page = render_html(first_stage)
    assert '<th scope="col" class="text">In the loss</th>' in page


def test_the_second_stage_is_chosen_by_f1_and_higher_is_better(second_stage: Report) -> None:
    assert (second_stage.objective, second_stage.maximise) == ("eval_rollout_f1", True)
    assert second_stage.verdict.winner == "well"
    assert rows(second_stage)["F1, best"] == ["0.550", "0.350"]


def test_steps_that_reuse_a_rollout_are_no_rollout(second_stage: Report) -> None:
    """The last fresh rollout is of step 117; the steps after it repeat every figure as 0."""
    table, done = rows(second_stage), 117 / STEPS
    assert table["Tokens a second, end"] == ["400", str(8 * LIMIT // 4 // 1000) + ",024"]
    assert table["Generated tokens, end"] == ["200", str(LIMIT)]
    assert table["Dropped objects, end"] == ["0.0476", "0.0476"]
    shown = next(row for section in second_stage.comparison.sections if section.title.startswith("Rollouts")
                 for row in section.rows if row.title == "F1, end")
    assert shown.cells[0].value == pytest.approx(0.6 * (0.5 + 0.5 * done))


def test_what_the_second_stage_does_not_train_is_not_compared(second_stage: Report) -> None:
    keys = {item.key for item in second_stage.glossary}
    assert not keys & {"desc_token_acc", "desc_token_frac", "eval_loss"}
    assert "rollout/f1" in keys


def test_rollouts_that_never_end_are_told_with_the_remedy(second_stage: Report) -> None:
    told = concerns(second_stage, "endless")
    for sentence in ("Over a tenth of the rollouts are cut off", "Rollouts always stop at max_new_tokens",
                     "it stops at the limit of tokens"):
        assert sentence in told
    assert second_stage.decision is not None
    assert second_stage.decision.plan is not None
    assert concerns(second_stage, "well") == ""


def test_what_is_of_one_process_and_what_of_all_is_said(second_stage: Report) -> None:
    assert metric(second_stage, "rollout/f1")[0].endswith("Of one process alone.")
    assert metric(second_stage, "eval_rollout_f1")[0].endswith("Over all processes.")


@pytest.mark.parametrize("stage", [1, 2])
def test_every_formula_of_the_document_holds_in_the_constructed_log(tmp_path: Path, stage: int) -> None:
    path = (stage_one if stage == 1 else stage_two)(tmp_path / "log.jsonl")
    assert [item for item in examine(foreign.read(path)).judgement.findings if item.severity != "info"] == []


def test_a_search_that_cannot_confirm_by_itself_says_by_whom(second_stage: Report) -> None:
    assert second_stage.decision is not None
    (gate,) = [gate for gate in second_stage.decision.gates if gate.name == "confirmed"]
    assert gate.remedy == "train it with 3 further seeds by its own trainer and name those runs as well"


# ---- the comparison of a sweep of gait models: performance, then stability, then speed

@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("gait")
    return build_report([str(gait(folder / name / "history.jsonl", **how)) for name, how in (  # type: ignore[arg-type]
        ("well", {}), ("slower", {"epochs": 200}), ("collapsed", {"collapses": True}),
        ("exploding", {"explodes": True, "rate": 4e-4}), ("stalled", {"stalls": True, "rate": 1e-6}))])


def test_final_performance_decides_first(walks: Report) -> None:
    assert walks.verdict.winner == "well"
    assert walks.comparison.may_win == ("well", "slower")
    assert {item.label: item.status for item in walks.standings} == {
        "well": "live", "slower": "live", "collapsed": "collapsed", "exploding": "unsound", "stalled": "collapsed"}


TABLE = [
    ("Knee healthy at the end", {"well": "1", "collapsed": "0", "stalled": "0"}),
    ("Ground-reaction force healthy at the end", {"well": "1", "collapsed": "0", "stalled": "0"}),
    ("Training loss, smallest", {"well": "0.120", "slower": "0.150", "stalled": "0.900"}),
    ("Distance to the averaged model, end", {"well": "0.0100", "exploding": "2"}),
    ("Epochs until the knee is healthy", {"well": "100", "collapsed": "never"}),
    ("Epochs until the ground-reaction force is healthy", {"well": "100", "stalled": "never"}),
    ("Spread of samples, end", {"well": "0.800", "collapsed": "0.0500"}),
    ("Relative spread of batch losses, end", {"well": "0.200", "collapsed": "0.00833"}),
    ("Training loss, slope", {"stalled": "0"}),
]


@pytest.mark.parametrize(("title", "figures"), TABLE, ids=[title for title, _ in TABLE])
def test_each_row_of_the_comparison(walks: Report, title: str, figures: dict[str, str]) -> None:
    found = dict(zip(walks.comparison.columns, rows(walks)[title], strict=True))
    shown = {label: text for label, text in figures.items() if label in found}
    assert len(shown) >= 1
    assert {label: found[label] for label in shown} == shown


@pytest.mark.parametrize(("label", "problem", "remedy"), [
    ("collapsed", "at least three of its six signs hold", ""),
    ("exploding", "A gradient norm is above 100", "Lower the learning rate (4e-4 -> 1e-4) and clip gradients"),
    ("stalled", "The loss has not improved for 10 epochs in a row", "")])
def test_each_problem_of_the_document_is_told(walks: Report, label: str, problem: str, remedy: str) -> None:
    assert problem in concerns(walks, label)
    assert walks.decision is not None
    assert walks.decision.plan is not None
    assert remedy in json.dumps([item.action for item in walks.decision.plan.issues])


def test_the_four_panels_have_their_lines_bars_thresholds_and_areas(walks: Report) -> None:
    panels = {panel.title: panel for panel in walks.panels if panel.label == "well"}
    assert [key for key, _ in panels["Training health"].lines] == ["train/total_loss", "train/grad_norm_mean"]
    assert [key for key, _ in panels["Training health"].bars] == ["train/is_improving"]
    assert dict(panels["Validation quality"].thresholds) == {
        "validation/knee_r_std": 0.1, "validation/grf_vz_r_std": 10}
    assert [key for key, _ in panels["Mode collapse"].lines] == [
        "train/batch_loss_cv", "validation/gen_std", "model/ema_diff"]
    assert len(panels["Shares of the loss"].stacked) == 5


def test_the_report_and_the_rules_leave_out_the_same_values() -> None:
    """A step that does not say whether its rollout was fresh counts for neither."""
    records = [{"epoch": step, "rollout/f1": value, **flag} for step, (value, flag) in enumerate(
        [(0.5, {"rollout/buffer_reuse": 0}), (0.9, {}), (0.7, {"rollout/buffer_reuse": 1})], 1)]
    shown = [record.get("rollout/f1") for record in what_counts(records, "coordexp")]
    judged = engine.prepare(columns.of_records(records), profile.load("coordexp")).columns["rollout/f1"]
    assert shown == [0.5, None, None]
    assert [None if math.isnan(value) else value for value in judged] == shown
