"""Which software made something: versions of packages, and the commit of this package's checkout. Needs no torch."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("lamsweep", "torch", "numpy", "h5py", "ray", "optuna")


def lamsweep() -> str:
    """Version of this package."""
    return version("lamsweep")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit(file: Path = Path(__file__)) -> str | None:
    """Commit of the checkout that `file`, by default this one, belongs to; None where it is in no repository.

    The current folder's repository is the user's own, and so may be the one that an environment lies in: a
    repository that does not hold the file says nothing about the code.
    """
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _git(file, "rev-parse", "HEAD")


def _git(file: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(file.parent), *words], capture_output=True, text=True, timeout=5,
                              check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
