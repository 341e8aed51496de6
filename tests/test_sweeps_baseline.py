"""`lam sweep launch --baseline production.yaml`: what is in production is the first trial and the report's baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from build_records import confirmed, write_sweep
from small_sweep import make_sweep
from sweep_driver import options, spec, state_of

from analysis.promote import promote
from analysis.report.report import build_report
from record import files, yamlio
from record.errors import BadInput
from record.journal.events import BASELINE, Suggested
from sweeps.commands.launching import launch
from sweeps.journal.state import SweepState
from sweeps.search.baseline import in_production
from sweeps.views import display, summary


def _served(folder: Path, **changes: Any) -> Path:
    """A production YAML of a small sweep's base, with other values."""
    sweep = make_sweep(folder)
    return Path(files.write_text(folder / "production.yaml", yamlio.dump_mapping({
        **sweep.base.mapping(), **changes, "provenance": {"trial": "t0005", "sweep": "pong"}, "gates": [],
        "alerts": [{"metric": "val/loss", "comparison": "above", "threshold": 1.0, "meaning": "a test"}]})))


def test_its_knobs_are_productions_and_what_is_otherwise_is_said(tmp_path: Path) -> None:
    file = _served(tmp_path, weight_decay=0.25, num_epochs=80, early_stopping={"patience": 25},
                   health={"abort": True}, seed=7)
    found = in_production(make_sweep(tmp_path), file)
    assert found.params == {"weight_decay": 0.25}
    assert found.sentence == "in production: t0005 of pong, production.yaml"
    assert set(found.otherwise) == {"num_epochs", "seed", "health", "early_stopping"}
    [said] = found.warnings
    assert said.startswith("--baseline: trained by this sweep's ")
    event = found.event(make_sweep(tmp_path))
    assert (event.trial, event.reason and event.reason.rule) == ("t0001", BASELINE)
    found.check_begun(SweepState())


@pytest.mark.parametrize(("changes", "message"), [
    ({"weight_decay": 3.0}, "--baseline: has weight_decay 3.0, which this space does not hold; widen weight_decay"),
    ({"embed_dim": 32}, "no trial of this sweep is that config: embed_dim is 32 in production, "),
])
def test_what_no_trial_of_the_sweep_could_be_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        in_production(make_sweep(tmp_path), _served(tmp_path, **changes))
    assert message in str(caught.value)


def test_a_yaml_that_promotion_did_not_write_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "run.yaml"
    plain.write_text("weight_decay: 0.1\n")
    with pytest.raises(BadInput, match="was not written by 'lam promote'; name the YAML that is in production"):
        in_production(make_sweep(tmp_path), plain)


def test_a_sweep_that_has_begun_without_it_is_refused_and_one_that_began_so_goes_on(tmp_path: Path) -> None:
    found, state = in_production(make_sweep(tmp_path), _served(tmp_path, weight_decay=0.25)), SweepState()
    event = found.event(make_sweep(tmp_path))
    state.apply(event.model_copy(update={"seq": 1}))
    found.check_begun(state)
    other = SweepState()
    other.apply(Suggested(trial="t0001", params={"weight_decay": 0.3}).model_copy(update={"seq": 1}))
    with pytest.raises(BadInput, match=r'begun without it: its first trial is t0001 with {"weight_decay": 0.3}'):
        found.check_begun(other)


@pytest.mark.nightly
def test_it_is_trained_first_and_again_by_the_same_command(tmp_path: Path, ray_address: str,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    path = spec(tmp_path, space={"weight_decay": {"uniform": [0.0, 0.8]}}, budget={"trials": 3}, search="random",
                base={"data_dir": "nowhere", "seed": 1})
    file = tmp_path / "production.yaml"
    file.write_text(yamlio.dump_mapping({"data_dir": "elsewhere", "weight_decay": 0.5, "num_epochs": 80,
                                         "provenance": {"trial": "t0002", "sweep": "before"}, "gates": []}))
    asked = options(ray_address, baseline=str(file))
    launch(path, options=asked)
    said = "t0001 suggested weight_decay=0.5 (in production: t0002 of before, production.yaml)"
    assert said in capsys.readouterr().out.splitlines()
    folder = tmp_path / "runs" / "demo"
    state = state_of(folder)
    assert state.trials["t0001"].params == {"weight_decay": 0.5}
    assert state.trials["t0001"].asked == BASELINE
    assert state.trials["t0001"].results
    assert len(state.trials) == 3
    launch(path, options=asked)
    assert len(state_of(folder).trials) == 3


def test_the_report_compares_with_it_unless_another_is_named(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])
    assert build_report(folder).comparison.baseline is None
    _mark(folder, "t0001")
    found = build_report(folder)
    assert found.comparison.baseline == "t0001"
    assert "t0005 against the baseline t0001" in found.comparison.against_baseline
    assert build_report(folder, "t0006").comparison.baseline == "t0006"
    assert promote(folder, tmp_path / "p.yaml").trial == "t0005"


def _mark(folder: Path, trial: str) -> None:
    """Rewrite a sweep's journal so that a trial is the one in production."""
    why = {"reason": {"rule": BASELINE, "sentence": "in production"}}
    for file in folder.glob("journal-*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(files.json_line(
            line | (why if (line["event"], line.get("trial")) == ("suggested", trial) else {})) for line in lines))


def test_status_and_explain_say_which_trial_is_in_production(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    event, state = in_production(sweep, _served(tmp_path, weight_decay=0.25)).event(sweep), SweepState()
    state.apply(event.model_copy(update={"seq": 1}))
    assert summary.explain(sweep, state, "t0001")[0].startswith("t0001 (in production; weight_decay=0.25) has trained")
    assert display.line(event, sweep.max_epochs) == (
        "t0001 suggested weight_decay=0.25 (in production: t0005 of pong, production.yaml)")
