"""Pydantic's errors as one clear message: file, key path, value received, remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from record.errors import BadInput
from record.text import printable


class Strict(BaseModel):
    """Base of every schema: frozen, unknown keys are errors, NaN and infinity are not numbers.

    Attributes:
        example: how one is written, for the message to a person who wrote something else.
    """

    example: ClassVar[str] = ""
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


MOST_PROBLEMS = 10  # that are told
MOST_ERRORS = 200  # of pydantic's that are looked at; each may be one of several about a key
LONGEST_KEY = 200

Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[int | str, ...]

# What pydantic calls the members of a union that is no model.
_KIND = re.compile(r"(bool|int|float|str|none)|(dict|list|tuple)\[.*\]")


def build(model: type[Model], values: dict[str, Any], source: str | Path) -> Model:
    """Validate `values` against `model`.

    Raises:
        BadInput: every problem found, one a line, each with its key path and remedy.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        items = error.errors()
        found = _by_key(model, items[:MOST_ERRORS])
        problems = [_sentence(model, key, found[key]) for key in list(found)[:MOST_PROBLEMS]]
        if len(found) == 1 and len(items) <= MOST_ERRORS:
            key, what, remedy = problems[0]
            raise BadInput(what, source=source, key=key, remedy=remedy) from None
        lines = "\n".join(f"  {key}: {what}; {remedy}" for key, what, remedy in problems)
        more = max(len(found), len(items) if len(items) > MOST_ERRORS else 0)
        rest = f"\n  and {more - len(problems):,} more" if more > len(problems) else ""
        raise BadInput(f"{more:,} problems\n{lines}{rest}", source=source) from None


def _by_key(model: type[BaseModel], items: Iterable[Any]) -> dict[KeyPath, list[Any]]:
    """Errors by the key that a person wrote: what a value could have been instead is one problem, not several."""
    found: dict[KeyPath, list[Any]] = {}
    for item in items:
        found.setdefault(_written(model, item["loc"]), []).append(item)
    deepest = [key for key in found if not any(other != key and other[: len(key)] == key for other in found)]
    return {key: found[key] for key in found if key in deepest or not _is_choice(found[key][0])}


def _is_choice(item: Any) -> bool:
    """Whether an error is about one of several kinds that a value may be."""
    return isinstance(item["loc"][-1], str) and bool(_KIND.fullmatch(item["loc"][-1]))


def _written(model: type[BaseModel], loc: KeyPath) -> KeyPath:
    """A key path without the names that pydantic gives the members of a union."""
    path: KeyPath = ()
    for part in loc:
        if not (isinstance(part, str) and _KIND.fullmatch(part) and part not in field_names(model, path)):
            path = (*path, part)
    return path


def _sentence(model: type[BaseModel], path: KeyPath, items: list[Any]) -> tuple[str, str, str]:
    """(key path, what was wrong, remedy) of the pydantic errors about one key."""
    item, key = items[0], printable(".".join(str(part)[:LONGEST_KEY] for part in path)) or "the file"
    if item["type"] == "extra_forbidden":
        return key, "unknown key", suggest(str(path[-1]), field_names(model, path[:-1]))
    if item["type"] == "missing":
        return key, "is missing", "add it"
    if item["type"] == "model_type":
        return key, f"got {item['input']!r:.80}, expected a mapping of keys to values", _example(model, path)
    if item["type"] == "too_short" and not item["input"]:
        return key, f"got {item['input']!r}, which is empty", "name at least one"
    if item["type"] == "value_error":
        message = item["msg"].removeprefix("Value error, ")
        what, _, remedy = message.rpartition("; ")
        return (key, what, remedy) if what else (key, message, "correct it")
    first, *others = [other["msg"].removeprefix("Assertion failed, ").replace("a valid dictionary", "a mapping")
                      for other in items]
    wanted = " or ".join([first[0].lower() + first[1:], *(other.removeprefix("Input should be ") for other in others)])
    what = f"got {item['input']!r:.80}, {wanted.replace('input should', 'it should')}"
    return key, what, _description(model, path) if others else "correct it"


def _description(model: type[BaseModel], path: KeyPath) -> str:
    """What belongs at a path, in the words of the schema."""
    owner = model_at(model, path[:-1])
    field = owner.model_fields.get(str(path[-1])) if owner else None
    return f"it is the {field.description}" if field and field.description else "correct it"


def _example(model: type[BaseModel], path: KeyPath) -> str:
    """How the mapping that belongs at a path is written."""
    wanted = model_at(model, path)
    example = getattr(wanted, "example", "")
    return f"for example {example}" if example else f"its keys are {', '.join(field_names(model, path))}"


def suggest(word: str, known: list[str]) -> str:
    """'did you mean ...?' when a known name is near, else the known names."""
    near = difflib.get_close_matches(word[:LONGEST_KEY], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known here: {', '.join(sorted(known))}" if known else "take it out"


def field_names(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Field names of the (nested) model that `path` leads to; empty when it leads to no model."""
    current = model_at(model, path)
    return [field.alias or name for name, field in current.model_fields.items()] if current else []


def model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The (nested) model that `path` leads to, None when it leads to none."""
    current: type[BaseModel] | None = model
    parts = iter(path)
    for part in parts:
        field = getattr(current, "model_fields", {}).get(part)
        annotation: Any = field.annotation if field is not None else None
        current = model_in(annotation)
        if current is None:
            return None
        if get_origin(annotation) in (dict, list):
            next(parts, None)  # the key of a mapping of models, or the place in a list
    return current


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model class inside an annotation such as ``Thing | None``."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
