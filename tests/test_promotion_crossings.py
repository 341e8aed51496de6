"""Where promotion meets another feature: several sweeps, weights that were touched, other files, what is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typed
from build_records import Planted, confirmed, write_run, write_sweep

from analysis.promote import Wish, promote
from analysis.promote.history import as_text, roll_back, served, shown_at
from analysis.promote.ledger import Ledger, digest
from analysis.promote.registry import gathered
from record import yamlio
from record.errors import BadInput

FRESH = [confirmed("t0005", [0.40, 0.45, 0.44])]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "pong", confirm=FRESH)


def test_a_trial_of_the_second_of_two_sweeps_is_promoted_as_that_sweeps(tmp_path: Path) -> None:
    first, second = (write_sweep(tmp_path / name, confirm=FRESH) for name in "ab")
    for epochs, folder in ((70, first), (80, second)):
        known = json.loads((folder / "sweep.json").read_text())
        known["spec"]["production"] = {"num_epochs": epochs}
        (folder / "sweep.json").write_text(json.dumps(known))
        write_run(folder / "confirm" / "t0005" / "seed-101", Planted(control=0.47, perplexity=8.9, mse=0.013, seed=101),
                  run_id="seed-101")
    with pytest.raises(BadInput, match=r"got 't0005', which is in more than one of them; name a/t0005 or b/t0005"):
        promote([first, second], tmp_path / "p.yaml", wish=Wish(trial="t0005"))
    assert promote([first, second], tmp_path / "p.yaml", wish=Wish(trial="b/t0005")).promoted
    values = yamlio.load_mapping(tmp_path / "p.yaml")
    assert values["provenance"]["sweep_folder"] == str(second.resolve())
    assert values["num_epochs"] == 80
    assert values["expected"]["trainings"] == 10, "four living trials of each and a fresh seed of each, none twice"
    assert "# base: " in (tmp_path / "p.yaml").read_text()
    assert ((first / "promotion.json").exists(), (second / "promotion.json").exists()) == (False, True)


def test_the_command_for_fresh_seeds_names_the_trials_own_sweep(tmp_path: Path) -> None:
    first, second = (write_sweep(tmp_path / name) for name in "ab")
    result = promote([first, second], tmp_path / "p.yaml", wish=Wish(trial="b/t0005"))
    [gate] = [each for each in result.gates if each.name == "confirmed"]
    assert f"lam sweep confirm {second.resolve()} --top" in gate.remedy


def _with_weights(target: Path) -> Path:
    """Serve the version in production again, now with a file of weights; its path."""
    ledger = Ledger(target)
    with ledger.held():
        version, text = ledger.next_version(), target.read_text()
        file = ledger.model_folder(version) / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
        ledger.version_file(version).write_text(text)
        ledger.serve(kind="promotion", version=version, sha256=digest(text.encode()), trial="t0005",
                     weights={"folder": str(file.parent), "sha256": {"model.safetensors": digest(b"weights")}})
    return file


@pytest.mark.parametrize("altered", [b"other weights", None])
def test_weights_that_were_touched_are_named_and_neither_served_nor_mirrored(sweep: Path, tmp_path: Path,
                                                                             altered: bytes | None) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    file = _with_weights(target)
    assert as_text(target, served(target))[-1].endswith("<- in production")
    file.unlink() if altered is None else file.write_bytes(altered)
    said = "model.safetensors: gone or not what was promoted"
    assert as_text(target, served(target))[-1] == f"{file.parent}: {said}"
    (tmp_path / "room").mkdir()
    with pytest.raises(BadInput, match=said):
        gathered(Ledger(target), served(target)[-1], tmp_path / "room")
    roll_back(target, 1, "")
    kept = target.read_text()
    with pytest.raises(BadInput, match=said):
        roll_back(target, 2, "")
    assert target.read_text() == kept
    assert Ledger(target).pending() is None


def test_a_file_of_another_suffix_does_not_share_the_ledger(sweep: Path, tmp_path: Path) -> None:
    promote(sweep, tmp_path / "p.yaml")
    with pytest.raises(BadInput, match=r"ends in '\.yml', expected \.yaml"):
        promote(sweep, tmp_path / "p.yml")
    with pytest.raises(BadInput, match="nothing was promoted to it"):
        served(tmp_path / "p.yml")


@pytest.mark.parametrize("words", [("sync", "q.yaml", "--wandb", "offline"), ("snapshot", "q.yaml"),
                                   ("rollback", "q.yaml")])
def test_asking_of_a_file_that_nothing_was_promoted_to_leaves_nothing_behind(tmp_path: Path,
                                                                             words: tuple[str, ...]) -> None:
    code, _, err = typed.lam(tmp_path, "promotions", *words)
    assert (code, "q.yaml: nothing was promoted to it" in err) == (2, True), err
    assert not list(tmp_path.iterdir())


def test_the_time_that_the_list_shows_is_one_to_ask_for(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.yaml"
    promote(sweep, target)
    shown = as_text(target, served(target))[0].split()[1]
    assert shown_at(target, shown)[1] == target.read_text()


@pytest.mark.parametrize(("wishes", "message"), [
    ("alerts: 5", "w.yaml: alerts: got 5, expected a list; begin each line with a dash"),
    ("aborts: [{metric: val/los, comparison: above, threshold: 1, meaning: x}]",
     "w.yaml: aborts: got 'val/los', no such metric; did you mean 'val/loss'?"),
    ("alerts: [{metric: val/loss, comparison: above, threshold: high, meaning: x}]", "'high' is no number"),
    ("num_epochs: 80\nprovenance: {trial: mine}", "w.yaml: got provenance, which promotion writes; leave it out"),
])
def test_a_wish_that_would_be_silent_is_refused(sweep: Path, tmp_path: Path, wishes: str, message: str) -> None:
    (tmp_path / "w.yaml").write_text(wishes)
    code, _, err = typed.lam(tmp_path, "promote", "pong", "-o", "p.yaml", "--production", "w.yaml")
    assert (code, message in err) == (2, True), err
    assert not (tmp_path / "p.yaml").exists()


def test_show_says_that_the_file_is_no_more_that_version(sweep: Path, tmp_path: Path) -> None:
    promote(sweep, tmp_path / "production.yaml")
    served_text = (tmp_path / "production.yaml").read_text()
    (tmp_path / "production.yaml").write_text(served_text.replace("num_epochs: 10", "num_epochs: 11"))
    code, out, err = typed.lam(tmp_path, "promotions", "show")
    assert (code, out) == (0, served_text)
    assert "production.yaml was edited by hand since version 1" in err
    assert "+num_epochs: 11" in err


def test_a_difference_is_text(sweep: Path, tmp_path: Path) -> None:
    code, _, err = typed.lam(tmp_path, "promote", "pong", "-o", "p.yaml", "--diff", "--json")
    assert (code, "--diff and --json: got both" in err) == (2, True), err
