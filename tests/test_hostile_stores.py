"""A sweep folder that names a server: nobody who reads the folder is sent there, unless they said so themselves."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from build_records import Planted, write_run
from small_sweep import make_sweep
from typer.testing import CliRunner

from analysis.monitor.monitor import examine
from analysis.read import foreign
from analysis.read.reading import read_study
from analysis.read.trackers.points import database_tables
from lam import cli
from record.errors import BadInput
from record.journal import journals
from record.storage import trust
from sweeps.commands import launching
from sweeps.journal import folders

STEERED = (
    "s3://bucket/p?endpoint_override=127.0.0.1:9988&scheme=http&region=us-east-1", "s3://bucket/p?scheme=http",
    "s3://bucket/p?region=x.evil.example/", "s3://bucket/p?proxy_options=http://evil.example", "s3://evil.example:80/p",
    "s3://bucket/p?region=", "s3://me@bucket/p", "gs://bucket/p?endpoint_override=evil.example",
    "hdfs://evil.example:8020/p",
    "viewfs://evil.example/p", "abfs://c@account.evil.example/p", "abfs://c@account:80/p",
    "abfs://c@account/p?blob_storage_authority=evil.example", "file://evil.example/share")
PLAIN = ("s3://bucket/p", "s3://bucket/p?region=eu-west-1", "s3://my.bucket/p?allow_delayed_open=true",
         "gs://anonymous@b/p", "gcs://b/p", "abfs://container@account/p", "abfss://c@account.dfs.core.windows.net/p", "file:///shared/journals")


@pytest.mark.parametrize("uri", STEERED)
def test_a_uri_that_says_which_server_is_asked_is_not_plain(uri: str) -> None:
    assert not trust.is_plain(uri)
    with pytest.raises(BadInput, match=r"sweep.json:spec.journal: names the server .* and would be sent your credent"
                                       r"ials; if you trust it, set LAM_JOURNALS='?\w+://.*; otherwise do not read"):
        trust.check(uri, "sweep.json", "spec.journal", allowed="s3://other")


@pytest.mark.parametrize("uri", PLAIN)
def test_a_uri_that_leaves_the_server_to_the_reader_is_plain(uri: str) -> None:
    assert trust.is_plain(uri)
    trust.check(uri, "sweep.json", "spec.journal", allowed="")


@pytest.mark.parametrize(("allowed", "uri", "expected"), [
    ("s3://b/p?scheme=http", "s3://b/p?scheme=http", True), ("s3://b/p?scheme=http", "s3://b/p/q?scheme=http", True),
    ("s3://a s3://b/p/?scheme=http", "s3://b/p?scheme=http", True), ("hdfs://h:8020", "hdfs://h:8020/p", True),
    ("s3://b/p?scheme=http", "s3://b/pq?scheme=http", False),
    ("s3://b/p?scheme=http", "s3://b/p/../q?scheme=http", False),
    ("s3://b/p", "s3://b/p?scheme=http", False), ("s3://b/p?scheme=http", "s3://b/p?scheme=http&region=x/", False),
    ("", "s3://b/p?scheme=http", False), ("hdfs://h:8020", "hdfs://h:8021/p", False),
])
def test_what_is_allowed_is_a_uri_and_what_lies_below_it(allowed: str, uri: str, expected: bool) -> None:
    assert trust.is_allowed(uri, allowed) is expected


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """(host and port, what was sent there) of a server that answers nothing."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(65536))
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def planted(folder: Path, uri: str) -> Path:
    """A sweep folder with a trial whose sweep.json has this journal."""
    sweep = make_sweep(folder.parent / "yaml")
    folders.write_identity(sweep, folder, "data")
    content = json.loads((folder / "sweep.json").read_text())
    content["spec"]["journal"] = uri
    (folder / "sweep.json").write_text(json.dumps(content))
    write_run(folder / "trials" / "t0001", Planted())
    (folder / "sweep.yaml").write_text(f"{sweep.text}journal: {uri}\n")
    return folder


def test_a_folder_that_names_a_server_sends_nobody_there(
        tmp_path: Path, listener: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    address, heard = listener
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "canary")
    folder = planted(tmp_path / "demo", f"s3://bucket/p?endpoint_override={address}&scheme=http&region=us-east-1")
    for read in (lambda: folders.open_sweep(folder), lambda: read_study(folder), lambda: journals.home(folder),
                 lambda: examine(foreign.read(folder / "trials" / "t0001"), None, {}, None),
                 lambda: launching.launch(folder / "sweep.yaml", tmp_path)):
        with pytest.raises(BadInput, match="names the server that the journal is read from"):
            read()
    assert heard == []


@pytest.mark.parametrize("command", [
    ["sweep", "status"], ["sweep", "explain"], ["sweep", "extend", "--trials", "1"], ["sweep", "confirm"], ["report"],
    ["sweep", "replay", "--policy", "none"], ["sweep", "optuna", "--to", "sqlite://"], ["promote", "-o", "x.yaml"]])
def test_every_command_refuses_alike(tmp_path: Path, command: list[str]) -> None:
    folder = planted(tmp_path / "demo", "s3://bucket/p?endpoint_override=127.0.0.1:9&scheme=http")
    done = CliRunner().invoke(cli.build(), [*command, str(folder)])
    assert isinstance(done.exception, BadInput), done.output
    assert "LAM_JOURNALS='s3://bucket/p?endpoint_override=127.0.0.1:9&scheme=http'" in str(done.exception)


def test_who_allows_the_server_reads_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://bucket/p?endpoint_override=127.0.0.1:9&scheme=http"
    monkeypatch.setenv(trust.ALLOWED, uri)
    assert journals.home(planted(tmp_path / "demo", uri)) == uri.replace("/p?", "/p/demo?")


def test_who_launches_with_a_server_is_told_how_to_read_it(tmp_path: Path) -> None:
    uri = "s3://bucket/p?endpoint_override=127.0.0.1:9&scheme=http"
    (told,) = folders.kept_to_itself(make_sweep(tmp_path, journal=uri))
    assert told.endswith(f"so that other commands read this sweep, set LAM_JOURNALS='{uri}' in the environment")
    assert folders.kept_to_itself(make_sweep(tmp_path, journal="s3://bucket/p")) == []


def test_a_database_whose_names_are_no_text_holds_no_tables(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(file)) as made:
        made.execute("create table trials (number)")
        made.commit()
    file.write_bytes(file.read_bytes().replace(b"trials", b"\x80rials"))
    assert database_tables(file) == set()
