"""Records that break their class: each is named with file and field, by every reader, and none ends in a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from build_records import Planted, confirmed, write_run, write_samples, write_sweep

from analysis.monitor.monitor import examine, lines
from analysis.read import foreign
from analysis.read.reading import read_study
from analysis.report import pictures
from analysis.report.render import write as write_report
from analysis.report.report import build_report
from lam.training import checkpoints
from record import documents, files
from record.errors import AnswerIsNo, BadInput
from record.journal import journals
from record.run import RunFolder

DEEP = "[" * 100_000
TOO_DEEP = "[" * 60 + "]" * 60
HUGE = 10**400
# Values of every wrong kind, as JSON text.
WRONG: dict[str, str] = {
    "word": '"word"', "list": '[1,"a"]', "mapping": '{"a":[]}', "null": "null", "true": "true", "below": "-5",
    "huge": str(HUGE), "infinite": "1e999", "nan": "NaN", "surrogate": '"\\ud800"', "empty": '""', "nothing": "[]"}
SPEC = ("spec", "spec.objective", "spec.constraints", "spec.scheduler", "versions", "name", "asked", "base")
IDENTITY = ("versions", "data_fingerprint", "state", "reason", "data_stats", "num_params", "epoch", "started_at")
CONFIRM = ("trials", "trials.0", "trials.0.trial", "trials.0.live", "trials.0.values", "trials.0.mean", "differences")
RECORD = ("epoch", "step", "total_tflops", "val/loss", "val/mse_loss", "val/objective", "val/control", "val/dsnr",
          "val/dsnr_status", "val/codebook_histogram", "val/perplexity_slot", "val/collapsed", "train/loss")
EVENT = ("trial", "params", "epoch", "objective", "verdict", "reason", "reason.sentence", "reason.epochs_saved", "time",
         "repeats", "metrics", "tflops")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound sweep of two trials."""
    trials = {"t0001": Planted(epochs=3, control=0.4), "t0002": Planted(epochs=2, end="stopped", reason={
        "rule": "asha", "sentence": "cut", "epochs_saved": 3})}
    return write_sweep(tmp_path_factory.mktemp("whole") / "pong", trials, confirm=[confirmed("t0001", [0.4, 0.5])])


def put(content: Any, path: str, text: str) -> str:
    """The JSON of `content` with the value at a dotted path replaced by a JSON text."""
    place, *more = content, *path.split(".")
    *outer, last = more
    for name in outer:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(last) if isinstance(place, list) else last] = "HERE"
    return json.dumps(content).replace('"HERE"', text)


def copied(whole: Path, folder: Path) -> Path:
    """A copy whose files can be replaced one by one."""
    return Path(shutil.copytree(whole, folder, copy_function=os.link))


def some(keys: tuple[str, ...], wrong: str) -> list[tuple[int, str]]:
    """A third of the keys with their numbers, another for each kind of value: each key meets four of them."""
    return list(enumerate(keys))[list(WRONG).index(wrong) % 3::3]


def replace(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def read_by_all(sweep: Path) -> list[str]:
    """What readers refused with exit code 2; anything else but a plain no is raised."""
    refused = []
    for read in (lambda: write_report(build_report(str(sweep)), [sweep / "r.html", sweep / "r.json"]),
                 lambda: list(journals.read(sweep)),
                 lambda: lines(examine(foreign.read(sweep / "trials" / "t0001"), None, {}, None))):
        with contextlib.suppress(AnswerIsNo):
            try:
                read()
            except BadInput as error:
                refused.append(str(error))
    str(refused).encode()
    return refused


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("file", "keys"), [
    ("sweep.json", SPEC), ("trials/t0001/run.json", IDENTITY), ("confirm.json", CONFIRM)],
    ids=["sweep", "run", "confirm"])
def test_a_document_with_a_value_of_a_wrong_kind(
        whole: Path, tmp_path: Path, file: str, keys: tuple[str, ...], wrong: str) -> None:
    sound = json.loads((whole / file).read_text())
    for number, key in some(keys, wrong):
        sweep = copied(whole, tmp_path / str(number))
        replace(sweep / file, put(json.loads(json.dumps(sound)), key, WRONG[wrong]))
        for said in read_by_all(sweep):
            assert file in said


@pytest.mark.parametrize("wrong", WRONG)
def test_an_epoch_record_with_a_value_of_a_wrong_kind(whole: Path, tmp_path: Path, wrong: str) -> None:
    sound = (whole / "trials/t0001/metrics.jsonl").read_text().splitlines()
    for number, key in some(RECORD, wrong):
        sweep = copied(whole, tmp_path / str(number))
        spoiled = put(json.loads(sound[1]), key, WRONG[wrong])
        replace(sweep / "trials/t0001/metrics.jsonl", "\n".join([sound[0], spoiled, sound[2]]) + "\n")
        for said in read_by_all(sweep):
            assert "metrics.jsonl:" in said or "no trial" in said or "live" in said, said


@pytest.mark.parametrize("wrong", WRONG)
def test_an_event_with_a_value_of_a_wrong_kind(whole: Path, tmp_path: Path, wrong: str) -> None:
    (segment, *others) = journals.segments(whole)
    sound = "".join(path.read_text() for path in (segment, *others)).splitlines()
    for number, key in some(EVENT, wrong):
        place = next((at for at, line in enumerate(sound) if key.split(".")[0] in json.loads(line)), 0)
        sweep = copied(whole, tmp_path / str(number))
        for path in others:
            (sweep / path.name).unlink()
        spoiled = [put(json.loads(line), key, WRONG[wrong]) if at == place else line for at, line in enumerate(sound)]
        replace(sweep / segment.name, "\n".join(spoiled) + "\n")
        for said in read_by_all(sweep):
            assert segment.name in said or "no trial" in said or ": event " in said, said


@pytest.mark.parametrize("text", [DEEP, TOO_DEEP, '{"a":' + TOO_DEEP + "}"], ids=["broken", "deep", "deep inside"])
@pytest.mark.parametrize("file", ["sweep.json", "trials/t0001/run.json", "confirm.json", "trials/t0001/metrics.jsonl",
                                  "journal-000001.jsonl"])
def test_a_record_that_nests_too_deep(whole: Path, tmp_path: Path, file: str, text: str) -> None:
    sweep = copied(whole, tmp_path / "pong")
    replace(sweep / file, f"{text}\n{text}\n")
    refused = read_by_all(sweep)
    assert refused
    assert all(Path(file).name in said for said in refused)


@pytest.mark.parametrize("file", ["sweep.json", "trials/t0001/run.json", "trials/t0001/metrics.jsonl", "confirm.json",
                                  "journal-000001.jsonl", "trials/t0001/config.yaml"])
@pytest.mark.parametrize("kind", [lambda path: os.symlink("/dev/zero", path), os.mkfifo, os.mkdir],
                         ids=["endless", "pipe", "folder"])
def test_a_record_that_is_no_regular_file(whole: Path, tmp_path: Path, file: str, kind: Callable[..., None]) -> None:
    sweep = copied(whole, tmp_path / "pong")
    (sweep / file).unlink()
    kind(sweep / file)
    assert read_by_all(sweep)


def test_a_record_that_is_too_large_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    os.truncate(tmp_path / "run.json", files.MOST_BYTES + 1)
    with pytest.raises(BadInput, match=r"run\.json: has 536,870,913 bytes, at most 536,870,912 are read; is this"):
        documents.load_document(documents.Run, tmp_path / "run.json")


def test_what_a_link_leads_to_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\nhunter2\n")
    run = write_run(tmp_path / "run", Planted(epochs=1))
    run.metrics_file.unlink()
    run.metrics_file.symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match=r"metrics.jsonl: is damaged \(.*:1: not JSON: Expecting") as caught:
        run.metrics()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("line", "message"), [
    ("num_epochs: soon", "config.yaml:num_epochs: got 'soon', input should be a valid integer"),
    ("health: {grace_epochs: soon}", "config.yaml:health.grace_epochs: got 'soon'"),
    ("health: soon", "config.yaml:health: got 'soon'")])
def test_a_config_whose_common_keys_are_wrong(tmp_path: Path, line: str, message: str) -> None:
    run = write_run(tmp_path / "run", Planted(epochs=1))
    run.config_file.write_text(f"{line}\n")
    for read in (lambda: read_study(tmp_path / "run"), lambda: foreign.read(tmp_path / "run")):
        with pytest.raises(BadInput, match=message):
            read()


def huge_array(path: Path, shape: tuple[int, ...], stored: bytes) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("pictures", "codes", "actions", "other_actions", "action_names", "files", "frames"):
            archive.writestr(f"{name}.npy", header.getvalue() + (stored if name == "pictures" else b"x"))


@pytest.mark.parametrize(("shape", "stored"), [((4, 4, 100_000, 1000, 3), b"x"), ((1 << 29,), bytes(1 << 29))],
                         ids=["claims", "unpacks to"])
def test_pictures_that_unpack_to_more_than_pictures_are_a_note(
        tmp_path: Path, shape: tuple[int, ...], stored: bytes) -> None:
    run = write_run(tmp_path / "run", Planted(epochs=1))
    run.samples.mkdir()
    huge_array(run.samples / "epoch-1.npz", shape, stored)
    (trial,) = read_study(tmp_path / "run").trials
    assert "epoch-1.npz cannot be read (pictures.npy asks for" in pictures.strips_of(trial, 1).note


def test_pictures_with_a_strange_name_or_nothing_inside_are_no_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Planted(epochs=1))
    write_samples(run.samples / "epoch-\u00b2\u00b3.npz")
    (trial,) = read_study(tmp_path / "run").trials
    assert pictures.strips_of(trial, 1).note.startswith("No picture was recorded")
    (run.samples / "epoch-1.npz").write_bytes(b"PK")
    assert "cannot be read" in pictures.strips_of(trial, 1).note


@pytest.mark.parametrize("state", [{"other": 1}, [1, 2], {"step": "x"}, 3], ids=str)
def test_a_checkpoint_of_something_else_is_named(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "last.pt")
    found = checkpoints.load_state(tmp_path, torch.device("cpu"))
    with pytest.raises(BadInput, match=r"last\.pt: is no state of this run \(\w+Error: .*\); delete it to train"), \
            checkpoints.restoring(tmp_path):
        int(found["step"])  # type: ignore[index]


def test_a_checkpoint_that_would_run_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    torch.save(os.system, tmp_path / "last.pt")
    with pytest.raises(BadInput, match=r"last\.pt: cannot be read as a checkpoint") as caught:
        checkpoints.load_state(tmp_path, torch.device("cpu"))
    assert "weights_only=False" not in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_metrics_are_read_as_they_were(whole: Path) -> None:
    found = RunFolder(whole / "trials/t0001").metrics()
    assert found == [json.loads(line) for line in (whole / "trials/t0001/metrics.jsonl").read_text().splitlines()]
