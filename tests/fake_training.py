"""A stand-in for `lam.training.loop.train`: curves computed from the config, real records on disk, no torch.

The knobs steer it: `weight_decay` is the quality of a trial (0 best), `seed` how it fares:
    seed % 10 == 7   the loss is NaN from epoch 2 on
    seed % 10 == 8   raises at epoch 2
    seed % 10 == 9   the codebook is collapsed throughout
    seed % 10 == 6   its process kills itself at epoch 2, once
    seed % 10 == 5   never ends epoch 2
    seed % 10 == 4   has no memory left at epoch 2
    seed % 10 == 3   its process kills itself at epoch 2, each time
    seed == 14       has no memory left at epoch 2, once
    seed == 12       finds no space on the disk at epoch 2, once
and, where two processes train `together`, how the second one fares:
    seed == 20       raises at epoch 2
    seed == 21       is killed at epoch 2, once
    seed == 22       is killed at epoch 2, each time
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from lam import codebook
from lam.config import RunConfig
from lam.data import windows
from record.errors import WorkerLost
from record.run import RunFolder
from record.workload.together import Gone

EPOCH_SECONDS = float(os.environ.get("FAKE_EPOCH_SECONDS", "0.01"))


def fill_disk(events: int) -> None:
    """In the driver: refuse to force anything to the disk once the journal has this many events."""
    real = os.fsync
    written = [0]

    def fsync(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".jsonl"):
            written[0] += 1
            if written[0] > events:
                os.ftruncate(handle, os.fstat(handle).st_size - 5)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    os.fsync = fsync


def prepare(configs: list[RunConfig]) -> str:
    """In place of reading data."""
    return "fake-data"


def train(config: RunConfig, run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """Epoch records; resumes after the last recorded epoch, as the real one does."""
    folder = RunFolder(run_dir)
    if not folder.exists():
        folder.start(config.mapping(), {"run_id": folder.path.name, "state": "running"})
    done = len(folder.metrics())
    _note(folder, "open", after=done)
    try:
        for epoch in range(done + 1, config.num_epochs + 1):
            time.sleep(EPOCH_SECONDS)
            _misbehave(config, epoch, folder)
            record = make_record(config, epoch)
            folder.append(record)
            yield record
        folder.update_identity(state="finished")
    finally:
        _note(folder, "close", after=len(folder.metrics()))


def reading(config: RunConfig, run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """`train`, which needs the data to be there, as the real one does, and room in FAKE_FULL."""
    windows.open_split(config, "train")
    if "FAKE_FULL" in os.environ:
        (Path(os.environ["FAKE_FULL"]) / "cache").write_bytes(bytes(2**20))
    yield from train(config, run_dir)


def on_a_gpu(config: RunConfig, run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """`train` in a process that looks as if it used CUDA."""
    torch = ModuleType("torch")
    cuda = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True)
    vars(torch).update(set_num_threads=int, cuda=cuda)
    sys.modules.setdefault("torch", torch)
    yield from train(config, run_dir)


def together(config: RunConfig, run_dir: str | Path, gone: Gone) -> Iterator[dict[str, Any]]:
    """`train` as one of two processes, of which the second has to agree to each epoch."""
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] != "0":
        _agree(config, Path(run_dir), _connected(address))
        return
    with socket.create_server(address) as listening:
        listening.settimeout(0.1)
        while not (line := _accepted(listening)):
            if gone():
                raise WorkerLost("the other one ended before it came")
    folder = RunFolder(run_dir)
    with line, contextlib.closing(train(config, run_dir)) as records:
        for epoch in itertools.count(len(folder.metrics()) + 1 if folder.exists() else 1):
            with contextlib.suppress(OSError):
                line.sendall(bytes([epoch]))
            if not line.recv(1):
                raise WorkerLost("the other one does not answer")
            if (record := next(records, None)) is None:
                return
            yield record


def _accepted(listening: socket.socket) -> socket.socket | None:
    try:
        return listening.accept()[0]
    except TimeoutError:
        return None


def _connected(address: tuple[str, int]) -> socket.socket:
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(address)
        time.sleep(0.05)


def _agree(config: RunConfig, run_dir: Path, line: socket.socket) -> None:
    with line:
        while (epoch := line.recv(1)):
            if epoch == b"\2" and config.seed == 20:
                raise RuntimeError("the second encoder exploded")
            if epoch == b"\2" and (config.seed == 22 or (config.seed == 21 and not (run_dir / "died").exists())):
                (run_dir / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            line.sendall(b"y")


def greedy(config: RunConfig, run_dir: str | Path) -> Iterator[dict[str, Any]]:
    """`train`, but seed 4 takes 6 GiB after its first epoch, 64 MiB at a time, and keeps them."""
    taken: list[bytearray] = []
    for record in train(config.replace(seed=1), run_dir):
        yield record
        while config.seed == 4 and len(taken) < 96:
            taken.append(bytearray(os.urandom(1024) * 65536))
            time.sleep(0.02)
    if config.seed == 4:
        time.sleep(60)


def _note(folder: RunFolder, what: str, **more: Any) -> None:
    with open(folder.path / "calls.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid(), **more}) + "\n")


def _misbehave(config: RunConfig, epoch: int, folder: RunFolder) -> None:
    kind = config.seed % 10
    if kind == 8 and epoch == 2:
        print("about to raise")
        raise RuntimeError("the encoder exploded")
    if kind == 5 and epoch == 2:
        time.sleep(3600)
    if kind == 4 and epoch == 2 and not (folder.path / "short").exists():
        if config.seed == 14:
            (folder.path / "short").touch()
        raise MemoryError("cannot allocate 3 GiB")
    if config.seed == 12 and epoch == 2 and not (folder.path / "full").exists():
        (folder.path / "full").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if kind == 3 and epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == 6 and epoch == 2 and not (folder.path / "died").exists():
        (folder.path / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def make_record(config: RunConfig, epoch: int) -> dict[str, Any]:
    """The record of one epoch."""
    kind = config.seed % 10
    mse = math.nan if kind == 7 and epoch >= 2 else 0.1 + config.weight_decay / epoch
    collapsed = float(kind == 9)
    record: dict[str, Any] = {
        "epoch": epoch, "step": 10 * epoch, "seconds": 0.1 * epoch, "train_seconds": 0.1, "total_tflops": 0.5 * epoch,
        "train/loss": mse, "val/mse_loss": mse, "val/mse_copy": 1.0, "val/dsnr": 2.0, "val/dsnr_status": "ok",
        "val/collapsed": collapsed, "val/perplexity_slot": 1.0 if collapsed else 6.0, "val/codebook_health": 1.0,
        "val/control": max(0.0, 0.9 - config.weight_decay) * (1 - 0.5**epoch), "val/control_low": 0.01,
    }
    return {**record, "val/objective": codebook.objective(record)}
