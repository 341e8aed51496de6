"""A real `mlflow server`, and whether its registry agrees with the ledger."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.promote import registry
from analysis.promote.ledger import Ledger
from record.tracking.mlflow_client import client_of


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A server on a free port that keeps everything in `folder`; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def _wait_for(address: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def check_agree(target: Path, where: registry.Registry) -> None:
    """File, ledger and aliases agree, and every version that was served is registered once, READY and whole."""
    ledger, client = Ledger(target), client_of(where.uri)
    changes = ledger.changes()
    now = changes[-1]
    assert not ledger.is_edited()
    served = {f"{change.version}-{(change.begun.sha256 or '')[:12]}" for change in changes}
    there = client.search_model_versions(f"name='{where.name}'")
    assert sorted(each.tags[registry.KEY] for each in there) == sorted(served)
    champion = client.get_model_version_by_alias(where.name, where.aliases[0])
    [model] = [each for each in client.search_logged_models([client.get_experiment_by_name("lam").experiment_id])
               if each.tags[registry.KEY] == champion.tags[registry.KEY]]
    assert champion.tags["lam.sha256"] == now.begun.sha256 == ledger.hash_on_disk()
    before = next((change for change in reversed(changes) if change.version != now.version), None)
    if before is not None:
        assert client.get_model_version_by_alias(where.name, where.aliases[1]).tags["lam.sha256"] == before.begun.sha256
    assert str(model.status).endswith("READY")
    assert now.mirrors["mlflow"] == {"uri": where.uri, "name": where.name, "version": str(champion.version),
                                     "aliases": list(where.aliases)}
