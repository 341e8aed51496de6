"""Commands typed against an S3 server: each does on a store what it does in a folder; a store that refuses is named."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fake_training import make_record
from sweep_driver import spec

from lam import cli
from lam.config import RunConfig
from record.errors import EnvironmentFailed
from record.journal.events import Completed, Started, Suggested, SweepStarted
from record.run import RunFolder
from record.storage import copies, refusals
from sweeps.commands import doctoring
from sweeps.journal import folders, lease, runs, stores
from sweeps.journal.journal import Journal
from sweeps.spec.load import load
from sweeps.workers.entries import result_event


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of a command in this process."""
    code = 0
    try:
        cli.main(list(words))
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0
    said = capsys.readouterr()
    return code, said.out, said.err


# ---- a store that refuses

FAULTS = {  # the bucket -> what the server answers to every request
    "unknown": (403, "InvalidAccessKeyId"), "signature": (403, "SignatureDoesNotMatch"),
    "expired": (400, "ExpiredToken"), "denied": (403, "AccessDenied"), "region": (301, "PermanentRedirect"),
    "clock": (403, "RequestTimeTooSkewed"),
    "nobody": (404, "NoSuchBucket"), "odd": (418, "Teapot")}


class Refusing(BaseHTTPRequestHandler):
    """Answers as S3 does, by the bucket's name."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        status, code = FAULTS[self.path.strip("/").partition("/")[0].partition("?")[0]]
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so</Message></Error>".encode()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        if status == 301:
            self.send_header("x-amz-bucket-region", "eu-west-1")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _refuse

    def log_message(self, *said: object) -> None:
        """Nothing."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that refuses everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "AWS_ACCESS_KEY_ID": "x",
                            "AWS_SECRET_ACCESS_KEY": "canary-7f3a", "AWS_DEFAULT_REGION": "us-east-1",
                            "AWS_EC2_METADATA_DISABLED": "true"}.items():
            monkeypatch.setenv(name, value)
        yield
        server.shutdown()


SAID = {
    "unknown": "the store does not know the access key (|check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN, or the profile",
    "signature": "the secret key does not belong to the access key (|check AWS_SECRET_ACCESS_KEY",
    "expired": "the credentials have expired (|get new ones ('aws sso login', for example), then run the same command",
    "denied": "the credentials may not use it (|its owner can allow them to list, read, write and delete there",
    "region": "the bucket lies in the region eu-west-1, and was asked for elsewhere (|set AWS_DEFAULT_REGION=eu-west-1",
    "clock": "this machine's clock is off by more than the store allows (|set the clock",
    "nobody": "there is no 'nobody'|create the bucket, or correct the address",
    "odd": "refuses (|check the address, its region"}


@pytest.mark.usefixtures("refusing")
def test_each_refusal_is_one_message_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spec(tmp_path)
    for bucket, expected in SAID.items():
        uri = f"s3://{bucket}/runs"
        launch = ["sweep", "launch", str(path), "--storage", uri]
        for words in (["sweep", "status", f"{uri}/vq"], *([launch] if bucket == "expired" else [])):
            code, out, err = typed(capsys, *words)
            assert (code, out) == (2, ""), (words, out, err)
            assert all(part in err for part in (uri, *expected.split("|"))), (words, err)
            assert "Traceback" not in err
            assert "canary" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("refusing")
def test_missing_credentials_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, _, err = typed(capsys, "report", "s3://denied/runs/vq", "-o", str(tmp_path / "x.html"))
    assert (code, "no credentials were found in the environment or in ~/.aws" in err) == (2, True), err
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run 'aws configure'" in err
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    (tmp_path / "home" / ".aws" / "credentials").touch()
    said = str(refusals.refusal("ACCESS_DENIED", "s3://x", "storage", {"HOME": str(tmp_path / "home")}))
    assert "the credentials may not use it" in said
    assert "may not use it" in str(refusals.refusal("HTTP status 403", "gs://x", "storage", {"HOME": "/nowhere"}))


def test_credentials_that_expire_meanwhile_are_said_as_such() -> None:
    error = OSError("AWS Error UNKNOWN (HTTP status 400): Unable to parse ExceptionName: ExpiredToken")
    expected = r"^s3://b/p: the credentials have expired \(AWS .*; get new ones \('aws"
    with pytest.raises(EnvironmentFailed, match=expected), copies.told("s3://b/p"):
        raise error
    assert lease.refused("s3://b/p", error).startswith("s3://b/p: the journal cannot be written: the credentials have")


@pytest.mark.usefixtures("refusing")
def test_a_doctor_says_what_a_store_refuses() -> None:
    check = doctoring.answered("storage", lambda: doctoring._storage("s3://expired/runs"))
    assert check.state == "failed"
    assert "the credentials have expired" in check.found


# ---- a store that serves


@pytest.fixture
def uri(s3: str, tmp_path: Path) -> str:
    """A sweep whose driver is gone: three trials as workers published them, the last of which is not over."""
    path = spec(tmp_path, base={"data_dir": "nowhere", "num_epochs": 2}, scheduler="none", budget={"trials": 4},
                search="random", storage=s3)
    sweep = load(path)
    folder = folders.sweep_folder(sweep)
    folders.write_identity(sweep, folder, "fake-data")
    with stores.hold(folder, sweep.home(folder)) as store, contextlib.closing(Journal(folder, store)) as journal:
        journal.append(SweepStarted(name="demo", pid=1, host="here"))
        for number, decay in enumerate((0.1, 0.5, 0.3), 1):
            name = f"t{number:04d}"
            journal.append(Suggested(trial=name, params={"weight_decay": decay, "seed": 1}))
            journal.append(Started(trial=name))
            config = sweep.config({"weight_decay": decay, "seed": 1})
            assert isinstance(config, RunConfig)
            published = runs.Published(f"{s3}/demo", f"trials/{name}")
            published.fetch()
            run = RunFolder(published.folder)
            run.start(config.mapping(), {"run_id": name, "state": "running"})
            for epoch in (1, 2)[: 1 if number == 3 else 2]:
                record = make_record(config, epoch)
                run.append(record)
                journal.append(result_event(sweep.spec, name, record, sweep.workload.verdict(record)))
            if number < 3:
                run.update_identity(state="finished")
                journal.append(Completed(trial=name, epoch=2, objective=0.5))
            published.publish()
            published.close()
    return f"{s3}/demo"


@pytest.mark.slow
def test_every_reading_and_steering_command_works_on_a_store(uri: str, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str, code: int = 0) -> str:
        found, out, err = typed(capsys, *words)
        assert found == code, (words, out, err)
        return " ".join((out + err).split())  # a terminal's lines end anywhere

    states = {trial["id"]: trial["state"] for trial in json.loads(said("sweep", "status", uri, "--json"))["trials"]}
    assert states == {"t0001": "completed", "t0002": "completed", "t0003": "interrupted"}
    assert f"lam sweep launch {uri}/sweep.yaml --storage {uri.rpartition('/')[0]}" in said("sweep", "status", uri)
    assert "t0003" in said("sweep", "explain", uri, "t0003")
    assert "asha" in said("sweep", "replay", uri, "--policy", "asha")
    study = f"sqlite:///{tmp_path}/studies.db"
    assert "with 3 trials" in said("sweep", "optuna", uri, "--to", study)
    assert "t0001" in said("monitor", f"{uri}/trials/t0001")
    assert "a person stopped it: too slow" in said("sweep", "stop", uri, "t0003", "--because", "too slow")
    assert "t0003 has ended: stopped" in said("sweep", "stop", uri, "t0003", code=2)
    assert "t0004 suggested" in said("sweep", "enqueue", uri, "--from", "t0001", "--set", "weight_decay=0.2")
    assert "nothing to add" in said("sweep", "extend", uri, code=2)
    assert "4 trials" in said("sweep", "status", uri)
    other = spec(tmp_path, name="next", search="random", storage=str(tmp_path / "runs"))
    assert "search random starts from no results" in said("sweep", "launch", str(other), "--warm-start", uri, code=2)
    assert f"{uri}/trials/none: holds neither" in said("monitor", f"{uri}/trials/none", code=2)


def test_a_doctor_looks_at_a_store(s3: str, tmp_path: Path) -> None:
    check = doctoring._storage(f"{s3}/new")
    assert (check.state, check.found) == ("ok", f"{s3}/new can be written, read and deleted from")
    found: list[doctoring.Subject] = []
    assert doctoring._read(spec(tmp_path, storage=s3), "runs", found).state == "ok"
    assert (found[0].storage, found[0].journal) == (s3, None)
