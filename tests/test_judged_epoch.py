"""The report picks a training's epoch from columns, search and sweep from outcomes: by one rule."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from build_records import Planted, write_sweep

from analysis.judge import judging
from analysis.read.reading import read_study
from record import standing
from record.bounds import Bound


def test_columns_and_outcomes_name_the_same_epoch(tmp_path: Path) -> None:
    """Over ties, undefined values, collapsed epochs, constraints that hold or not, upwards and downwards."""
    study = read_study(write_sweep(tmp_path / "s", {"t0001": Planted(epochs=6)}))
    (planted,) = study.trials
    chance, sound, broken = random.Random(0), 0, 0
    for _ in range(300):
        objective = chance.choice(["val/objective", "val/mse_loss"])
        records = tuple({**record, objective: chance.choice([0.1, 0.2, 0.2, 0.3, None]),
                         "val/control": chance.choice([0.1, 0.3]), "val/collapsed": float(chance.random() < 0.4)}
                        for record in planted.records)
        limits = {"val/control": Bound(least=0.2)} if chance.random() < 0.5 else {}
        trial = replace(planted, records=records, limits=limits)
        epochs = [judging._epoch(trial, dict(record), objective) for record in trial.validated]
        expected = standing.judged(epochs, trial.workload.maximises(objective))
        found = judging.judge(trial, objective)
        assert found.epoch == (expected or epochs[-1]).epoch
        sound += expected is not None and standing.is_sound(expected.verdict)
        broken += expected is not None and expected.violation > 0
    assert 50 < sound < 300, "both kinds were drawn"
    assert broken > 10
