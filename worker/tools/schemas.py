"""Sanitize the JSON Schemas and texts that tasks declare, for MCP clients.

Those of other services are untrusted, and one invalid schema makes some clients drop all tools.
"""

from __future__ import annotations

import inspect
import json
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from ...models.errors import EntryError
from ...models.protocol.jobs import Result

MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 40
MAX_DESCRIPTION_CHARACTERS = 4_000
MAX_TITLE_CHARACTERS = 256
JOB_ARGUMENT = "job"  # NorFab's workers set it to the job; clients can't pass it

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_DATA_KEYS = frozenset({"const", "default", "enum", "example", "examples"})
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
# The fields of a Result that may hold data from a task.
DATA_FIELDS = ("result", "diff", "errors", "messages")


def clean_text(value: object, limit: int = MAX_DESCRIPTION_CHARACTERS) -> str:
    """Return a text without indentation and control characters, truncated to `limit` characters; "" if not a text."""
    if not isinstance(value, str):
        return ""
    kept = "".join(
        character
        for character in value[: 4 * limit].expandtabs(4)
        if character == "\n" or unicodedata.category(character) not in {"Cc", "Cs"}
    )
    text = inspect.cleandoc(kept)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def clean_line(value: object, limit: int = MAX_TITLE_CHARACTERS) -> str:
    """Return the same as `clean_text`, on one line."""
    return " ".join(clean_text(value, limit).split())


def plain_json(value: object, what: str, limit: int = MAX_SCHEMA_BYTES) -> Any:
    """Return a copy of a JSON value; `what` names it in errors, `limit` is its maximum size in bytes.

    Raises:
        EntryError: it is nested too deeply, too long, or not serializable.
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
    return json.loads(text)


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
    _check_usable(schema, schema, "inputSchema")
    return schema


def output_schema(given: object, worker: str | None = None, *, is_loose: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's structured content, `{worker: Result}`.

    If the given schema of the task's `Result` isn't usable, or `is_loose` because result guardrails may change the
    result, one that accepts all values replaces it. `worker` is the name of the only worker, if known.
    """
    result = None if is_loose else _result_schema(given)
    if result is None:
        result = Result.model_json_schema(mode="serialization")
        result["properties"].update({name: {} for name in DATA_FIELDS})
    result.pop("required", None)
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
        _check_usable(schema, {"$defs": definitions}, "outputSchema")
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


def _check_usable(schema: dict[str, Any], root: dict[str, Any], what: str) -> None:
    for part in _parts(schema):
        kinds = part.get("type", [])
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if not isinstance(kind, str) or kind not in _TYPES:
                raise EntryError(f"{what} has an unknown type")
        has_other_base = "$id" in part or "$dynamicRef" in part
        if has_other_base or ("$ref" in part and not _resolves(part["$ref"], root)):
            raise EntryError(f"{what} has a reference that doesn't resolve in it")


def _parts(schema: object) -> Iterator[dict[str, Any]]:
    """Yield a schema and all its subschemas, but not values of const, enum and the like."""
    if isinstance(schema, list):
        for each in schema:
            yield from _parts(each)
    elif isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key in _NAMED_SCHEMAS and isinstance(value, dict):
                yield from _parts(list(value.values()))
            elif key not in _DATA_KEYS:
                yield from _parts(value)


def _resolves(reference: object, root: dict[str, Any]) -> bool:
    """Return whether a JSON pointer (RFC 6901) resolves in `root`."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return False
    target: Any = root
    for step in reference.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or key not in target:
            return False
        target = target[key]
    return True
