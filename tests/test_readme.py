"""The README tells the truth: its links lead somewhere. Its commands are typed in test_inputs_use.py."""

from __future__ import annotations

import re
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
