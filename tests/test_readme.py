"""The README tells the truth: its commands run as written, its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines of the README's shell blocks, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_there_are_commands_to_test() -> None:
    assert len(commands()) >= 8
    assert all(line.startswith("lam ") for line in commands())


@pytest.mark.nightly
def test_the_commands_run_as_written(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in commands():
        done = subprocess.run(line, shell=True, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True,
                              text=True, timeout=1200, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    for made in ("first/report.html", "first/report.md", "first/production.yaml", "first/final/run.json"):
        assert (tmp_path / made).exists()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "docs/records.md", *(
    str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs" / "decisions").glob("*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_has_the_readmes_targets(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
