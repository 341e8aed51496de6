"""152 ways to spoil a sweep folder, for `tests/test_inputs_sweeps.py`: one edit of one file each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_records import Planted, confirmed, write_sweep
from small_sweep import make_sweep

from analysis.promote import promote
from analysis.promote.promoting import Wish
from sweeps.journal import folders

MISSING = "MISSING"
HUGE = str(10**400)
DEEP = "[" * 100_000
ESCAPE = '"a\\u001b]0;x\\u0007"'
JOURNAL, METRICS = "journal-000001.jsonl", "trials/t0001/metrics.jsonl"
RUN, CONFIG = "trials/t0001/run.json", "trials/t0001/config.yaml"


@dataclass(frozen=True)
class Spoilt:
    """One edit: `how` takes the file's path."""

    name: str
    file: str
    how: Callable[[Path], object]


def sound(folder: Path) -> Path:
    """A sweep of two trials, one of them stopped early, with a confirmation and a promotion."""
    write_sweep(folder, {"t0001": Planted(epochs=3), "t0002": Planted(epochs=2, control=0.2, end="stopped", reason={
        "rule": "asha", "sentence": "cut", "epochs_saved": 8})}, confirm=[confirmed("t0001", [0.4, 0.5])])
    parts = sorted(folder.glob("journal-*.jsonl"))
    (folder / JOURNAL).write_text("".join(part.read_text() for part in parts))
    parts[1].unlink()
    identity = json.loads((folder / "sweep.json").read_text())
    spec = make_sweep(folder.parent / "yaml", name="pong", space={"embed_dim": {"choice": [64, 128]}})
    folders.write_identity(spec, folder.parent / "as", "data")
    asked = json.loads((folder.parent / "as" / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps({**asked, "fingerprint": identity["fingerprint"]}))
    promote(folder, folder.parent / "first.yaml", wish=Wish(waivers={"confirmed": "a test"}))
    return folder


def put(content: Any, path: str, text: str) -> str:
    """The JSON of `content` with the value at a dotted path replaced by a JSON text, or left out."""
    place, (*outer, last) = content, path.split(".")
    for name in outer:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if text == MISSING:
        place.pop(last, None)
        return json.dumps(content)
    place[int(last) if isinstance(place, list) else last] = "HERE"
    return json.dumps(content).replace('"HERE"', text)


def document(file: str, key: str, *texts: str) -> list[Spoilt]:
    """A key of a JSON document with each of these values."""
    return [Spoilt(f"{Path(file).stem}: {key} {text[:14]}", file, lambda path, text=text: path.write_text(
        put(json.loads(path.read_text()), key, text))) for text in texts]


def lines(file: str, which: Callable[[dict[str, Any]], bool], key: str, label: str, *texts: str) -> list[Spoilt]:
    """A key of the first line of its kind with each of these values."""
    def spoil(path: Path, text: str) -> None:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        at = next(number for number, line in enumerate(found) if which(line))
        path.write_text("".join((put(line, key, text) if number == at else json.dumps(line)) + "\n"
                                for number, line in enumerate(found)))
    return [Spoilt(f"{Path(file).stem}: {label}.{key} {text[:20]}", file, lambda path, text=text: spoil(path, text))
            for text in texts]


def event(kind: str, key: str, *texts: str) -> list[Spoilt]:
    return lines(JOURNAL, lambda line: line["event"] == kind, key, kind, *texts)


def epoch(key: str, *texts: str) -> list[Spoilt]:
    return lines(METRICS, lambda line: line["epoch"] == 2, key, "epoch 2", *texts)


def content(file: str, name: str, value: bytes | str) -> Spoilt:
    """Another content altogether."""
    return Spoilt(f"{Path(file).stem}: {name}", file,
                  lambda path: path.write_bytes(value.encode() if isinstance(value, str) else value))


def other(file: str, name: str, change: Callable[[str], str]) -> Spoilt:
    return Spoilt(f"{Path(file).stem}: {name}", file, lambda path: path.write_text(change(path.read_text())))


def instead(file: str, name: str, make: Callable[[Path], object]) -> Spoilt:
    """No file, but something else of its name."""
    def replace(path: Path) -> None:
        path.unlink()
        make(path)
    return Spoilt(f"{Path(file).stem}: {name}", file, replace)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def numbered(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def gap(text: str) -> str:
    return "".join(json.dumps({**line, "seq": line["seq"] + (line["seq"] > 4)}) + "\n" for line in numbered(text))


JOURNALS = [
    *event("suggested", "trial", MISSING, "5", "null", '""', '".."', '"../../../ESCAPED"', '"a/b"', '"\\ud800"',
           ESCAPE),
    *event("suggested", "params", MISSING, "[]", '"word"', "null", f'{{"embed_dim": {HUGE}}}'),
    *event("suggested", "repeats", "[]", '"t0009"', '"t0001"'),
    *event("suggested", "seed", '"word"', HUGE),
    *event("result", "trial", MISSING, '"t0099"', "7"),
    *event("result", "epoch", MISSING, '"word"', "-5", "NaN", "1e999", "[1]", str(10**30)),
    *event("result", "objective", '"word"', "[1]", "NaN", HUGE),
    *event("result", "verdict", '"happy"'),
    *event("result", "metrics", "[]", '{"val/loss": "word"}'),
    *event("result", "tflops", '"word"', "-1"),
    *event("result", "time", MISSING, '"word"', '"2026-01-01T00:00:00"', '"9999-12-31T23:59:59+00:00"', "5"),
    *event("stopped", "reason", MISSING, "[]", '"word"', "{}", '{"sentence": "cut", "epochs_saved": "word"}',
           '{"rule": "asha", "sentence": [], "epochs_saved": 1}'),
    *event("stopped", "event", '"exploded"', "5", MISSING),
    *event("started", "seq", MISSING, '"word"', "1.5", "-1", HUGE),
    other(JOURNAL, "a gap", gap), other(JOURNAL, "a line twice", lambda text: text + text.splitlines()[-1] + "\n"),
    other(JOURNAL, "torn last line", lambda text: text[:-20]),
    other(JOURNAL, "a list as a line", lambda text: text + "[1]\n"),
    other(JOURNAL, "a word as a line", lambda text: text + "word\n"),
    other(JOURNAL, "a line 100,000 deep", lambda text: f"{text}{DEEP}\n{DEEP}\n"),
    other(JOURNAL, "a NUL inside", lambda text: text.replace("suggested", "sugg\0ested", 1)),
    content(JOURNAL, "binary", bytes(range(256)) * 4), content(JOURNAL, "UTF-16", "{}\n".encode("utf-16")),
    content(JOURNAL, "empty", ""), instead(JOURNAL, "endless", endless), instead(JOURNAL, "a pipe", os.mkfifo),
]
SWEEP = "sweep.json"
SWEEPS = [
    *document(SWEEP, "spec", "null", "[]", MISSING), *document(SWEEP, "spec.objective", "5", "[[1]]"),
    *document(SWEEP, "spec.constraints", "[]"), *document(SWEEP, "spec.scheduler", '"word"'),
    *document(SWEEP, "spec.journal", '"s3://bucket/p?endpoint_override=127.0.0.1:9&scheme=http"'),
    *document(SWEEP, "versions", "[]"), *document(SWEEP, "name", "[]", MISSING, ESCAPE),
    *document(SWEEP, "schema", "2", '"word"', MISSING), *document(SWEEP, "base", "null", "[]"),
    *document(SWEEP, "asked", "[]"), content(SWEEP, "100,000 deep", DEEP), content(SWEEP, "empty", ""),
    content(SWEEP, "no JSON", "word"), content(SWEEP, "a list", "[]"), instead(SWEEP, "endless", endless),
    instead(SWEEP, "a pipe", os.mkfifo), instead(SWEEP, "a folder", os.mkdir),
]
METRIC = [
    *epoch("epoch", MISSING, '"word"', "1e999", "NaN", "[1]", "-5", str(10**30)),
    *epoch("val/mse_loss", '"word"', "[1]", HUGE, "true"), *epoch("val/objective", '"word"'),
    *epoch("val/codebook_histogram", "5", "true", '["a", "b"]', "[NaN, 1]", "[-1, 1]"),
    *epoch("val/dsnr_status", "5"), *epoch("total_tflops", '"word"'),
    other(METRICS, "an epoch twice", lambda text: text + text.splitlines()[-1] + "\n"),
    other(METRICS, "torn last line", lambda text: text[:-20]),
    other(METRICS, "a line 100,000 deep", lambda text: f"{text}{DEEP}\n{DEEP}\n"),
    content(METRICS, "empty", ""), content(METRICS, "binary", bytes(range(256)) * 4),
    instead(METRICS, "endless", endless), instead(METRICS, "a pipe", os.mkfifo),
]
RUNS = [
    *document(RUN, "versions", "[]"), *document(RUN, "data_fingerprint", "[]"), *document(RUN, "state", "5"),
    *document(RUN, "reason", "[]"), *document(RUN, "num_params", '"word"'), content(RUN, "100,000 deep", DEEP),
    content(RUN, "empty", ""), instead(RUN, "endless", endless), instead(RUN, "a pipe", os.mkfifo),
    other(CONFIG, "num_epochs a word", lambda text: text.replace("num_epochs: 10", "num_epochs: soon")),
    other(CONFIG, "health a word", lambda text: text + "\nhealth: soon\n"),
    content(CONFIG, "5,000 deep", "v: " + "[" * 5000), content(CONFIG, "empty", ""),
    content(CONFIG, "a tag", "seed: !!python/name:os.system\n"), instead(CONFIG, "endless", endless),
    instead(CONFIG, "a pipe", os.mkfifo),
]
CONFIRM, PROMOTION = "confirm.json", "promotion.json"
CONFIRMS = [
    *document(CONFIRM, "trials", "null"), *document(CONFIRM, "trials.0.trial", "5", MISSING, '"t0099"'),
    *document(CONFIRM, "trials.0.live", '"word"'), *document(CONFIRM, "trials.0.values", "[NaN, 0.4]", "[0.4]"),
    *document(CONFIRM, "trials.0.mean", '"word"'), *document(CONFIRM, "differences", '[{"a": "t0001"}]'),
    content(CONFIRM, "100,000 deep", DEEP), content(CONFIRM, "a list", "[]"),
    content(PROMOTION, "a list", "[]"), content(PROMOTION, "no JSON", "word"),
    content(PROMOTION, "100,000 deep", DEEP), *document(PROMOTION, "target", ESCAPE, "5"),
]
EVERY = {"journal": JOURNALS, "sweep.json": SWEEPS, "metrics.jsonl": METRIC, "run.json and config.yaml": RUNS,
         "confirm.json and promotion.json": CONFIRMS}
COMMANDS: dict[str, tuple[str, ...]] = {
    "status": ("sweep", "status", "s"), "explain": ("sweep", "explain", "s"),
    "report": ("report", "s", "-o", "r.json"), "promote": ("promote", "s", "-o", "p.yaml"),
    "replay": ("sweep", "replay", "s", "--policy", "none"), "monitor": ("monitor", "s/trials/t0001")}
