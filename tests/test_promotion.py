"""Promotion as a transaction: ledger, what was interrupted, runs trained by hand, overrides with reasons.

Kills at every write are in test_promotion_kills.py, gates in test_promotion_gates.py.
"""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typed
from build_records import EPOCHS, Planted, confirmed, write_run, write_sweep
from filelock import FileLock

from analysis.promote import Wish, promote, refusal
from analysis.promote.history import as_text, edits, roll_back, served, shown_at
from analysis.promote.ledger import Ledger
from lam import config
from record import files, yamlio
from record.errors import BadInput
from record.run import RunFolder

FRESH = [confirmed("t0005", [0.40, 0.45, 0.44])]
WAIVED = {"confirmed": "a test"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "pong", confirm=FRESH)


def _agree(target: Path) -> bool:
    """Whether file, ledger and the version on record are the same, with nothing under way."""
    ledger = Ledger(target)
    change = ledger.current()
    return ledger.pending() is None and not ledger.is_edited() and change is not None \
        and ledger.version_file(change.version).read_text() == target.read_text()


# ---- the ledger

def test_every_promotion_and_rollback_is_kept_and_the_file_agrees(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "production.yaml"
    promote(sweep, target)
    first = target.read_text()
    promote(sweep, target, trial="t0001", waivers=WAIVED)
    second = target.read_text()
    assert first != second
    said = roll_back(target, None, "the second one is noisy")
    assert said == f"{target} is version 1 again (t0005); version 2 is kept"
    assert target.read_text() == first
    roll_back(target, 2, "")
    assert target.read_text() == second
    assert [(change.begun.kind, change.version) for change in served(target)] == [
        ("promotion", 1), ("promotion", 2), ("rollback", 1), ("rollback", 2)]
    assert _agree(target)
    told = as_text(target, served(target))
    assert "rollback   version 1  back to version 1 (the second one is noisy)" in told[2]
    assert told[3].endswith("<- in production")


def test_what_was_in_production_at_a_moment(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "production.yaml"
    promote(sweep, target)
    first = target.read_text()
    begun = datetime.fromisoformat(served(target)[0].done_at)
    promote(sweep, target, trial="t0001", waivers=WAIVED)
    assert shown_at(target, begun.isoformat())[1] == first
    assert shown_at(target, None)[1] == target.read_text()
    with pytest.raises(BadInput, match=r"--at: got '.*', and the first promotion was done at"):
        shown_at(target, (begun - timedelta(days=1)).isoformat())
    with pytest.raises(BadInput, match="expected a date as ISO writes it"):
        shown_at(target, "yesterday")


def test_an_edit_by_hand_is_noticed_and_named(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "production.yaml"
    promote(sweep, target)
    promote(sweep, target, trial="t0001", waivers=WAIVED)
    target.write_text(target.read_text().replace("learning_rate: 0.0001", "learning_rate: 0.0002"))
    assert edits(Ledger(target)) == [f"{target} was edited by hand since version 2:", "  -learning_rate: 0.0001",
                                     "  +learning_rate: 0.0002"]
    with pytest.raises(BadInput, match="was edited since it was promoted; move it away"):
        roll_back(target, None, "")


@pytest.mark.parametrize(("to", "message"), [
    (7, "--to: got 7, expected another version than the one in production"),
    (1, "--to: got 1, expected another version"), (None, "has no version before the one in production")])
def test_there_is_nothing_to_roll_back_to(sweep: Path, tmp_path: Path, to: int | None, message: str) -> None:
    promote(sweep, tmp_path / "p.yaml")
    with pytest.raises(BadInput, match=message):
        roll_back(tmp_path / "p.yaml", to, "")
    with pytest.raises(BadInput, match="nothing was promoted to it"):
        served(tmp_path / "other.yaml")


def test_two_at_once_wait_or_are_refused(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    with FileLock(Ledger(target).folder / "lock"), \
            pytest.raises(BadInput, match="another promotion or rollback of it is at work; wait until it has ended"), \
            Ledger(target).held(wait=0.05):
        pass
    threads = [threading.Thread(target=promote, args=(sweep, target)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [change.begun.before for change in served(target)] == [None, 1, 2]
    assert _agree(target)


def test_a_file_from_before_the_ledger_becomes_its_first_version(sweep: Path, tmp_path: Path) -> None:
    import shutil

    target = tmp_path / "p.yaml"
    promote(sweep, target)
    before = target.read_text()
    shutil.rmtree(Ledger(target).folder)
    promote(sweep, target, trial="t0001", waivers=WAIVED)
    assert [change.begun.kind for change in served(target)] == ["adoption", "promotion"]
    roll_back(target, None, "")
    assert target.read_text() == before


@pytest.mark.parametrize("harm", ["edited", "deleted"])
def test_a_kept_version_that_is_no_more_what_was_served_is_not_served_again(sweep: Path, tmp_path: Path,
                                                                           harm: str) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    promote(sweep, target, trial="t0001", waivers=WAIVED)
    ledger, text = Ledger(target), target.read_text()
    first, second = ledger.version_file(1), ledger.version_file(2)
    first.write_text(first.read_text() + "# mine\n") if harm == "edited" else first.unlink()
    lines = ledger.file.read_text()
    said = "0001.yaml: is not what was served" if harm == "edited" else "0001.yaml: is gone"
    with pytest.raises(BadInput, match=said):
        roll_back(target, None, "")
    assert (ledger.file.read_text(), target.read_text()) == (lines, text)
    with ledger.held():  # begun before a version was lost: the next command is not stuck by it
        ledger.append("begun", kind="rollback", version=1, sha256=served(target)[0].begun.sha256, before=2,
                      before_sha256=ledger.hash_on_disk())
    promote(sweep, target)
    assert [entry.because for entry in ledger.entries() if entry.event == "abandoned"] == [
        "the copy of version 1 is gone or altered"]
    assert _agree(target)
    second.unlink()
    target.write_text(target.read_text() + "# mine\n")
    assert edits(ledger)[0].startswith(f"{target} was edited by hand since version 3:")


def test_a_ledger_without_changes_says_that_nothing_was_promoted(tmp_path: Path) -> None:
    with Ledger(tmp_path / "p.yaml").held() as ledger:
        ledger.append("tested", test={})
    for ask in (served, lambda file: shown_at(file, None)):
        with pytest.raises(BadInput, match="nothing was promoted to it"):
            ask(tmp_path / "p.yaml")


# ---- what was interrupted

def test_what_was_begun_is_finished_unless_the_file_was_edited_meanwhile(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    ledger, first = Ledger(target), target.read_text()
    new = first + "# next\n"
    files.write_text(ledger.version_file(2), new)
    from analysis.promote.ledger import digest
    for edited, wanted in ((False, new), (True, "mine: 1\n")):
        with ledger.held():
            ledger.append("begun", kind="promotion", version=2, sha256=digest(new.encode()), before=1,
                          before_sha256=ledger.hash_on_disk())
        if edited:
            target.write_text("mine: 1\n")
        with ledger.held():
            pass
        assert target.read_text() == wanted
    assert ledger.entries()[-1].event == "abandoned"


def test_a_torn_last_line_of_the_ledger_is_cut_off(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    with open(Ledger(target).file, "a") as file:
        file.write('{"seq": 3, "ev')
    promote(sweep, target)
    assert len(served(target)) == 2
    assert _agree(target)


# ---- the values of production

def test_overrides_come_with_from_what_and_why(sweep: Path, tmp_path: Path) -> None:
    asked = tmp_path / "wanted.yaml"
    asked.write_text("num_epochs: {value: 80, because: a full run}\ncheckpoint_every: 5\nearly_stopping:\n"
                     "  metric: val/mse_loss\n  patience: {value: 25, because: more room}\n  min_delta: 0.005\n")
    target = tmp_path / "p.yaml"
    result = promote(sweep, target, wish=Wish(overrides=asked))
    text = target.read_text()
    loaded = config.load(target)
    assert loaded.early_stopping is not None
    assert (loaded.num_epochs, loaded.checkpoint_every, loaded.early_stopping.patience) == (80, 5, 25)
    assert "\nnum_epochs: 80  # trial: 10; a full run (wanted.yaml)\n" in text
    assert "\n  patience: 25  # trial: none; more room (wanted.yaml)\n" in text
    assert "commitment_weight: 0.1  # base: " in text
    assert "t0005 has rank 1 by val/objective" in text
    values = yamlio.load_mapping(target)
    assert values["cost"]["seconds"] == 120
    mse = values["expected"]["ranges"]["val/mse_loss"]
    assert mse["basis"][0] in ("seeds", "steps")
    assert {"metric": "val/mse_loss", "comparison": "no_gain_for", "threshold": 45, "after_epoch": 5,
            "meaning": "20 epochs without gain beyond the patience of 25"} in values["aborts"]
    assert result.promoted


def test_the_difference_to_production_is_shown_and_nothing_written(sweep: Path, tmp_path: Path) -> None:
    code, out, _ = typed.lam(tmp_path, "promote", "pong", "-o", "p.yaml")
    assert code == 0
    before = sorted(path.name for path in tmp_path.rglob("*"))
    code, out, _ = typed.lam(tmp_path, "promote", "pong", "-o", "p.yaml", "--trial", "t0001", "--diff")
    assert code == 0
    assert "-commitment_weight: 0.1" in out
    assert "+commitment_weight: 0.25" in out
    assert "before: 0.1" in out
    assert "failed gates: confirmed" in out
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_wrong_override_is_named(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("num_epoch: 80\n")
    with pytest.raises(BadInput, match=r"num_epoch.*did you mean 'num_epochs'"):
        promote(sweep, tmp_path / "p.yaml", wish=Wish(overrides=tmp_path / "w.yaml"))
    assert not (tmp_path / "p.yaml").exists()


# ---- runs trained by hand

def _hand(folder: Path, seed: int, **changes: Any) -> Path:
    write_run(folder, Planted(**{"control": 0.45, "mse": 0.02, "seed": seed, **changes}), run_id=folder.name)
    return folder


def test_a_run_trained_by_hand_is_promoted_with_its_further_seeds_as_evidence(tmp_path: Path) -> None:
    runs = [_hand(tmp_path / f"vq_gentle{seed or ''}", seed, control=0.45 + seed / 1e4) for seed in (0, 101, 102, 103)]
    result = promote(runs, tmp_path / "p.yaml")
    assert result.promoted, refusal(result)
    assert result.trial == "vq_gentle"
    evidence = {gate.name: gate.evidence for gate in result.gates}
    assert evidence["confirmed"].startswith("3 fresh seeds, 3 live, mean 0.4")
    assert config.load(tmp_path / "p.yaml").seed == 0
    assert yamlio.load_mapping(tmp_path / "p.yaml")["expected"]["ranges"]["val/mse_loss"]["basis"][-1] == "seeds"
    assert not promote(runs[:2], tmp_path / "q.yaml").promoted


def test_copies_of_one_run_and_runs_on_other_data_are_no_fresh_seeds(tmp_path: Path) -> None:
    runs = [_hand(tmp_path / f"run{number}", 0) for number in range(4)]
    again = [_hand(tmp_path / f"again{number}", 101) for number in range(3)]
    other = [_hand(tmp_path / f"other{seed}", seed) for seed in (102, 103)]
    for run in other:
        RunFolder(run).update_identity(data_fingerprint="0ther0data00")
    for named, seeds in ((runs, "trained with one seed only"), ([runs[0], *again], "1 fresh seed,"),
                         ([runs[0], again[0], *other], "1 fresh seed,")):
        result = promote(named, tmp_path / "p.yaml", wish=Wish(trial="run0"))
        gate = next(each for each in result.gates if each.name == "confirmed")
        assert (result.promoted, gate.passed) == (False, False)
        assert gate.evidence.startswith(seeds), gate.evidence


def test_commands_as_a_person_types_them(sweep: Path, tmp_path: Path) -> None:
    assert typed.lam(tmp_path, "promote", "pong", "-o", "production.yaml")[0] == 0
    assert typed.lam(tmp_path, "promote", "pong", "-o", "production.yaml", "--trial", "t0001", "--waive", "confirmed",
                     "--because", "a try")[0] == 0
    code, out, _ = typed.lam(tmp_path, "promotions", "rollback", "--because", "worse")
    assert (code, out) == (0, "production.yaml is version 1 again (t0005); version 2 is kept\n")
    code, out, _ = typed.lam(tmp_path, "promotions", "list")
    assert [line.split()[2] for line in out.splitlines()] == ["promotion", "promotion", "rollback"]
    code, out, _ = typed.lam(tmp_path, "promotions", "list", "--json")
    assert json.loads(out)[2]["version"] == 1
    code, out, err = typed.lam(tmp_path, "promotions", "show")
    assert out == (tmp_path / "production.yaml").read_text()
    assert err.startswith("# version 1, in production since")
    code, _, err = typed.lam(tmp_path, "promotions", "list", "other.yaml")
    assert code == 2
    assert "nothing was promoted to it" in err


# ---- the four-way comparison of a published report: four runs made by hand, the gentle one promoted for 80 epochs

WISHES = """\
num_epochs: {value: 80, because: full run}
checkpoint_every: {value: 5, because: a state to go back to}
log_steps: {value: 100, because: twice as often as in the four runs}
early_stopping:
  metric: val/mse_loss
  patience: {value: 25, because: more room than 20}
  min_delta: {value: 0.005, because: tighter than 0.01}
"""


def test_four_runs_made_by_hand_end_in_the_production_run_that_a_person_planned(tmp_path: Path) -> None:
    arms = {"sixth": {"control": 0.0, "perplexity": 1.0, "mse": 0.05}, "no_vq": {"mse": 0.0185, "perplexity": 1.0},
            "no_refresh": {"control": 0.1, "perplexity": 1.6, "mse": 0.04}, "gentle": {"control": 0.45, "mse": 0.02}}
    knobs = {"sixth": {"commitment_weight": 0.3, "vq_refresh_interval": 500}, "no_vq": {"quantizer": "none"},
             "no_refresh": {"commitment_weight": 0.3, "vq_refresh_interval": 0},
             "gentle": {"commitment_weight": 0.15, "vq_refresh_interval": 3000}}
    runs = [_hand(tmp_path / name, 0, params=knobs[name], **arm) for name, arm in arms.items()]
    runs += [_hand(tmp_path / f"gentle-{seed}", seed, params=knobs["gentle"], **arms["gentle"]) for seed in (1, 2, 3)]
    (tmp_path / "wishes.yaml").write_text(WISHES)
    result = promote(runs, tmp_path / "p.yaml", wish=Wish(trial="gentle", overrides=tmp_path / "wishes.yaml"))
    assert result.promoted, refusal(result)
    evidence = {gate.name: gate.evidence for gate in result.gates}
    assert evidence["near_no_codes"] == "val/mse_loss 0.0200, 8 % over the 0.0185 of no_vq without codes, at most 25 %"
    text, values = (tmp_path / "p.yaml").read_text(), yamlio.load_mapping(tmp_path / "p.yaml")
    for line in ("num_epochs: 80  # trial: 10; full run (wishes.yaml)",
                 "  patience: 25  # trial: none; more room than 20 (wishes.yaml)",
                 "  min_delta: 0.005  # trial: none; tighter than 0.01 (wishes.yaml)",
                 "checkpoint_every: 5  # trial: none; a state to go back to (wishes.yaml)",
                 "log_steps: 100  # trial: none; twice as often as in the four runs (wishes.yaml)"):
        assert f"\n{line}\n" in text, text[:4000]
    watched = {(each["metric"], each["comparison"]) for each in values["alerts"] + values["aborts"]}
    assert {("val/perplexity_slot", "below"), ("val/collapsed", "above"), ("val/mse_loss", "rises_in_a_row"),
            ("train/loss", "rises_in_a_row"), ("val/loss", "changes_by"), ("val/mse_loss", "no_gain_for")} <= watched
    spikes = [each["threshold"] for each in values["alerts"] + values["aborts"] if each["comparison"] == "changes_by"]
    assert spikes[1] / spikes[0] == pytest.approx(2 / 1.5, rel=0.01), "told at 1.5, ended at 2"
    assert {"train/loss", "val/loss", "val/perplexity_slot"} <= set(values["expected"]["ranges"])
    assert values["expected"]["ranges"]["val/mse_loss"]["epochs"][-1] > EPOCHS
    assert values["cost"]["epochs"] == 80
