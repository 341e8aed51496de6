"""The JSON schema of a report in JSON, from the classes it is made of: `python -m analysis.report.delivery.schema`."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, create_model

from analysis.report.drawing import Drawing
from analysis.report.report import Report

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def report_schema() -> dict[str, Any]:
    """What `lam report -o FILE.json` writes; a number that is not finite is null, pictures are left out."""
    kinds = {**get_type_hints(Report), **get_type_hints(Drawing)}
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in kinds.items()}
    model = create_model("Report", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    schema: dict[str, Any] = TypeAdapter(model).json_schema(mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        if "properties" in part:
            part["properties"].pop("images", None)
            part["required"] = list(part["properties"])
    schema["properties"] = {"schema": {"const": 1}, **schema["properties"]}
    return {"$schema": DRAFT, **_or_null(schema), "required": ["schema", *schema["required"]]}


def _or_null(part: Any) -> Any:
    """The same, with null allowed wherever a number is."""
    if isinstance(part, list):
        return [_or_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {key: _or_null(value) for key, value in part.items() if key != "default"}
    return {**found, "type": ["number", "null"]} if found.get("type") == "number" else found


def schema_text() -> str:
    """As docs/schemas/report.schema.json holds it."""
    return json.dumps(report_schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
