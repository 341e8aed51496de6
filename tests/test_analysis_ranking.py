"""Who wins and why, on planted facts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from build_records import EPOCHS, PLANTED, Planted, confirmed, write_run, write_sweep
from hypothesis import given
from hypothesis import strategies as st

from analysis.judge.judging import judge, kept_record
from analysis.judge.ranking import Confirmed, rank
from analysis.judge.verdict import Verdict, decide, differences
from analysis.read.reading import Study, Trial, read_study
from record.health import COLLAPSE_RULES


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(write_sweep(tmp_path_factory.mktemp("rank") / "pong"))


def test_live_trials_first_and_the_dead_never_win(study: Study) -> None:
    standings = rank(study)
    assert [(item.label, item.status) for item in standings] == [
        ("t0005", "live"), ("t0001", "live"), ("t0003", "live"), ("t0007", "unfinished"),
        ("t0008", "actions_ignored"), ("t0002", "collapsed"), ("t0006", "collapsed"), ("t0004", "nonfinite"),
    ]
    assert [item.eligible for item in standings] == [True] * 3 + [False] * 5


def test_the_verdict_says_why_with_numbers(study: Study) -> None:
    assert decide(study, rank(study)) == Verdict(
        winner="t0005",
        headline="t0005 wins with an objective of 0.470",
        sentence="t0005 wins: objective 0.470 (control 0.470 [0.410, 0.530] × health 1); next is t0001 with 0.400; "
                 "2 collapsed trials with raw DSNR up to 7.70 are ranked below every live one.",
        cautions=("The 95 % intervals of control of t0005 and t0001 overlap: one seed each does not tell them apart. "
                  "Confirm both with fresh seeds.",),
    )


def test_fresh_seeds_take_precedence(study: Study) -> None:
    fresh = replace(study, confirm={"t0001": confirmed("t0001", [0.39, 0.41]), "t0005": confirmed("t0005", [0.2, 0.3])})
    standings = rank(fresh)
    assert [item.label for item in standings[:3]] == ["t0001", "t0005", "t0003"]
    low, high = pytest.approx(0.35), pytest.approx(0.45)
    assert standings[0].confirmed == Confirmed((101, 102), (0.39, 0.41), 0.4, low, high, 2)
    assert decide(fresh, standings).sentence.startswith(
        "t0001 wins: mean objective 0.400 [0.350, 0.450] over 2 fresh seeds (in the sweep 0.400: control 0.400 "
        "[0.340, 0.460] × health 1); next is t0005 with 0.250 over 2 fresh seeds;")


def measured(folder: Path, asked: str, **by_trial: dict[str, Any]) -> tuple[str, ...]:
    """The cautions of a sweep whose records also hold these values."""
    for path in write_sweep(folder).glob("trials/*/metrics.jsonl"):
        more = by_trial.get(path.parent.name, by_trial["others"])
        path.write_text("".join(json.dumps(json.loads(line) | more) + "\n" for line in path.read_text().splitlines()))
        config = path.with_name("config.yaml")
        config.write_text(config.read_text().replace("objective_preset: control_health", f"objective_preset: {asked}"))
    found = read_study(folder)
    return decide(found, rank(found)).cautions


NO_LABELS = {"val/objective_preset": "control_health", "val/labelled_transitions": 0}
FEW = NO_LABELS | {"val/labelled_transitions": 40, "val/action_skill": 0.5}
ENOUGH = FEW | {"val/objective_preset": "action", "val/labelled_transitions": 300}
CONTROL = r"Control is how much the prediction heeds the codes, not what they mean; 'lam label \S+t0005 --ask' takes"


@pytest.mark.parametrize(("asked", "others", "said"), [
    ("auto", NO_LABELS, f"true actions was not checked: the validation split has none. {CONTROL} some."),
    ("auto", FEW | {"val/action_skill": None},
     f"not checked: the 40 that are scored tell nothing apart. {CONTROL} some."),
    ("auto", FEW, f"The order is not one of what the codes mean: the validation split's 40 true actions are too few. "
                  f"{CONTROL} more."),
    ("control_health", FEW, ""), ("auto", ENOUGH, ""),
])
def test_a_verdict_says_whether_codes_mean_something_and_by_how_many_labels(
        tmp_path: Path, asked: str, others: dict[str, Any], said: str) -> None:
    *cautions, last = measured(tmp_path / "sweep", asked, others=others)
    assert re.search(said, last) if said else not cautions, "of one seed each intervals overlap, which is said first"


def test_values_of_different_objectives_are_said_not_to_compare(tmp_path: Path) -> None:
    cautions = measured(tmp_path / "sweep", "auto", others=FEW, t0001=ENOUGH)
    assert any("not the same number for all (action for t0001, control health for t0005)" in each
               or "not the same number for all (control health for t0005, action for t0001)" in each
               for each in cautions), cautions


@pytest.mark.parametrize(("low", "cautions"), [
    (-0.02, ("On the same fresh seeds t0001 minus t0005 is 0.150 [-0.0200, 0.200]: "
             "the seeds do not tell them apart.",)),
    (0.1, ()),
])
def test_seeds_that_do_not_tell_the_first_two_apart_are_pointed_out(
        study: Study, low: float, cautions: tuple[str, ...]) -> None:
    entries = {"t0001": confirmed("t0001", [0.39, 0.41]), "t0005": confirmed("t0005", [0.2, 0.3])}
    pair = {"a": "t0001", "b": "t0005", "mean": 0.15, "low": low, "high": 0.2}
    fresh = replace(study, confirm=entries, differences=(pair,))
    assert decide(fresh, rank(fresh)).cautions == cautions
    assert differences(fresh)[0].tells_apart == (not cautions)


def test_a_config_that_dies_with_a_fresh_seed_comes_after_the_live_ones(study: Study) -> None:
    fresh = replace(study, confirm={"t0005": confirmed("t0005", [0.5, -0.3], live=1)})
    assert [(item.label, item.tier) for item in rank(fresh)[:3]] == [("t0001", 1), ("t0003", 1), ("t0005", 2)]


def test_no_live_trial_means_no_winner(tmp_path: Path) -> None:
    dead = {name: PLANTED[name] for name in ("t0002", "t0006", "t0008")}
    study = read_study(write_sweep(tmp_path / "s", dead))
    verdict = decide(study, rank(study))
    assert verdict == Verdict(None, "No winner", "No winner: none of 3 trials is live and finished "
                                                 "(1 actions ignored, 2 collapsed).")


def test_ties_go_to_the_lower_mse_then_the_label(tmp_path: Path) -> None:
    trials = {"t0001": Planted(mse=0.03), "t0002": Planted(mse=0.02), "t0003": Planted(mse=0.02)}
    study = read_study(write_sweep(tmp_path / "s", trials))
    assert [item.label for item in rank(study)] == ["t0002", "t0003", "t0001"]


def test_a_loss_as_objective_ranks_downwards_and_needs_no_codes(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", objective_key="val/mse_loss"))
    standings = rank(study)
    assert [item.label for item in standings if item.eligible] == ["t0005", "t0001", "t0003"]
    assert decide(study, standings).headline == "t0005 wins with a mse loss of 0.0130"


def test_several_objectives_rank_by_the_first_and_say_so(tmp_path: Path) -> None:
    study = read_study(write_sweep(tmp_path / "s", objective_key=["val/control", "val/mse_loss"]))
    assert decide(study, rank(study)).cautions[-1] == (
        "Several objectives were asked for. The order is by val/control alone, not by val/mse_loss.")


def test_a_stopped_winner_is_pointed_out(tmp_path: Path) -> None:
    trials = {"t0001": replace(PLANTED["t0003"], control=0.6), "t0002": PLANTED["t0001"]}
    study = read_study(write_sweep(tmp_path / "s", trials))
    assert decide(study, rank(study)).cautions == (
        "t0001 was stopped at epoch 3 of 10: objective 0.11 at epoch 3 is below the cutoff 0.2 of 3 peers.",)


def test_nobody_wins_over_trials_of_other_data(tmp_path: Path) -> None:
    trials = {"t0001": PLANTED["t0001"], "t0002": PLANTED["t0005"], "t0003": PLANTED["t0002"]}
    folder = write_sweep(tmp_path / "s", trials)
    path = folder / "trials/t0003/run.json"  # collapsed: it is out of the contest, and so is its data
    path.write_text(path.read_text().replace("d4ta0123cafe", "0ther"))
    study = read_study(folder)
    assert decide(study, rank(study)).winner == "t0002"
    path = folder / "trials/t0002/run.json"
    path.write_text(path.read_text().replace("d4ta0123cafe", "0ther"))
    study = read_study(folder)
    verdict = decide(study, rank(study))
    assert verdict.winner is None
    assert verdict.sentence == (
        "No winner: the live trials saw different data, on which their values do not compare (0ther: t0002; d4ta0123: "
        "t0001). Report each data's trials by themselves.")


def _trial(objectives: list[float | None], **config: object) -> Trial:
    records = tuple({"epoch": epoch, "val/objective": value, "val/mse_loss": 0.1, "val/collapsed": 0,
                     "val/dsnr_status": "ok", "val/control_low": 0.1} for epoch, value in enumerate(objectives, 1))
    return Trial("t", "t", Path(), "completed", config=dict(config), records=records)


@pytest.mark.parametrize(("keep", "epoch"), [("best", 2), ("last", 4), ("all", 2)])
def test_the_kept_epoch_follows_the_config(keep: str, epoch: int) -> None:
    record = kept_record(_trial([0.1, 0.5, None, 0.3], keep=keep))
    assert record is not None
    assert record["epoch"] == epoch


def test_the_kept_epoch_is_that_of_the_weights_whatever_the_sweep_ranks_by(tmp_path: Path) -> None:
    """MSE is best at the last epoch, val/objective, which best.safetensors follows, before the collapse."""
    trials = {"t0001": replace(PLANTED["t0001"], params={"keep": "all"}, collapsed_from=EPOCHS)}
    item = rank(read_study(write_sweep(tmp_path / "s", trials, objective_key="val/mse_loss")))[0]
    assert item.kept_epoch == EPOCHS - 1


def test_without_a_finite_value_the_last_validation_stands() -> None:
    assert kept_record(_trial([None, None])) == _trial([None, None]).records[-1]
    assert kept_record(_trial([])) is None
    assert judge(_trial([])).status == "no_result"


@pytest.mark.parametrize("rule", sorted(COLLAPSE_RULES))
def test_a_trial_stopped_for_collapse_is_collapsed_whatever_its_journal_calls_that(study: Study, rule: str) -> None:
    trial = study.trial("t0001")
    assert trial is not None
    assert judge(replace(trial, state="stopped", reason={"rule": rule})).status == "collapsed"


def test_a_run_that_collapsed_after_its_best_epoch_is_out() -> None:
    good = _trial([0.5, 0.6])
    assert judge(good).status == "live"
    dead = replace(good, records=(*good.records, {**good.records[-1], "epoch": 3, "val/objective": -0.4,
                                                  "val/collapsed": 1}))
    assert judge(dead).status == "collapsed"


def test_a_run_that_ignores_actions_only_at_the_end_is_judged_by_its_checkpoint() -> None:
    good = _trial([0.5])
    late = {**good.records[0], "epoch": 2, "val/objective": -0.4, "val/control_low": -0.01}
    assert judge(replace(good, records=(*good.records, late))).status == "live"
    assert judge(replace(good, records=(*good.records, late), config={"keep": "last"})).status == "actions_ignored"


@given(order=st.permutations(list(PLANTED)))
def test_the_order_does_not_depend_on_the_order_of_suggestion(study: Study, order: list[str]) -> None:
    shuffled = replace(study, trials=tuple(trial for name in order if (trial := study.trial(name))))
    assert [item.label for item in rank(shuffled)] == [item.label for item in rank(study)]


def test_a_single_run_is_ranked_too(tmp_path: Path) -> None:
    write_run(tmp_path / "r", Planted(), run_id="alone")
    study = read_study(tmp_path / "r")
    assert decide(study, rank(study)).sentence == (
        "alone wins: objective 0.400 (control 0.400 [0.340, 0.460] × health 1); no other trial is live.")
