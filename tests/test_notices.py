"""Notices: a file, a command without a shell, a webhook; and a receiver that is dead stops nothing."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typed
from build_records import Planted, confirmed, write_run, write_sweep

from analysis.monitor import telling
from analysis.monitor.monitor import examine
from analysis.promote import promote
from analysis.read import foreign
from record.errors import BadInput
from record.tracking.notices import Notices, Receivers, receivers


@contextlib.contextmanager
def _server(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real HTTP server on loopback, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}/other")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_a_command_and_a_webhook_each_get_every_notice_in_order(tmp_path: Path) -> None:
    taker = f"{sys.executable} -c 'import sys; open(\"{tmp_path}/got\", \"a\").write(sys.stdin.read())'"
    with _server() as (address, posted):
        to = receivers(tmp_path / "told.jsonl", taker, address)
        with contextlib.closing(Notices(to, "run")) as notices:
            notices.send("fired", rule="val_loss_jump", epoch=3)
            notices.send("cleared", rule="val_loss_jump", epoch=5)
    lines = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [(line["event"], line["epoch"]) for line in lines] == [("fired", 3), ("cleared", 5)]
    assert {line["run"] for line in lines} == {"run"}
    assert (tmp_path / "got").read_text() == (tmp_path / "told.jsonl").read_text()
    assert posted == lines


def test_no_shell_reads_a_command(tmp_path: Path) -> None:
    to = receivers(None, f"{sys.executable} -c pass ; touch {tmp_path}/never", None)
    with contextlib.closing(Notices(to, "run")) as notices:
        notices.send("fired")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("status", [500, 302])
def test_an_answer_that_is_no_yes_is_said_once_and_a_redirection_is_not_followed(
        status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with _server(status) as (address, posted), contextlib.closing(Notices(receivers(None, None, address), "r")) as told:
        for _ in range(3):
            told.send("fired")
        told.close()
    assert len(posted) == 3
    assert capsys.readouterr().err.count(f"127.0.0.1 did not take a notice (HTTP Error {status}") == 1


def test_a_dead_receiver_delays_nothing_and_is_waited_for_a_moment_only(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hangs = Receivers(command=(sys.executable, "-c", "import time; time.sleep(600)"), webhook="http://127.0.0.1:9/")
    notices, begin = Notices(hangs, "run", seconds=0.2), time.monotonic()
    for number in range(3):
        notices.send("fired", number=number)
    assert time.monotonic() - begin < 0.2
    notices.close(5)
    assert time.monotonic() - begin < 10
    assert "127.0.0.1 did not take a notice" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "command", "webhook", "message"), [
    ("none/told.jsonl", None, None, "its folder is missing"), (None, "no-such-program -x", None, "no such program"),
    (None, None, "ftp://host/x", "expected http://"), (None, None, "localhost:80", "expected http://")])
def test_receivers_that_are_none_are_refused_before_anything_runs(
        tmp_path: Path, file: str | None, command: str | None, webhook: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        receivers(tmp_path / file if file else None, command, webhook)


def test_monitor_tells_what_holds_and_while_it_follows_only_what_changed(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "pong", confirm=[confirmed("t0005", [0.40, 0.45, 0.44])])
    promote(folder, tmp_path / "production.yaml")
    run = write_run(tmp_path / "run", Planted(control=0.0, perplexity=1.0, mse=0.06))
    shutil.copy(tmp_path / "production.yaml", run.path / "production.yaml")
    code, _, err = typed.lam(tmp_path, "monitor", "run", "--notify-file", "told.jsonl")
    assert code == 1, err
    lines = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert {"abort", "warn"} == {line["severity"] for line in lines}
    assert all(line["event"] == "fired" and line["sentence"] and line["remedy"] for line in lines)
    healthy = write_run(tmp_path / "well", Planted(control=0.47, perplexity=8.9, mse=0.013))
    bad, well = examine(foreign.read(run.path)), examine(foreign.read(healthy.path))
    with contextlib.closing(Notices(Receivers(tmp_path / "more.jsonl"), "run")) as notices:
        telling.tell(notices, run.path, bad, bad)
        telling.tell(notices, run.path, bad, well)
    later = [json.loads(line) for line in (tmp_path / "more.jsonl").read_text().splitlines()]
    assert {line["event"] for line in later} == {"cleared"}
