"""A small process that outlives a driver by a moment and clears up after it.

    python -m sweeps.workers.reaper FOLDER

It waits on its standard input, which ends when the driver does, whatever ends it: then it kills
every process that was started with ``LAM_SESSION=FOLDER`` or has a file in FOLDER open (Ray's own, the
trials', and what the trials started, such as data loaders) and removes the folder. Ray alone leaves agents behind for
about a minute after its driver was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "LAM_SESSION"


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Mark what is started inside the with-block, and see that it ends with it."""
    watcher = subprocess.Popen([sys.executable, "-m", "sweeps.workers.reaper", str(folder)], stdin=subprocess.PIPE,
                               start_new_session=True, cwd=Path(__file__).resolve().parent.parent)
    os.environ[MARK] = str(folder)
    try:
        yield
    finally:
        del os.environ[MARK]
        watcher.communicate()


def of_session(folder: str, spared: set[int]) -> Iterator[psutil.Process]:
    """Processes of the session but the `spared` ones; those of other users cannot be read and are not ours.

    The mark alone is not enough: a process that sets its title may overwrite its environment.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in spared and (process.environ().get(MARK) == folder or any(
                    file.path.startswith(folder + os.sep) for file in process.open_files())):
                yield process


def main(folder: str) -> None:
    """Wait for the driver to end, then clear up."""
    spared = {os.getpid(), os.getppid()}
    sys.stdin.read()
    for process in of_session(folder, spared):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
