"""The fault matrix names tests that are there, and its page has a row for each fault."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from fault_matrix import FAULTS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_tests_that_exist(fault: str) -> None:
    for node in FAULTS[fault].tests:
        file, _, name = node.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert name in {item.name for item in ast.walk(tree) if isinstance(item, ast.FunctionDef)}, node


def test_the_page_has_a_row_for_each() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert list(FAULTS) == [f"F{number}" for number in range(1, 27)]
    for name, fault in FAULTS.items():
        assert f"| {name} | {fault.what} | {fault.promise} |" in page, "run make test-faults"
