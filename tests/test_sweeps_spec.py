"""The sweep YAML: what is accepted, and the text of what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from small_sweep import make_sweep

from record import yamlio
from record.errors import BadInput
from sweeps.commands.planning import plan
from sweeps.journal import folders
from sweeps.spec import checks
from sweeps.spec.load import load
from sweeps.spec.sections import Asha

GOOD: dict[str, Any] = {
    "name": "vq",
    "base": {"data_dir": "data/pong", "num_epochs": 100},
    "space": {"commitment_weight": {"loguniform": [0.02, 2.0]}, "num_embeddings": {"choice": [8, 12]},
              "quantizer": {"choice": ["ema", "vq"]},
              "ema_decay": {"uniform": [0.9, 0.999], "when": {"quantizer": "ema"}},
              "rollout_horizon": {"int": [1, 4]}},
    "scheduler": {"asha": {"max_epochs": 30, "grace_epochs": 2, "reduction_factor": 3}},
    "budget": {"trials": 40},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({**GOOD, **changes}))
    return path


def with_knob(name: str, knob: Any) -> dict[str, Any]:
    return {"space": {**GOOD["space"], name: knob}}


def test_a_good_spec_is_complete(tmp_path: Path) -> None:
    sweep = load(write(tmp_path))
    assert sweep.max_epochs == 30
    assert sweep.base.num_epochs == 30
    assert sweep.base.threads == 1
    assert sweep.spec.maximise
    assert sweep.spec.search.tpe is not None
    assert sweep.config({"commitment_weight": 1.5}).commitment_weight == 1.5


@pytest.mark.parametrize(("given", "first"), [({"max_epochs": 30}, 4), ({"max_epochs": 4}, 1), ({"max_epochs": 1}, 1),
                                              ({"max_epochs": 30, "grace_epochs": 1}, 1)])
def test_the_first_rung_is_an_eighth_of_the_training_unless_told(given: dict[str, int], first: int) -> None:
    assert Asha.model_validate(given).grace_epochs == first


def test_the_base_may_be_a_file_beside_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("data_dir: latents\nembed_dim: 256\n")
    (tmp_path / "latents").mkdir()
    sweep = load(write(tmp_path, base="run.yaml"))
    assert sweep.base.embed_dim == 256
    assert sweep.base.data_dir == str(tmp_path / "latents")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("low above high", with_knob("weight_decay", {"uniform": [2, 1]}),
     r"space.weight_decay: uniform: low 2.0 is above high 1.0; swap them"),
    ("log from 0", with_knob("weight_decay", {"loguniform": [0, 1]}), r"loguniform: low 0.0 is not above 0"),
    ("no choices", with_knob("embed_dim", {"choice": []}), r"choice has no values"),
    ("a choice twice", with_knob("embed_dim", {"choice": [64, 64]}), r"choice has 64 twice"),
    ("step too large", with_knob("weight_decay", {"uniform": [0, 1], "step": 2}),
     r"step 2.0 is larger than the range \[0.0, 1.0\]"),
    ("step 0", with_knob("weight_decay", {"uniform": [0, 1], "step": 0}), r"step: got 0.*greater than 0"),
    ("float bounds of an int", with_knob("num_codes", {"int": [1.5, 4]}), r"space.num_codes.int.0: got 1.5.*integer"),
    ("several workers of a part of a GPU", {"resources": {"gpu": 0.5, "workers": 2}},
     r"resources: got gpu 0.5 for each of 2 workers, which need a GPU of their own; use gpu: 1, gpu: 0 or workers: 1"),
    ("no worker", {"resources": {"workers": 0}}, r"resources.workers: got 0"),
    ("more workers than sequences", {**with_knob("batch_size", {"choice": [4, 64]}), "resources": {"workers": 8}},
     r"resources.workers: got 8, and a batch has 4 sequences, one for each worker at least \(the trial "),
    ("a word as bound", with_knob("weight_decay", {"uniform": ["low", 1]}), r"uniform.0: got 'low'"),
    ("a NaN bound", with_knob("weight_decay", {"uniform": [float("nan"), 1]}), r"uniform.0: got nan.*finite"),
    ("two kinds", with_knob("embed_dim", {"int": [8, 16], "choice": [8]}),
     r"got int and choice, expected exactly one of uniform, loguniform, int, logint, choice"),
    ("no kind", with_knob("embed_dim", {"step": 1}), r"got no kind, expected exactly one"),
    ("an unknown kind", with_knob("embed_dim", {"chioce": [8]}), r"chioce: unknown key; did you mean 'choice'\?"),
    ("no knobs", {"space": {}}, r"space: got \{\}"),
    ("an unknown knob", with_knob("comitment_weight", {"uniform": [0, 1]}),
     r"space.comitment_weight: is no key of a run config; did you mean 'commitment_weight'\?"),
    ("the epochs as knob", with_knob("num_epochs", {"int": [1, 9]}), r"cannot be swept: the scheduler's max_epochs"),
    ("a knob that the base fixes", {"base": {"num_embeddings": 16}},
     r"space.num_embeddings: is swept, and the base config fixes it at 16; take num_embeddings out of the base"),
    ("a corner that is no run", with_knob("embed_dim", {"choice": [256, 300]}),
     r"the point .*embed_dim=300.* is no valid run .*not divisible by head_dim 64.*narrow the range"),
    ("an inside that is no run", with_knob("embed_dim", {"int": [256, 512]}), r"the point .* is no valid run"),
    ("when that never holds", with_knob("weight_decay", {"uniform": [0, 1], "when": {"quantizer": "none"}}),
     r"space.weight_decay: is never active: its 'when' holds nowhere"),
    ("when on a later knob", {"space": {"ema_decay": {"uniform": [0.9, 0.99], "when": {"quantizer": "ema"}},
                                        "quantizer": {"choice": ["ema", "vq"]}}},
     r"ema_decay.when: 'quantizer' is chosen after ema_decay; write quantizer above ema_decay"),
    ("when on a typo", with_knob("weight_decay", {"uniform": [0, 1], "when": {"quantiser": "ema"}}),
     r"'quantiser' is no key of a run config; did you mean 'quantizer'\?"),
    ("none ranked by the objective", {"space": {"quantizer": {"choice": ["ema", "none"]}}},
     r"objective: got val/objective, which needs codes \(quantizer none has none\); the trial quantizer='none' would"),
    ("no such metric", {"objective": "val/objektive"}, r"got 'val/objektive', which is no metric; did you mean"),
    ("a metric of no direction", {"objective": "val/mse_copy"}, r"no validation metric with a direction"),
    ("a training metric", {"objective": "train/loss"}, r"no validation metric with a direction"),
    ("an objective that no training measures", {"objective": "val/probe_accuracy"},
     r"objective: got 'val/probe_accuracy', which 'lam evaluate' measures and no training does; use val/objective"),
    ("a constraint that no training measures", {"constraints": {"val/probe_accuracy": {"least": 0.5}}},
     r"constraints: got 'val/probe_accuracy', which 'lam evaluate' measures and no training does"),
    ("a constraint on codes among trials without",
     {"objective": "val/mse_loss", "constraints": {"val/dsnr": {"least": 1}},
      "space": {"quantizer": {"choice": ["ema", "none"]}}},
     r"constraints: got val/dsnr, which needs codes \(quantizer none has none\); the trial quantizer='none' would not"),
    ("a rollout's error among trials without one", {"objective": "val/rollout_loss"},
     r"objective: got val/rollout_loss, which needs a rollout \(set rollout_horizon to 2 or more\); the trial "),
    ("grace above max", {"scheduler": {"asha": {"max_epochs": 3, "grace_epochs": 5}}},
     r"scheduler.*grace_epochs 5 is above max_epochs 3"),
    ("an unknown scheduler key", {"scheduler": {"asha": {"max_epoch": 3, "max_epochs": 3}}},
     r"sweep.yaml:scheduler.asha.max_epoch: unknown key; did you mean 'max_epochs'\?"),
    ("an unknown scheduler", {"scheduler": "hyperband"}, r"scheduler: got 'hyperband'"),
    ("reduction factor 1", {"scheduler": {"asha": {"max_epochs": 3, "reduction_factor": 1}}},
     r"reduction_factor: got 1.*greater than 1"),
    ("two searchers", {"search": {"tpe": {}, "random": {}}}, r"search: expected exactly one of tpe, random"),
    ("no budget", {"budget": {}}, r"budget: says nothing, expected at least one of trials"),
    ("0 trials", {"budget": {"trials": 0}}, r"budget.trials: got 0.*greater than or equal to 1"),
    ("negative trials", {"budget": {"trials": -3}}, r"budget.trials: got -3"),
    ("trials as text", {"budget": {"trials": "many"}}, r"budget.trials: got 'many'"),
    ("an unknown key", {"buget": {"trials": 1}}, r"buget: unknown key; did you mean 'budget'\?"),
    ("a journal that is no URI", {"journal": "runs/journal"},
     r"sweep.yaml:journal: got 'runs/journal', expected a URI such as s3://bucket/prefix"),
    ("a credential in the journal's URI", {"journal": "s3://me:hunter2@bucket/p"},
     r"journal: holds a credential, which would be written into the sweep's records; give credentials in the env"),
    ("a word as scheduler", {"scheduler": "asha"},
     r"sweep.yaml:scheduler: got 'asha', expected a mapping of keys to values; for example {asha: {max_epochs: 30}}$"),
    ("a number as budget", {"budget": 40}, r"budget: got 40, expected a mapping.*; for example {trials: 40}$"),
    ("numbers as knobs", {"space": {"weight_decay": 0.1, "embed_dim": [64, 128]}},
     r"(?s)2 problems.* space.weight_decay: got 0.1, expected a mapping of keys to values; for example {uniform: "
     r"\[0, 1\]} or {choice: \[8, 16\]}\n  space.embed_dim: got \[64, 128\], expected a mapping"),
    ("a number as bound", {"constraints": {"val/mse_loss": 3}}, r"val/mse_loss: got 3.*; for example {most: 0.5}$"),
    ("no base", {"base": None}, r"sweep.yaml:base: got None, it should be a valid string or a mapping; it is the run "
                                r"YAML, relative to the sweep file, or the mapping itself$"),
    ("objectives that are no words", {"objective": ["val/objective", 2]}, r"objective.1: got 2, it should be a valid "),
    ("a choice that is a list", with_knob("embed_dim", {"choice": [[1]]}),
     r"choice.0: got \[1\], it should be a valid boolean or a valid integer or"),
    ("true hours", {"budget": {"hours": True}}, r"budget.hours: got True, it should be a valid number"),
    ("a journal that no store has", {"journal": "s4://x/y"},
     r"sweep.yaml:journal: got 's4://x/y', which no store has; it begins with one of s3, gs, gcs, abfs"),
    ("when on a value that never is",
     with_knob("weight_decay", {"uniform": [0, 1], "when": {"rollout_horizon": [2, 7]}}),
     r"space.weight_decay.when: rollout_horizon is never 7 in this space; take 7 out, or widen rollout_horizon$"),
    ("brackets without a rung", {"scheduler": {"asha": {"max_epochs": 9, "grace_epochs": 1, "reduction_factor": 3,
                                                        "brackets": 10}}},
     r"scheduler.asha.brackets: got 10, and only the first 2 have a rung before 9; ask for at most 2"),
    ("GPU hours without a GPU", {"budget": {"gpu_hours": 3}},
     r"sweep.yaml:budget.gpu_hours: got 3 alone, which is never spent, since resources.gpu is auto; set resources.gpu"),
    ("a million values for gp", {"search": "gp", **with_knob("warmup_steps", {"int": [0, 2000000]})},
     r"space.warmup_steps: has 2,000,001 values, with search gp at most 1,000,000 are dealt with; take a larger step"),
    ("a million steps for gp", {"search": "gp", **with_knob("weight_decay", {"uniform": [0, 1], "step": 1e-7})},
     r"space.weight_decay: has 10,000,001 values, with search gp"),
    ("a missing base file", {"base": "nowhere.yaml"}, r"base: got 'nowhere.yaml', no such file .*relative to"),
    ("a bad base", {"base": {"embed_dimm": 1}}, r"sweep.yaml:base.*embed_dimm: unknown key; did you mean 'embed_dim'"),
]


@pytest.mark.parametrize(("changes", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        load(write(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "-dash", "a" * 101, "x\ny", "x\0y", "<b>", "a b"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yamlio.dump_mapping({**GOOD, "name": "NAME"}).replace("name: NAME", f"name: {json_text(name)}"))
    with pytest.raises(BadInput):
        load(path)


def json_text(text: str) -> str:
    import json

    return json.dumps(text)


def test_what_is_allowed_and_probably_not_meant_is_a_warning(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, **with_knob("weight_decay", {"uniform": [0.1, 0.1]})))
    assert checks.warnings(sweep) == [f"{tmp_path}/sweep.yaml:space.weight_decay: has one value only, 0.1"]


def test_gpu_hours_beside_another_limit_are_a_warning(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, budget={"gpu_hours": 3, "trials": 9}))
    assert checks.warnings(sweep) == [f"{tmp_path}/sweep.yaml:budget.gpu_hours: is never spent, since resources.gpu is "
                                      "auto; the sweep ends by another part of its budget"]
    assert checks.warnings(load(write(tmp_path, budget={"gpu_hours": 3}, resources={"gpu": 0.5}))) == []


def test_a_condition_may_name_the_base_where_its_knob_is_conditional_itself(tmp_path: Path) -> None:
    space = {**GOOD["space"], "weight_decay": {"uniform": [0, 1], "when": {"ema_decay": [0.99]}}}
    assert load(write(tmp_path, space=space)).spec.space["weight_decay"].when == {"ema_decay": [0.99]}
    space["ema_decay"] = {"uniform": [0.5, 0.6], "when": {"quantizer": "ema"}}
    assert load(write(tmp_path, space=space)).base.ema_decay == 0.99


def test_none_is_welcome_where_the_error_ranks(tmp_path: Path) -> None:
    sweep = load(write(tmp_path, objective="val/mse_loss", space={"quantizer": {"choice": ["ema", "none"]}}))
    assert not sweep.spec.maximise


@pytest.mark.parametrize("asked", [
    {"objective": "val/action_nmi"}, {"constraints": {"val/action_nmi": {"least": 0.1}}}])
def test_what_needs_labels_is_refused_where_the_data_hold_none(
    asked: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    sweep = load(write(tmp_path, **asked, base={"data_dir": str(tmp_path / "data")}))
    checks.check_data(sweep)
    for path in (tmp_path / "data").glob("*.h5"):
        with h5py.File(path, "a") as file:
            del file["actions"]
    with pytest.raises(BadInput, match="got val/action_nmi, which needs true actions in the files of the validation"):
        checks.check_data(sweep)


def test_the_fingerprint_ignores_where_and_how_fast(tmp_path: Path) -> None:
    base = load(write(tmp_path)).fingerprint()
    assert load(write(tmp_path, concurrency=2, storage="elsewhere")).fingerprint() == base
    assert load(write(tmp_path, seed=1)).fingerprint() != base


def test_another_sweep_under_the_same_name_is_refused_with_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "vq"
    folders.write_identity(load(write(tmp_path)), folder, "data")
    other = load(write(tmp_path, seed=5, **with_knob("weight_decay", {"uniform": [0, 1]})))
    with pytest.raises(BadInput) as caught:
        folders.check_same(other, folder)
    text = str(caught.value)
    assert "holds another sweep named 'vq'" in text
    assert "seed: 0 -> 5" in text
    assert "space.weight_decay.uniform: absent -> [0.0, 1.0]" in text
    assert "commitment_weight" not in text
    assert "give this sweep another name, or another folder with --storage" in text


def test_changed_data_is_refused(tmp_path: Path) -> None:
    sweep, folder = load(write(tmp_path)), tmp_path / "runs" / "vq"
    folders.write_identity(sweep, folder, "aaa")
    with pytest.raises(BadInput, match="was begun with data aaa, the data is now bbb"):
        folders.write_identity(sweep, folder, "bbb")


def test_a_folder_that_is_no_sweep_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "vq"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").touch()
    with pytest.raises(BadInput, match=r"is no sweep \(sweep.json is missing\) and holds thesis.tex"):
        folders.check_same(load(write(tmp_path)), folder)


def test_a_sweep_folder_opens_as_what_was_written(tmp_path: Path) -> None:
    sweep, folder = load(write(tmp_path)), tmp_path / "runs" / "vq"
    folders.write_identity(sweep, folder, "data")
    again, state = folders.open_sweep(folder)
    assert again.fingerprint() == sweep.fingerprint()
    assert state.trials == {}
    with pytest.raises(BadInput, match="holds no sweep"):
        folders.open_sweep(tmp_path)
    with pytest.raises(BadInput, match="nowhere: no such folder; name the folder that 'lam sweep launch' wrote"):
        folders.open_sweep(tmp_path / "nowhere")


def test_a_plan_bounds_the_epochs(tmp_path: Path) -> None:
    lines = plan(write(tmp_path), prepare=lambda configs: "data")
    assert "rungs at epochs 2, 6, 18 of 30; at least the best 1 in 3 goes on at each" in lines
    assert any(line.startswith(f"epochs: at least {40 * 2 + 4 + 12 + 12} (") and line.endswith("at most 1200")
               for line in lines)


def test_every_path_of_a_trial_is_absolute(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("one", "two"):
        (home / name).mkdir(parents=True)
    (home / "mine.yaml").write_text("name: mine\nabout: own rules\nrules: []\n")
    made = make_sweep(home, base={"data_dir": "one", "manifest_path": "mine.yaml", "health": {"profile": "mine.yaml"}})
    assert (made.base.data_dir, made.base.health.profile) == (str(home / "one"), str(home / "mine.yaml"))
    assert made.base.manifest_path == str(home / "mine.yaml")
    swept = make_sweep(home, base={"num_epochs": 2}, space={"data_dir": {"choice": ["one", "two"]}})
    assert swept.space_mapping() == {"data_dir": {"choice": [str(home / "one"), str(home / "two")]}}
    assert make_sweep(tmp_path / "other").base.health.profile == "lam"
