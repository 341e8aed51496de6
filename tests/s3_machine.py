"""An S3 server of its own process, and machines that share nothing but it: each has a cache folder of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_cluster import ROOT, free_port, wait_until

from record.errors import LamError
from record.journal import journals, parsing
from record.journal.events import JournalEvent
from record.storage.store import Store

SERVER = str(Path(sys.executable).with_name("moto_server"))
FAKE = """
import sys, fake_training
from record.errors import LamError
from sweeps.commands.launching import Options, launch
try:
    launch(sys.argv[1], sys.argv[2], Options(train="fake_training:train", prepare=fake_training.prepare))
except LamError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Wire:
    """A port of this machine that leads to another one, and can be cut: connections are reset, new ones refused."""

    def __init__(self, to: int) -> None:
        self.port, self._to = free_port(), to
        self._open: set[socket.socket] = set()
        self.join()

    def join(self) -> None:
        """Lead there (again)."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._take, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        """Lead nowhere."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _take(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listening.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self._to))
                except OSError:  # it has not started
                    here.close()
                    continue
                for pair in ((here, there), (there, here)):
                    self._open.add(pair[0])
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


class Server:
    """A real S3 server with an empty bucket, behind a `wire`."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.wire = Wire(port)
        self.env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.wire.port}", "AWS_ACCESS_KEY_ID": "testing",
                    "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
                    "AWS_EC2_METADATA_DISABLED": "true"}
        with open(folder / "server.log", "wb") as log:
            self.process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        self.bucket = "s3://bucket"

    def make_bucket(self) -> None:
        from pyarrow import fs

        def made() -> bool:
            with contextlib.suppress(OSError):
                uri = f"{self.bucket}?allow_bucket_creation=true&region=us-east-1"
                fs.FileSystem.from_uri(uri)[0].create_dir("bucket")
                return True
            return False

        wait_until(made, 60, "the server")


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A server for the length of a with-block, which this process reaches, too."""
    found = Server(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in found.env.items():
                patch.setenv(name, value)
            found.make_bucket()
            yield found
    finally:
        found.wire.cut()
        found.process.kill()
        found.process.wait()


class Machine:
    """A folder to work in, and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.cache.mkdir(parents=True)
        self.env = {**os.environ, "XDG_CACHE_HOME": str(self.cache),
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Python with these words."""
        return subprocess.Popen([sys.executable, *words], cwd=self.folder, env={**self.env, **env}, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def lam(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """What the command prints."""
        process = self.start("-m", "lam.cli", *words)
        out, err = process.communicate(timeout=400)
        assert process.returncode in codes, (words, out, err)
        return out


def send(folder: Path, uri: str) -> str:
    """Copy a folder to a store; its URI there."""
    there = Store(uri)
    for file in folder.rglob("*"):
        if file.is_file():
            there.send(file, file.relative_to(folder).as_posix())
    return uri


def told(uri: str) -> list[JournalEvent]:
    """The events so far."""
    with contextlib.suppress(LamError):
        return list(journals.read_at(uri, parsing.read_lines))
    return []
