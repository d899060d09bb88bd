"""JSON Schemas and texts that other services' workers declare, made fit to hand to MCP clients.

Whatever comes here was written by somebody else: a schema that a client can't use makes some clients drop all tools.
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
JOB_ARGUMENT = "job"  # what NorFab's workers call the job itself: nobody may pass it

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_DATA_KEYS = frozenset({"const", "default", "enum", "example", "examples"})
_NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs"})
_LOOSE_FIELDS = ("result", "diff", "errors", "messages")


def clean_text(value: object, limit: int = MAX_DESCRIPTION_CHARACTERS) -> str:
    """Return a text without indentation and control characters, cut off after `limit` characters; else nothing."""
    if not isinstance(value, str):
        return ""
    kept = "".join(
        character
        for character in value[: 4 * limit].expandtabs(4)
        if character == "\n" or unicodedata.category(character) not in _REFUSED_CATEGORIES
    )
    text = inspect.cleandoc(kept)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def clean_line(value: object, limit: int = MAX_TITLE_CHARACTERS) -> str:
    """Return the same on one line."""
    return " ".join(clean_text(value, limit).split())


def plain_json(value: object, what: str, limit: int = MAX_SCHEMA_BYTES) -> Any:
    """Return a copy of what came as JSON.

    Raises:
        EntryError: it is nested too deeply, too long, or can't be written as JSON again.
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
    """Return the schema of a tool's arguments; `has_job`: an argument of that name is the task's own.

    Raises:
        EntryError: it isn't the schema of an object, or one that a client can't use.
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
    _assert_usable(schema, schema, "inputSchema")
    return schema


def output_schema(given: object, worker: str | None = None, *, is_loose: bool = False) -> dict[str, Any]:
    """Return the schema of a tool's structured content, `{worker: Result}`.

    Args:
        given: the schema of the task's `Result`; one that can't be used gives way to one that lets all values pass.
        worker: the only worker, where that is known.
        is_loose: what the worker answers may be changed on its way out.
    """
    result = None if is_loose else _result_schema(given)
    if result is None:
        result = Result.model_json_schema(mode="serialization")
        result["properties"].update({name: {} for name in _LOOSE_FIELDS})
    result.pop("required", None)
    # References in it start at the root of the schema it stands in.
    definitions = result.pop("$defs", {})
    if worker is not None:
        return {"type": "object", "properties": {worker: result}, "$defs": definitions}
    schema = {"type": "object", "additionalProperties": result}
    return {**schema, "$defs": definitions} if definitions else schema


def _result_schema(given: object) -> dict[str, Any] | None:
    """Return the schema of a `Result`, in which a failed task has the value null; None for one that can't be used."""
    try:
        schema = _object_schema(given, "outputSchema")
        definitions, properties = schema.get("$defs", {}), schema.get("properties", {})
        if not isinstance(definitions, dict) or not isinstance(properties, dict):
            return None
        # Only these move to the root: other references would lead elsewhere there.
        _assert_usable(schema, {"$defs": definitions}, "outputSchema")
    except EntryError:
        return None
    value = properties.get("result", {})
    if not (isinstance(value, dict) and {"type": "null"} in _alternatives(value)):
        properties["result"] = {"anyOf": [value, {"type": "null"}]}
    # Workers of other versions answer with fields that aren't known here.
    schema.pop("additionalProperties", None)
    return schema


def _alternatives(schema: dict[str, Any]) -> list[Any]:
    alternatives = schema.get("anyOf")
    return alternatives if isinstance(alternatives, list) else []


def _object_schema(given: object, what: str) -> dict[str, Any]:
    schema = plain_json(given, what)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise EntryError(f"{what} is not the schema of an object")
    return schema


def _assert_usable(schema: dict[str, Any], root: dict[str, Any], what: str) -> None:
    for part in _parts(schema):
        kinds = part.get("type", [])
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if not isinstance(kind, str) or kind not in _TYPES:
                raise EntryError(f"{what} names a type that JSON Schema doesn't have")
        has_place_elsewhere = "$id" in part or "$dynamicRef" in part
        if has_place_elsewhere or ("$ref" in part and not _leads_somewhere(part["$ref"], root)):
            raise EntryError(f"{what} refers to what isn't in it")


def _parts(schema: object) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it, but not the data that they quote."""
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


def _leads_somewhere(reference: object, root: dict[str, Any]) -> bool:
    """Whether a JSON pointer (RFC 6901) leads to a part of `root`."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return False
    target: Any = root
    for step in reference.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or key not in target:
            return False
        target = target[key]
    return True
