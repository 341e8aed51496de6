"""Help of every command, absurd settings, hostile words in a browser, README as written, a sweep that runs: 85 answers.

README, browser and the live sweep take minutes: `make test-inputs` has them, `make test` has help and settings.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from browsing import CHROMIUM, Tab, opened
from build_records import Planted, write_sweep
from inputs import Crash, Dangerous, Row, Wrong, answer, judge, nothing, table
from sweep_driver import left_over, until
from test_inputs_data import TRAIN, spoilt
from test_readme import commands
from test_secrets import CANARIES, TINY, family, holding, home, scratch_of, seen_by_others
from typed import Answer, lam

from lam.cli import build
from record import yamlio
from sweeps.journal.journal import read


def walk(command: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield before
    for name, each in (inside or {}).items():
        yield from walk(each, (*before, name))


HELP = [Row(f"help of {' '.join(words)}", nothing, (*words, "--help"), 0, (f"{' '.join(words)} [OPTIONS]",))
        for words in walk(typer.main.get_command(build()))]


def absurd(setting: str, code: int, *says: str) -> Row:
    return Row(f"{setting} asked for", spoilt(lambda path: None), (*TRAIN, "--set", setting), code, says, writes=True)


ABSURD = [
    absurd("seed=99999999999999999999999", 2, "seed", "less than 4294967296"),
    absurd("eval_seed=99999999999999999999999", 2, "eval_seed", "less than 4294967296"),
    absurd("seed=-1", 2, "seed"),
    absurd("embed_dim=100000000", 3, "embed_dim 100,000,000", "GiB are free", "use a smaller"),
    absurd("num_embeddings=10000000000", 3, "10,000,000,000 codes", "GiB are free"),
    absurd("batch_size=1000000000", 3, "one batch of 1,000,000,000", "GiB are free"),
    absurd("sequence_length=1000000", 2, "sequence"),
    absurd("learning_rate=-1", 2, "learning_rate"),
    absurd("learning_rate=1e30", 0, "nonfinite"),
    absurd("commitment_weight=-1", 2, "commitment_weight"),
    absurd("num_epochs=0", 2, "num_epochs"),
    absurd("patch_dim=0", 2, "patch_dim"),
    absurd("device=cuda:99", 2, "device"),
    absurd("threads=1000000", 2, "threads", "1024"),
]

BREAKS = "<script>window.OWNED=1</script><img src=x onerror='window.OWNED=1'>"
# Where the words of a sweep folder stand that a page shows: file, what is replaced, by what.
WORDS: dict[str, tuple[str, str, str]] = {
    "the sweep's name": ("sweep.json", '"name": "pong"', f'"name": "{BREAKS}"'),
    "a trial's parameter": ("journal-000001.jsonl", '"embed_dim": 64', f'"embed_dim": "{BREAKS}"'),
    "a reason's sentence": ("journal-000001.jsonl", "fell behind", BREAKS),
    "a reason's sentence that ends an attribute": ("journal-000001.jsonl", "fell behind", "' onmouseover='OWNED=1"),
    "a reason's sentence that ends a script": ("journal-000001.jsonl", "fell behind", "</script><svg onload=OWNED=1>"),
    "a reason's sentence with bidi marks": ("journal-000001.jsonl", "fell behind", "\\u202egnp.\\u2066"),
    "a reason's sentence with an address": ("journal-000001.jsonl", "fell behind",
                                            "<a href=javascript:OWNED=1 autofocus onfocus=OWNED=1>x</a>"),
    "a reason's sentence in Markdown": ("journal-000001.jsonl", "fell behind", "![x](http://127.0.0.1:9/steal)"),
    "a version of torch": ("trials/t0001/run.json", "2.13.0", BREAKS),
    "a git commit": ("trials/t0001/run.json", "abc1234", BREAKS),
    "a run's id": ("trials/t0001/run.json", '"run_id": "t0001"', f'"run_id": "{BREAKS}"'),
    "a data folder": ("trials/t0001/config.yaml", "/data/pong", f'"{BREAKS}"'),
    "a time": ("trials/t0001/run.json", "2026-01-01T00:00:00+00:00", BREAKS),
    "a status of DSNR": ("trials/t0001/metrics.jsonl", '"val/dsnr_status":"ok"', f'"val/dsnr_status":"{BREAKS}"'),
}


@table(HELP)
def test_every_command_says_how_it_is_used(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


@pytest.mark.filterwarnings("ignore")
@table(ABSURD)
def test_an_absurd_setting_is_refused_or_ends_in_words(row: Row, tmp_path: Path) -> None:
    answer(tmp_path, row)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with opened("about:blank", tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("name", WORDS)
def test_hostile_words_are_words_in_a_browser(name: str, tab: Tab, tmp_path: Path) -> None:
    """No script runs and nothing is asked for; where the words are refused, there is no page."""
    folder = write_sweep(tmp_path / "pong", {"t0001": Planted(epochs=3), "t0002": Planted(
        epochs=2, end="stopped", reason={"rule": "asha", "sentence": "fell behind", "epochs_saved": 8})})
    file, old, new = WORDS[name]
    places = sorted(folder.glob("journal-*.jsonl")) if file.startswith("journal") else [folder / file]
    assert any(old in path.read_text() for path in places)
    for path in places:
        path.write_text(path.read_text().replace(old, new))
    given = lam(tmp_path, "report", "pong", "-o", "r.html")
    judge(given, (0, 2))
    if given.code == 2:
        return
    tab.complaints.clear()
    tab.send("Page.navigate", url=(tmp_path / "r.html").as_uri())
    tab.wait_for("document.readyState == 'complete' && location.pathname.endsWith('r.html')")
    found = tab.value("[String(window.OWNED), document.querySelectorAll('img[src^=x],img[src^=http],[onerror],[onload],"
                      "[onfocus],[onmouseover],a[href^=javascript]').length].join()")
    if found != "undefined,0" or tab.complaints:
        raise Dangerous(f"{found} {tab.complaints}")


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answer]:
    """The answer to a command of the README: typed once, in one folder, after those that stand before it."""
    folder, answers, left = tmp_path_factory.mktemp("readme"), {}, iter(commands())

    def answer(wanted: str) -> Answer:
        while wanted not in answers:
            line = next(left)
            done = subprocess.run([sys.executable, "-m", "lam", *shlex.split(line, comments=True)[1:]], cwd=folder,
                                  capture_output=True, text=True, timeout=1200, check=False,
                                  env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            answers[line] = Answer(done.returncode, done.stdout, done.stderr)
        return answers[wanted]

    return answer


@pytest.mark.nightly
@pytest.mark.parametrize("line", commands(), ids=lambda line: " ".join(line.split()[:4]))
def test_a_command_of_the_readme_runs_as_written(line: str, readme: Callable[[str], Answer]) -> None:
    judge(readme(line), (0,))


class Live(NamedTuple):
    """A sweep that runs: its driver, the folder in which commands are given, its environment's home."""

    driver: subprocess.Popen[str]
    box: Path
    home: Path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("live")
    (root / "box").mkdir()
    (root / "box" / "s.yaml").write_text(yamlio.dump_mapping({
        "name": "demo", "base": {"data_dir": str(tiny_data), **TINY, "num_epochs": 100_000},
        "space": {"learning_rate": {"loguniform": [1e-4, 1e-2]}}, "search": "random", "scheduler": "none",
        "budget": {"trials": 2}, "storage": str(root / "box" / "runs"), "concurrency": 1}))
    driver = subprocess.Popen(
        [sys.executable, "-m", "lam", "sweep", "launch", "s.yaml", "--quiet"], cwd=root / "box", text=True,
        env=home(root / "home"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    folder = root / "box" / "runs" / "demo"
    until(lambda: folder.exists() and sum(event.event == "result" for event in read(folder)) > 1, driver)
    yield Live(driver, root / "box", root / "home")
    driver.kill()
    driver.communicate()


def typed(live: Live, words: str, codes: tuple[int, ...], *says: str) -> None:
    assert live.driver.poll() is None, "the sweep runs"
    judge(lam(live.box, *shlex.split(words)), codes, says)


def folder_is_private(live: Live) -> None:
    scratch = scratch_of(live.driver.pid)
    assert scratch is not None
    if stat.S_IMODE(scratch.stat().st_mode) != 0o700:
        raise Dangerous(f"{scratch} is open to others")
    if os.geteuid() == 0 and shutil.which("su"):
        words = ["su", "-s", "/bin/sh", "nobody", "-c", f"ls {scratch}/r"]
        seen = subprocess.run(words, capture_output=True, check=False)
        if seen.returncode == 0:
            raise Dangerous(f"nobody reads {scratch}: {seen.stdout!r}")


def no_secret_is_in(live: Live) -> None:
    scratch = scratch_of(live.driver.pid)
    assert scratch is not None
    found = [*holding(scratch), *holding(live.box), *seen_by_others(live.driver.pid)]
    if found:
        raise Dangerous(f"secrets in {found}")


def ray_asks_for_its_token(live: Live) -> None:
    """A driver without the token, or with another, is not let in."""
    words = [word for process in family(live.driver.pid) for word in process.cmdline()]
    address = next(word.partition("=")[2] for word in words if word.startswith("--gcs-address="))
    code = f"from ray._raylet import GcsClient; print(GcsClient(address={address!r}).get_all_node_info(timeout=60))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", *CANARIES))}
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False,
                          env={**clean, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64})
    if seen.returncode == 0:
        raise Dangerous(f"a stranger is answered: {seen.stdout}")
    if "token" not in seen.stderr:
        raise Wrong(f"refused for something else: {seen.stderr}")


def the_yaml_is_changed(live: Live) -> None:
    text = (live.box / "s.yaml").read_text()
    (live.box / "other.yaml").write_text(text.replace("trials: 2", "trials: 3"))
    typed(live, "sweep launch other.yaml", (2,), "another driver is at work")


def it_is_interrupted(live: Live) -> None:
    begin = time.monotonic()
    live.driver.send_signal(signal.SIGINT)
    out, err = live.driver.communicate(timeout=300)
    if live.driver.returncode != 130 or "resume with" not in err or "Traceback" in err:
        raise Crash(f"{live.driver.returncode} {out} {err}")
    until(lambda: not left_over(live.driver.pid))
    if time.monotonic() - begin > 60:
        raise Wrong(f"{time.monotonic() - begin:.0f} s until the last process was gone")


def it_is_told_as_interrupted(live: Live) -> None:
    judge(lam(live.box, "sweep", "status", "runs/demo"), (0,), ("interrupted",))


LIVE: dict[str, Callable[[Live], None]] = {
    "status": lambda live: typed(live, "sweep status runs/demo", (0,), "t0001"),
    "status as JSON": lambda live: typed(live, "sweep status runs/demo --json", (0,), '"t0001"'),
    "explain": lambda live: typed(live, "sweep explain runs/demo", (0,), "t0001"),
    "explain a trial": lambda live: typed(live, "sweep explain runs/demo t0001", (0,), "learning_rate"),
    "report": lambda live: typed(live, "report runs/demo -o r.html", (2,), "no trial has finished (1 started)", "wait"),
    "monitor": lambda live: typed(live, "monitor runs/demo/trials/t0001", (0, 1)),
    "launch again": lambda live: typed(live, "sweep launch s.yaml", (2,), "another driver is at work", "process "),
    "launch with another budget": the_yaml_is_changed,
    "extend": lambda live: typed(live, "sweep extend runs/demo --trials 1", (2,), "another driver is at work"),
    "promote": lambda live: typed(live, "promote runs/demo -o p.yaml", (1, 2), "finished"),
    "others look at Ray's folder": folder_is_private,
    "others look for secrets": no_secret_is_in,
    "a stranger joins Ray": ray_asks_for_its_token,
    "Ctrl-C": it_is_interrupted,
    "status after Ctrl-C": it_is_told_as_interrupted,
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", LIVE)
def test_a_sweep_that_runs_is_read_and_kept(name: str, live: Live) -> None:
    LIVE[name](live)


def test_so_many_were_tried() -> None:
    assert [len(found) for found in (HELP, ABSURD, WORDS, commands(), LIVE)] == [31, 14, 14, 11, 15]
