"""A report's records as Parquet, its JSON's schema, and the page that is served while a sweep runs."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import typer
from build_records import Planted, write_run, write_sweep
from interrupting import answer_ctrl_c
from typer.testing import CliRunner

from analysis.commands import register
from analysis.read.reading import read_study
from analysis.report.delivery import schema
from analysis.report.delivery.live import current
from analysis.report.delivery.serve import PageServer
from analysis.report.delivery.tables import records_table, trials_table, write_tables

ROOT = Path(__file__).resolve().parent.parent
APP = typer.Typer()
register(APP)
ASKED: dict[str, str | None] = {"baseline": None, "objective": None, "profile": None}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("delivery") / "pong")


# ---- parquet

def test_the_records_are_written_as_two_tables_beside_the_page(sweep: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(APP, ["report", str(sweep), "-o", str(tmp_path / "report.html"),
                                    "-o", str(tmp_path / "records.parquet")])
    assert told.exit_code == 0, told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "records.parquet", "records.trials.parquet", "report.html"]
    records = pq.read_table(tmp_path / "records.parquet").to_pandas()
    study = read_study(sweep)
    assert len(records) == sum(len(trial.records) for trial in study.trials)
    for trial in study.trials:
        own = records[records.trial == trial.label]
        assert own["epoch"].tolist() == [record["epoch"] for record in trial.records]
        assert own["val/control"].dropna().tolist() == [
            record["val/control"] for record in trial.records if record["val/control"] is not None]
    trials = pq.read_table(tmp_path / "records.trials.parquet").to_pandas().set_index("trial")
    assert trials.loc["t0003", "stop_rule"] == "asha"
    assert trials.loc["t0005", "config.commitment_weight"] == 0.1
    assert trials.loc["t0005", "rank"] == 1


def test_null_is_not_measured_and_nan_is_not_finite(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Planted(epochs=2))
    run.metrics_file.write_text('{"epoch":1,"train/loss":null,"step":5}\n{"epoch":2,"mixed":1}\n{"epoch":3,"mixed":"a"}\n'
                                '{"epoch":4,"val/codebook_histogram":[1,2],"step":null}\n{"epoch":5,"torn')
    table = records_table(read_study(run.path))
    assert table["epoch"].to_pylist() == [1, 2, 3, 4]
    loss = table["train/loss"].to_pylist()
    assert np.isnan(loss[0])
    assert loss[1:] == [None, None, None]
    assert table["step"].to_pylist() == [5, None, None, None]
    assert table["mixed"].to_pylist() == [None, "1", '"a"', None]
    assert table["val/codebook_histogram"].to_pylist() == [None, None, None, [1, 2]]


def test_runs_without_an_epoch_are_rows_of_their_own_table(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Planted(epochs=1))
    run.metrics_file.write_text("")
    study = read_study(run.path)
    assert records_table(study).num_rows == 0
    assert trials_table(study)["epochs"].to_pylist() == [0]


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "reports.md").read_text(), re.S)


def test_the_page_on_parquet_has_a_snippet_for_each_library() -> None:
    assert {library for snippet in SNIPPETS for library in re.findall(r"^import (\w+)", snippet, re.M)} == {
        "pandas", "pyarrow", "polars", "duckdb"}


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.split()[1])
def test_every_snippet_of_the_page_on_parquet_runs(snippet: str, sweep: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(re.findall(r"^import (\w+)", snippet, re.M)[0])
    write_tables(read_study(sweep), tmp_path / "records.parquet")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(snippet, found)
    assert isinstance(found["best"], pd.DataFrame)
    assert found["best"].index[0] == "t0005"
    assert "t0004" not in found["best"].index[:2], "what diverged is not best"


# ---- the schema

def test_the_published_schema_is_that_of_the_classes() -> None:
    kept = (ROOT / "docs" / "schemas" / "report.schema.json").read_text()
    assert kept == schema.schema_text(), "python -m analysis.report.delivery.schema > docs/schemas/report.schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(kept))


def test_a_report_is_what_the_schema_says(sweep: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    CliRunner().invoke(APP, ["report", str(sweep), "-o", str(target)])
    told = json.loads(target.read_text())
    validator = jsonschema.Draft202012Validator(schema.report_schema())
    assert [error.message[:200] for error in validator.iter_errors(told)] == []
    assert validator.is_valid({**told, "verdict": None}) is False


# ---- served

@pytest.fixture
def served() -> Iterator[PageServer]:
    made = iter(range(100))
    with PageServer(lambda: (f"<p>{next(made)}</p>", True), every=1000) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _ask(server: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.getheader("Refresh")


def test_only_the_address_with_the_token_is_answered(served: PageServer) -> None:
    own = f"/{served.token}/"
    assert _ask(served, own) == (200, "<p>0</p>", "1000")
    assert _ask(served, own) == (200, "<p>0</p>", "1000")  # not old yet
    assert _ask(served, own, "HEAD")[:2] == (200, "")
    for path in ("/", "/favicon.ico", own + "x", f"/{served.token}", "/../" + served.token, "//", f"{own}?a=1"):
        assert _ask(served, path)[0] == 404, path
    assert _ask(served, own, "POST")[0] == 501
    assert _ask(served, own, Host="evil.example")[0] == 403
    assert served.url.startswith("http://127.0.0.1:")
    assert len(served.token) >= 32


def test_nobody_outside_this_machine_can_connect(served: PageServer) -> None:
    assert served.socket.getsockname()[0] == "127.0.0.1"


def test_the_page_is_made_again_once_it_is_old_and_may_have_changed() -> None:
    made, changes = iter(range(100)), iter([True, False, True])
    with PageServer(lambda: (str(next(made)), next(changes)), every=0.0) as server:
        assert [server.page()[0] for _ in range(4)] == ["0", "1", "1", "1"]


def test_what_runs_is_refreshed_and_what_has_ended_is_not(sweep: Path, tmp_path: Path) -> None:
    page, changes = current([str(sweep)], ASKED)
    assert changes  # t0007 has not ended
    assert "t0005 wins" in page
    ended = write_sweep(tmp_path / "ended", {"t0001": Planted(epochs=2)})
    assert current([str(ended)], ASKED)[1] is False
    begun = write_sweep(tmp_path / "begun<b>", {"t0001": Planted(epochs=2, end="started")})
    page, changes = current([str(begun)], ASKED)
    assert changes
    assert "no trial has finished" in page
    assert "<b>" not in page


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(sweep: Path) -> None:
    command = [sys.executable, "-m", "lam.cli", "report", str(sweep), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                          preexec_fn=answer_ctrl_c) as process, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(process.kill)
        assert process.stdout is not None
        port, path = re.search(r"http://127\.0\.0\.1:(\d+)(/\S+)", process.stdout.readline()).groups()  # type: ignore[union-attr]
        process.stdout.readline()
        with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as link:
            link.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            answer = b"".join(iter(lambda: link.recv(65536), b""))
        assert b"t0005" in answer
        assert b"Refresh: 30" in answer
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
