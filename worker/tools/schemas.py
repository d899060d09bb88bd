"""Sanitize the JSON Schemas that tasks declare, for MCP clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...models.errors import EntryError
from ...models.invisible import strip_invisible
from ...models.protocol.jobs import Result
from .schema_checks import check_usable
from .texts import clean_strings, iter_mappings

MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 40
JOB_ARGUMENT = "job"  # NorFab's workers set it to the job; clients can't pass it
# The fields of a Result that guardrails leave as they are.
_KEPT_FIELDS = ("failed", "dry_run")


def plain_json(value: object, what: str, limit: int = MAX_SCHEMA_BYTES) -> Any:
    """Return a copy of a JSON value without the invisible characters that its strings and keys don't need.

    `what` names it in errors, `limit` is its maximum size in bytes.

    Raises:
        EntryError: it is nested too deeply, too long, not serializable, or has keys that look alike.
    """
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for each in level
            if isinstance(each, Mapping | list | tuple)
            for child in (each.values() if isinstance(each, Mapping) else each)
        ]
        if not level:
            break
    else:
        raise EntryError(f"{what} is nested more than {MAX_DEPTH} levels deep")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError):
        raise EntryError(f"{what} can't be written as JSON") from None
    if size > limit:
        raise EntryError(f"{what} is longer than {limit} bytes")
    copy = json.loads(text)
    for each in iter_mappings(copy):
        if len({strip_invisible(key) for key in each}) < len(each):
            raise EntryError(f"{what} has keys that differ in invisible characters alone")
    return clean_strings(copy)


def input_schema(given: object, *, has_job: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's arguments, without NorFab's `job` unless `has_job`.

    Raises:
        EntryError: it is not the schema of an object, or not usable by clients.
    """
    schema = _object_schema(given, "inputSchema")
    properties = schema.setdefault("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise EntryError("inputSchema is not the schema of an object")
    if not has_job and JOB_ARGUMENT in properties:
        del properties[JOB_ARGUMENT]
        schema["required"] = [name for name in required if name != JOB_ARGUMENT]
        if not schema["required"]:
            del schema["required"]
    check_usable(schema, schema, "inputSchema")
    return schema


def output_schema(given: object, worker: str | None = None, *, is_loose: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's structured content, `{worker: Result}`.

    If the given schema of the task's `Result` isn't usable, or `is_loose` because result guardrails may change the
    result, one that accepts all values replaces it. `worker` is the name of the only worker, if known.
    """
    result = None if is_loose else _result_schema(given)
    if result is None:
        result = Result.model_json_schema(mode="serialization")
        result["properties"].update({name: {} for name in result["properties"] if name not in _KEPT_FIELDS})
    for key in ("required", "$schema"):
        result.pop(key, None)
    # References are relative to the root of the enclosing schema.
    definitions = result.pop("$defs", {})
    if worker is not None:
        return {"type": "object", "properties": {worker: result}, "$defs": definitions}
    schema = {"type": "object", "additionalProperties": result}
    return {**schema, "$defs": definitions} if definitions else schema


def _result_schema(given: object) -> dict[str, Any] | None:
    """Return the schema of a `Result` whose value may be null, as in failed tasks; None if it isn't usable."""
    try:
        schema = _object_schema(given, "outputSchema")
        definitions, properties = schema.get("$defs", {}), schema.get("properties", {})
        if not isinstance(definitions, dict) or not isinstance(properties, dict):
            return None
        # Only these move to the root of the new schema: other references would break.
        check_usable(schema, {"$defs": definitions}, "outputSchema")
    except EntryError:
        return None
    value = properties.get("result", {})
    alternatives = value.get("anyOf") if isinstance(value, dict) else None
    if not (isinstance(alternatives, list) and {"type": "null"} in alternatives):
        properties["result"] = {"anyOf": [value, {"type": "null"}]}
    # Workers of other versions may answer with unknown fields.
    schema.pop("additionalProperties", None)
    return schema


def _object_schema(given: object, what: str) -> dict[str, Any]:
    schema = plain_json(given, what)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise EntryError(f"{what} is not the schema of an object")
    return schema
