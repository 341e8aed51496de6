"""Which software made something: the package's own commit, told without loading torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from record import provenance


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", folder, *words],
                          capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code_and_not_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, users = tmp_path / "code", tmp_path / "users"
    for folder in (code, users):
        folder.mkdir()
        (folder / "a.py").write_text(f"# {folder.name}")
        git(folder, "init", "-q")
        git(folder, "add", "a.py")
        git(folder, "commit", "-qm", "first")
    installed = users / ".venv" / "b.py"  # an environment inside the user's repository, which does not hold it
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.chdir(users)
    assert provenance.git_commit(code / "a.py") == git(code, "rev-parse", "HEAD")
    assert provenance.git_commit(installed) is None
    assert provenance.git_commit(tmp_path / "a.py") is None
    assert provenance.git_commit() != git(users, "rev-parse", "HEAD")


def test_what_a_sweep_is_made_with_is_told_without_torch() -> None:
    code = ("import sys\n"
            "from record import provenance\n"
            "from sweeps.journal import folders\n"
            "assert set(provenance.versions()) == {'python', *provenance.PACKAGES}\n"
            "assert folders.provenance is provenance\n"
            "assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
