"""Every reader, handed a file that was damaged by chance: it reads it or says in one sentence what is wrong.

Here a few dozen cases each, always the same ones; `make test-fuzz` draws new ones for as long as one likes.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from build_records import Planted, confirmed, write_run, write_samples, write_sweep
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_sweep import make_sweep
from tensorboardX import SummaryWriter
from test_data_readers import FORMATS, REAL, videos
from test_inference import SMALL

from analysis.monitor.monitor import examine
from analysis.promote.ledger import Ledger
from analysis.read import foreign
from analysis.read.reading import read_study
from analysis.report import pictures
from lam import config
from lam.data import h5, labels, manifest
from lam.data.index import scan_file
from lam.data.readers.hdf import Hdf
from lam.data.readers.registry import reader_of
from lam.inference import opening
from lam.inference.exported import CONFIG, DOCUMENT, WEIGHTS, Export
from lam.labelling.parts import Parts
from lam.training import checkpoints
from record import documents, files, yamlio
from record.errors import LamError
from record.health import profile
from record.journal import events, journals, parsing
from record.run import RunFolder
from record.storage import trust
from sweeps.journal import folders
from sweeps.spec.load import load

SLOWEST, MOST_MEMORY = 5.0, 1 << 30  # processor seconds of one answer; bytes that all answers of a reader may add
HANGS = 60.0  # seconds by the clock, which other work on the machine lengthens
ATOMS = ["null", "true", "-1", "1e999", "NaN", "0", '""', "[]", "{}", '"\\ud800"', "1" * 400, "[" * 90 + "]" * 90,
         '"../../x"', '"a\\u001b[31m"', "1e308", "-0.0", '"2026-13-45T99:99"']


@dataclass(frozen=True)
class Reader:
    """A file below the folder of `made`, and who reads it."""

    file: str
    read: Callable[[Path], Any]


@cache
def scanned(folder: Path) -> dict[str, Any]:
    return {path.name: scan_file(Hdf(path.parent), path.name) for path in sorted(folder.glob("*.h5"))}


def every_video(folder: Path) -> list[Any]:
    reader = reader_of(folder)
    return [scan_file(reader, name) for name in reader.names()]


READERS = {
    "run config": Reader("run.yaml", lambda path: config.load(path, None)),
    "sweep yaml": Reader("sweep.yaml", load),
    "yaml": Reader("run.yaml", yamlio.load_mapping),
    "profile": Reader("profile.yaml", profile.load),
    "sweep.json": Reader("opened/sweep.json", lambda path: folders.open_sweep(path.parent)),
    "journal": Reader("sweep/journal-000001.jsonl", lambda path: list(journals.read(path.parent))),
    "study": Reader("sweep/journal-000001.jsonl", lambda path: read_study(path.parent)),
    "metrics of a study": Reader("sweep/trials/t0001/metrics.jsonl", lambda path: read_study(path.parents[2])),
    "run of a study": Reader("sweep/trials/t0001/run.json", lambda path: read_study(path.parents[2])),
    "confirm.json": Reader("sweep/confirm.json", lambda path: documents.load_document(documents.Confirmation, path)),
    "promotion.json": Reader("promotion.json", lambda path: documents.load_document(documents.Promotion, path)),
    "run.json": Reader("run/run.json", lambda path: RunFolder(path.parent).document()),
    "metrics.jsonl": Reader("run/metrics.jsonl", lambda path: RunFolder(path.parent).metrics()),
    "monitored run": Reader("run/metrics.jsonl", lambda path: examine(foreign.read(path.parent), None, {}, None)),
    "monitored log": Reader("log.jsonl", lambda path: examine(foreign.read(path), None, {}, None)),
    "monitored table": Reader("log.csv", lambda path: examine(foreign.read(path), None, {}, None)),
    "report of a log": Reader("log.jsonl", read_study),
    "report of a table": Reader("log.csv", read_study),
    "report of TensorBoard's": Reader("events/events.out.tfevents.1.host", lambda path: read_study(path.parent)),
    "report of Optuna's": Reader("study.db", read_study),
    "promotions": Reader("production.promotions/ledger.jsonl", lambda path: Ledger(
        path.parents[1] / "production.yaml").changes()),
    "pictures": Reader("run/samples/epoch-0003.npz", lambda path: pictures.strips_of(
        read_study(path.parents[1]).trials[0], 3)),
    "checkpoint": Reader("last.pt", lambda path: checkpoints.load_state(path.parent, torch.device("cpu"))),
    "manifest": Reader("data/manifest.json", lambda path: manifest.read_manifest(path, path.parent)),
    "labels": Reader("data/labels.csv", lambda path: labels.read(
        path.parent, scanned(path.parent), ["left", "right"])),
    "latents": Reader("data/one.h5", lambda path: (h5.read_info(path), scan_file(Hdf(path.parent), path.name))),
    "npy": Reader("npy/v0.npy", lambda path: every_video(path.parent)),
    "actions in npy": Reader("npy/v0.actions.npy", lambda path: every_video(path.parent)),
    "safetensors": Reader("safetensors/v0.safetensors", lambda path: every_video(path.parent)),
    "tar": Reader("tar/shard-0000.tar", lambda path: every_video(path.parent)),
    "zarr": Reader("zarr/v0.zarr/embeddings/zarr.json", lambda path: every_video(path.parents[2])),
    "a chunk of zarr": Reader("zarr/v0.zarr/embeddings/c/0/0/0/0", lambda path: every_video(path.parents[6])),
    "LeRobot's info": Reader("lerobot/meta/info.json", lambda path: every_video(path.parents[1])),
    "LeRobot's episodes": Reader(
        "lerobot/meta/episodes/chunk-000/file-000.parquet", lambda path: every_video(path.parents[3])),
    "LeRobot's data": Reader("lerobot/data/chunk-000/file-000.parquet", lambda path: every_video(path.parents[2])),
    "export.json": Reader(f"model/{DOCUMENT}", lambda path: opening.load(path.parent).naming),
    "weights": Reader(f"model/{WEIGHTS}", lambda path: checkpoints.load_weights(
        path.parent, path.stem, opening.built(config.from_mapping(SMALL | {"data_dir": "x"}, "f"), (4, 8, 8)))),
    "a portion of labels": Reader(".c.parts/000000.npz", lambda path: Parts(
        path.parents[1] / "c", 1, {}).load(0)),
    "what was asked of labels": Reader(".c.parts/asked.json", lambda path: Parts(
        path.parents[1] / "c", 1, {"model": "m"}).begin()),
    "report of W&B's": Reader("run.wandb", read_study),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """One sound file for each reader."""
    root = tmp_path_factory.mktemp("sound")
    write_sweep(root / "sweep", {"t0001": Planted(epochs=2), "t0002": Planted(epochs=1, end="stopped", reason={
        "rule": "asha", "sentence": "cut", "epochs_saved": 3})}, confirm=[confirmed("t0001", [0.4, 0.5])])
    run = write_run(root / "run", Planted(epochs=3))
    run.samples.mkdir()
    write_samples(run.samples / "epoch-0003.npz")
    sweep = make_sweep(root)
    folders.write_identity(sweep, root / "opened", "data")
    shutil.copy(root / "sweep" / "journal-000001.jsonl", root / "opened")
    (root / "run.yaml").write_text("data_dir: data\nnum_epochs: 3\nhealth: {grace_epochs: 2}\nlearning_rate: 1e-4\n")
    shutil.copy(Path(profile.__file__).parent / "profiles" / "lam.yaml", root / "profile.yaml")
    torch.save({"epoch": 3, "model": {"weight": torch.zeros(4)}}, root / "last.pt")
    promotion = Path(__file__).parent / "records_before"
    shutil.copy(next(promotion.rglob("promotion.json")), root / "promotion.json")
    rows = [{"train/epoch": step, "train/total_loss": 1 / (step + 1)} for step in range(8)]
    (root / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "log.csv").write_text("train/epoch,train/total_loss\n" + "".join(
        f"{row['train/epoch']},{row['train/total_loss']}\n" for row in rows))
    (root / "events").mkdir()
    with SummaryWriter(root / "events") as writer:
        for step in range(4):
            writer.add_scalar("val/loss", 1 / (step + 1), step)
    next((root / "events").iterdir()).rename(root / "events" / "events.out.tfevents.1.host")
    study = optuna.create_study(storage=f"sqlite:///{root / 'study.db'}", study_name="s")
    study.enqueue_trial({"x": 0.5})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    (root / "production.promotions").mkdir()
    (root / "production.promotions" / "ledger.jsonl").write_text("".join(files.json_line(line) for line in (
        {"seq": 1, "time": "2026-01-01T00:00:00+00:00", "event": "begun", "kind": "promotion", "version": 1,
         "sha256": "0" * 64, "trial": "t0001", "weights": {"sha256": "1" * 64}},
        {"seq": 2, "time": "2026-01-01T00:00:01+00:00", "event": "done", "of": 1})))
    data = Path(shutil.copytree(tiny_data, root / "data"))
    first = sorted(data.glob("*.h5"))[0]
    shutil.copy(first, data / "one.h5")
    (data / "labels.csv").write_text(f"file,frame,action\n{first.name},3,left\n{first.name},5,right\n")
    make_videos(root)
    make_model(root / "model")
    Parts(root / "c", 1, {"model": "m"}).begin()
    Parts(root / "c", 1, {}).save(0, {"codes": np.zeros((3, 2), np.int64)})
    (root / "run.wandb").write_bytes(of_wandb())
    return root


def make_videos(root: Path) -> None:
    for kind, write in FORMATS.items():
        (root / kind).mkdir()
        write(root / kind, videos(1))
    shutil.copytree(REAL, root / "lerobot")


def make_model(folder: Path) -> None:
    """An export of weights that nobody trained."""
    folder.mkdir()
    settings_of = config.from_mapping(SMALL | {"data_dir": "x"}, "f")
    save_file(opening.built(settings_of, (4, 8, 8)).state_dict(), folder / WEIGHTS)
    files.write_text(folder / CONFIG, yamlio.dump_mapping(settings_of.mapping()))
    naming = {"names": ["left", "right"], "tuples": [[0, 1], [1, 1]], "counts": [[3, 0], [1, 2]]}
    documents.write(folder / DOCUMENT, Export(
        latent_shape=(4, 8, 8), weights_sha256=opening.digest(folder / WEIGHTS), checkpoint="best", actions=naming))


def of_wandb() -> bytes:
    """A file as W&B writes it offline: its name, three epochs, its end."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = [Record(), *(Record() for _ in range(3)), Record()]
    records[0].run.run_id = "abc"
    for step, record in enumerate(records[1:4]):
        record.history.step.num = step
        item = record.history.item.add()
        item.key, item.value_json = "train/total_loss", str(1 / (step + 1))
    records[4].exit.exit_code = 0
    parts = (record.SerializeToString() for record in records)
    return b":W&B\xe1\xbe\x00" + b"".join(struct.pack("<IHB", 0, len(part), 1) + part for part in parts)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few edits of the bytes: a cut, a flipped or inserted byte, a repeated stretch, or JSON of another kind."""
    edits = draw(st.lists(st.tuples(
        st.sampled_from(["cut", "drop", "flip", "insert", "repeat", "atom"]), st.floats(0, 1), st.integers(0, 64),
        st.binary(min_size=1, max_size=8), st.sampled_from(ATOMS)), min_size=1, max_size=4))

    def damaged(content: bytes) -> bytes:
        for kind, where, length, put, atom in edits:
            at = int(where * len(content))
            rest = content[at:]
            content = content[:at] + {
                "cut": b"", "drop": rest[length:], "flip": put + rest[len(put):], "insert": put + rest,
                "repeat": rest[:length] * 3 + rest, "atom": _another(rest, atom)}[kind]
        return content

    return damaged


def _another(rest: bytes, atom: str) -> bytes:
    """`rest` with the value after its first colon replaced, so that JSON and YAML mostly stay what they are."""
    before, colon, after = rest.partition(b":")
    ends = [at for at in (after.find(mark) for mark in (b",", b"}", b"\n")) if at >= 0]
    return before + colon + b" " + atom.encode() + after[min(ends, default=len(after)):]


@dataclass
class Figures:
    """What `benchmarks/bench_fuzz.py` reads after a round."""

    cases: int = 0
    refused: int = 0
    slowest: float = 0.0
    longest: float = 0.0
    peak: int = 0

    def save(self) -> None:
        if "FUZZ_FIGURES" in os.environ:
            Path(os.environ["FUZZ_FIGURES"]).write_text(json.dumps(vars(self)))


FIGURES = Figures()
atexit.register(FIGURES.save)


def answered(read: Callable[[], Any]) -> None:
    """It reads, or refuses in words that any terminal can show; soon, and in bounded memory."""
    begin, clock, before = time.process_time(), time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    FIGURES.cases += 1
    try:
        read()
    except LamError as error:
        said = str(error)
        FIGURES.refused += 1
    else:
        said = "read"
    seconds, peak = time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    FIGURES.slowest, FIGURES.peak = max(FIGURES.slowest, seconds), peak * 1024
    FIGURES.longest = max(FIGURES.longest, time.monotonic() - clock)
    assert 0 < len(said.strip()) < 20_000
    assert seconds < SLOWEST
    assert time.monotonic() - clock < HANGS
    assert (peak - before) * 1024 < MOST_MEMORY


@cache
def imported(made: Path, name: str) -> None:
    """Read the sound file once: the first answer of a reader is mostly imports."""
    READERS[name].read(made / READERS[name].file)


@pytest.mark.parametrize("name", READERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged=damage())
def test_a_damaged_file_is_read_or_refused_in_words(
        made: Path, name: str, damaged: Callable[[bytes], bytes]) -> None:
    imported(made, name)
    reader = READERS[name]
    path = made / reader.file
    sound = path.read_bytes()
    try:
        path.write_bytes(damaged(sound))
        answered(lambda: reader.read(path))
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize("name", READERS)
def test_the_sound_file_is_read(made: Path, name: str) -> None:
    READERS[name].read(made / READERS[name].file)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner,
                                                                                         max_size=3),
                      max_leaves=8)


@given(st.text(max_size=200))
@example("a: &x [*x]")
def test_any_text_is_yaml_or_is_not(text: str) -> None:
    answered(lambda: yamlio.parse_mapping(text))


@given(st.dictionaries(st.sampled_from([*config.RunConfig.model_fields]), VALUES, max_size=4))
def test_any_values_are_a_config_or_are_not(values: dict[str, Any]) -> None:
    answered(lambda: config.from_mapping({"data_dir": "x", **values}, "f"))


@given(st.sampled_from([*events.KINDS]), st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_any_values_are_an_event_or_are_not(name: str, values: dict[str, Any]) -> None:
    answered(lambda: parsing.read_event(json.dumps({"event": name, **values}).encode()))


@given(st.text(max_size=40))
def test_any_text_is_a_place_to_read_from_or_is_not(text: str) -> None:
    answered(lambda: trust.is_plain(text))
    answered(lambda: trust.is_allowed(text, "s3://allowed/x https://host"))
