"""The shape of the code as numbers: files side by side, import cycles, public names defined twice.

`python tests/house.py` prints them; tests/test_house.py holds them to their bounds.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("record", "lam", "sweeps", "analysis")
# Modules whose functions are named after the commands they are.
COMMANDS = ("commands", "cli")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file of every module."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    return {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def side_by_side(root: Path = ROOT) -> dict[str, int]:
    """Folder -> modules that lie in it, its `__init__` aside; the fullest first."""
    found = Counter(str(file.parent.relative_to(root)) for file in modules(root).values() if file.stem != "__init__")
    return dict(found.most_common())


def imports(root: Path = ROOT) -> dict[str, set[str]]:
    """Module -> modules of this project that it imports anywhere, in functions too; not for type checkers alone."""
    known = modules(root)
    return {name: {target for node in _walk(ast.parse(file.read_text())) for target in _targets(node, known)} - {name}
            for name, file in known.items()}


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _walk(node)


def _targets(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            inside = f"{node.module}.{alias.name}"
            if inside in known or node.module in known:
                yield inside if inside in known else node.module


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which comes back to itself, by Tarjan's algorithm; empty where there are none."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(graph[name]):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name):]
            del stack[stack.index(name):]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def twice(root: Path = ROOT) -> dict[str, list[str]]:
    """Public functions and classes that several modules of one package define, command modules aside."""
    homes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, file in modules(root).items():
        if file.stem in COMMANDS or file.parent.name in COMMANDS:
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                homes[name.split(".")[0], node.name].append(name)
    return {name: places for (_, name), places in sorted(homes.items()) if len(places) > 1}


def longest(root: Path = ROOT) -> tuple[int, str]:
    """(lines, where) of the longest function."""
    return max((node.end_lineno - node.lineno + 1, f"{file.relative_to(root)}:{node.name}")
               for file in modules(root).values() for node in ast.walk(ast.parse(file.read_text()))
               if isinstance(node, ast.FunctionDef) and node.end_lineno is not None)


def main(root: Path) -> None:
    """Print every number."""
    files = modules(root).values()
    print(f"modules {len(files)}, lines {sum(len(file.read_text().splitlines()) for file in files)}, "
          "longest function {} lines ({})".format(*longest(root)))
    print("files side by side:", ", ".join(f"{folder} {count}" for folder, count in side_by_side(root).items()))
    groups = cycles(imports(root))
    print(f"import cycles: {len(groups)}", *(" <-> ".join(group) for group in groups), sep="\n  ")
    names = twice(root)
    print(f"public names defined twice: {len(names)}",
          *(f"{name}: {', '.join(places)}" for name, places in names.items()), sep="\n  ")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
