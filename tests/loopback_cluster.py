"""A Ray cluster of several nodes on this machine, with tokens, started by the commands that `ray_cluster.yaml` has."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
RAY = str(Path(sys.executable).with_name("ray"))


class Cluster:
    """A head without CPUs, and the nodes that a test adds; all of them see the same files, where nothing says other."""

    def __init__(self, folder: Path) -> None:
        self.scratch = tempfile.mkdtemp(prefix="lam-", dir="/tmp")
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
                    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "RAY_USAGE_STATS_ENABLED": "0",
                    "RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._added: dict[str, tuple[str, dict[str, str]]] = {}
        self.address = ""

    def start_head(self, *words: str) -> str:
        """Start it; its address."""
        plain = [] if any(word.startswith("--include-dashboard") for word in words) else ["--include-dashboard=false"]
        self._start("head", ["--head", "--port=0", "--num-cpus=0", f"--temp-dir={self.scratch}", *plain, *words])
        file = Path(self.scratch) / "ray_current_cluster"
        wait_until(lambda: file.exists() and file.read_text().strip() != "", 240, "the head")
        self.address = file.read_text().strip()
        return self.address

    def add(self, name: str, mounted: str = "", **env: str) -> None:
        """Start a node of one CPU.

        Args:
            mounted: shell commands that run in a mount namespace of the node's own before it starts.
        """
        self._added[name] = mounted, env
        self._start(name, [f"--address={self.address}", "--num-cpus=1"], mounted, env)

    def mend(self) -> None:
        """Start nodes again that did not come up: on a busy machine Ray gives up after 30 s."""
        for name, (mounted, env) in list(self._added.items()):
            if name in self.processes and self.processes[name].poll() is not None:
                self.add(name, mounted, **env)

    def _start(self, name: str, words: list[str], mounted: str = "", env: dict[str, str] | None = None) -> None:
        command = [RAY, "start", *words, "--block", "--disable-usage-stats", "--object-store-memory=100000000",
                   f"--dashboard-agent-listen-port={free_port()}"]  # its own: it takes jobs, and Ray has one default
        if mounted:
            command = ["unshare", "-m", "sh", "-c", f"{mounted} && exec {shlex.join(command)}"]
        with open(f"{self.scratch}/{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(command, env={**self.env, **(env or {})}, stdout=log, stderr=log,
                                                    stdin=subprocess.DEVNULL)

    def of(self, name: str) -> list[psutil.Process]:
        """The processes of a node."""
        process = psutil.Process(self.processes[name].pid)
        return [process, *process.children(recursive=True)]

    def kill(self, name: str) -> None:
        """End a node as a power cut does."""
        found = self.of(name)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.processes.pop(name).wait()

    def ray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of Ray's."""
        return subprocess.run([RAY, *words], env=self.env, capture_output=True, text=True, timeout=60, check=False)

    def driver(self, code: str) -> subprocess.Popen[str]:
        """A Python program that may join it."""
        return subprocess.Popen([sys.executable, "-c", code], env=self.env, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def dashboard(self) -> str:
        """The address that takes jobs, of a head that was started with one."""
        words = self.processes["head"].args
        assert isinstance(words, list)
        port = next(word.partition("=")[2] for word in words if word.startswith("--dashboard-port="))
        return f"http://127.0.0.1:{port}"

    def close(self) -> None:
        """End every node."""
        for name in list(self.processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                self.kill(name)


@contextlib.contextmanager
def cluster(folder: Path, *words: str, **env: str) -> Iterator[Cluster]:
    """A cluster for the length of a with-block."""
    found = Cluster(folder)
    found.env |= env
    try:
        found.start_head(*words)
        yield found
    finally:
        found.close()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(so: object, seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not in so many seconds.
    """
    assert callable(so)
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, f"{what} took longer than {seconds} s"
        time.sleep(0.1)
