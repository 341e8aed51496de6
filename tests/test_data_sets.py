"""Data sets on stores: fetched once a machine, again where they changed, and the same as in a folder of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from s3_machine import send
from sweep_driver import spec
from typer.testing import CliRunner

from lam import cli
from lam.config import RunConfig, from_mapping
from lam.data import labels, windows
from lam.labelling import questions
from lam.training import loop
from lam.workload import LAM
from record.errors import BadData, BadInput, EnvironmentFailed
from record.run import RunFolder
from record.storage import copies, sets, store
from sweeps.spec.load import load
from sweeps.workers import cluster, probe

TINY = {"sequence_length": 3, "embed_dim": 16, "encoder_depth": 1, "decoder_depth": 1, "head_dim": 16, "patch_dim": 16,
        "codebook_dim": 8, "num_epochs": 2, "steps_per_epoch": 4, "batch_size": 4, "eval_sequences": 8,
        "sample_count": 0, "threads": 1, "device": "cpu", "warmup_steps": 2}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(uri: str, name: str, content: bytes, scratch: Path) -> None:
    (scratch / "sent").write_bytes(content)
    store.Store(uri).send(scratch / "sent", name)


@pytest.fixture
def pong(s3: str, tiny_data: Path) -> str:
    """The demonstration on an S3 server."""
    return send(tiny_data, f"{s3}/pong")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*")
            if file.is_file() and not file.relative_to(folder).as_posix().startswith(".")}


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_ctime_ns for name in contents(folder)}


# ---- fetching


def test_a_set_is_fetched_whole_and_once(pong: str, tiny_data: Path) -> None:
    folder = sets.brought(pong)
    assert contents(folder) == contents(tiny_data)
    assert folder.name == "pong"
    assert folder.parent.parent.stat().st_mode & 0o002 == 0
    before = times(folder)
    assert sets.brought(f"{pong}/") == folder
    assert times(folder) == before, "nothing was fetched again"
    assert sets.weight(pong) == sum(map(len, contents(tiny_data).values()))
    assert sets.brought(tiny_data) == tiny_data
    assert sets.weight(str(tiny_data)) == 0


def test_what_changed_what_is_new_and_what_is_gone(s3: str, tmp_path: Path) -> None:
    """An object of the same size in the same second is another one by its entity tag."""
    for name in ("a", "b", "deep/c", "deep/d"):
        write(s3, name, b"first", tmp_path)
    folder = sets.brought(s3)
    before = times(folder)
    write(s3, "a", b"other", tmp_path)
    write(s3, "new.gz", b"\x1f\x8b not unpacked", tmp_path)
    store.Store(s3).delete("deep/d")
    stat = (folder / "a").stat()
    listed = store.Store(s3).listed()["a"]
    os.utime(folder / "a", ns=(stat.st_atime_ns, listed.mtime_ns or 0))
    assert contents(sets.brought(s3)) == {"a": b"other", "b": b"first", "deep/c": b"first",
                                          "new.gz": b"\x1f\x8b not unpacked"}
    assert times(folder)["b"] == before["b"], "what stayed is not fetched again"


def test_an_object_whose_time_has_settled_is_asked_for_no_more(tmp_path: Path) -> None:
    there = tmp_path / "store"
    there.mkdir()
    (there / "a").write_text("first")
    old = (there / "a").stat().st_mtime_ns - 2 * copies.SETTLED_NS
    os.utime(there / "a", ns=(old, old))
    folder = sets.brought(there.as_uri())
    (there / "a").write_text("other")
    os.utime(there / "a", ns=(old, old))
    assert (sets.brought(there.as_uri()) / "a").read_text() == "first"
    (there / "a").write_text("third")
    assert (sets.brought(there.as_uri()) / "a").read_text() == "third"
    assert sets.brought(there.as_uri()) == folder


def test_a_copy_that_was_cut_off_or_damaged_is_made_whole(pong: str, tiny_data: Path) -> None:
    folder = sets.brought(pong)
    kept = sorted(contents(folder))
    (folder / kept[0]).unlink()
    (folder / kept[1]).write_bytes(b"cut")
    (folder / sets.TAGS).write_text("{")
    assert contents(sets.brought(pong)) == contents(tiny_data)


def test_what_is_hidden_at_the_top_is_somebodys_cache(s3: str, tmp_path: Path) -> None:
    for name in (".cache/index.json", "a.zarr/.zarray", "a.zarr/0.0"):
        write(s3, name, b"x", tmp_path)
    folder = sets.brought(s3)
    assert sorted(contents(folder)) == ["a.zarr/.zarray", "a.zarr/0.0"]
    (folder / ".cache").mkdir()
    (folder / ".cache/index.json").write_text("{}")
    before = times(folder)
    sets.brought(s3)
    assert (times(folder), (folder / ".cache/index.json").exists()) == (before, True)


CODE = "import sys; from record.storage import sets; print(sets.brought(sys.argv[1]))"


def test_processes_that_ask_at_once_fetch_once(pong: str, tiny_data: Path) -> None:
    """Each object was written once: its inode is that of the first look."""
    asked = [subprocess.Popen([sys.executable, "-c", CODE, pong], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0].strip() for process in asked}
    assert len(said) == 1
    (folder,) = map(Path, said)
    assert contents(folder) == contents(tiny_data)
    stats = [(folder / name).stat() for name in contents(folder)]
    assert max(stat.st_ctime for stat in stats) - min(stat.st_ctime for stat in stats) < 30
    assert list(folder.glob(".*.tmp")) == []


# ---- what is refused


def test_a_set_that_is_not_there_is_one_message(s3: str) -> None:
    with pytest.raises(BadInput, match=rf"{s3}/none:data_dir: holds no object; check the address, or copy"):
        sets.brought(f"{s3}/none")
    with pytest.raises(BadData, match="holds no object"):
        windows.check(RunConfig(data_dir=f"{s3}/none"))
    with pytest.raises(BadInput, match="s3://nobody/p:data_dir: there is no 'nobody'; create the bucket"):
        sets.brought("s3://nobody/p")


def test_a_disk_without_room_is_one_message(tmp_path: Path) -> None:
    sets.check_room(5 * 10**9, 6 * 10**9, tmp_path, "s3://x")
    said = rf"{tmp_path}: s3://x needs 5 GB more, and 4 GB are free; make room there, or let XDG_CACHE_HOME name"
    with pytest.raises(EnvironmentFailed, match=said):
        sets.check_room(5 * 10**9, 4 * 10**9, tmp_path, "s3://x")
    said = r"No space left on device \(copying s3://x\); make room there"
    with pytest.raises(EnvironmentFailed, match=said), copies.told("s3://x"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("place", "said"), [
    ("s3://key:word@bucket/p", "holds a credential"),
    ("http://host/p", "which no store has"),
    ("s3://bucket/p?secret_key=x", "holds a credential")])
def test_an_address_that_cannot_be_one_is_refused_with_the_config(place: str, said: str) -> None:
    with pytest.raises(BadInput, match=rf"test:data_dir: .*{said}"):
        from_mapping({"data_dir": place}, "test")
    with pytest.raises(BadInput, match=said):
        from_mapping({"data": [{"dir": place}]}, "test")


def test_an_address_that_names_a_server_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAM_JOURNALS", raising=False)
    with pytest.raises(BadInput, match="which names a server; name the bucket alone and the server in AWS_"):
        sets.brought("s3://bucket/p?endpoint_override=http%3A%2F%2Fevil")
    with pytest.raises(BadInput, match="a split file is read from a folder"):
        from_mapping({"data_dir": "s3://b/p", "manifest_path": "s3://b/m.json"}, "test")


def test_labels_are_not_given_to_data_on_a_store() -> None:
    with pytest.raises(BadInput, match=r"labels are kept beside the data, .* read only; write labels\.csv"):
        questions.begin(RunConfig(data_dir="s3://bucket/p"), "validation", 3)


# ---- use


def test_the_data_are_those_of_the_folder(pong: str, tiny_data: Path) -> None:
    there, here = (RunConfig(data_dir=place, **TINY) for place in (pong, str(tiny_data)))
    assert windows.data_fingerprint(there) == windows.data_fingerprint(here) == LAM.prepare([there])
    mixed = RunConfig(data=({"dir": pong, "name": "far"}, {"dir": str(tiny_data)}), **TINY)  # type: ignore[arg-type]
    assert windows.check(mixed).parts[0].reader.folder == sets.brought(pong)
    assert LAM.fetched([there, here, mixed]) == sets.weight(pong)


def test_a_training_on_a_store_is_that_on_the_folder(pong: str, tiny_data: Path, tmp_path: Path) -> None:
    clocks = ("seconds", "train_seconds", "train/samples_per_second")
    found = []
    for name, place in (("there", pong), ("here", str(tiny_data))):
        records = list(loop.train(RunConfig(data_dir=place, **TINY), tmp_path / name))
        found.append([{key: value for key, value in record.items() if key not in clocks} for record in records])
    assert found[0] == found[1]
    there, here = (RunFolder(tmp_path / name) for name in ("there", "here"))
    assert there.config()["data_dir"] == pong
    assert there.identity()["data_fingerprint"] == here.identity()["data_fingerprint"]
    assert str(copies.kept_in()) not in (there.path / "config.yaml").read_text() + (there.path / "run.json").read_text()


def test_a_run_does_not_go_on_with_data_that_changed_on_the_store(pong: str, tmp_path: Path) -> None:
    config = RunConfig(data_dir=pong, **TINY)
    epochs: Any = loop.train(config, tmp_path / "run")
    next(epochs)
    epochs.close()
    name = windows.open_split(config, "validation").files[0]
    write(pong, labels.FILE_NAME, f"file,frame,action\n{name},5,1\n".encode(), tmp_path)
    with pytest.raises(BadData, match=rf"{pong}: the data changed since this run began"):
        next(loop.train(config, tmp_path / "run"))


def test_what_is_wrong_with_a_file_is_said_by_its_address(pong: str, tmp_path: Path) -> None:
    write(pong, "pong-0003.h5", b"no HDF5", tmp_path)
    with pytest.raises(BadData, match=rf"{pong}/pong-0003.h5: "):
        windows.data_fingerprint(RunConfig(data_dir=pong, **TINY))
    store.Store(pong).delete("manifest.json")
    with pytest.raises(BadData, match=rf"{pong}/manifest.json: no such file; .* 'lam data manifest {pong}'"):
        windows.check(RunConfig(data_dir=pong))


def run(*words: str) -> str:
    result = CliRunner().invoke(cli.build(), list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_commands_about_data_take_an_address(pong: str, tmp_path: Path) -> None:
    store.Store(pong).delete("manifest.json")
    assert f"wrote {pong}/manifest.json: train 8, validation 1, test 1 files" in run("data", "manifest", pong)
    there = store.Store(pong).read("manifest.json")
    assert there is not None
    assert json.loads(there)["metadata"]["data_directory"] == pong
    told = json.loads(run("data", "inspect", pong, "--json", "--batches", "0"))
    assert (told["folder"], len(told["files"]), told["problems"]) == (pong, 10, {})
    run("init", str(tmp_path / "new"), "--data", pong, "--preset", "laptop")
    assert f"data_dir: {pong}" in (tmp_path / "new" / "run.yaml").read_text()


def test_a_sweep_keeps_the_address_and_makes_no_path_of_it(pong: str, tmp_path: Path) -> None:
    values: dict[str, Any] = {"search": "random", "scheduler": "none", "budget": {"trials": 2}}
    path = spec(tmp_path, base={"data_dir": pong, **TINY}, space={"learning_rate": {"choice": [1e-3, 1e-2]}}, **values)
    assert load(path).base.mapping()["data_dir"] == pong
    both = spec(tmp_path, base=TINY, space={"data_dir": {"choice": [pong, f"{pong}2"]}}, **values)
    assert load(both).spec.space["data_dir"].choice == [pong, f"{pong}2"]


def test_a_machine_that_cannot_fetch_is_told_apart(pong: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    config = RunConfig(data_dir=pong, **TINY)
    asked = probe.Asked(str(tmp_path), probe.versions(), "lam", [config.mapping()], None, LAM.prepare([config]),
                        fetched=LAM.fetched([config]))
    with probe.held(tmp_path):
        assert probe.answer(asked) == ""
        store.Store(pong).delete("pong-0001.h5")
        assert "names 'pong-0001.h5', not found in s3://" in probe.answer(asked)
    assert cluster.answers_within(asked) == pytest.approx(180, abs=1)
    assert cluster.answers_within(probe.Asked("", {}, "lam", fetched=200 * 10**9)) == 180 + 20_000
