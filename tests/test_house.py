"""The shape of the code: rooms of at most a dozen modules, no import cycle, few names that mean two things."""

from __future__ import annotations

from pathlib import Path

import house
import pytest


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    assert {folder: count for folder, count in house.side_by_side().items() if count > 12} == {}


def test_no_module_comes_back_to_itself_through_its_imports() -> None:
    assert house.cycles(house.imports()) == []


def test_few_public_names_stand_in_two_modules_of_a_package() -> None:
    assert len(house.twice()) <= 10, house.twice()


def test_no_function_is_longer_than_forty_lines() -> None:
    assert house.longest()[0] <= 40, house.longest()


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, file in house.modules().items() if not file.read_text().startswith('"""')]
    assert silent == []


@pytest.mark.parametrize(("graph", "expected"), [
    ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
    ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [["a", "b"]]),
    ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}, [["a", "b", "c"], ["d", "e"]]),
])
def test_cycles_are_found(graph: dict[str, set[str]], expected: list[list[str]]) -> None:
    assert house.cycles(graph) == expected


def test_imports_in_functions_count_and_those_for_type_checkers_do_not(tmp_path: Path) -> None:
    for package in house.PACKAGES:
        (tmp_path / package).mkdir()
    (tmp_path / "lam" / "a.py").write_text("def f():\n    from lam import b\n")
    (tmp_path / "lam" / "b.py").write_text("if TYPE_CHECKING:\n    from lam.a import f\n")
    assert house.imports(tmp_path) == {"lam.a": {"lam.b"}, "lam.b": set()}
