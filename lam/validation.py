"""Pydantic's errors as one clear message: file, key path, value received, remedy."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from lam.errors import BadInput


class Strict(BaseModel):
    """Base of every schema: frozen, unknown keys are errors, NaN and infinity are not numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


Model = TypeVar("Model", bound=BaseModel)


def build(model: type[Model], values: dict[str, Any], source: str | Path) -> Model:
    """Validate `values` against `model`.

    Raises:
        BadInput: every problem found, one a line, each with its key path and remedy.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(model, item) for item in error.errors()]
        if len(problems) == 1:
            key, what, remedy = problems[0]
            raise BadInput(what, source=source, key=key, remedy=remedy) from None
        lines = "\n".join(f"  {key}: {what}; {remedy}" for key, what, remedy in problems)
        raise BadInput(f"{len(problems)} problems\n{lines}", source=source) from None


def _sentence(model: type[BaseModel], item: Any) -> tuple[str, str, str]:
    """(key path, what was wrong, remedy) of one pydantic error."""
    loc = tuple(item["loc"])
    key = ".".join(str(part) for part in loc) or "the file"
    if item["type"] == "extra_forbidden":
        return key, "unknown key", suggest(str(loc[-1]), field_names(model, loc[:-1]))
    if item["type"] == "missing":
        return key, "is missing", "add it"
    message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if item["type"] == "value_error":
        return key, message, "correct it"
    message = message[0].lower() + message[1:]
    return key, f"got {item['input']!r:.80}, {message.replace('input should', 'it should')}", "correct it"


def suggest(word: str, known: list[str]) -> str:
    """'did you mean ...?' when a known name is near, else the known names."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known here: {', '.join(sorted(known))}" if known else "take it out"


def field_names(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Field names of the (nested) model that `path` leads to; empty when it leads to no model."""
    current: Any = model
    parts = iter(path)
    for part in parts:
        field = getattr(current, "model_fields", {}).get(part)
        annotation: Any = field.annotation if field is not None else None
        current = model_in(annotation)
        if current is None:
            return []
        if get_origin(annotation) in (dict, list):
            next(parts, None)  # the key of a mapping of models, or the place in a list
    return [field.alias or name for name, field in current.model_fields.items()]


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model class inside an annotation such as ``Thing | None``."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
