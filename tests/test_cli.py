"""The command line as a person meets it: help without heavy imports, one message for bad input, exit codes."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import typed
from interrupting import answer_ctrl_c

from record.errors import is_out_of_memory
from sweeps.journal import folders
from sweeps.spec.load import load

LAM = Path(sys.executable).parent / "lam"

RUN = """
data_dir: data
sequence_length: 4
embed_dim: 16
encoder_depth: 1
decoder_depth: 1
head_dim: 8
patch_dim: 16
codebook_dim: 8
batch_size: 8
steps_per_epoch: 2
num_epochs: 1
"""


def lam(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed, in a process of its own."""
    return subprocess.run([LAM, *words], cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def answer(folder: Path, *words: str) -> tuple[int, str]:
    """(exit code, standard error) of the same in this process."""
    found = typed.lam(folder, *words)
    return found.code, found.err


@pytest.fixture
def home(tmp_path: Path, tiny_data: Path) -> Path:
    shutil.copytree(tiny_data, tmp_path / "data")
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; sys.argv = ['lam', '--help']\n"
        "from lam.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'optuna', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("init", "train", "evaluate", "data", "sweep", "report", "promote"):
        assert command in done.stdout


def test_version(tmp_path: Path) -> None:
    assert lam(tmp_path, "--version").stdout == "lamsweep 0.1.0\n"


def test_misspelt_command_is_suggested(tmp_path: Path) -> None:
    code, told = answer(tmp_path, "trian", "run.yaml")
    assert code == 2
    assert "train" in told


def replace(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(path, "r+") as file:
        values = change(file["embeddings"][:])
        del file["embeddings"]
        file["embeddings"] = values


def with_nan(values: np.ndarray) -> np.ndarray:
    values[3, 2, 1] = np.nan
    return values


def first(home: Path) -> Path:
    return sorted((home / "data").glob("*.h5"))[0]


def truncate(home: Path) -> None:
    first(home).write_bytes(first(home).read_bytes()[:4000])


def without_dataset(home: Path) -> None:
    with h5py.File(first(home), "r+") as file:
        file.move("embeddings", "latents")


def yaml(text: str) -> Callable[[Path], object]:
    return lambda home: (home / "run.yaml").write_text(text)


BAD = {
    "missing folder": (yaml(RUN.replace("data_dir: data", "data_dir: nowhere")), ["nowhere", "no such folder"]),
    "empty folder": (lambda home: [path.unlink() for path in (home / "data").iterdir() if path.is_file()], ["data"]),
    "truncated": (truncate, ["breakout-0000.h5|pong-0000.h5", "truncated|cannot be"]),
    "missing dataset": (without_dataset, ["0000.h5", "embeddings", "latents"]),
    "wrong rank": (lambda home: replace(first(home), lambda values: values[0]), ["0000.h5", "embeddings"]),
    "wrong channels": (lambda home: replace(first(home), lambda values: values[:, :5]), ["0000.h5", "channel|5"]),
    "nan": (lambda home: replace(first(home), with_nan), ["0000.h5", "NaN|nan|finite"]),
    "unknown key": (yaml(RUN + "commitment_wieght: 1\n"), ["run.yaml:commitment_wieght: unknown key; did you mean "
                                                          "'commitment_weight'?"]),
    "out of range": (yaml(RUN.replace("batch_size: 8", "batch_size: 0")), ["run.yaml:batch_size: got 0"]),
    "list": (yaml("- data_dir: data\n"), ["run.yaml: holds a list, expected a mapping"]),
    "twice": (yaml(RUN + "num_epochs: 2\n"), ["run.yaml:13", "the key 'num_epochs' stands here twice"]),
    "word for a number": (yaml(RUN + "learning_rate: fast\n"), ["run.yaml:learning_rate: got 'fast'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_exit_2_and_nothing_written(home: Path, case: str) -> None:
    spoil, expected = BAD[case]
    spoil(home)
    code, told = answer(home, "train", "run.yaml", "--run-dir", "out")
    assert code == 2, told
    assert [line[:5] for line in told.splitlines()].count("lam: ") == 1, told
    for text in expected:
        assert any(choice in told for choice in text.split("|")), told
    assert not (home / "out").exists()


def test_bad_input_is_no_traceback(home: Path) -> None:
    truncate(home)
    done = lam(home, "train", "run.yaml", "--run-dir", "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_exponent_without_a_point_is_a_number(home: Path) -> None:
    (home / "run.yaml").write_text(RUN + "learning_rate: 1e-4\n")
    assert answer(home, "train", "run.yaml", "--run-dir", "out", "--set", "num_epochs=1")[0] == 0


def test_sweep_name_in_use_by_a_different_sweep(home: Path) -> None:
    text = "name: one\nbase: run.yaml\nspace: {commitment_weight: {uniform: [0.1, 0.2]}}\nbudget: {trials: 1}\n" \
           "scheduler: {asha: {max_epochs: 1}}\n"
    (home / "run.yaml").write_text(RUN.replace("num_epochs: 1\n", ""))
    (home / "sweep.yaml").write_text(text)
    with contextlib.chdir(home):
        sweep = load("sweep.yaml")
        folders.write_identity(sweep, folders.sweep_folder(sweep, None), "whatever the data")  # as a launch begins
    (home / "sweep.yaml").write_text(text.replace("0.2", "0.4"))
    code, told = answer(home, "sweep", "launch", "sweep.yaml")
    assert code == 2
    assert "one" in told
    assert "0.4" in told, "the difference is not named"
    assert "--storage" in told


@pytest.mark.long
def test_init_writes_configs_that_fit_each_other_and_overwrites_nothing(home: Path) -> None:
    for preset in ("full", "laptop"):
        assert answer(home, "init", preset, "--data", "data", "--preset", preset)[0] == 0
        written = sorted(path.name for path in (home / preset).iterdir())
        assert written == ["run.schema.json", "run.yaml", "sweep.schema.json", "sweep.yaml"]
    assert answer(home, "sweep", "plan", "laptop/sweep.yaml")[0] == 0
    code, told = answer(home, "init", "laptop")
    assert code == 2
    assert "laptop/run.yaml: exists already" in told
    (home / "laptop" / "sweep.yaml").unlink()  # as after Ctrl-C
    assert answer(home, "init", "laptop", "--data", "data", "--preset", "laptop")[0] == 0
    assert (home / "laptop" / "sweep.yaml").exists()


def test_unknown_preset_is_suggested(tmp_path: Path) -> None:
    code, told = answer(tmp_path, "init", "--preset", "lapotp")
    assert code == 2
    assert "did you mean 'laptop'?" in told
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path: Path) -> None:
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen([LAM, "data", "demo", tmp_path / str(code)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, preexec_fn=answer_ctrl_c)
        while not (tmp_path / str(code) / "demo.json").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=180)
        assert process.returncode == code
        assert err.endswith("lam: interrupted; give the same command again to go on\n")
        assert "Traceback" not in err


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert answer(tmp_path, "play", "s3://bucket/model") == (3, (
        "lam: this needs the package pyarrow, which is not installed; install lamsweep with all that it requires "
        "(pip install lamsweep)\n"))


def test_memory_that_runs_out_is_one_message_with_the_remedies_and_exit_3(home: Path) -> None:
    done = lam(home, "train", "run.yaml", "--run-dir", "out", "--set", f"patch_dim={1 << 43}")
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("lam: memory ran out (")
    assert done.stderr.endswith("); use a smaller batch_size, eval_batch_size, sequence_length or embed_dim, "
                                "accumulate_parts above 1 or recompute: true\n")


def test_codes_that_cannot_fit_are_refused_before_they_are_made(home: Path) -> None:
    done = lam(home, "train", "run.yaml", "--run-dir", "out", "--set", f"codebook_dim={1 << 43}")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("lam: the 12 codes of codebook_dim 8,796,093,022,208 take 786,432 GiB")
    assert done.stderr.endswith("use a smaller num_embeddings or codebook_dim\n")


def test_every_kind_of_memory_that_runs_out_is_known() -> None:
    for allocate in (lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50)):
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
