"""Fixtures that several test files share."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: before numpy and torch, which read it once, are imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "token")  # read once, too: Ray starts with it, and is joined with it

from object_disk import Disk

from lam.data import demo

# The same cases in each run: what a draw by chance finds belongs to `make test-fuzz`, not to somebody's commit.
settings.register_profile("same", derandomize=True, deadline=None, max_examples=25, database=None)
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_CASES", "5000")))
settings.load_profile("same")

MEMORY, ROOM = Path("/dev/shm"), 2 * 1024**3


def pytest_configure() -> None:
    """Put the tests' files into memory where there is room: they force journals to the disk thousands of times."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, so that no core waits at the end for the other one's last test."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[demo.Demo], Path]:
    """A folder of real latents, made once for all tests that ask for the same, in whichever process they run.

    Do not write into it; copy it first.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(what: demo.Demo) -> Path:
        folder = root / f"latents-{what.game}-{what.episodes}x{what.length}-{what.size}"
        with open(f"{folder}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            demo.make(folder, what)  # what is there already stays
        return folder

    return made


@pytest.fixture(scope="session")
def tiny_data(latents: Callable[[demo.Demo], Path]) -> Path:
    """10 clips of Pong, 24 latent frames of 16x8x8 each, with a manifest."""
    return latents(demo.Demo(game="pong", episodes=10, length=24, size=64, seed=0))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real S3 server on loopback with an empty bucket, named in the environment; yields the bucket's URI."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "testing",
                            "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
                            "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        fs.FileSystem.from_uri("s3://bucket?allow_bucket_creation=true&region=us-east-1")[0].create_dir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray that many sweeps may join, one after the other: most of a short sweep's time is the start of a Ray."""
    import sweep_driver

    with sweep_driver.shared_ray(tmp_path_factory.mktemp("ray") / "ray.log") as address:
        yield address


@pytest.fixture
def s3(s3_server: str, tmp_path: Path) -> str:
    """A prefix of that bucket that no other test has."""
    return f"{s3_server}/{tmp_path.name}"


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """An object store whose requests a test may refuse."""
    return Disk(tmp_path / "store")
