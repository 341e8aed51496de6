"""The optimizer step and what surrounds it: resuming, accumulation, precision, early stopping."""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from safetensors.torch import load_file

from lam.config import RunConfig, from_mapping
from lam.model.lam import LatentActionModel
from lam.sections import EarlyStopping
from lam.training import checkpoints, loop
from lam.training.patience import Patience
from lam.training.stepping import WeightAverage, rollout_anchor
from record.errors import BadInput
from record.run import RunFolder

CLOCK = {"seconds", "train_seconds", "train/samples_per_second"}
ENDLESS = {"patience": 1000}


def small(data: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "data_dir": str(data), "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 8, "patch_dim": 16,
        "codebook_dim": 8, "num_embeddings": 6, "sequence_length": 4, "batch_size": 8, "learning_rate": 3e-3,
        "warmup_steps": 2, "vq_refresh_interval": 2, "revive_below": 0.5, "rollout_prob": 0.5, "num_epochs": 2,
        "steps_per_epoch": 3, "eval_sequences": 16, "threads": 1, "device": "cpu", "sample_count": 0, "keep": "all",
    }
    return RunConfig(**(values | changes))


def finish(config: RunConfig, folder: Path,
           train: Callable[..., Any] = loop.train) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train to the end; the records without their times, and the last weights."""
    for _ in train(config, folder):
        pass
    records = RunFolder(folder).metrics()
    assert [record["epoch"] for record in records] == list(range(1, config.num_epochs + 1))
    timeless = [{key: value for key, value in record.items() if key not in CLOCK} for record in records]
    return timeless, load_file(folder / "checkpoints" / "last.safetensors")


def assert_same(first: tuple[Any, dict[str, torch.Tensor]], second: tuple[Any, dict[str, torch.Tensor]]) -> None:
    assert json.dumps(first[0]) == json.dumps(second[0])
    assert first[1].keys() == second[1].keys()
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


class Killed(Exception):
    """Stands in for the end of the process."""


def kill_after(run: loop.Run, last: int) -> None:
    """Train a run whose process ends right after this optimizer step."""
    step, steps = run.stepper.step, itertools.count(1)

    def killed(*batch: Any) -> dict[str, float]:
        values = step(*batch)
        if next(steps) == last:
            raise Killed
        return values

    run.stepper.step = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        list(loop.epochs(run))


@pytest.mark.parametrize(("changes", "steps"), [
    ({}, (2, 3, 5)), ({"checkpoint_steps": 1}, range(1, 7)),
    pytest.param({"checkpoint_steps": 2, "average_weights": 0.9, "quantizer": "vq"}, (1, 2, 5), marks=pytest.mark.long),
    pytest.param({"checkpoint_steps": 1, "accumulate_parts": 3, "early_stopping": ENDLESS, "quantizer": "rotation"},
                 (2, 4), marks=pytest.mark.long),
], ids=["epochs", "every step", "averaged, vq", "accumulated, patient"])
def test_killed_at_any_step_and_started_again_is_bit_equal(
    changes: dict[str, Any], steps: Iterable[int], tiny_data: Path, tmp_path: Path
) -> None:
    """Two epochs of three steps: killed before, at and after a checkpoint and the end of an epoch."""
    config = small(tiny_data, **changes)
    whole = finish(config, tmp_path / "whole")
    for last in steps:
        kill_after(loop.Run(config, RunFolder(tmp_path / str(last))), last)
        assert_same(finish(config, tmp_path / str(last)), whole)


@pytest.mark.parametrize(("minutes", "step"), [(1e-6, 4), (1000.0, 3)])
def test_the_state_is_saved_once_so_many_minutes_have_passed(
    minutes: float, step: int, tiny_data: Path, tmp_path: Path
) -> None:
    """Two epochs of three steps, killed in the fifth: after the fourth, or at the end of the first epoch."""
    config = small(tiny_data, checkpoint_minutes=minutes)
    run = loop.Run(config, RunFolder(tmp_path / "run"))
    kill_after(run, 5)
    state = checkpoints.load_state(run.folder.checkpoints, run.device)
    assert state is not None
    assert state["step"] == step
    assert_same(finish(config, tmp_path / "run"), finish(config.replace(checkpoint_minutes=None), tmp_path / "whole"))


def test_killed_between_record_and_state_writes_no_epoch_twice(
    tiny_data: Path, tmp_path: Path
) -> None:
    config = small(tiny_data)
    whole = finish(config, tmp_path / "whole")

    def kill() -> None:
        raise Killed

    run = loop.Run(config, RunFolder(tmp_path / "killed"))
    run._save_state = kill  # type: ignore[method-assign]
    with pytest.raises(Killed):
        list(loop.epochs(run))
    assert len(RunFolder(tmp_path / "killed").metrics()) == 1
    assert_same(finish(config, tmp_path / "killed"), whole)


@pytest.mark.nightly
def test_sigkill_in_an_epoch_and_the_same_call_again_is_bit_equal(tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, checkpoint_steps=1)
    program = f"""
import os, signal
from lam.training import loop
from lam.config import RunConfig
from record.run import RunFolder
run = loop.Run(RunConfig(**{config.mapping()!r}), RunFolder({str(tmp_path / "killed")!r}))
whole = run.stepper.step
def step(*batch):
    if run.stepper.number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*batch)
run.stepper.step = step
for _ in loop.epochs(run):
    pass
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == -9
    assert_same(finish(config, tmp_path / "killed"), finish(config, tmp_path / "whole"))


def test_two_runs_of_one_seed_are_bit_equal_and_another_seed_differs(tiny_data: Path, tmp_path: Path) -> None:
    first = finish(small(tiny_data), tmp_path / "a")
    assert_same(first, finish(small(tiny_data), tmp_path / "b"))
    other = finish(small(tiny_data, seed=1), tmp_path / "c")
    assert other[0][0]["train/loss"] != first[0][0]["train/loss"]


def test_accumulated_parts_log_the_big_batchs_loss_and_take_its_step(tiny_data: Path, tmp_path: Path) -> None:
    whole, whole_weights = finish(small(tiny_data, num_epochs=1), tmp_path / "whole")
    parts, parts_weights = finish(small(tiny_data, num_epochs=1, accumulate_parts=3), tmp_path / "parts")
    keys = [key for key, value in whole[0].items() if key.startswith("train/") and "update" not in key
            and value is not None]
    expected = pytest.approx({key: whole[0][key] for key in keys}, rel=1e-4, abs=1e-6)
    assert {key: parts[0][key] for key in keys} == expected
    for name, weight in whole_weights.items():
        torch.testing.assert_close(parts_weights[name], weight, rtol=1e-3, atol=1e-4)


def test_bf16_trains_near_float32_and_is_evaluated_in_float32(tiny_data: Path, tmp_path: Path) -> None:
    exact = finish(small(tiny_data), tmp_path / "float32")[0]
    short, weights = finish(small(tiny_data, precision="bf16"), tmp_path / "bf16")
    assert short[1]["train/loss"] != exact[1]["train/loss"]
    assert short[1]["train/loss"] == pytest.approx(exact[1]["train/loss"], rel=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in weights.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_recomputing_changes_no_number(tiny_data: Path, tmp_path: Path, precision: str) -> None:
    kept = finish(small(tiny_data, precision=precision), tmp_path / "kept")
    again = finish(small(tiny_data, precision=precision, recompute=True), tmp_path / "again")
    assert_same(kept, again)


def test_recomputing_keeps_no_activations_inside_blocks() -> None:
    """What the graph holds for the way back: far less, and not more for a wider MLP."""
    def held(**changes: Any) -> int:
        config = RunConfig(embed_dim=32, encoder_depth=4, decoder_depth=1, sequence_length=4, **changes)
        model = LatentActionModel(config, (16, 16, 16))
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model.encode(torch.randn(2, 4, 16, 16, 16))
        return sum(sizes)

    assert held(recompute=True) < 0.3 * held()


def test_averaged_weights_are_the_ones_that_are_kept(tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, average_weights=0.99, checkpoint_every=2)
    _, kept = finish(config, tmp_path / "run")
    plain = finish(small(tiny_data), tmp_path / "plain")[1]
    saved = load_file(tmp_path / "run" / "checkpoints" / "epoch-2.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in kept)
    assert not torch.equal(kept["decoder.head.weight"], plain["decoder.head.weight"])
    assert torch.equal(kept["quantizer.books.1.codes_KQ"], plain["quantizer.books.1.codes_KQ"])


def test_weight_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    model = LatentActionModel(RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, sequence_length=4), (16, 8, 8))
    average = WeightAverage(model, 0.5)
    before = model.decoder.head.bias.detach().clone()
    with torch.no_grad():
        model.decoder.head.bias += 1
    average.update(model, 1)  # (1 + 1) / (9 + 1) = 0.2 is below the final decay
    torch.testing.assert_close(average.model.decoder.head.bias, before + 0.8)
    average.update(model, 100)
    torch.testing.assert_close(average.model.decoder.head.bias, before + 0.9)


@pytest.mark.parametrize(("quantizer", "name"), [("fsq", "inward.weight"),
                                                 ("simvq", "books.1.book.code_transform.weight")])
def test_a_quantizers_trained_maps_are_averaged_and_its_codes_are_copied(quantizer: str, name: str) -> None:
    model = LatentActionModel(RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, sequence_length=4,
                                        quantizer=quantizer), (16, 8, 8))
    average = WeightAverage(model, 0.5)
    before = model.quantizer.get_parameter(name).detach().clone()
    with torch.no_grad():
        model.quantizer.get_parameter(name).add_(1)
        kept = [buffer for buffer in model.quantizer.state_dict() if buffer.endswith("usage_K")]  # fsq counts nothing
        for buffer in kept:
            model.quantizer.get_buffer(buffer).add_(1)
    average.update(model, 1)  # with decay 0.2
    torch.testing.assert_close(average.model.quantizer.get_parameter(name).detach(), before + 0.8)
    for buffer in kept:
        assert torch.equal(average.model.quantizer.get_buffer(buffer), model.quantizer.get_buffer(buffer))


def test_a_gradient_codebook_is_copied_into_the_average() -> None:
    model = LatentActionModel(RunConfig(embed_dim=16, encoder_depth=1, decoder_depth=1, sequence_length=4,
                                        quantizer="vq"), (16, 8, 8))
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.quantizer.books[2].codes_KQ[0] += 1  # a revival
    average.update(model, 1)
    assert torch.equal(average.model.quantizer.books[2].codes_KQ, model.quantizer.books[2].codes_KQ)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own doings
def test_compiled_training_gives_the_eager_numbers(tiny_data: Path, tmp_path: Path) -> None:
    short = {"num_epochs": 1, "rollout_horizon": 1}
    eager, _ = finish(small(tiny_data, **short), tmp_path / "eager")
    compiled, weights = finish(small(tiny_data, compile=True, **short), tmp_path / "compiled")
    assert compiled[0]["train/loss"] == pytest.approx(eager[0]["train/loss"], rel=1e-3)
    assert compiled[0]["val/mse_loss"] == pytest.approx(eager[0]["val/mse_loss"], rel=1e-3)
    assert not any("_orig_mod" in name for name in weights)


def test_compiling_without_a_compiler_is_refused(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BadInput, match=r"compile: got true, but there is no C\+\+ compiler here \(no-such-compiler"):
        finish(small(tiny_data, compile=True), tmp_path / "run")


def test_early_stopping_ends_a_run_that_gets_no_better(tiny_data: Path, tmp_path: Path) -> None:
    rule = {"metric": "val/mse_loss", "patience": 2, "min_delta": 10.0}
    config = small(tiny_data, num_epochs=9, early_stopping=rule)
    epochs = [record["epoch"] for record in loop.train(config, tmp_path / "run")]
    known = RunFolder(tmp_path / "run").identity()
    assert epochs == [1, 2, 3]  # the first is the best so far, two more do not improve on it by 10
    assert known["state"] == "finished"
    assert known["epoch"] == 3
    assert known["stopped_early"].startswith("val/mse_loss has not improved on ")
    assert known["stopped_early"].endswith(" by 10 or more in 2 validations")
    assert list(loop.train(config, tmp_path / "run")) == []


@pytest.mark.parametrize(("rule", "values", "stops_after"), [
    ({"metric": "val/mse_loss", "patience": 2}, [3, 2, 2, 2], 4),
    ({"metric": "val/mse_loss", "patience": 2}, [3, 4, 2, 5, 6], 5),
    ({"metric": "val/objective", "patience": 1}, [0.1, 0.2, 0.15], 3),
    ({"metric": "val/mse_loss", "mode": "max", "patience": 1}, [1, 2, 1], 3),
    ({"metric": "val/dsnr", "patience": 2}, [math.nan, 1.0, math.nan, math.nan], 4),
    ({"metric": "val/mse_loss", "patience": 2, "min_delta": 0.5}, [3, 2.6, 2.4, 2.3], None),
    ({"metric": "val/mse_loss", "patience": 2, "min_delta": 0.5}, [3, 2.6, 2.55, 2.5], 3),
])
def test_patience(rule: dict[str, Any], values: list[float], stops_after: int | None) -> None:
    patience = Patience(EarlyStopping(**rule))
    exhausted = []
    for value in values:
        patience.see(value)
        exhausted.append(patience.exhausted)
    assert (exhausted.index(True) + 1 if True in exhausted else None) == stops_after


@pytest.mark.parametrize(("rule", "message"), [
    ({"metric": "val/mse_los"}, "'val/mse_los' is no metric; did you mean 'val/mse_loss'"),
    ({"metric": "val/probe_accuracy"}, "metric val/probe_accuracy is measured by 'lam evaluate' only; watch val/obj"),
    ({"metric": "train/lr"}, "metric train/lr has no better direction of its own; set mode to min or max"),
])
def test_early_stopping_that_cannot_work_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_mapping({"early_stopping": rule}, source="run.yaml")


@pytest.mark.parametrize(("metric", "lacking", "message"), [
    ("val/dsnr", {"quantizer": "none"}, r"val/dsnr needs codes \(quantizer none has none\); watch val/objective"),
    ("val/quantization_error", {"quantizer": "fsq"}, "needs codes that lie among the embeddings"),
    ("model/ema_diff", {}, r"model/ema_diff needs averaged weights \(set average_weights\)"),
    ("train/rollout_loss", {"rollout_horizon": 1}, r"needs a rollout \(set rollout_horizon to 2 or more\)"),
])
def test_early_stopping_on_what_the_run_does_not_have_is_refused(
    metric: str, lacking: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        from_mapping({"early_stopping": {"metric": metric, "mode": "min"}, **lacking}, source="run.yaml")


def test_early_stopping_on_labels_that_the_data_do_not_have_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    for path in (tmp_path / "data").glob("*.h5"):
        with h5py.File(path, "a") as file:
            del file["actions"]
    config = small(tmp_path / "data", early_stopping={"metric": "val/action_nmi"})
    with pytest.raises(BadInput, match="got val/action_nmi, which needs true actions in the files of the validation"):
        next(loop.train(config, tmp_path / "run"))


def test_a_target_of_one_code_is_refused() -> None:
    with pytest.raises(BadInput, match=r"perplexity_target.*got 1.*above 1|perplexity_target: got 1"):
        from_mapping({"perplexity_target": 1}, source="run.yaml")


def test_the_loss_is_its_formula_on_the_logged_parts(tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, num_epochs=1, steps_per_epoch=6, rollout_weight=0.3)
    (record,), _ = finish(config, tmp_path)
    anchors = [rollout_anchor(config, 1, number) for number in range(6)]
    shares = {"train": sum(anchor is not None for anchor in anchors) / 6, "val": config.rollout_prob}
    assert 0 < shares["train"] < 1
    for split, share in shares.items():
        total = record[f"{split}/mse_loss"] + record[f"{split}/vq_loss"]
        assert record[f"{split}/loss"] == pytest.approx(total + 0.3 * share * record[f"{split}/rollout_loss"])
        mae = record[f"{split}/mae_loss"] + record[f"{split}/vq_loss"]
        assert record[f"{split}/loss_mae"] == pytest.approx(mae + 0.3 * share * record[f"{split}/rollout_loss_mae"])


@pytest.mark.parametrize(("changes", "undefined"), [
    ({"rollout_horizon": 1}, {"train", "val"}), ({"rollout_prob": 0.0}, {"train"})])
def test_a_rollout_that_was_not_run_has_no_loss(
    changes: dict[str, Any], undefined: set[str], tiny_data: Path, tmp_path: Path
) -> None:
    (record,), _ = finish(small(tiny_data, num_epochs=1, steps_per_epoch=1, **changes), tmp_path)
    for split in ("train", "val"):
        for key in (f"{split}/rollout_loss", f"{split}/rollout_loss_mae"):
            assert (record[key] is None) == (split in undefined)
        assert record[f"{split}/loss"] == pytest.approx(record[f"{split}/mse_loss"] + record[f"{split}/vq_loss"])
    assert record["loss_ratio/rollout_loss"] == 0


@pytest.mark.parametrize(("keep", "kept"), [
    ("best", {"best.safetensors"}), ("last", {"last.safetensors"}),
    ("all", {"best.safetensors", "last.safetensors", "last.pt"}),
])
def test_a_finished_run_keeps_what_keep_says_and_its_state_only_where_all_is_kept(
    keep: str, kept: set[str], tiny_data: Path, tmp_path: Path
) -> None:
    config = small(tiny_data, keep=keep, checkpoint_every=2)
    for record in loop.train(config, tmp_path):
        assert (tmp_path / "checkpoints" / "last.pt").exists()
        assert (tmp_path / "checkpoints" / "epoch-2.safetensors").exists() == (record["epoch"] == 2)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == kept | {"epoch-2.safetensors"}


def test_best_weights_are_those_of_the_best_objective(tiny_data: Path, tmp_path: Path) -> None:
    config = small(tiny_data, num_epochs=4, checkpoint_every=1)
    records, _ = finish(config, tmp_path)
    best = max(records, key=lambda record: record["val/objective"])["epoch"]
    folder = tmp_path / "checkpoints"
    first, second = load_file(folder / "best.safetensors"), load_file(folder / f"epoch-{best}.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


class Disk(io.RawIOBase):
    """A file on a disk with little room."""

    def __init__(self, room: int) -> None:
        self.room = room

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


@pytest.mark.parametrize("room", [0, 1000, 400_000])
def test_a_full_disk_is_told_as_the_system_tells_it(room: int) -> None:
    """torch hides it behind an error of its own, and a sweep would take the trial for a failed one."""
    disk = Disk(room)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoints._save({"weights": torch.zeros(100_000)}, io.BufferedWriter(disk))
    disk.room = 10**9
