"""What a report concludes: four arms of another trainer as their published comparison has them, and our own sweeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from build_records import Planted, confirmed, write_run, write_sweep
from four_arms import write_arm, write_four

from analysis.decision import production
from analysis.decision.checklist import counted
from analysis.decision.decide import Decision
from analysis.promote import promote
from analysis.report.compare import Row
from analysis.report.render import render_html, render_json, render_markdown
from analysis.report.report import Report, build_report

ARMS = ("vq_gentle", "no_vq", "vq_refresh", "vq_no_refresh")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report([str(path) for path in write_four(tmp_path_factory.mktemp("four"))])


def row(report: Report, title: str) -> Row:
    return next(row for section in report.comparison.sections for row in section.rows if row.title == title)


def texts(report: Report, title: str) -> tuple[str, ...]:
    return tuple(cell.text for cell in row(report, title).cells)


def decision(report: Report) -> Decision:
    assert report.decision is not None
    return report.decision


# The published table, row by row: our row, its figures in the order of ARMS, our winners.
TABLE = [
    ("Epochs trained", ("30/30", "30/30", "22/80", "30/30"), {"vq_gentle", "no_vq", "vq_no_refresh"}),
    ("Training loss, end", ("8.38", "7.74", "9.26", "9.07"), {"no_vq"}),
    ("Validation loss, end", ("8.39", "7.75", "9.18", "8.99"), {"no_vq"}),
    ("Validation loss, best", ("8.37", "7.75", "8.66", "8.68"), {"no_vq"}),
    ("Effective rank of the context, start", ("2.30", "12.7", "6.40", "3.30"), set()),
    ("Effective rank of the context, end", ("7.50", "33.2", "1.40", "1.50"), {"no_vq"}),
    ("Effective rank of the target, end", ("10", "43.1", "2.90", "2.90"), {"no_vq"}),
    ("VQ usage, start", ("17.7 %", "–", "24.3 %", "17.7 %"), set()),
    ("VQ usage, minimum", ("9.8 %", "–", "1.7 %", "4.4 %"), {"vq_gentle"}),
    ("VQ usage, end", ("10.9 %", "–", "1.7 %", "4.4 %"), {"vq_gentle"}),
    ("VQ usage, trajectory", ("oscillating", "–", "collapsing", "collapsing"), set()),
]


@pytest.mark.parametrize(("title", "figures", "winners"), TABLE, ids=[title for title, *_ in TABLE])
def test_the_published_figures_and_who_is_best_by_them(four: Report, title: str, figures: tuple[str, ...],
                                                       winners: set[str]) -> None:
    assert four.comparison.columns == ARMS
    assert texts(four, title) == figures
    assert set(row(four, title).winners) == winners


def test_where_the_published_winner_does_not_follow_from_its_own_figures(four: Report) -> None:
    """There "VQ gentle" is named for stability, for the falling loss and for growing ranks.

    The arm without codes is as stable, falls as well, and its ranks of 33.2 and 43.1 grow too, so no row of words
    has a winner and the larger rank wins. "No spike" is of the arm without codes, whose loss never rises.
    """
    assert texts(four, "Effective rank of the context, trajectory")[:2] == ("growing", "growing")
    assert texts(four, "Effective rank of the target, trajectory")[:2] == ("growing", "growing")
    assert texts(four, "Validation loss, last five epochs")[:2] == ("stable", "stable")
    assert row(four, "Largest rise of validation loss").cells[2].text == "+18.5"
    assert row(four, "Largest rise of validation loss").cells[2].detail == "to 27.2, at epoch 13"
    assert four.comparison.may_win == ("vq_gentle",)
    assert four.verdict.winner == "vq_gentle"


def test_marks_say_what_the_rules_say(four: Report) -> None:
    assert row(four, "VQ usage, end").marks == ("watch", "", "bad", "bad")
    assert row(four, "Effective rank of the context, end").marks == ("good", "good", "bad", "bad")
    gap = next(found for section in four.comparison.sections for found in section.rows if "+8 %" in found.cells[0].text)
    assert gap.marks == ("watch", "", "bad", "bad")  # as the checklist calls 8 % close


def test_the_checklist_counts_close_as_close(four: Report) -> None:
    found = decision(four).requirements
    assert [item.status for item in found] == ["met"] * 5 + ["close"]
    assert counted(found) == "5 of 6 requirements met, 1 close"
    assert found[-1].evidence == "Validation loss 8.39 against 7.75 of no_vq: +8 % (close up to 10 %)"
    assert found[0].evidence == "Active codes: 75 to 136, 84 at the end"


def test_one_seed_is_no_go_by_the_gates_of_promotion(four: Report) -> None:
    made = decision(four)
    assert (made.go, made.headline) == (False, "NO-GO for vq_gentle: 1 gate not passed (confirmed)")
    assert [(gate.name, gate.passed) for gate in made.gates] == [
        ("finished", True), ("live", True), ("near_no_codes", True), ("confirmed", False)]
    assert "1 of 1 training of it ended sound" in made.readiness


def test_each_arm_says_what_went_well_what_did_not_and_what_blocks(four: Report) -> None:
    arms = {arm.label: arm for arm in decision(four).arms}
    gentle = arms["vq_gentle"]
    assert "VQ usage: 17.7 % → 10.9 %, between 9.8 % at epoch 17 and 17.7 %; oscillating." in gentle.well
    assert "Context effective rank: 2.30 → 7.50 (3.3×); growing." in gentle.well
    assert any("+8 % against no_vq (no codes), -9 % against vq_refresh, -7 % against vq_no_refresh" in text
               for text in gentle.well)
    assert any(text.startswith("Gradient norm: 6 to 15 (against 5 to 8 in no_vq") for text in gentle.well)
    assert [concern.blocking for concern in gentle.concerns] == [False]
    assert [concern.text for concern in arms["no_vq"].concerns if concern.blocking] == [
        "It has no discrete codes: a reference, not a candidate."]
    assert sum(concern.blocking for concern in arms["vq_refresh"].concerns) == 4
    assert any("early stopping at epoch 22" in concern.text for concern in arms["vq_refresh"].concerns)


def test_what_differs_between_arms_from_and_to(four: Report) -> None:
    arms = {arm.label: arm for arm in decision(four).arms}
    changes = {change.key: (change.before, change.after) for change in arms["vq_refresh"].changes}
    assert changes["commitment_cost"] == ("0.300", "0.150")
    assert changes["ema_decay"] == ("0.990", "0.950")
    assert changes["vq_refresh_interval"] == ("500", "3000")
    assert changes["relational_loss.weight"] == ("0.0500", "0.0250")
    assert arms["vq_gentle"].changes == ()


def test_the_production_run_has_reasons_ranges_and_a_duration(four: Report) -> None:
    made = decision(four).production
    assert made is not None
    assert (made.base, made.epochs) == ("vq_gentle", 80)
    reasons = {item.key: item.reason for item in made.settings}
    assert reasons["commitment_cost"].startswith("as in vq_gentle; with 0.300: vq_refresh collapsed, vq_no_refresh")
    assert reasons["epochs"] == "the longest budget here, that of vq_refresh"
    assert {"early stopping, patience", "checkpoint every"} <= set(reasons)
    expected = {item.key: item for item in made.expected}
    assert {"val_loss", "loss_mean.total", "context.effective_rank", "vq_usage_ratio"} <= set(expected)
    loss = expected["val_loss"]
    assert float(loss.hopeful) < float(loss.expected) < float(loss.cautious)
    assert made.lasts == "80 epochs at 12 s each: about 16 min."


def test_the_plan_names_limits_issues_and_the_next_command(four: Report) -> None:
    plan = decision(four).plan
    assert plan is not None
    limits = {(watch.metric, watch.limit, watch.ends_it) for watch in plan.watches}
    assert {("vq_usage_ratio", "below 0.08", True), ("context.effective_rank", "below 2", True),
            ("target.effective_rank", "below 4", True), ("change of val_loss", "above 2", True),
            ("context.effective_rank", "below 3", False)} <= limits
    assert plan.risk.startswith("Medium: it came near to what would end it: usage_collapsed")
    assert "the profile ends a run at +2" in plan.spike
    assert plan.issues[0].status == "holds here; not blocking"
    assert any(issue.status.startswith("seen in vq_refresh, vq_no_refresh") for issue in plan.issues)
    assert plan.commands[1].startswith("lam report ")
    assert "All 80 epochs, or its own early stopping." in plan.criteria


def test_three_seeds_of_each_arm_are_four_columns(tmp_path: Path) -> None:
    paths = [write_arm(tmp_path / f"{name}-{seed}", name, seed, shift) for name in ARMS
             for seed, shift in ((1, 0.0), (2, 0.02), (3, -0.02))]
    report = build_report([str(path) for path in paths])
    assert report.comparison.columns == tuple(f"{name}-1" for name in ARMS)
    assert report.verdict.winner == "vq_gentle-1"
    end = row(report, "Validation loss, end").cells[0]
    assert end.value == pytest.approx(8.39)
    assert (end.low, end.high) == (pytest.approx(8.3403, abs=1e-3), pytest.approx(8.4397, abs=1e-3))
    assert "3 of 3 trainings of it ended sound" in decision(report).readiness


def test_what_a_report_asks_for_is_what_lets_it_pass(tmp_path: Path) -> None:
    """Two further seeds ask for one more; with three of them another trainer's config is GO."""
    paths = [write_arm(tmp_path / f"gentle-{seed}", "vq_gentle", seed, shift)
             for seed, shift in ((1, 0.0), (2, 0.02), (3, -0.02), (4, 0.01))]
    short = decision(build_report([str(path) for path in paths[:3]]))
    assert short.headline == "NO-GO for gentle-1: 1 gate not passed (confirmed)"
    assert short.gates[-1].evidence.endswith(", asked are 3")
    assert short.gates[-1].remedy == "train it with 1 further seed by its own trainer and name those runs as well"
    assert decision(build_report([str(path) for path in paths])).headline == "GO for gentle-1"


def test_the_next_commands_of_runs_by_hand_lead_to_promotion(tmp_path: Path) -> None:
    for seed in (0, 101):
        write_run(tmp_path / f"run-{seed}", Planted(seed=seed), f"run-{seed}")
    first, second = (str(tmp_path / f"run-{seed}") for seed in (0, 101))
    made = decision(build_report([first, second]))
    assert made.headline == "NO-GO for run-0: 1 gate not passed (confirmed)"
    assert made.plan is not None
    again = [f"lam train {first}/config.yaml --set seed={seed} --run-dir {first}-{seed}" for seed in (102, 103)]
    assert made.plan.commands == (
        *again, f"lam promote {first} {second} {first}-102 {first}-103 -o production.yaml", "lam train production.yaml",
        "# meanwhile, in another terminal", "lam monitor runs/production --follow --alerts production.yaml")
    for seed in (102, 103):
        write_run(tmp_path / f"run-0-{seed}", Planted(seed=seed), f"run-0-{seed}")
    named = [first, second, f"{first}-102", f"{first}-103"]
    assert promote(named, tmp_path / "production.yaml").promoted
    assert decision(build_report(named)).headline == "GO for run-0"


def test_what_no_seed_mends_is_said_before_any_command(tmp_path: Path) -> None:
    plan = decision(build_report(write_sweep(tmp_path / "s", {
        "t0001": Planted(control=0.0, perplexity=1.0, mse=0.05)}))).plan
    assert plan is not None
    assert plan.commands[0] == "# live: choose a live trial with --trial, or sweep a space where codebooks stay alive"
    assert plan.commands[-1] == f"lam report {tmp_path / 's'}"


def test_the_same_seed_twice_is_no_second_seed(tmp_path: Path) -> None:
    paths = [write_arm(tmp_path / name, "vq_gentle", seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    report = build_report([str(path) for path in paths])
    assert [item.label for item in report.standings] == ["a", "b"]
    assert report.standings[0].seeds is not None
    assert report.standings[0].seeds.labels == ("a", "c")


def test_go_is_what_promotion_says(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", confirm=[confirmed("t0005", [0.45, 0.46, 0.47])])
    made = decision(build_report(sweep))
    assert (made.go, made.headline) == (True, "GO for t0005")
    assert promote(sweep, tmp_path / "production.yaml").promoted == made.go
    assert made.plan is not None
    assert made.plan.commands[0].startswith("lam promote ")


def test_no_winner_is_no_go_and_says_so(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s", {"t0001": Planted(control=0.0, perplexity=1.0, mse=0.05)})
    made = decision(build_report(sweep))
    assert not made.go
    assert made.headline == "NO-GO for t0001: 3 gates not passed (live, codebook, confirmed)"


def test_a_baseline_from_outside_is_an_arm_with_its_config(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s")
    write_run(tmp_path / "plain", Planted(mse=0.03, params={"embed_dim": 32, "commitment_weight": 0.25}), "plain")
    report = build_report(sweep, str(tmp_path / "plain"))
    arm = next(arm for arm in decision(report).arms if arm.label == "plain")
    assert ("embed_dim", "32", "64") in [(change.key, change.before, change.after) for change in arm.changes]
    assert any(course.label == "plain" for curve in report.curves for course in curve.courses)


def test_a_baseline_named_by_its_path_is_no_second_arm(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "s")
    report = build_report(sweep, str(sweep / "trials" / "t0001"))
    assert report.comparison.baseline == "t0001"
    assert [arm.label for arm in decision(report).arms].count("t0001") == 1


def test_the_decision_is_in_every_format(four: Report) -> None:
    page, text, data = render_html(four), render_markdown(four), json.loads(render_json(four))
    for part in ("NO-GO for vq_gentle: 1 gate not passed (confirmed)", "5 of 6 requirements met, 1 close"):
        assert part in page
        assert part.replace("_", "\\_") in text
    assert data["decision"]["requirements"][5]["status"] == "close"
    assert "## The production run" in text
    assert "## What to watch" in text


def test_time_is_of_the_whole_run_and_not_of_its_last_epoch(tmp_path: Path) -> None:
    """A record's `train_seconds` is of its epoch alone, its `seconds` of the run so far: 1.5 an epoch here."""
    report = build_report(write_sweep(tmp_path / "s", {"t0001": Planted()}))
    assert texts(report, "Time, validations included") == ("15 s",)
    assert row(report, "Seconds an epoch").cells[0].value == pytest.approx(1.5)
    production = decision(report).production
    assert production is not None
    assert production.lasts.startswith(f"{production.epochs} epochs at 1.50 s each")


@pytest.mark.parametrize(("stretch", "epochs", "patience", "why"), [
    (2, 40, 5, "the least that is advised; the longest wait for a new best here (2 epochs) is shorter"),
    (6, 8, 5, "the least that is advised; half of the run is shorter"),
    (6, 40, 9, "half as long again as the longest wait for a new best here (6 epochs)"),
    (20, 40, 20, "half as long again as the longest wait for a new best here (20 epochs), but at most half of the run"),
])
def test_the_reason_of_a_patience_is_the_one_that_decided(stretch: int, epochs: int, patience: int, why: str) -> None:
    assert production._why_patience(patience, stretch, epochs) == why
