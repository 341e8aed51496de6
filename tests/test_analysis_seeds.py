"""Several seeds of a config, and constraints, in standings, reports and gates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from build_records import PLANTED, Planted, confirmed, write_sweep

from analysis.judge.frames import load
from analysis.judge.ranking import OUTSIDE, Standing, rank
from analysis.judge.verdict import decide
from analysis.promote import promote, refusal
from analysis.read.reading import Study, read_study
from analysis.report.compare import compare
from analysis.report.render import render_html, render_markdown
from analysis.report.report import build_report
from record import yamlio


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """t0001 is best by its first seed, t0004 by the mean; t0005 and t0006 repeat it; one repeat of t0001 is worse."""
    def planted(control: float, **more: Any) -> Planted:
        return Planted(control=control, mse=0.02, params={"embed_dim": 64, "commitment_weight": 0.1}, **more)

    return write_sweep(tmp_path / "pong", {
        "t0001": planted(0.5, seed=0), "t0002": planted(0.2, seed=1, repeats="t0001"),
        "t0003": planted(0.2, seed=2, repeats="t0001"),
        "t0004": planted(0.4, seed=0), "t0005": planted(0.45, seed=1, repeats="t0004"),
        "t0006": planted(0.35, seed=2, repeats="t0004"),
    })


def _standing(study: Study, label: str) -> Standing:
    return next(item for item in rank(study) if item.label == label)


def test_several_seeds_of_a_config_are_one_standing(seeds: Path) -> None:
    study = read_study(seeds)
    assert [(item.label, item.rank) for item in rank(study)] == [("t0004", 1), ("t0001", 2)]
    found = _standing(study, "t0004").seeds
    assert found is not None
    assert (found.labels, found.seeds, found.live) == (("t0004", "t0005", "t0006"), (0, 1, 2), 3)
    # 4.303 is Student's t at 97.5 % with 2 degrees of freedom, 0.05 the standard deviation.
    reach = 4.303 * 0.05 / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((0.4, 0.4 - reach, 0.4 + reach), abs=1e-4)
    assert decide(study, rank(study)).sentence == (
        "t0004 wins: mean objective 0.400 [0.276, 0.524] over 3 seeds (control 0.400 [0.276, 0.524] × health 1); next "
        "is t0001 with 0.300 over 3 seeds.")
    assert decide(study, rank(study)).cautions == (
        "The 95 % intervals over the seeds of t0004 and t0001 overlap.",)


def test_a_config_is_one_column_and_its_trainings_are_rows_of_the_frame(seeds: Path) -> None:
    study = read_study(seeds)
    made = compare(study, rank(study))
    assert made.columns == ("t0004", "t0001")
    rows = {row.title: row for section in made.sections for row in section.rows}
    assert [(cell.text, cell.detail) for cell in rows["Objective, kept"].cells] == [
        ("0.400", "[0.276, 0.524]\n3 seeds"), ("0.300", "[-0.130, 0.730]\n3 seeds")]
    assert rows["Objective, kept"].winners == ("t0004",)
    frame = load(seeds)
    assert list(frame["config"]) == ["t0001"] * 3 + ["t0004"] * 3
    assert list(frame["seed"]) == [0, 1, 2] * 2
    assert list(frame["rank"]) == [2] * 3 + [1] * 3


def test_the_baseline_sentence_says_what_the_table_says(seeds: Path) -> None:
    study = read_study(seeds)
    assert compare(study, rank(study), study.trial("t0001")).against_baseline.startswith(
        "t0004 against the baseline t0001 (live): val/objective 0.400 against 0.300")


def test_a_seed_without_any_value_makes_the_config_as_unsound(tmp_path: Path) -> None:
    trials = {"t0001": replace(PLANTED["t0001"], seed=0),
              "t0002": replace(PLANTED["t0001"], control=0.9, seed=0),
              "t0003": replace(PLANTED["t0001"], seed=1, repeats="t0002", nonfinite_from=1, epochs=1, end="failed",
                               reason={"rule": "nonfinite", "sentence": "diverged"})}
    found = rank(read_study(write_sweep(tmp_path / "s", trials)))
    assert [(item.label, item.status) for item in found] == [("t0001", "live"), ("t0002", "nonfinite")]
    assert found[1].seeds is not None
    assert (found[1].seeds.live, found[1].seeds.mean, found[1].seeds.low) == (1, 0.9, None)


def test_the_report_lists_the_seeds(seeds: Path) -> None:
    report = build_report(seeds)
    row = "| t0004 | t0004 (0), t0005 (1), t0006 (2) | 0.400, 0.450, 0.350 | 0.400 | [0.276, 0.524] | 3 of 3 |"
    assert row in render_markdown(report)
    assert '<section id="repeated">' in render_html(report)
    facts = next(item for item in report.assessments if item.label == "t0004").facts
    assert ("It was trained with 3 seeds: t0004 (seed 0) 0.400, t0005 (seed 1) 0.450, t0006 (seed 2) 0.350; mean "
            "0.400 [0.276, 0.524], 3 live.") in facts
    assert {series.label for series in report.curves[0].courses} == {f"t{number:04d}" for number in range(1, 7)}


def test_one_dead_seed_makes_the_config_as_unsound(tmp_path: Path) -> None:
    trials = {"t0001": replace(PLANTED["t0001"], seed=0),
              "t0002": replace(PLANTED["t0001"], control=0.9, seed=0),
              "t0003": replace(PLANTED["t0001"], control=0.9, seed=1, repeats="t0002", collapsed_from=9)}
    study = read_study(write_sweep(tmp_path / "s", trials))
    assert [(item.label, item.status) for item in rank(study)] == [("t0001", "live"), ("t0002", "collapsed")]


def test_two_sweeps_of_one_folder_name_keep_their_seeds_together(seeds: Path, tmp_path: Path) -> None:
    other = write_sweep(tmp_path / "b" / "pong", {
        "t0001": replace(PLANTED["t0001"], seed=0), "t0002": replace(PLANTED["t0001"], seed=1, repeats="t0001")})
    standings = rank(read_study([seeds, other]))
    assert len(standings) == 3
    assert sorted(len(item.seeds.labels) for item in standings if item.seeds) == [2, 3, 3]


CONFIRMED = [confirmed("t0005", [0.40, 0.45, 0.44])]


@pytest.fixture
def limited(tmp_path: Path) -> Path:
    """t0005 has the best objective and too large a DSNR."""
    trials = {**PLANTED, "t0005": replace(PLANTED["t0005"], dsnr=5.0)}
    return write_sweep(tmp_path / "pong", trials, confirm=CONFIRMED, constraints={"val/dsnr": {"most": 3.0}})


def test_a_trial_outside_the_constraints_stands_behind_those_inside_and_is_named(limited: Path) -> None:
    report = build_report(limited)
    assert [(item.label, item.tier, item.eligible) for item in report.standings[:3]] == [
        ("t0001", 1, True), ("t0003", 1, True), ("t0005", OUTSIDE, False)]
    assert "; 1 live trial outside the sweep's constraints stands behind every one inside; " in report.verdict.sentence
    assert report.verdict.cautions[-1] == (
        "t0005 (0.470) is outside the sweep's constraints: val/dsnr 5 is outside at most 3 by 2.")
    told = "- t0005 is outside: val/dsnr 5 is outside at most 3 by 2"
    text = render_markdown(report)
    assert "Asked of every trial: val/dsnr at most 3." in text
    assert told in text
    assert told.removeprefix("- ") in render_html(report)


def test_promotion_refuses_a_trial_outside_unless_that_is_waived(limited: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    result = promote(limited, target, trial="t0005")
    assert not target.exists()
    assert refusal(result).splitlines()[:2] == [
        "t0005 is not promoted: 1 of 7 gates failed",
        "  constraints: val/dsnr 5 is outside at most 3 by 2; choose a trial inside the constraints with --trial, or "
        "search where they can be met"]
    assert promote(limited, target, "t0005", {"constraints": "only a demo"}).promoted
    gates = {gate["name"]: gate for gate in yamlio.load_mapping(target)["gates"]}
    assert (gates["constraints"]["passed"], gates["constraints"]["waived"]) == (False, "only a demo")


def test_a_checkpoint_outside_the_constraints_fails_although_an_earlier_epoch_was_inside(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "pong", confirm=CONFIRMED, constraints={"total_tflops": {"most": 4.5}})
    report = build_report(folder)
    assert (report.verdict.winner, report.standings[0].epoch, report.standings[0].kept_epoch) == ("t0005", 9, 10)
    assert "t0005 is ranked by epoch 9, and the checkpoint of epoch 10 is kept." in report.verdict.cautions
    assert ("constraints: inside at epoch 9, but kept is the checkpoint of epoch 10: total_tflops 5 is outside at most "
            "4.5 by 0.500") in refusal(promote(folder, tmp_path / "p.yaml"))


def test_without_one_inside_there_is_no_winner(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "pong", constraints={"val/dsnr": {"least": 100}})
    study = read_study(folder)
    verdict = decide(study, rank(study))
    assert verdict.winner is None
    assert verdict.sentence == (
        "No winner: none of 8 trials is live and finished and inside the sweep's constraints (3 live, 1 unfinished, "
        "2 collapsed, 1 actions ignored, 1 nonfinite).")
    assert verdict.cautions[0] == (
        "t0005 (0.470) is outside the sweep's constraints: val/dsnr 2.60 is outside at least 100 by 97.4.")


def test_a_repeat_that_is_named_is_judged_as_its_config(seeds: Path, tmp_path: Path) -> None:
    result = promote(seeds, tmp_path / "p.yaml", trial="t0006")
    assert result.reason.startswith(
        "t0006, which trains the config of t0004 again with another seed, was named by hand, rank 1 of 2.")
    assert "chosen by 3 seeds of the sweep, no fresh seeds in confirm.json" in refusal(result)
