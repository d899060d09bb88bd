"""Check that clients can use a JSON Schema: its dialect, its keywords, its references.

Schemas of other services are untrusted, and one invalid schema makes some clients drop all tools. A reference resolves
within the schema, leads to a schema, and never back to itself without a step into the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from ...models.errors import EntryError

MAX_PATTERNS_CHARACTERS = 20_000
DEFAULT_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DRAFT_4 = "http://json-schema.org/draft-04/schema"
DIALECTS = frozenset(
    {
        DEFAULT_DIALECT,
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
        _DRAFT_4,
    }
)
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
_IN_PLACE = frozenset({"not", "if", "then", "else"})
_IN_PLACE_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_SCHEMAS = _IN_PLACE | {
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "items", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
}
_LISTS = _IN_PLACE_LISTS | {"prefixItems"}
DATA_KEYWORDS = frozenset({"const", "default", "enum", "example", "examples"})
NAMED_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
DEFINITIONS = frozenset({"$defs", "definitions"})
_COUNTS = frozenset(
    f"{limit}{what}" for limit in ("min", "max") for what in ("Contains", "Items", "Length", "Properties")
)
_NUMBERS = frozenset({"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"})
_TEXTS = frozenset({"$comment", "$ref", "$schema", "description", "format", "pattern", "title"})
# References that depend on a base address or on the way to them.
_OTHER_BASES = frozenset({"$dynamicRef", "$id", "$recursiveRef"})

_Schema = dict[str, Any]


def dialect(schema: Mapping[str, Any]) -> str:
    """Return the dialect of a schema, as its `$schema` names it, without an empty fragment."""
    named = schema.get("$schema", DEFAULT_DIALECT)
    return named.removesuffix("#") if isinstance(named, str) else ""


def check_usable(schema: _Schema, root: _Schema, what: str) -> None:
    """Check a schema whose references resolve in `root`; `what` names it in errors.

    Raises:
        EntryError: clients can't use it.
    """
    if dialect(schema) not in DIALECTS:
        raise EntryError(f"{what} has an unknown $schema")
    is_old = dialect(schema) != DEFAULT_DIALECT
    pending: list[Any] = [schema]
    edges: dict[int, list[_Schema]] = {}
    characters = 0
    while pending:
        part = pending.pop()
        if isinstance(part, bool) or id(part) in edges:
            continue
        if not isinstance(part, dict):
            raise EntryError(f"{what} has a part that is not a schema")
        is_reference = isinstance(part.get("$ref", ""), str)
        if not is_reference or not _OTHER_BASES.isdisjoint(part) or (dialect(schema) == _DRAFT_4 and "id" in part):
            raise EntryError(f"{what} has a reference that doesn't resolve in it")
        _check_keywords(part, what, is_old=is_old)
        characters += sum(map(len, part.get("patternProperties", ()))) + len(part.get("pattern", ""))
        target = resolve_reference(part["$ref"], root, what) if "$ref" in part else True
        edges[id(part)] = [each for each in (*_in_place(part), target) if isinstance(each, dict)]
        pending += [*_subschemas(part), target]
    if characters > MAX_PATTERNS_CHARACTERS:
        raise EntryError(f"{what} has more than {MAX_PATTERNS_CHARACTERS} characters of patterns")
    _check_ends(edges, what)


def _check_keywords(part: _Schema, what: str, *, is_old: bool) -> None:
    for key, value in part.items():
        if key == "type":
            kinds = value if isinstance(value, list) else [value]
            if not kinds or not all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
                raise EntryError(f"{what} has an unknown type")
        elif not _is_valid(key, value, is_old=is_old):
            raise EntryError(f"{what} has an invalid {key}")


def _is_valid(key: str, value: Any, *, is_old: bool) -> bool:  # noqa: PLR0911  one line for each kind of keyword
    if key in _SCHEMAS:
        return isinstance(value, dict | bool) or (is_old and key == "items" and isinstance(value, list))
    if key in _LISTS:
        return isinstance(value, list) and bool(value)
    if key in NAMED_SCHEMAS or key == "dependencies":
        return isinstance(value, dict)
    if key in _COUNTS:
        return _is_number(value) and value >= 0 and value == int(value)
    if key in _NUMBERS:
        is_flag = is_old and key.startswith("exclusive") and isinstance(value, bool)
        return is_flag or (_is_number(value) and (key != "multipleOf" or value > 0))
    if key in _TEXTS:
        return isinstance(value, str)
    if key == "required":
        return _are_names(value)
    if key == "dependentRequired":
        return isinstance(value, dict) and all(map(_are_names, value.values()))
    if key == "uniqueItems":
        return isinstance(value, bool)
    return key != "enum" or isinstance(value, list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _subschemas(part: _Schema) -> Iterator[Any]:
    """Yield the parts of a schema that are schemas, but not values of const, enum and the like."""
    for key, value in part.items():
        if key in NAMED_SCHEMAS:
            yield from value.values()
        elif key in _LISTS or (key == "items" and isinstance(value, list)):
            yield from value
        elif key in _SCHEMAS:
            yield value
        elif key == "dependencies":
            yield from (each for each in value.values() if not _are_names(each))


def map_subschemas(part: _Schema, change: Callable[[Any], Any]) -> _Schema:
    """Return a schema whose parts that are schemas are changed, without definitions."""
    changed: _Schema = {}
    for key, value in part.items():
        if key in DEFINITIONS:
            continue
        if key in NAMED_SCHEMAS:
            changed[key] = {name: change(each) for name, each in value.items()}
        elif key in _LISTS or (key == "items" and isinstance(value, list)):
            changed[key] = [change(each) for each in value]
        elif key in _SCHEMAS:
            changed[key] = change(value)
        elif key == "dependencies":
            changed[key] = {name: each if _are_names(each) else change(each) for name, each in value.items()}
        else:
            changed[key] = value
    return changed


def _in_place(part: _Schema) -> Iterator[Any]:
    """Yield the subschemas that apply to the same value as their schema."""
    for key in _IN_PLACE & part.keys():
        yield part[key]
    for key in _IN_PLACE_LISTS & part.keys():
        yield from part[key]
    for key in {"dependencies", "dependentSchemas"} & part.keys():
        yield from part[key].values()


def resolve_reference(reference: str, root: _Schema, what: str) -> Any:
    """Return what a JSON pointer (RFC 6901) in a fragment leads to in `root`; `what` names the schema in errors.

    Raises:
        EntryError: it leads nowhere.
    """
    steps = unquote(reference).split("/")
    target: Any = root
    for step in steps[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or key not in target:
            break
        target = target[key]
    else:
        if steps[0] == "#" and len(steps) > 1:
            return target
    raise EntryError(f"{what} has a reference that doesn't resolve in it")


def _check_ends(edges: Mapping[int, list[_Schema]], what: str) -> None:
    """Refuse a schema that applies to a value only if it applies to the same value: no check would end."""
    ended: set[int] = set()
    for start in edges:
        way: dict[int, Iterator[_Schema]] = {} if start in ended else {start: iter(edges[start])}
        while way:
            current = next(reversed(way))
            following = next(way[current], None)
            if following is None:
                ended.add(current)
                del way[current]
            elif id(following) in way:
                raise EntryError(f"{what} has a reference that leads back to itself")
            elif id(following) not in ended:
                way[id(following)] = iter(edges.get(id(following), ()))
