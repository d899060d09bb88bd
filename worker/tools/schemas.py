"""Sanitize the JSON Schemas that tasks declare, for MCP clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...models.errors import EntryError
from ...models.invisible import strip_invisible
from .schema_checks import DEFINITIONS, check_usable, map_subschemas, resolve_reference
from .texts import clean_strings, iter_mappings

MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 40
JOB_ARGUMENT = "job"  # NorFab's workers set it to the job; clients can't pass it


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


def input_schema(given: object, *, is_own: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's arguments: of other services, without NorFab's `job`.

    Where the task is this worker's own, it has no references if it has an end without them.

    Raises:
        EntryError: it is not the schema of an object, or not usable by clients.
    """
    schema = _object_schema(given, "inputSchema")
    properties = schema.setdefault("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise EntryError("inputSchema is not the schema of an object")
    if not is_own and JOB_ARGUMENT in properties:
        del properties[JOB_ARGUMENT]
        schema["required"] = [name for name in required if name != JOB_ARGUMENT]
        if not schema["required"]:
            del schema["required"]
    check_usable(schema, schema, "inputSchema")
    if is_own and not DEFINITIONS.isdisjoint(schema):
        with suppress(EntryError):
            return dict(inline_references(schema, schema))
    return schema


def output_schema(given: object, worker: str | None = None, *, is_loose: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's structured content, `{worker: Result}`, without references.

    It describes those fields of a `Result` that callers need; others may follow. If the given schema of the task's
    value isn't usable, or `is_loose` because result guardrails may change the result, all values are accepted. `worker`
    is the name of the only worker, if known.
    """
    lines = {} if is_loose else {"type": "array", "items": {"type": "string"}}
    result = {
        "type": "object",
        "properties": {
            "result": {} if is_loose else _value_schema(given),
            "failed": {"type": "boolean"},
            "errors": lines,
            "messages": lines,
        },
    }
    if worker is not None:
        return {"type": "object", "properties": {worker: result}}
    return {"type": "object", "additionalProperties": result}


def _value_schema(given: object) -> dict[str, Any]:
    """Return the schema of a task's value, which may be null, as in failed tasks; one of any value if it isn't usable.

    `given` is the schema of the task's `Result`.
    """
    try:
        schema = _object_schema(given, "outputSchema")
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            return {}
        check_usable(schema, schema, "outputSchema")
        value = inline_references(properties.get("result", {}), schema)
    except EntryError:
        return {}
    if value in (True, {}):
        return {}
    alternatives = value.get("anyOf") if isinstance(value, dict) else None
    has_null = isinstance(alternatives, list) and {"type": "null"} in alternatives
    return dict(value) if has_null else {"anyOf": [value, {"type": "null"}]}


def inline_references(schema: Any, root: dict[str, Any]) -> Any:
    """Return a schema that was found usable, with what its references lead to in `root` in their places.

    Some clients read no references, and drop all tools. Titles, which repeat names, are left out.

    Raises:
        EntryError: it would be too long or too deep, as one that contains itself.
    """
    return _Inliner(root).expand(schema, 0)


class _Inliner:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._bytes = 0

    def expand(self, part: Any, depth: int) -> Any:
        """Return a part with its references expanded."""
        if isinstance(part, bool):
            return part
        kept = {key: value for key, value in part.items() if key not in {"$ref", "title"}}
        self._bytes += len(json.dumps(map_subschemas(kept, lambda _each: 0)))
        if self._bytes > MAX_SCHEMA_BYTES or depth > MAX_DEPTH:
            raise EntryError(f"without references the schema is longer than {MAX_SCHEMA_BYTES} bytes, or too deep")
        own = map_subschemas(kept, lambda each: self.expand(each, depth + 1))
        if "$ref" not in part:
            return own
        expanded = self.expand(resolve_reference(part["$ref"], self._root, "the schema"), depth + 1)
        if not own:
            return expanded
        if isinstance(expanded, bool) or not expanded.keys().isdisjoint(own.keys() - {"default", "description"}):
            return {**own, "allOf": [*own.get("allOf", ()), expanded]}
        return {**expanded, **own}


def _object_schema(given: object, what: str) -> dict[str, Any]:
    schema = plain_json(given, what)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise EntryError(f"{what} is not the schema of an object")
    return schema
