"""The comparison, the ledgers, importance and text: info objects compared by equality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from build_records import PLANTED, Planted, write_run, write_sweep

from analysis.judge.importance import importance
from analysis.judge.outcomes import Assessment, Compute, Stop, assess, compute_ledger, stop_ledger
from analysis.judge.ranking import rank
from analysis.judge.verdict import decide
from analysis.read.reading import Study, read_study
from analysis.report.compare import Cell, Row, choose_columns, compare


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(write_sweep(tmp_path_factory.mktemp("compare") / "pong"))


def _row(study: Study, title: str) -> Row:
    sections = compare(study, rank(study)).sections
    return next(row for section in sections for row in section.rows if row.title == title)


def test_columns_are_the_leaders_and_a_collapsed_one_for_contrast(study: Study) -> None:
    assert choose_columns(rank(study)) == ["t0005", "t0001", "t0003", "t0007", "t0002"]
    assert choose_columns(rank(study)[:3]) == ["t0005", "t0001", "t0003"]


def test_the_sections_are_those_of_a_four_way_comparison(study: Study) -> None:
    assert [section.title for section in compare(study, rank(study)).sections] == [
        "Completion and stability", "Losses", "Action quality", "Codebook health", "Cost"]


def test_the_dsnr_of_a_collapsed_run_says_nothing(study: Study) -> None:
    assert _row(study, "DSNR, kept") == Row(
        "DSNR, kept", "val/dsnr", (*[Cell(2.6, "2.60", "ok")] * 4, Cell(None, "7.70", "collapsed: says nothing")),
        (), "all 4 tie", "gates; never ranks")


def test_a_row_names_the_best_of_all_columns_by_its_own_direction(study: Study) -> None:
    made = compare(study, rank(study))
    assert (made.columns, made.may_win) == (("t0005", "t0001", "t0003", "t0007", "t0002"), ("t0005", "t0001", "t0003"))
    mse = _row(study, "Validation MSE, kept")
    assert [cell.value for cell in mse.cells] == pytest.approx([0.013, 0.02, 0.04, 0.001, 0.05])
    assert (mse.winners, mse.verdict) == (("t0007",), "t0007")
    epochs = _row(study, "Epochs trained")
    assert epochs.winners == ("t0005", "t0001")
    assert epochs.cells[2] == Cell(0.3, "3/10", "30 %")
    assert _row(study, "Validation MSE, start").verdict == "–"


def test_the_one_live_trial_wins_only_the_rows_in_which_it_is_best(tmp_path: Path) -> None:
    trials = {"t0001": Planted(control=0.3, mse=0.05), "t0002": Planted(control=0.0, perplexity=1.2, mse=0.01)}
    study = read_study(write_sweep(tmp_path / "s", trials))
    assert compare(study, rank(study)).may_win == ("t0001",)
    assert _row(study, "Validation loss, end").winners == ("t0002",)
    assert _row(study, "Control, kept").winners == ("t0001",)


def test_codebook_use_shows_start_fewest_and_end(study: Study) -> None:
    ends = [(_row(study, f"Codes in use, {when}").cells[4].text) for when in ("start", "fewest", "end")]
    assert ends == ["3/12", "1/12", "1/12"]


def test_rows_that_nobody_measured_are_left_out(study: Study) -> None:
    titles = {row.title for section in compare(study, rank(study)).sections for row in section.rows}
    assert not titles & {"Probe accuracy, kept", "Rollout loss, end", "Mean over fresh seeds"}


def test_the_largest_rise_is_between_two_validations(study: Study) -> None:
    trial = study.trial("t0001")
    assert trial is not None
    records = tuple({**record, "val/mse_loss": mse} for record, mse in zip(
        trial.records, [0.08, 0.04, 0.06, None, 0.03, 0.03, 0.02, 0.02, 0.02, 0.02], strict=True))
    bumpy = replace(study, trials=(replace(trial, records=records),))
    assert _row(bumpy, "Largest rise of validation MSE").cells == (Cell(pytest.approx(0.5), "+50 %", "epoch 3"),)
    assert _row(bumpy, "Validations that were not finite").cells == (Cell(1.0, "1"),)


def test_a_spike_of_the_whole_loss_is_a_rise(study: Study) -> None:
    """The codebook's part of the loss can rise alone."""
    trial = study.trials[0]
    records = tuple({**record, "val/loss": loss} for record, loss in zip(
        trial.records, [0.1, 0.1, 27.2, *[0.1] * 7], strict=True))
    bumpy = replace(study, trials=(replace(trial, records=records),))
    assert _row(bumpy, "Largest rise of validation loss").cells[0].detail == "epoch 3"
    assert _row(bumpy, "Largest rise of validation MSE").cells[0].text == "none"


@pytest.mark.parametrize(("epochs", "told"), [
    (4, "0 (collapsed, not judged yet: that takes 2 validations in a row and epoch 5)"), (5, "1 (codebook_collapsed)")])
def test_a_collapse_that_is_not_judged_yet_is_said(study: Study, epochs: int, told: str) -> None:
    trial = study.trial("t0001")
    assert trial is not None
    records = tuple({"epoch": record["epoch"], "step": record["step"], "val/collapsed": 1, "val/mse_loss": 1 / number}
                    for number, record in enumerate(trial.records[:epochs], 1))
    cell, = _row(replace(study, trials=(replace(trial, records=records),)), "Health rules that hold at the end").cells
    assert f"{cell.text} ({cell.detail})" == told


def test_why_a_trial_stopped_early_is_shown(study: Study) -> None:
    trial = study.trial("t0005")
    assert trial is not None
    why = "val/objective has not improved on 0.4 by 0 or more in 3 validations"
    early = replace(trial, records=trial.records[:6], identity={**trial.identity, "stopped_early": why})
    alone = replace(study, trials=(early,))
    standing, = rank(alone)
    assert f"It stopped early: {why}." in assess(early, standing).facts
    assert _row(alone, "How it ended").cells[0].detail == "early_stopping"
    assert f"t0005 was stopped at epoch 6 of 10: {why}." in decide(alone, (standing,)).cautions


def test_a_reason_that_ends_in_a_full_stop_gets_no_second(study: Study) -> None:
    for trial, standing in ((study.trial(item.label), item) for item in rank(study) if item.label == "t0003"):
        assert trial is not None
        for sentence in ("It was cut.", "It was cut"):
            told = assess(replace(trial, reason={"rule": "asha", "sentence": sentence}), standing).concerns[0]
            assert told == "stopped: It was cut."


def test_a_baseline_is_shown_last_and_wins_the_rows_in_which_it_is_best(study: Study, tmp_path: Path) -> None:
    write_run(tmp_path / "seed", Planted(control=0.9, mse=0.026, perplexity=12), run_id="seed")
    baseline = read_study(tmp_path / "seed").trials[0]
    made = compare(study, rank(study), baseline)
    assert made.columns == ("t0005", "t0001", "t0003", "t0007", "t0002", "seed")
    assert made.baseline == "seed"
    rows = {row.title: row.winners for section in made.sections for row in section.rows}
    assert (rows["Control, kept"], rows["Validation MSE, kept"]) == (("t0007", "seed"), ("t0007",))
    assert made.may_win == ("t0005", "t0001", "t0003")
    assert made.against_baseline == ("t0005 against the baseline seed (live): val/objective 0.470 against 0.900; "
                                     "validation MSE of the ranked epoch 0.0130 against 0.0260 (-50 %).")


def test_every_stop_is_an_entry_with_its_sentence(study: Study) -> None:
    assert stop_ledger(study) == (
        Stop("t0002", "stopped", 5, "collapse", "1 code in use at epochs 4 and 5: slot perplexity 1 is below 1.5",
             value=1.0, cutoff=1.5, epochs_saved=5),
        Stop("t0003", "stopped", 3, "asha", "objective 0.11 at epoch 3 is below the cutoff 0.2 of 3 peers",
             rung=3, value=0.11, cutoff=0.2, peers=3, epochs_saved=7),
        Stop("t0004", "failed", 2, "nonfinite", "validation loss is not finite at epoch 2"),
    )


def test_a_spent_budget_saves_no_epochs(study: Study) -> None:
    cut = replace(study.trials[2], reason={"rule": "budget", "sentence": "spent", "epochs_saved": 7})
    assert [stop.epochs_saved for stop in stop_ledger(replace(study, trials=(cut,)))] == [0]


def test_compute_is_summed_over_trials(study: Study) -> None:
    compute = compute_ledger(study)
    assert compute == Compute(80, 54, 12, 27.0, 6.0, 81.0)
    assert compute.sentence == ("54 of 80 epochs were trained (68 %); stopping early saved 12 epochs, about 6 TFLOP "
                                "beside the 27 spent. The trials ran for 81 s in all.")


def test_a_collapsed_run_is_assessed_with_what_its_dsnr_is_worth(study: Study) -> None:
    standing = next(item for item in rank(study) if item.label == "t0006")
    trial = study.trial("t0006")
    assert trial is not None
    assert assess(trial, standing) == Assessment("t0006", "collapsed", (
        "Trained 10 of 10 epochs; completed.",
        "At epoch 10, whose checkpoint is kept: value -0.408, control 0 [-0.0600, 0.0600], codebook health 0.100, "
        "DSNR 5.10 (ok).",
        "Validation MSE 0.0600, 31 % below copying the last frame.",
        "Trajectories: validation MSE decreasing, control stable, slot perplexity slow decline.",
    ), (
        "It is ranked below every live trial: collapsed.",
        "At the last validation the slot perplexity is 1.20 and the joint perplexity 1.80: its DSNR of 5.10 says "
        "nothing, random codes are merely unfamiliar.",
        "abort: codebook_collapsed. The codes carry next to nothing (joint perplexity below 2, or slot perplexity "
        "below 1.5 of parallel slots), the decoder does not heed them, and the grace is over. Here val/collapsed is 1, "
        "at least 1 since epoch 9.",
        "warn: codebook_narrow. A slot uses fewer than an eighth of the K codes, counted by perplexity. Here "
        "val/perplexity_slot is 1.2, below 1.5 since epoch 9.",
        "warn: dead_codes. More than half of the codes are never used over the validation split. Here "
        "val/dead_codes / num_embeddings is 0.9167, above 0.5 since epoch 1.",
        "warn: control_not_shown. The interval of control reaches 0; other samples' codes may predict as well. Here "
        "val/control_low is -0.06, at most 0 since epoch 1.",
        "warn: actions_hardly_heeded. The true codes lower the error by less than 5 %; what the picture does by itself "
        "drowns what the actions do. Here val/control is 0, below 0.05 since epoch 1.",
    ))


def test_importance_needs_eight_finished_trials(study: Study) -> None:
    found = importance(study, rank(study))
    assert (found.shares, found.note) == ((), "Needs 8 finished trials, there are 6.")


def test_importance_finds_the_knob_that_matters(tmp_path: Path) -> None:
    trials = {
        f"t{n:04d}": Planted(control=0.1 + 0.05 * (n % 8), params={
            "commitment_weight": round(0.01 * 2 ** (n % 8), 4), "embed_dim": (64, 128)[n // 8 % 2],
            "quantizer": "ema", **({"ema_decay": 0.9} if n % 2 else {})})
        for n in range(16)
    }
    study = read_study(write_sweep(tmp_path / "s", trials))
    first, second = importance(study, rank(study)), importance(study, rank(study))
    assert first == second
    assert first.shares[0].knob == "commitment_weight"
    assert first.shares[0].share > 0.8
    assert sum(item.share for item in first.shares) == pytest.approx(1)
    assert first.note.endswith("have one value: quantizer, ema_decay.")
    assert "not what causes what" in first.note


def test_importance_takes_values_that_are_lists(tmp_path: Path) -> None:
    """Runs may differ in a list, such as val_at_tflops, and in a word or a flag."""
    paths = [write_run(tmp_path / str(n), Planted(control=0.1 + 0.05 * n), run_id=str(n), val_at_tflops=[n % 2 + 1.0],
                       normalize_codes=n < 4).path for n in range(8)]
    study = read_study(paths)
    found = importance(study, rank(study))
    assert {item.knob for item in found.shares} == {"val_at_tflops", "normalize_codes"}
    assert found.shares[0].knob == "normalize_codes"


def test_a_trial_without_any_record_is_no_obstacle(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", {"t0001": PLANTED["t0001"], "t0002": replace(PLANTED["t0007"], epochs=0)})
    study = read_study(folder)
    made = compare(study, rank(study))
    assert made.columns == ("t0001", "t0002")
    assert rank(study)[1].status == "unfinished"
