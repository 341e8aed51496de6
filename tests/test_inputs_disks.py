"""Disks that are full or read-only, real ones where this process may mount them, and `sync`: 21 answers."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from build_records import PLANTED, Planted, confirmed, write_run, write_sweep
from inputs import Row, Wrong, answer, entries, table
from test_inputs_data import TINY, folder, spoilt

Make = Callable[[Path], Any]
WAIVED = ("--waive", "confirmed", "--because", "a test")


def mounted(place: Path, *options: str) -> None:
    """A disk of 1 MiB in memory at `place`."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["size=1m", *options]), "none", str(place)], check=True,
                   capture_output=True)


def filled(place: Path) -> None:
    """Take all the room that is left."""
    with contextlib.suppress(OSError), open(place / "filler", "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk at box/disk."""
    place = tmp_path / "box" / "disk"
    place.parent.mkdir()
    try:
        mounted(place)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not mount a disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def sweep(place: Path) -> None:
    write_sweep(place / "pong", {"t0001": PLANTED["t0001"], "t0005": PLANTED["t0005"]},
                confirm=[confirmed("t0005", [0.46, 0.47, 0.48])])


def full(make: Make | None = None, here: Make | None = None) -> Make:
    """`make` on the disk, `here` beside it, and then no byte is free."""
    def made(box: Path) -> None:
        if make is not None:
            make(box / "disk")
        if here is not None:
            here(box)
        filled(box / "disk")
    return made


def read_only(make: Make | None = None, here: Make | None = None) -> Make:
    def made(box: Path) -> None:
        if make is not None:
            make(box / "disk")
        if here is not None:
            here(box)
        subprocess.run(["mount", "-o", "remount,ro", str(box / "disk")], check=True)
    return made


def run(place: Path) -> None:
    write_run(place / "run", Planted(epochs=3))


def row(name: str, make: Make, words: str, code: int, *says: str, more: tuple[str, ...] = ()) -> Row:
    return Row(name, make, (*words.split(), *more), code, says)


SPACE = "No space left on device"
SPEC = "name: s\nbase: {data_dir: d}\nspace: {weight_decay: {uniform: [0.0, 1.0]}}\nbudget: {trials: 2}\n"


data = spoilt(lambda path: None)


def spec(box: Path) -> None:
    data(box)
    (box / "s.yaml").write_text(SPEC)


FULL = [
    row("init", full(), "init disk/first", 3, SPACE, "disk/first"),
    row("manifest", full(make=folder), "data manifest disk/d", 3, SPACE, "disk/d"),
    row("train", full(here=data), "train run.yaml --run-dir disk/run", 3, SPACE, "disk/run", more=tuple(TINY)),
    row("a page", full(here=sweep), "report pong -o disk/r.html", 3, "make room", "disk/r.html"),
    row("a page in JSON", full(here=sweep), "report pong -o disk/r.json", 3, "make room", "disk/r.json"),
    row("a production YAML", full(here=sweep), "promote pong -o disk/p.yaml", 3, "disk/", more=WAIVED),
    row("a promotion's record", full(make=sweep), "promote disk/pong -o p.yaml", 3, "disk/pong", more=WAIVED),
    row("a sweep's storage", full(here=spec), "sweep launch s.yaml --storage disk/runs --allow-inert", 3, "disk"),
    row("a sweep that is read", full(make=sweep), "report disk/pong -o r.json", 0),
    row("a run that is read", full(make=run), "monitor disk/run", 0),
]
READ_ONLY = [
    row("init", read_only(), "init disk/first", 3, "Read-only file system", "disk/first"),
    row("manifest", read_only(make=folder), "data manifest disk/d", 3, "Read-only"),
    row("train", read_only(here=data), "train run.yaml --run-dir disk/run", 3, "Read-only", "disk/run",
        more=tuple(TINY)),
    row("a page", read_only(here=sweep), "report pong -o disk/r.html", 2, "cannot be written", "another place with -o"),
    row("a page into the sweep", read_only(make=sweep), "report disk/pong", 2, "cannot be written", "-o"),
    row("a promotion's record", read_only(make=sweep), "promote disk/pong -o p.yaml", 2, "disk/pong", more=WAIVED),
    row("a sweep that is read", read_only(make=sweep), "report disk/pong -o r.json", 0),
    row("a run that is read", read_only(make=run), "monitor disk/run", 0),
]
SYNC = [
    row("a run without trackers", lambda box: write_run(box / "run", Planted(), tracking={"wandb": "off"}),
        "sync run", 2, "tracking"),
    row("a run whose config names a server", lambda box: write_run(
        box / "run", Planted(), tracking={"mlflow": "http://127.0.0.1:9/steal", "wandb": "off"}), "sync run", 2,
        "127.0.0.1:9", "--mlflow"),
    row("a run whose server is down", lambda box: write_run(box / "run", Planted(), tracking={"wandb": "off"}),
        "sync run --mlflow http://127.0.0.1:9", 3, "127.0.0.1:9"),
]


def held(tmp_path: Path, given: Row) -> None:
    """Answer it; what was on the disk is there, and of what could not be written there is no half."""
    before: set[tuple[str, int]] = set()

    def make(box: Path) -> None:
        given.make(box)
        before.update(entries(box))
    answer(tmp_path, Row(given.name, make, given.words, given.code, given.says))
    after = entries(tmp_path / "box")
    lost = {name for name, _ in before} - {name for name, _ in after}
    half = [name for name, _ in after - before if Path(name).suffix in (".html", ".json", ".yaml")
            and (tmp_path / "box" / name).stat().st_size == 0] if given.code else []
    if lost or half:
        raise Wrong(f"lost {lost}, half-written {half}")


@table(FULL)
def test_a_full_disk_is_told_and_nothing_is_lost(row: Row, tmp_path: Path, disk: Path) -> None:
    held(tmp_path, row)


@table(READ_ONLY)
def test_a_read_only_disk_is_told_and_read(row: Row, tmp_path: Path, disk: Path) -> None:
    held(tmp_path, row)


@pytest.mark.filterwarnings("ignore")
@table(SYNC)
def test_a_sync_says_what_it_sent_and_where(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


def test_so_many_were_tried() -> None:
    assert len(FULL) + len(READ_ONLY) + len(SYNC) == 21
