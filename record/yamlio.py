"""Strict YAML: what a person writes in a config is what the program reads.

PyYAML implements YAML 1.1, where ``1e-4`` is a string, ``no`` is False and a duplicate key wins
silently. The loader here follows the YAML 1.2 core schema on those points and refuses what a
config never needs: anchors and aliases, tags, octal written with a bare zero, several documents, texts that nest more
than 20 deep or are over 1 MiB.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from record import files
from record.errors import BadInput

MAX_BYTES = 1 << 20
MAX_LEVELS = 20
MAX_VALUES = 20_000


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 numbers and booleans, unique keys, and limits."""

    depth = values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _problem(event, "anchors and aliases are not supported; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _problem(event, f"the tag {event.tag[:40]!r} is not supported; write the value alone")
        if self.depth >= MAX_LEVELS:
            raise _problem(event, f"nests more than {MAX_LEVELS} deep; write it flatter")
        if self.values >= MAX_VALUES:
            raise _problem(event, f"holds more than {MAX_VALUES:,} keys and values; is this the right file?")
        self.depth, self.values = self.depth + 1, self.values + 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise _problem(key_node, "a key must be a plain word")
            if key in seen:
                raise _problem(key_node, f"the key {key!r} stands here twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SCALARS = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?[0-9]{1,40}|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,32})$"), "-+0123456789"),
    ("tag:yaml.org,2002:float",
     re.compile(r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
                r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"), "-+0123456789."),
)
"""What is not text although nothing quotes it: tag, shape, first characters."""

for _tag, _shape, _first in _SCALARS:
    _StrictLoader.add_implicit_resolver(_tag, _shape, list(_first))


def _integer(loader: _StrictLoader, node: Any) -> int:
    """An integer as YAML 1.2 writes it; 010, which YAML 1.1 reads as octal, is refused: people mean ten, or eight."""
    text = loader.construct_scalar(node)
    if re.fullmatch(r"[-+]?0[0-9]+", text):
        ten = text.lstrip("-+0") or 0
        raise _problem(node, f"got {text}, a number that begins with 0; write {ten}, or 0o for octal")
    return int(text, 0)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def _problem(node: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=node.start_mark)


def load_mapping(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping from `path`.

    Raises:
        BadInput: naming the file, the line where there is one, and the remedy.
    """
    path = Path(path)
    if not files.stands(path):
        raise BadInput("no such file", source=path, remedy="check the path, or write one with 'lam init'")
    if path.is_dir():
        raise BadInput("is a folder, expected a YAML file", source=path, remedy="name the file inside it")
    try:
        text = files.read_record(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"is not UTF-8 text (byte {error.start})", source=path,
                       remedy="save it as UTF-8") from None
    return parse_mapping(text, source=path)


def parse_own(text: str, source: str) -> dict[str, Any]:
    """As `parse_mapping`, of a text that comes with this package: libyaml reads it, where it is there, in a sixth."""
    try:
        from yaml._yaml import CParser
    except ImportError:
        return parse_mapping(text, source)

    class Loader(Composer, CParser, SafeConstructor, Resolver):
        yaml_implicit_resolvers, yaml_constructors = (_StrictLoader.yaml_implicit_resolvers,
                                                      _StrictLoader.yaml_constructors)

        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            for part in (Composer, SafeConstructor, Resolver):
                part.__init__(self)

    loader: Any = Loader
    value: dict[str, Any] = yaml.load(text, Loader=loader)
    return value


def parse_mapping(text: str, source: str | Path = "<text>") -> dict[str, Any]:
    """Parse one YAML mapping from a string; errors name `source`."""
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise BadInput(f"not valid YAML: {error.problem}", source=where, remedy="correct that line") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"not valid YAML: {error}", source=source, remedy="correct the file") from None
    if value is None:
        raise BadInput("is empty, expected keys and values", source=source,
                       remedy="'lam init' writes a commented example")
    if not isinstance(value, dict):
        raise BadInput(f"holds a {_kind(value)}, expected a mapping of keys to values", source=source,
                       remedy="write 'key: value' lines at the top level")
    return value


_PLAIN = re.compile(r"[-+]?[A-Za-z0-9_.][A-Za-z0-9_.+-]{0,40}")


def plain_value(text: str) -> Any:
    """What a scalar of a config means, without a parser's work for each of ten thousand alike configs.

    Raises:
        ValueError: it is more than a plain word or number.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(text)
    kind = next((tag.rpartition(":")[2] for tag, shape, first in _SCALARS
                 if text[0] in first and shape.fullmatch(text)), "str")
    if text in ("null", "Null", "NULL"):
        return None
    if kind == "int" and text.lstrip("-+").isdigit() and not re.fullmatch(r"[-+]?0[0-9]+", text):
        return int(text)
    if kind == "float" and text[-1].isdigit():
        return float(text)
    if kind == "bool":
        return text.lower() == "true"
    if kind != "str":
        raise ValueError(text)
    return text


def _kind(value: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number"}.get(type(value), type(value).__name__)


def dump_mapping(value: dict[str, Any]) -> str:
    """YAML text of a mapping, keys in the given order, floats that both YAML 1.1 and 1.2 read as floats."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that never emits aliases, so that what it writes `load_mapping` reads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# A text that either dialect would read as something else is quoted: YAML 1.1's shapes stand in the dumper already.
for _tag, _shape, _first in _SCALARS:
    _Dumper.add_implicit_resolver(_tag, _shape, list(_first))
