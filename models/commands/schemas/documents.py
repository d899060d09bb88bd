"""Read JSON Schemas of other services: references resolved, alternatives flattened, everything within bounds.

The schemas are untrusted. What can't be understood accepts any value: the worker, which validates again, decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ...invisible import strip_invisible

MAX_DEPTH = 20
MAX_ALTERNATIVES = 200
MAX_CHOICES = 1_000
MAX_SEARCHED = 500
NULL, ANY = "null", "any"
_READ_CHARACTERS = 4_000
_SECRET_WORDS = frozenset(
    {"password", "passwords", "passwd", "passphrase", "secret", "secrets", "token", "tokens", "key", "apikey"}
)
_SECRET_ENDS = ("password", "passwd", "passphrase", "secret", "token", "apikey")
_WORD_BREAKS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_JSON_TYPES = frozenset({"string", "integer", "number", "boolean", "array", "object", NULL})
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}

Schema = Mapping[str, Any]
Variant = tuple[Any, Schema]
"""A part of a schema, and the whole that its references lead into."""


def alternatives(schema: object, root: Schema) -> list[Variant]:
    """Return the schemas one of which a value has to match, `anyOf`, `oneOf` and references resolved, at most 200."""
    return [(part, root) for part in islice(_alternatives(schema, root, 0), MAX_ALTERNATIVES)]


def _alternatives(schema: object, root: Schema, depth: int) -> Iterator[Schema]:
    if depth > MAX_DEPTH or not isinstance(schema, Mapping):
        yield {}
    elif "$ref" in schema:
        yield from _alternatives(_resolve(schema["$ref"], root), root, depth + 1)
    elif parts := _sequence(schema.get("anyOf")) or _sequence(schema.get("oneOf")):
        for part in parts:
            yield from _alternatives(part, root, depth + 1)
    elif len(whole := _sequence(schema.get("allOf"))) == 1:
        yield from _alternatives(whole[0], root, depth + 1)
    else:
        yield schema


def _resolve(reference: object, root: Schema) -> object:
    """Return what a reference into the same schema leads to, None where it leads nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: object = root
    for step in reference.removeprefix("#/").split("/")[:MAX_DEPTH]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def kinds(schema: Schema) -> list[str]:
    """Return the JSON types of a schema without alternatives; `any` where it names none that are known."""
    if values := listed_values(schema):
        return list(dict.fromkeys(_KINDS.get(type(value), NULL) for value in values))
    named = schema.get("type")
    found = [named] if isinstance(named, str) else list(named) if isinstance(named, list) else []
    if found and all(isinstance(kind, str) and kind in _JSON_TYPES for kind in found):
        return list(dict.fromkeys(found))
    return ["object"] if "properties" in schema and not found else [ANY]


def listed_values(schema: Schema) -> list[Any]:
    """Return the only values of a schema without alternatives, empty where it doesn't list them."""
    return [schema["const"]] if "const" in schema else list(_sequence(schema.get("enum")))[:MAX_CHOICES]


def properties(schema: object) -> Schema:
    """Return the properties of an object's schema."""
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def is_secret_name(name: str) -> bool:
    """Whether the name of an argument says that its values are secrets: `password`, `api_key`, `bearerToken`."""
    words = [word.lower() for word in _WORD_BREAKS.split(name[:_READ_CHARACTERS])]
    return not _SECRET_WORDS.isdisjoint(words) or name.lower().endswith(_SECRET_ENDS)


def holds_secret(variants: Sequence[Variant], *, with_names: bool = True) -> bool:
    """Whether values of a schema are passwords at any depth, or `with_names` have a property with a secret's name."""
    waiting = list(variants)
    seen = 0
    while waiting and seen < MAX_SEARCHED:
        schema, root = waiting.pop()
        seen += 1
        parts = [part for part, _ in alternatives(schema, root)]
        if any(map(_is_password, (schema, *parts))):
            return True
        for part in parts:
            if not isinstance(part, Mapping):
                continue
            inner = properties(part)
            if with_names and any(map(is_secret_name, inner)):
                return True
            nested = [*islice(inner.values(), MAX_CHOICES), part.get("items"), part.get("additionalProperties")]
            waiting += [(value, root) for value in nested if isinstance(value, Mapping)]
    return False


def _is_password(schema: object) -> bool:
    """Whether a schema says itself that its values are passwords, beside its alternatives or without any."""
    return isinstance(schema, Mapping) and (schema.get("format") == "password" or schema.get("writeOnly") is True)


def plain_line(value: object, limit: int) -> str:
    """Return a foreign text on one line, without what terminals interpret or people don't see, cut to `limit`."""
    words = " ".join(str("" if value is None else value)[: 4 * limit].split())
    text = "".join(character for character in strip_invisible(words) if character.isprintable())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def first_paragraph(value: object, limit: int) -> str:
    """Return the first paragraph of a foreign text, as `plain_line` does."""
    return plain_line(value.lstrip()[:_READ_CHARACTERS].split("\n\n", 1)[0] if isinstance(value, str) else "", limit)


def value_text(value: Any) -> str:
    """Return a value of an enum as it is typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
